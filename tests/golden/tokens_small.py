#!/usr/bin/env python3
"""Makes tiny-xlmr-tokenizer/, a SentencePiece model of XLM-R's kind on the demo's captions with what transformers makes
of some texts with it, and tokens_settings.json, what it makes of texts with the demo's vocab.txt and the settings that a
tokenizer_config.json may have.

    python tests/golden/tokens_small.py      # needs sentencepiece, protobuf and transformers

Last run with sentencepiece 0.2.3, transformers 5.24.0. The normalisation is a few rules of nmt_nfkc, XLM-R's, because
all of them would make the file 240 kB larger; tokens_full.py compares with all of them.
"""
import io
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import sentencepiece
from transformers import BertTokenizer, XLMRobertaTokenizer

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tiny-xlmr-tokenizer"
RULES = [("ﬁ", "fi"), ("½", "1⁄2"), ("…", "..."), ("\t", " "), ("\u3000", " "), ("\u200b", ""), ("\u00a0", " "),
         ("Ａ", "A"), ("ａ", "a"), ("a\u0301", "á"), ("n\u0303", "ñ"), ("ﷺ", "صلى الله عليه وسلم")]


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

    rows = []
    for lower, strip, chinese in itertools.product([True, False], [None, False, True], [True, False]):
        settings = {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": chinese}
        if not chinese and (strip or not lower):
            continue
        folder = Path(tempfile.mkdtemp())
        shutil.copy(ROOT / "data/demo/models/toy-beto/vocab.txt", folder)
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "BertTokenizer"}))
        bert = BertTokenizer.from_pretrained(folder)
        rows += [{"settings": settings, "text": text, "ids": bert(text).input_ids} for text in [
            "un corazón MARRÓN pequeño", "Un Triángulo", "una\u0301 corazo\u0301n", "日un", "[PAD] un [MASK]"]]
        shutil.rmtree(folder)
    (OUT.parent / "tokens_settings.json").write_text(
        "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", encoding="utf-8")
    print(len(model.getvalue()), "bytes")


if __name__ == "__main__":
    main()
