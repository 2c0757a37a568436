#!/usr/bin/env python3
"""Writes preprocess.safetensors: what PIL makes of demo images, resized and cropped as CLIPImageProcessor does.

Run from the repository's root: python tests/golden/preprocess.py (needs numpy, Pillow, safetensors; Pillow 13.0 made
the file in the repository).  Tensors are uint8 [height, width, 3]: NAME/SIZE/H/W is the demo image NAME with its shortest
edge resized to SIZE, then cropped to H x W.  X is the RGB that PIL decodes from the file bytes in X.jpg or X.png.
"""
import io
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

DEMO = Path("data/demo/imagenet/ILSVRC/Data/CLS-LOC/val")


def preprocess(image, size, crop):
    """transformers' image_transforms: get_resize_output_image_size, resize (bicubic), center_crop."""
    image = image.convert("RGB")
    w, h = image.size
    if size is not None:
        short, long = min(w, h), max(w, h)
        long = int(size * long / short)
        image = image.resize((size, long) if w <= h else (long, size), Image.Resampling.BICUBIC)
    x = np.asarray(image)
    (ch, cw), (h, w) = crop, x.shape[:2]
    top, left = (h - ch) // 2, (w - cw) // 2             # negative where the image is smaller: padded with zeros
    padded = np.zeros((max(ch, h), max(cw, w), 3), np.uint8)
    tp, lp = -(-(padded.shape[0] - h) // 2), -(-(padded.shape[1] - w) // 2)
    padded[tp:tp + h, lp:lp + w] = x
    top, left = top + tp, left + lp
    return padded[top:top + ch, left:left + cw]


def main():
    out = {}
    for k, size, crop in ((1, 64, (64, 64)), (17, 64, (64, 64)), (6, 40, (40, 40)), (25, 37, (41, 45)), (9, 31, (20, 50))):
        name = f"ILSVRC2012_val_{k:08d}"
        image = Image.open(DEMO / f"{name}.JPEG")
        out[f"{name}/{size}/{crop[0]}/{crop[1]}"] = preprocess(image, size, crop)

    # A CMYK JPEG, as ImageNet has a few: the file itself and its RGB pixels.
    y, x = np.mgrid[0:24, 0:32]
    cmyk = np.stack([x * 7, y * 9, (x + y) * 4, y * 3 + x], -1).astype(np.uint8)
    buf = io.BytesIO()
    Image.fromarray(cmyk, "CMYK").save(buf, "JPEG", quality=95)
    out["cmyk.jpg"] = np.frombuffer(buf.getvalue(), np.uint8)
    out["cmyk"] = np.asarray(Image.open(buf).convert("RGB"))

    # PNGs whose transparency is dropped: half-transparent colour, grey with alpha, palette with a clear colour.
    rgba = np.stack([x * 7, y * 9, x + y, x * 5], -1).astype(np.uint8)
    palette = Image.fromarray(rgba[..., :3]).quantize(16)
    for name, image, options in (("rgba", Image.fromarray(rgba), {}), ("la", Image.fromarray(rgba).convert("LA"), {}),
                                 ("palette", palette, {"transparency": 3})):
        buf = io.BytesIO()
        image.save(buf, "PNG", **options)
        out[f"{name}.png"] = np.frombuffer(buf.getvalue(), np.uint8)
        out[name] = np.asarray(Image.open(buf).convert("RGB"))

    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, "tests/golden/preprocess.safetensors")
    Path("tests/golden/preprocess.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
