#!/usr/bin/env python3
"""Compares themo's pixels with those of PIL and transformers' CLIPImageProcessorPil, for every image of some folders.

Run by hand from the repository's root: python tests/golden/images_full.py FOLDER... (needs numpy, Pillow and transformers;
the test `pixels_for_comparison` of tests/images.rs does themo's part).  Every image is taken at several sizes, with its alpha
dropped and over white (as the processor of transformers 5 does it), and 500 generated ones from 1:6 to 6:1 besides; one that
PIL refuses must be refused by themo too.  Prints a line for each kind of file and size, and fails where a byte differs.
"""
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SETTINGS = [{"size": {"shortest_edge": edge}, "crop_size": {"height": height, "width": width}}
            for edge, height, width in ((224, 224, 224), (336, 336, 336), (97, 97, 97), (64, 80, 50))]


def generate(folder):
    """Noise in 500 sizes from 1:6 to 6:1, as files."""
    rand = np.random.RandomState(7)
    for k in range(500):
        width = rand.randint(40, 500)
        height = int(np.clip(round(width * 6 ** rand.uniform(-1, 1)), 4, 2000))
        path = folder / f"size-{k}-{width}x{height}.bmp"
        Image.fromarray(rand.randint(0, 256, (height, width, 3), np.uint8)).save(path)
        yield path


def themo(paths, settings, folder, transparency):
    """What themo makes of `paths`: pixels by path, errors by path."""
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "images").write_text("".join(f"{path}\n" for path in paths))
    names = {"THEMO_PREPROCESSOR": "preprocessor_config.json", "THEMO_IMAGES": "images", "THEMO_PIXELS": "pixels"}
    os.environ["THEMO_TRANSPARENCY"] = transparency
    subprocess.run(
        ["cargo", "test", "-q", "--release", "--test", "images", "--", "--ignored", "pixels_for_comparison"],
        env={**os.environ, **{key: str(folder / name) for key, name in names.items()}}, check=True, stdout=subprocess.DEVNULL)
    with safe_open(folder / "pixels", "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def main():
    paths = [path.resolve() for folder in sys.argv[1:] for path in sorted(Path(folder).rglob("*"))
             if path.suffix.lower() in SUFFIXES]
    generated = tempfile.TemporaryDirectory()
    paths += generate(Path(generated.name))
    images, refused = {}, {}
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
                images[str(path)] = image.format, image.copy()
        except Exception as error:
            refused[str(path)] = f"{type(error).__name__}: {error}"
    failed = not paths
    with tempfile.TemporaryDirectory() as folder:
        for settings, transparency in ((s, t) for t in ("drop", "white") for s in SETTINGS):
            processor = CLIPImageProcessorPil(**settings)
            ours, errors = themo(paths, settings, Path(folder), transparency)
            differences = defaultdict(list)
            for path, (kind, image) in images.items():
                if min(image.size) < 4:
                    continue  # the processor takes such an image for one with channels first
                image = image if transparency == "white" else image.convert("RGB")
                theirs = processor(image, do_rescale=False, do_normalize=False).pixel_values[0]
                if path.endswith("bad_exif.jpg"):
                    continue  # whose pixel data are corrupt: themo says so
                if path not in ours:
                    print(f"{path}: PIL reads it, themo: {errors[path]}")
                    failed = True
                    continue
                difference = np.abs(ours[path].astype(int) - np.asarray(theirs, int).transpose(1, 2, 0))
                differences[kind].append(difference)
            for path in refused.keys() & ours.keys():
                print(f"{path}: themo reads it, PIL: {refused[path]}")
                failed = True
            for kind, values in sorted(differences.items()):
                means, worst = [v.mean() for v in values], max(v.max() for v in values)
                within = min((v <= 3).mean() for v in values)
                failed |= worst > 0
                print(f"{transparency:5} {settings['size']['shortest_edge']:4} {kind:5} {len(values):4} images: mean difference "
                      f"{np.mean(means):.5f} (worst image {max(means):.5f}), greatest {worst}, within 3 at least {within:.3%}")
    for path, reason in refused.items():
        print(f"both refuse {Path(path).name}\n    PIL: {reason}\n    themo: {errors.get(path, 'READS IT')}")
    sys.exit(bool(failed))


main()
