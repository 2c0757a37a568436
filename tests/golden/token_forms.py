"""The forms that a tokenizer's files take, for tokens_small.py and tokens_full.py: which files of a base folder stand
there, and what is written into them.

A form is `{"name", "base", "files", "config", "write", "max", "refused"}`: `files` are copied from the folder of `base` (`a/b` as `b`, `a>b` as `b`); `config` is its config.json; `write` is, by file,
a JSON pointer to a value that is set (`""`: the whole file, `/-` at the end: appended to a list); texts are cut at `max` ids,
or else at 77. `refused` is in what themo says of a form that it does not follow.
"""
import itertools
import json
import shutil
import tempfile
from pathlib import Path

CONFIG, MAP, ADDED, JSON = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"


def token(content, **rules):
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False,
            "special": True, **rules}


def typed(content, **rules):
    return {"__type": "AddedToken", **token(content, **rules)}


def config(**settings):
    return {CONFIG: {"": settings}}


def of_any(mask, word, size):
    """What may be said of every class: a mask token, a word of the vocabulary, the size of the vocabulary."""
    rules = [dict(lstrip=True), dict(rstrip=True), dict(single_word=True), dict(normalized=True, special=False),
             dict(lstrip=True, rstrip=True, single_word=True), dict(normalized=True)]
    yield "no settings", {}
    yield "mask with lstrip in the map", {MAP: {"": {"mask_token": {**token(mask, lstrip=True)}}}}
    yield "mask with lstrip in the settings", config(mask_token=typed(mask, lstrip=True))
    yield "mask with lstrip, added", {**config(mask_token=mask, added_tokens_decoder={"4": token(mask, lstrip=True)})}
    yield "another mask", config(mask_token="<persona>")
    yield "no mask and padding", config(mask_token=None, pad_token=None)
    yield "padding that is new", config(pad_token="<persona>")
    yield "a name of its own", config(image_token="<persona>", extra_special_tokens={"otro_token": "[E1]"})
    yield "a name of its own, typed", config(image_token=typed("<persona>", lstrip=True))
    yield "additional", config(additional_special_tokens=["<persona>", "[E1]", typed("Rojo", rstrip=True)])
    yield "extra", config(extra_special_tokens=["<persona>", word])
    yield "additional and extra", config(extra_special_tokens=["<persona>"], additional_special_tokens=["[E1]"])
    yield "additional in the map", {MAP: {"": {"additional_special_tokens": ["<persona>", "[E1]"]}}}
    yield "extra in the map", {MAP: {"": {"extra_special_tokens": ["<persona>", {"content": "[E1]", "lstrip": True}]}},
                               **config(extra_special_tokens=["Rojo"])}
    yield "additional of both", {MAP: {"": {"additional_special_tokens": ["<persona>"]}},
                                 **config(additional_special_tokens=["[E1]"])}
    yield "the map does not count", {MAP: {"": {"additional_special_tokens": ["<persona>"]}},
                                     **config(added_tokens_decoder={})}
    yield "a name in the map", {MAP: {"": {"image_token": "<persona>", "otro_token": token("[E1]", rstrip=True)}}}
    yield "added_tokens.json", {ADDED: {"": {"<persona>": size, "Rojo": size + 1}}}
    yield "added_tokens.json, odd ids", {ADDED: {"": {"<persona>": size + 40, word: 7, "[E1]": size + 3}}}
    yield "added_tokens.json, special", {ADDED: {"": {"<Persona>": size, "[E1]": size + 1, mask: 3}},
                                         MAP: {"": {"additional_special_tokens": ["<Persona>"], "mask_token": mask}}}
    yield "added_tokens.json, special in the settings", {
        ADDED: {"": {"<Persona>": size, "[E1]": size + 1}},
        **config(extra_special_tokens=["<Persona>"], mask_token="[E1]")}
    for one in rules:
        yield f"added_tokens_decoder {one}", config(added_tokens_decoder={
            str(size): token("<persona>", **one), "5": token(word, **one), str(size + 9): token("Rojo", **one)})
    yield "added_tokens_decoder, in little", config(added_tokens_decoder={
        str(size): {"content": "<persona>"}, "12": {"content": "[E1]", "special": True}})
    yield "added_tokens_decoder and the map", {
        MAP: {"": {"additional_special_tokens": ["[E1]"]}}, ADDED: {"": {"Rojo": 3}},
        **config(added_tokens_decoder={str(size): token("<persona>")}, additional_special_tokens=["<persona>", "[E2]"])}
    yield "split_special_tokens", config(split_special_tokens=True)
    yield "truncation_side left", config(truncation_side="left")
    yield "what changes nothing", config(
        model_max_length=5, never_split=["rojo"], do_basic_tokenize=False, clean_up_tokenization_spaces=True,
        padding_side="left", use_fast=False, legacy=False, add_bos_token=False, name_or_path="x", special_tokens_map_file=None,
        tokenizer_file="/nowhere/tokenizer.json", processor_class="X", max_len=3, trim_offsets=False, add_eos_token=True)


def of_json(mask):
    """What a tokenizer.json may say besides."""
    yield "truncation left", {JSON: {"/truncation": {
        "direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}}}
    yield "truncation left, settings right", {JSON: {"/truncation": {
        "direction": "Left", "max_length": 9, "strategy": "OnlyFirst", "stride": 2}}, **config(truncation_side="right")}
    yield "padding", {JSON: {"/padding": {
        "strategy": {"Fixed": 30}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "<persona>"}}}
    yield "an added token", {JSON: {"/added_tokens/-": {"id": 5000, **token("<persona>", lstrip=True)}}}
    yield "an added token, settings otherwise", {
        JSON: {"/added_tokens/-": {"id": 5000, **token("<persona>", lstrip=True)}},
        **config(added_tokens_decoder={"5000": token("<persona>", single_word=True)})}
    yield "an added token, and others", {
        JSON: {"/added_tokens/-": {"id": 5000, **token("<persona>", special=False)}},
        ADDED: {"": {"[E1]": 5001, "<persona>": 3}}, MAP: {"": {"mask_token": "<persona>"}}}
    yield "another processor", {JSON: {"/post_processor": None}}
    yield "another processor, bos and eos", {JSON: {"/post_processor": None},
                                             **config(add_bos_token=True, bos_token=mask)}
    yield "another normalizer", {JSON: {"/normalizer": {"type": "Lowercase"}}}
    yield "another pre-tokenizer", {JSON: {"/pre_tokenizer": {"type": "WhitespaceSplit"}}}


def of_bert():
    for lower, strip, chinese in itertools.product([True, False], [None, False, True], [True, False]):
        yield f"lower {lower}, strip {strip}, chinese {chinese}", config(
            do_lower_case=lower, strip_accents=strip, tokenize_chinese_chars=chinese)
    yield "do_lower_case alone", config(do_lower_case=False)
    yield "strip_accents alone", config(strip_accents=True)
    yield "other special tokens", config(cls_token="[MASK]", sep_token="[PAD]", unk_token="[SEP]")
    yield "special tokens that are new", config(cls_token="<s>", sep_token="</s>")
    yield "a wrong flag", config(do_lower_case="false")
    yield "a token that is an object", config(mask_token={"content": "[MASK]"})


def classes(own, wrong):
    yield "PreTrainedTokenizerFast", None, "PreTrainedTokenizerFast"
    yield "nobody's class", None, "NobodysTokenizer"
    yield "its class, Fast", None, own + "Fast"
    yield "its class, another model", "M-CLIP", own
    yield "no model type", "", None
    yield "a class of another kind", None, wrong


def forms(sizes):
    """All forms; `sizes` are those of the vocabularies, by base."""
    kinds = {
        "bert": ("bert", "[MASK]", "rojo", "BertTokenizer", [["vocab.txt"], [JSON]], "AlbertTokenizer"),
        "clip": ("clip", "<mask>", "red</w>", "CLIPTokenizer", [["vocab.json", "merges.txt"], [JSON]], "GPT2Tokenizer"),
        "roberta": ("roberta", "<mask>", "Ġrojo", "RobertaTokenizer", [["vocab.json", "merges.txt"], [JSON]], "CLIPTokenizer"),
        "xlmr": ("xlm-roberta", "<mask>", "▁rojo", "XLMRobertaTokenizer", [["sentencepiece.bpe.model"], ["json/" + JSON]],
                 "T5Tokenizer"),
        "camembert": ("camembert", "<mask>", "▁rojo", "CamembertTokenizer",
                      [["../tiny-xlmr-tokenizer/sentencepiece.bpe.model"], [JSON]], "XLMRobertaTokenizer"),
    }
    for base, (model, mask, word, own, vocabularies, wrong) in kinds.items():
        for files in vocabularies:
            plain = list(of_any(mask, word, sizes[base]))
            plain += of_bert() if base == "bert" else [
                ("add_prefix_space", config(add_prefix_space=True)), ("no prefix space", config(add_prefix_space=False)),
                ("do_lower_case", config(do_lower_case=False)), ("unknown", config(unk_token="<persona>"))]
            whole = files[0].endswith(JSON)
            if whole:
                plain += of_json(mask)
            for name, write in plain:
                yield form(base, files, name, write, model, refused=refused(base, files, name, wrong))
            for name, kind, wanted in classes(own, wrong):
                if not whole and (wanted is None or not wanted.startswith(own)):
                    continue  # of a vocabulary alone only its class makes anything
                settings = {"do_lower_case": False, "add_prefix_space": True}
                settings.update({"tokenizer_class": wanted} if wanted else {})
                yield form(base, files, name, config(**settings), model if kind is None else kind,
                           refused=refused(base, files, name, wrong))
            if whole and base != "camembert":  # as it stands, XLM-R's says it all
                fast = {"/tokenizer_class": "PreTrainedTokenizerFast"}
                for name, write in [*of_any(mask, word, sizes[base]), *of_json(mask)]:
                    write = {**write, CONFIG: {**write.get(CONFIG, {"": {}}), **fast}}
                    name = "as it stands, " + name
                    yield form(base, files, name, write, model, refused=refused(base, files, name, wrong))
    yield form("bert", [JSON], "ElectraTokenizerFast", config(tokenizer_class="ElectraTokenizerFast"), "electra")
    yield form("bert", ["vocab.txt"], "DistilBertTokenizer", config(tokenizer_class="DistilBertTokenizer"), "distilbert")
    yield form("bert", [JSON], "the class in config.json", config(do_lower_case=False), "bert", "PreTrainedTokenizerFast")
    yield form("roberta", ["vocab.json", "merges.txt"], "longformer", {}, "longformer")
    yield form("xlmr", ["sentencepiece.bpe.model>tokenizer.model"], "tokenizer.model", {}, "xlm-roberta")


def refused(base, files, name, wrong):
    """What themo names in its refusal of a form."""
    if name == "a class of another kind":
        return None if wrong in ["XLMRobertaTokenizer", "CLIPTokenizer"] else wrong
    if name == "no mask and padding":
        return "pad_token" if files[0].endswith(".model") else None  # transformers has a piece named None then
    # "rojo" and "Rojo": transformers finds either, by chance.
    return "the same after normalisation" if base == "bert" and "'normalized': True" in name else None


def form(base, files, name, write, model, model_class=None, refused=None):
    says = {**({"model_type": model} if model else {}), **({"tokenizer_class": model_class} if model_class else {})}
    made = {"name": name, "base": base, "files": files, "config": says, "write": write}
    return {**made, **({"max": 9} if "truncation" in name else {}), **({"refused": refused} if refused else {})}


def lay_out(form, base):
    """The folder of a form."""
    folder = Path(tempfile.mkdtemp(prefix="themo-"))
    for name in form["files"]:
        source, _, target = name.partition(">")
        shutil.copy(base / source, folder / (target or Path(source).name))
    for name, values in {"config.json": {"": form["config"]}, **form["write"]}.items():
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for pointer, value in values.items():
            if not pointer:
                content = dict(value)
                continue
            *parents, last = pointer.split("/")[1:]
            at = content
            for key in parents:
                at = at[key]
            if last == "-":
                at.append(value)
            else:
                at[last] = value
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def reference(folder, texts, most):
    """transformers' ids, or why it makes nothing of the folder."""
    from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return tokenizer(texts, truncation=True, max_length=most).input_ids, None
    except Exception as error:  # whatever it is
        return None, f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
