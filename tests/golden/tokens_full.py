#!/usr/bin/env python3
"""Compares themo's token ids with transformers' (and with the original implementations) on real captions, with the
real vocabularies. Run by hand:

    python tests/golden/tokens_full.py DATA       # needs transformers, sentencepiece, protobuf; cargo

Every form that token_forms.py lists, on all captions, and some more. DATA holds tokenizers/{beto-uncased,beto-cased,clip}, and captions: xtd10/test_1kcaptions_{es,en}.txt, parallel/*.tsv
(Spanish TAB English), demo/xtd10/. A SentencePiece model of XLM-R's kind (8000 pieces, nmt_nfkc) is trained on
parallel/ in a temporary folder, and a byte-level BPE of RoBERTa's. Prints a line for each form of each tokenizer; exits with 1 on any difference.
"""
import functools
import html
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, CamembertTokenizer, RobertaTokenizer, XLMRobertaTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from token_forms import forms, lay_out, reference

ROOT = Path(__file__).resolve().parents[2]
AWKWARD = ["", " ", "  dos  espacios\tTabulador\n", "ﬁn ½ … Ａａ a\u0301n\u0303 ﷺ", "uno\u3000dos\u00a0tres\u200bcuatro",
           "日本 ∑ 🙂👩‍👩‍👧", "ÁÉÍÓÚÜÑ áéíóúüñ ¿Qué? ¡Sí!", "[MASK] [PAD] [CLS] <s> </s> <mask> <|endoftext|>", "x" * 150,
           "el  <Persona>  ROJO Rojo rojo  Rojos [E1] otra[E1] <persona>,Rojo. [E2]", "un [MASK]x [MASK] <mask>  <mask>.",
           "don't I'll they've 1234 3,5 €", "A\u0301rbol I\u0307stanbul ŞİĞ ß ẞ", "\x00\x01\ufffd control", "▁ya▁ __ ‘’“”"]


@functools.cache
def dump():
    """The example program that prints token ids."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "dump"], cwd=ROOT, check=True)
    about = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT, capture_output=True)
    return Path(json.loads(about.stdout)["target_directory"]) / "release/examples/dump"


def themo(texts, folder, most):
    """themo's ids, or why it makes nothing of the folder."""
    run = subprocess.run([dump(), "tokens", str(folder), str(most)], input=json.dumps(texts), capture_output=True, text=True)
    return (None, run.stderr) if run.returncode else (json.loads(run.stdout), None)


def captions(data):
    texts = []
    for folder in ["xtd10", "demo/xtd10"]:
        for language in ["es", "en"]:
            text = (data / folder / f"test_1kcaptions_{language}.txt").read_text(encoding="utf-8-sig")
            texts += [line.rstrip("\r") for line in text.split("\n")]
    for path in sorted((data / "parallel").glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            texts += line.split("\t")
    return texts


def part(data, folder, names):
    """A folder with some of a tokenizer's files."""
    out = Path(tempfile.mkdtemp())
    for name in names:
        source, _, target = name.partition(">")
        shutil.copy(data / "tokenizers" / folder / source, out / (target or source))
    return out


def main():
    data = Path(sys.argv[1])
    texts = captions(data) + AWKWARD
    print(f"{len(texts)} texts ({len(AWKWARD)} awkward ones)")
    failed = False

    def compare(name, folder, reference, most=77, texts=texts, key=lambda ids: ids):
        nonlocal failed
        (ours, error), theirs = themo(texts, folder, most), reference(texts, most)
        if error:
            sys.exit(error)
        tied = sum(a != b and key(a) == key(b) for a, b in zip(ours, theirs))
        ours, theirs = [key(ids) for ids in ours], [key(ids) for ids in theirs]
        wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
        failed |= bool(wrong)
        print(f"{name:72}{len(wrong):6} differences" + f", {tied} ties" * bool(tied))
        for i in wrong[:5]:
            print("   ", repr(texts[i][:100]), ours[i][:20], theirs[i][:20])

    def fast(folder, kind=AutoTokenizer):
        tokenizer = kind.from_pretrained(folder)
        return lambda texts, most: tokenizer(texts, truncation=True, max_length=most).input_ids

    for model in ["beto-uncased", "beto-cased"]:
        plain = part(data, model, ["vocab.txt", "tokenizer_config.json", "config.json"])
        compare(f"{model}, vocab.txt, AutoTokenizer", plain, fast(plain))
        legacy = BertTokenizerLegacy.from_pretrained(plain)
        # (It composes accents first, which the tokenizers library and so AutoTokenizer do not: captions only.)
        compare(f"{model}, vocab.txt, Python implementation (captions only)", plain, lambda texts, most: [
            legacy(t, truncation=True, max_length=most).input_ids for t in texts], texts=texts[:-len(AWKWARD)])
        whole = part(data, model, ["tokenizer.json", "tokenizer_config.json", "config.json"])
        compare(f"{model}, tokenizer.json, AutoTokenizer", whole, fast(whole))
    settings = "tokenizer_config.json"
    strip = part(data, "beto-uncased", ["tokenizer.strip_accents.json>tokenizer.json", settings, "config.json"])
    given = json.loads((strip / settings).read_text())
    (strip / settings).write_text(json.dumps({**given, "strip_accents": True}))
    compare("beto-uncased, tokenizer.strip_accents.json, AutoTokenizer", strip, fast(strip))
    shutil.copy(data / "tokenizers/beto-uncased/vocab.txt", strip)
    (strip / "tokenizer.json").unlink()
    (strip / settings).write_text(json.dumps({**given, "strip_accents": None}))
    compare("beto-uncased, vocab.txt, strip_accents null, AutoTokenizer", strip, fast(strip))

    whole = part(data, "clip", ["tokenizer.json", settings, "special_tokens_map.json"])
    plain = part(data, "clip", ["vocab.json", "merges.txt", settings, "special_tokens_map.json"])
    compare("clip, tokenizer.json, AutoTokenizer", whole, fast(whole))
    compare("clip, vocab.json + merges.txt, AutoTokenizer", plain, fast(plain))
    # OpenAI's own tokenizer runs ftfy and unescapes HTML twice before all else.
    rows = [json.loads(line) for line in (data / "tokenizers/clip/golden_openai_ids.jsonl").open(encoding="utf-8")]
    ours, _ = themo([row["text"] for row in rows], whole, 77)
    wrong = [row["text"] for row, ids in zip(rows, ours) if row["ids"] != ids]
    ftfy = [text for text in wrong if html.unescape(html.unescape(text)) != text or not text.isascii()]
    failed |= wrong != ftfy
    print(f"{'clip, OpenAI on ' + str(len(rows)) + ' English captions':72}{len(wrong):6} differences, "
          f"{len(ftfy)} of them where it runs ftfy")

    made = Path(tempfile.mkdtemp())
    xlmr = made / "tiny-xlmr-tokenizer"  # token_forms.py looks for CamemBERT's model there too
    xlmr.mkdir()
    lines = [side for path in sorted((data / "parallel").glob("*.tsv"))
             for line in path.read_text(encoding="utf-8").split("\n") for side in line.split("\t")]
    with (xlmr / "sentencepiece.bpe.model").open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=writer, vocab_size=8000, model_type="unigram",
            character_coverage=0.9995, normalization_rule_name="nmt_nfkc", num_threads=2, minloglevel=2)
    compare("XLM-R's kind, sentencepiece.bpe.model, XLMRobertaTokenizer", xlmr, fast(xlmr, XLMRobertaTokenizer), 512)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(xlmr / "sentencepiece.bpe.model"))
    own = lambda texts, most: [
        [0] + [{0: 3, 1: 0, 2: 2}.get(i, i + 1) for i in ids][:most - 2] + [2] for ids in processor.encode(texts)]
    # (Of two paths with equal scores, such as ww w and w ww, it may take the other one.)
    compare("XLM-R's kind, sentencepiece itself (captions only)", xlmr, own, 512, texts[:-len(AWKWARD)], sorted)
    saved = Path(tempfile.mkdtemp())
    XLMRobertaTokenizer.from_pretrained(xlmr).save_pretrained(saved)
    compare("XLM-R's kind, tokenizer.json of save_pretrained, AutoTokenizer", saved, fast(saved), 512)

    roberta, saved_roberta = made / "roberta", Path(tempfile.mkdtemp())
    roberta.mkdir()
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(lines, vocab_size=8000, show_progress=False,
                             special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe.save_model(str(roberta))
    RobertaTokenizer.from_pretrained(roberta).save_pretrained(saved_roberta)
    camembert = made / "camembert"
    CamembertTokenizer.from_pretrained(xlmr).save_pretrained(camembert)
    bases = {"roberta": roberta, "xlmr": xlmr, "camembert": camembert}
    shutil.copy(saved_roberta / "tokenizer.json", roberta)
    shutil.copytree(saved, xlmr / "json")
    for bert in ["beto-uncased", "beto-cased"]:
        all_bases = {"bert": data / "tokenizers" / bert, "clip": data / "tokenizers/clip", **bases}
        for form in forms({name: size(folder) for name, folder in all_bases.items()}):
            if bert == "beto-cased" and form["base"] != "bert":
                continue
            failed |= not compare_form(form, all_bases[form["base"]], texts)
    sys.exit(failed)


def size(base):
    """Of a base's vocabulary."""
    path = base / "tokenizer.json" if (base / "tokenizer.json").exists() else base / "json/tokenizer.json"
    return len(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])


def compare_form(form, base, texts):
    """Whether themo's ids are transformers' from a form, or one of them makes nothing of it, as is known."""
    folder, most = lay_out(form, base), form.get("max", 77)
    theirs, _ = reference(folder, texts, most)
    ours, error = themo(texts, folder, most)
    shutil.rmtree(folder)
    name = f"{base.name}, {form['files'][0]}, {form['name']}"
    # (A cased vocabulary "as it stands" has nothing to refuse in "rojo" and "Rojo": its ids are compared.)
    if theirs is None or ("refused" in form and error):
        good = error is not None and form.get("refused", "") in error
        print(f"{name:72} {'refused' if good else 'NOT REFUSED'}")
        return good
    if error:
        print(f"{name:72} {error[:300]}")
        return False
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    print(f"{name:72}{len(wrong):6} differences")
    for i in wrong[:3]:
        print("   ", repr(texts[i][:100]), ours[i][:20], theirs[i][:20])
    return not wrong


if __name__ == "__main__":
    main()
