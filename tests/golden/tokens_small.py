#!/usr/bin/env python3
"""Makes tiny-xlmr-tokenizer/, a SentencePiece model of XLM-R's kind on the demo's captions with what transformers makes
of some texts with it, tiny-roberta-tokenizer/, a byte-level BPE on them, and token_forms.json, what AutoTokenizer makes of
some texts with every form that a tokenizer's files take (token_forms.py lists the forms).

    python tests/golden/tokens_small.py      # needs sentencepiece, protobuf and transformers

Last run with sentencepiece 0.2.3, transformers 5.24.0. The normalisation is a few rules of nmt_nfkc, XLM-R's, because
all of them would make the file 240 kB larger; tokens_full.py compares with all of them.
"""
import io
import json
import shutil
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import ByteLevelBPETokenizer
from transformers import CamembertTokenizer, RobertaTokenizer, XLMRobertaTokenizer

from token_forms import forms, lay_out, reference

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tiny-xlmr-tokenizer"
RULES = [("ﬁ", "fi"), ("½", "1⁄2"), ("…", "..."), ("\t", " "), ("\u3000", " "), ("\u200b", ""), ("\u00a0", " "),
         ("Ａ", "A"), ("ａ", "a"), ("a\u0301", "á"), ("n\u0303", "ñ"), ("ﷺ", "صلى الله عليه وسلم")]
TEXTS = [
    "un corazón MARRÓN pequeño", "Un Triángulo", "una\u0301 corazo\u0301n n\u0303", "日un 日本 rojo",
    "[PAD] un [MASK]x [MASK] <mask>  <mask>.", "el  <Persona>  ROJO Rojo rojo  Rojos [E1] otra[E1] <persona>",
    "", "  dos  espacios\tTab\n", "ﬁn ½ … Ａａ ß ẞ İ ﷺ", "x\x00\x01\ufffd control\u200b ñ", "🙂👩‍👩‍👧 don't I'll 1234",
    "<s> un </s> <pad> <unk> <|endoftext|> red <|startoftext|>", "rojo<persona>rojo <persona>,Rojo. [E2]▁ya▁‘’“”",
    "a red circle and a blue square on the left of a green one, small"]


def other_bases(captions):
    """The folders of whole tokenizers that forms start from, by name; paths are relative to the project's root."""
    roberta = OUT.parent / "tiny-roberta-tokenizer"
    roberta.mkdir(exist_ok=True)
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(captions, vocab_size=400, show_progress=False,
                             special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    made.save_model(str(roberta))
    camembert = OUT.parent / "tiny-camembert-tokenizer"
    camembert.mkdir(exist_ok=True)
    shutil.copy(OUT / "sentencepiece.bpe.model", camembert)
    for kind, folder, target in [(RobertaTokenizer, roberta, roberta), (CamembertTokenizer, camembert, camembert)]:
        saved = Path(tempfile.mkdtemp())
        kind.from_pretrained(folder).save_pretrained(saved)
        whole = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))
        (target / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    (camembert / "sentencepiece.bpe.model").unlink()
    models = "data/demo/models/"
    return {"bert": models + "toy-beto", "clip": models + "toy-clip",
            **{name: f"tests/golden/tiny-{name}-tokenizer" for name in ["roberta", "xlmr", "camembert"]}}


def write_forms(bases):
    """token_forms.json: the texts, all lists of ids that occur, and of each form which of them each text gives."""
    sizes = {name: size(ROOT / folder) for name, folder in bases.items()}
    lists, lines = {}, []
    for form in forms(sizes):
        folder = lay_out(form, ROOT / bases[form["base"]])
        ids, error = reference(folder, TEXTS, form.get("max", 77))
        shutil.rmtree(folder)
        if error:
            print(form["base"], form["files"], form["name"], error)
        form["ids"] = [lists.setdefault(tuple(one), len(lists)) for one in ids] if ids and "refused" not in form else None
        lines.append(json.dumps(form, ensure_ascii=False, separators=(",", ":")))
    dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (OUT.parent / "token_forms.json").write_text(
        f'{{"bases":{dump(bases)},\n"texts":{dump(TEXTS)},\n"lists":{dump(list(lists))},\n"forms":[\n'
        + ",\n".join(lines) + "\n]}\n", encoding="utf-8")
    print(len(lines), "forms,", len(lists), "lists of ids")


def size(base):
    """Of a base's vocabulary."""
    path = base / "tokenizer.json"
    path = path if path.exists() else base / "json/tokenizer.json"
    return len(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])


def main():
    OUT.mkdir(exist_ok=True)
    captions = []
    for language in ["es", "en"]:
        captions += (ROOT / f"data/demo/xtd10/test_1kcaptions_{language}.txt").read_text(encoding="utf-8").splitlines()
    rules = OUT / "rules.tsv"
    rules.write_text("".join(
        " ".join(f"{ord(c):x}" for c in a) + "\t" + " ".join(f"{ord(c):x}" for c in b) + "\n" for a, b in RULES))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions + ["¿Qué es esto? ¡Nada! 0123456789"] * 5), model_writer=model, vocab_size=210,
        model_type="unigram", character_coverage=1.0, normalization_rule_tsv=str(rules), num_threads=1,
        user_defined_symbols=["<emoji>"], minloglevel=2)
    rules.unlink()
    (OUT / "sentencepiece.bpe.model").write_bytes(model.getvalue())

    tokenizer = XLMRobertaTokenizer.from_pretrained(OUT)
    tokenizer.save_pretrained(OUT / "json")
    for path in (OUT / "json").iterdir():
        if path.name != "tokenizer.json":
            path.unlink()
    texts = captions[:240:30] + captions[240::40] + [
        "", " ", "  dos  espacios\tTabulador\n", "ﬁn ½ … Ａａ a\u0301n\u0303 ﷺ", "uno\u3000dos\u00a0tres\u200bcuatro",
        "日本 ∑ zzz", "▁ya▁", "<mask> un <mask>, <s> </s> <pad> <unk>", "antes<emoji>después", "\u200b", "¿Qué?¡Nada!"]
    rows = [{"text": text, "ids": tokenizer(text).input_ids} for text in texts]
    rows += [{"text": text, "max_length": 9, "ids": tokenizer(text, truncation=True, max_length=9).input_ids}
             for text in captions[:3]]
    (OUT / "ids.json").write_text(
        "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", encoding="utf-8")
    for row in rows:
        print(row["text"], tokenizer.convert_ids_to_tokens(row["ids"]))

    write_forms(other_bases(captions))
    print(len(model.getvalue()), "bytes")


if __name__ == "__main__":
    main()
