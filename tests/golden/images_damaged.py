#!/usr/bin/env python3
"""Compares what themo and PIL make of damaged image files: which read them, and whether the pixels are the same.

Run by hand from the repository's root: python tests/golden/images_damaged.py [MUTATIONS A FILE, 10] (needs Pillow; the test
`checksums_for_comparison` of tests/images.rs does themo's part).  The files are those of images_small.safetensors.gz and the
smaller ones of awkward/.  Fails where both read a file and the pixels differ, and where themo reads more than one in 200 of
those that PIL refuses.
"""
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from pathlib import Path

from PIL import Image

warnings.simplefilter("ignore")
RANDOM = random.Random(5)


def sources():
    data = gzip.decompress(Path("tests/golden/images_small.safetensors.gz").read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    for name, entry in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield name.split("-")[0], data[8 + length + start:8 + length + end]
    kinds = {".jpg": "jpeg", ".png": "png", ".webp": "webp", ".gif": "gif"}
    for path in sorted(Path("tests/golden/awkward").iterdir()):
        if path.stat().st_size < 40_000:
            for _ in range(4):
                yield kinds[path.suffix], path.read_bytes()


def damaged(data):
    zone = len(data) if RANDOM.random() < 0.5 else min(len(data), 400)
    at, to, length = RANDOM.randrange(zone), RANDOM.randrange(zone), RANDOM.randint(1, 24)
    return RANDOM.choice((
        lambda: data[:at], lambda: data[:len(data) - RANDOM.randint(1, 40)], lambda: data[:at] + data[at + length:],
        lambda: data[:at] + bytes([data[at] ^ 1 << RANDOM.randrange(8)]) + data[at + 1:],
        lambda: data[:at] + bytes(RANDOM.randrange(256) for _ in range(length)) + data[at:],
        lambda: data[:at] + data[to:to + length] + data[at:],
        lambda: data[:at] + RANDOM.choice((b"\0", b"\xff", b"\xff\xd9", b"\xff\xd0", b"\0\0\0\0")) + data[at + 1:]))()


def pil(path):
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")) as image:
            rgb = image.convert("RGB")
        return f"{rgb.width} {rgb.height} {zlib.crc32(rgb.tobytes()):08x}"
    except Exception as error:
        return f"error {type(error).__name__}: {error}"


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        folder, paths = Path(folder), []
        for number, (kind, data) in enumerate(sources()):
            for k in range(rounds):
                paths.append(folder / f"{kind}-{number}-{k}")
                paths[-1].write_bytes(damaged(data))
        (folder / "list").write_text("".join(f"{path}\n" for path in paths))
        subprocess.run(
            ["cargo", "test", "-q", "--release", "--test", "images", "--", "--ignored", "checksums_for_comparison"], check=True,
            env={**os.environ, "THEMO_IMAGES": str(folder / "list"), "THEMO_PIXELS": str(folder / "sums")}, stdout=subprocess.DEVNULL)
        counts = Counter()
        for path, ours in zip(paths, (folder / "sums").read_text().splitlines()):
            theirs = pil(path)
            us, they = not ours.startswith("error"), not theirs.startswith("error")
            what = {(True, True): "equal" if ours == theirs else "DIFFERENT", (True, False): "themo reads, PIL refuses",
                    (False, True): "PIL reads, themo refuses", (False, False): "both refuse"}[us, they]
            kind = path.name.split("-")[0]
            counts[kind, what] += 1
            if us and what != "equal":
                print(f"{path.name}: {what}: {ours} / {theirs[:100]}")
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:5} {what:25} {count}")
    total = Counter()
    for (_, what), count in counts.items():
        total[what] += count
    print(dict(total))
    sys.exit(total["DIFFERENT"] > 0 or total["themo reads, PIL refuses"] * 200 > len(paths))


main()
