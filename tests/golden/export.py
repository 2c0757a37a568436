"""Loads what `themo export` writes with the programs it is for, and compares their vectors with `themo embed`'s.

    python tests/golden/export.py target/release/themo RUN [RUN ...]

needs sentence-transformers, open_clip_torch, huggingface_hub and safetensors from PyPI; what is not installed is left
out and named. It makes no golden file: it prints figures, and fails above 1e-5. Runs without results get the
retrieval figures of a made-up `eval/` in a copy, so that the card's can be compared.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.pop(0)  # statistics.py in this folder would stand for Python's own

import numpy as np
import torch
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-5
EVAL = {
    "retrieval.json": {
        "text_to_image": {"recall@1": 0.481, "recall@5": 0.752, "recall@10": 0.85},
        "image_to_text": {"recall@1": 0.1, "recall@5": 1 / 3, "recall@10": 1e-05},
        "images": 1000,
        "captions": 1000,
    },
    "classification.json": {"accuracy@1": 0.0, "accuracy@5": 0.5, "accuracy@10": 1.0, "images": 240, "classes": 30},
}


def themo(*args):
    done = subprocess.run([ARGS.themo, "-q", *map(str, args)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"themo {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout


def captions():
    """200 texts of 1 to 120 words, of all lengths in each batch, with what tokenizers trip over."""
    words = (ROOT / "data/demo/models/toy-beto/vocab.txt").read_text().split()
    words = [word for word in words if word.isalpha()] + ["ÁRBOL", "niño", "Ñandú", "¿qué?", "coche-cama", "3,5", "東京"]
    rng = random.Random(0)
    texts = [" ".join(rng.choices(words, k=1 + i * 119 // 196)) for i in range(197)]
    texts += ["", "  dos   espacios ", "UNA LUNA Azul"]
    rng.shuffle(texts)
    return texts


def embedded(run, **inputs):
    """What `themo embed` gives, by the names of its file."""
    with tempfile.TemporaryDirectory() as folder:
        flags = []
        for name, value in inputs.items():
            if isinstance(value, list):
                path = Path(folder) / name
                path.write_text("".join(f"{line}\n" for line in value))
                value = path
            flags += [f"--{name}", value]
        themo("embed", "--version-path", run, "--output", f"{folder}/out", *flags)
        return load_file(f"{folder}/out")


def report(what, ours, theirs):
    scale = np.abs(ours).max()
    difference = float(np.abs(ours - theirs).max())
    ok = ours.shape == theirs.shape and difference <= LIMIT * max(1, scale)
    print(f"  {what}: {ours.shape}, largest difference {difference:.1e} of {scale:.2g}")
    FAULTS.extend([] if ok else [what])


def check_card(folder, run, program):
    from huggingface_hub import ModelCard

    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    want = []
    for file in ["retrieval.json", "classification.json"]:
        scores = json.loads((run / "eval" / file).read_text())
        if "text_to_image" in scores:
            for key, what in [("text_to_image", "text to image"), ("image_to_text", "image to text")]:
                want += [(kind, f"{kind}, {what}", value) for kind, value in scores[key].items()]
        else:
            want += [(k, f"{k}, zero-shot", v) for k, v in scores.items() if k.startswith("accuracy@")]
    got = [(r.metric_type, r.metric_name, r.metric_value) for r in card.data.eval_results]
    ok = sorted(got) == sorted(want) and card.data.language == ["es"] and card.data.library_name == program
    print(f"  card: {len(got)} results, tags {card.data.tags}, base model {card.data.base_model}: {'equal' if ok else got}")
    FAULTS.extend([] if ok else ["card"])
    blocks = re.findall(r"^```python\n(.*?)^```$", card.content, re.S | re.M)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("".join(blocks), {})
    print(f"  {len(blocks)} snippets as printed: {printed.getvalue()!r}")


def check_sentence_transformers(run, texts, images):
    import sentence_transformers
    from transformers import AutoModel, CLIPImageProcessor, CLIPVisionModelWithProjection
    from PIL import Image

    folder = Path(tempfile.mkdtemp()) / "text"
    themo("export", run, "--output", folder, "--with-images")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    print(f"  sentence-transformers {sentence_transformers.__version__}: {[type(m).__name__ for m in model]}, dtype {next(model.parameters()).dtype}")
    ours = embedded(run, texts=texts, images=images)
    for size in [1, 32]:
        theirs = model.encode(texts, batch_size=size, show_progress_bar=False)
        report(f"texts in batches of {size}", ours["text_embeds"], theirs)
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    missing = {name for name in info["missing_keys"] if not name.startswith("pooler.dense.")}
    other = [list(info[key]) for key in ["unexpected_keys", "mismatched_keys"] if info[key]]
    print(f"  AutoModel: missing beside pooler.dense.*: {sorted(missing)}, unexpected: {other}")
    FAULTS.extend(["AutoModel"] if missing or other else [])
    processor = CLIPImageProcessor.from_pretrained(folder, subfolder="image")
    tower, info = CLIPVisionModelWithProjection.from_pretrained(folder, subfolder="image", output_loading_info=True)
    FAULTS.extend(["image tower"] if any(info[key] for key in ["missing_keys", "unexpected_keys"]) else [])
    pixels = processor([Image.open(path).convert("RGB") for path in images], return_tensors="pt")
    with torch.no_grad():
        report("images", ours["image_embeds"], tower.eval()(**pixels).image_embeds.numpy())
    check_card(folder, run, "sentence-transformers")
    shutil.rmtree(folder.parent)


def check_open_clip(run, texts, images):
    import open_clip
    from PIL import Image

    folder = Path(tempfile.mkdtemp()) / "clip"
    done = subprocess.run(
        [ARGS.themo, "-q", "export", str(run), "--for", "open-clip", "--output", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
    )
    if done.returncode:
        print(f"  open_clip: {done.stderr.strip()}")
        if not re.search("cannot hold", done.stderr):
            FAULTS.append("open_clip")
        return
    name = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    tokenizer = open_clip.get_tokenizer(name)
    print(f"  open_clip {open_clip.__version__}: context {tokenizer.context_length}, logit scale {model.logit_scale.item():.4f}")
    ours = embedded(run, texts=texts, images=images)
    with torch.no_grad():
        for size in [1, 7, 64]:
            parts = [tokenizer(texts[i : i + size]) for i in range(0, len(texts), size)]
            report(f"texts in batches of {size}", ours["text_embeds"], torch.cat([model.encode_text(part) for part in parts]).numpy())
        pixels = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in images])
        report("images", ours["image_embeds"], model.encode_image(pixels).numpy())
    check_card(folder, run, "open_clip")
    shutil.rmtree(folder.parent)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("themo")
parser.add_argument("runs", nargs="+", type=Path)
ARGS = parser.parse_args()
ARGS.themo = str(Path(ARGS.themo).resolve())
FAULTS = []
TEXTS = captions()
IMAGES = sorted(str(path) for path in (ROOT / "data/demo/mscoco").rglob("*") if path.suffix in {".jpg", ".png"})[:20]
for run in ARGS.runs:
    print(run, flush=True)
    copy = Path(tempfile.mkdtemp()) / "run"
    shutil.copytree(run, copy)
    for file, content in EVAL.items():
        path = copy / "eval" / file
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps(content))
    for library, check in [("sentence_transformers", check_sentence_transformers), ("open_clip", check_open_clip)]:
        try:
            __import__(library)
        except ImportError as error:
            print(f"  left out: {error}")
            continue
        check(copy, TEXTS, IMAGES)
    shutil.rmtree(copy.parent)
print("faults:", FAULTS or "none")
sys.exit(bool(FAULTS))
