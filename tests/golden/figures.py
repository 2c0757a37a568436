"""Checks `themo test` on the demo against figures that numpy computes from the vectors of `themo embed`.

    python tests/golden/figures.py target/release/themo logs/demo/version_0

Every rank in eval/retrieval.queries.tsv, and every figure in eval/retrieval.json, must be equal. Also a set in which
images have five captions: `--captions`, where the binary has it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
THEMO, RUN = (Path(argument).resolve() for argument in sys.argv[1:3])


def themo(*arguments):
    subprocess.run([THEMO, "-q", *map(str, arguments)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def vectors(captions, images):
    """L2-normalised vectors of captions and of image files."""
    with tempfile.TemporaryDirectory() as folder:
        texts, files, output = (Path(folder) / name for name in ["texts", "images", "output"])
        texts.write_text("\n".join(captions) + "\n")
        files.write_text("\n".join(map(str, images)) + "\n")
        themo("embed", "--version-path", RUN, "--texts", texts, "--images", files, "--normalize", "--output", output)
        loaded = load_file(output)
        return loaded["text_embeds"], loaded["image_embeds"]


def ranks(queries, keys, relevant):
    """1 + how many keys that are not relevant have a score that is not below that of the best relevant one."""
    found = []
    for query, own in zip(queries, relevant):
        # One sum for each key, in f64: equal rows have equal scores.
        scores = (keys.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        wrong = np.ones(len(keys), bool)
        wrong[own] = False
        found.append(1 + int((scores[wrong] >= scores[own].max()).sum()))
    return np.array(found)


def figures(found):
    shares = {f"recall@{k}": float((found <= k).sum() / len(found)) for k in (1, 5, 10)}
    return shares | {"median_rank": float(np.median(found)), "mean_rank": float(found.mean())}


def check(folder, name, captions, images, images_of):
    texts, pixels = vectors(captions, images)
    captions_of = [[c for c, own in enumerate(images_of) if i in own] for i in range(len(images))]
    scores = json.loads((folder / f"{name}.json").read_text())
    lines = [line.split("\t") for line in (folder / f"{name}.queries.tsv").read_text().splitlines()[1:]]
    for task, got in [("text_to_image", ranks(texts, pixels, images_of)), ("image_to_text", ranks(pixels, texts, captions_of))]:
        written = np.array([int(line[2]) for line in lines if line[3] == task])
        assert np.array_equal(written, got), (task, np.flatnonzero(written != got))
        for figure, value in figures(got).items():
            assert scores[task][figure] == value, (task, figure, scores[task][figure], value)
        assert abs(scores[task]["mrr"] - (1 / got).mean()) < 1e-15, task
        low, high = scores[task]["ci95"]["recall@1"]
        assert low <= scores[task]["recall@1"] <= high
        print(name, task, len(got), "queries:", figures(got))


demo = ROOT / "data/demo"
names = (demo / "xtd10/test_image_names.txt").read_text().split()
captions = (demo / "xtd10/test_1kcaptions_es.txt").read_text().splitlines()
files = [demo / "mscoco" / name.split("_")[1] / name for name in names]
themo("test", "--version-path", RUN, "--task", "retrieval")
check(RUN / "eval", "retrieval", captions, files, [[i] for i in range(len(files))])

help = subprocess.run([THEMO, "test", "--help"], capture_output=True, text=True, check=True).stdout
if "--captions" in help:
    # 48 images with five captions each, their own and four others; the first caption is also of the last image.
    own = [captions[(i + 48 * k) % len(captions)] for i in range(48) for k in range(5)]
    of = [[i] for i in range(48) for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [(files[image].name, text) for text, (image,) in zip(own, of)]
        table = Path(folder) / "five.tsv"
        table.write_text("image\tcaption\n" + "".join(f"{image}\t{text}\n" for image, text in rows))
        for file in files[:48]:
            (Path(folder) / file.name).symlink_to(file)
        themo("test", "--version-path", RUN, "--captions", table, "--images", folder)
        check(RUN / "eval", "five", own, files[:48], of)
