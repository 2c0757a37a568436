#!/usr/bin/env python3
"""Writes awkward.safetensors: what PIL makes of the files in awkward/, which are hard to read in some way.

Run from the repository's root: python tests/golden/awkward.py (needs numpy, Pillow, safetensors; Pillow 13.0 made the
file in the repository).  The files come from the test suites of Pillow (MIT-CMU) and of image-rs (MIT/Apache-2.0).
NAME/decoded is the centre of the image, 32 x 32 pixels (with black around where it is smaller); NAME/small is the image
resized and cropped to 16 x 16.  What PIL refuses stands in the metadata, with the reason.
"""
from pathlib import Path

import numpy as np
from PIL import Image
from preprocess import preprocess
from safetensors.numpy import save_file

tensors, refused = {}, {}
for path in sorted(Path("tests/golden/awkward").iterdir()):
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except Exception as error:
        refused[path.name] = f"{type(error).__name__}: {error}"
        continue
    tensors[f"{path.name}/decoded"] = np.ascontiguousarray(preprocess(image, None, (32, 32)))
    tensors[f"{path.name}/small"] = np.ascontiguousarray(preprocess(image, 16, (16, 16)))
save_file(tensors, "tests/golden/awkward.safetensors", refused)
Path("tests/golden/awkward.safetensors").chmod(0o644)
print(len(tensors) // 2, "files,", len(refused), "refused")
