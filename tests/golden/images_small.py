#!/usr/bin/env python3
"""Writes images_small.safetensors.gz: small image files of every kind, and what PIL makes of them.

Run from the repository's root: python tests/golden/images_small.py (needs numpy, Pillow, safetensors; Pillow 13.0 made the
file in the repository).  Tensors are the files, byte for byte.  The metadata say of each `WIDTH HEIGHT DROP WHITE`, where DROP
is the CRC-32 of the pixels of `convert("RGB")` and WHITE that of the image over white as transformers 5.24 does it, or
`refused: why`.  `resize W H w h` in the metadata is the CRC-32 of an image of W x H pixels resized to w x h; its byte k is
(k * k * 31 + k * 17) >> 5, modulo 256.
"""
import gzip
import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

warnings.simplefilter("ignore")
NOISE = np.random.RandomState(1)
files = {}


def noise(*shape, top=256):
    """Few different values: the file should be small."""
    return (NOISE.randint(0, 12, shape) * 89 % top).astype(np.uint8)


def saved(name, image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    files[name] = buffer.getvalue()


def chunk(kind, data, wrong=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def png(depth, colour, samples, *chunks, interlaced=0, data=None, after=b"", end=chunk(b"IEND", b"")):
    """`samples` [h, w, channels]; filter 0, but 1 to 4 where a row's number says so (bytes then hold differences)."""
    h, w, _ = samples.shape

    def rows(part):
        out = b""
        for y, row in enumerate(part):
            if depth == 16:
                raw = row.astype(">u2").tobytes()
            elif depth == 8:
                raw = row.astype(np.uint8).tobytes()
            else:
                raw = np.packbits((row[:, :1] >> np.arange(depth)[::-1]) & 1).tobytes()
            out += bytes([y % 5 if depth > 4 else 0]) + raw
        return out

    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in passes] if interlaced else [samples]
    packed = zlib.compress(b"".join(rows(part) for part in parts if part.size))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced))
    data = chunk(b"IDAT", packed) if data is None else data(packed)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data + after + end


def make_png():
    for depth, colour in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4),
                          (8, 6), (16, 6)):
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        samples = NOISE.randint(0, min(1 << depth, 400 if colour == 0 else 1 << 16), (9, 11, channels))
        palette = [chunk(b"PLTE", noise(3 << depth).tobytes())] if colour == 3 else []
        for interlaced in (0, 1):
            name = f"png-{depth}-{colour}-{interlaced}"
            files[name] = png(depth, colour, samples, *palette, interlaced=interlaced)
        key = {0: struct.pack(">H", samples[0, 0, 0]), 2: struct.pack(">3H", *samples[0, 0]) if colour == 2 else b"",
               3: bytes([0, 70, 255])[:1 << depth]}.get(colour)
        if key is not None:
            files[f"png-{depth}-{colour}-key"] = png(depth, colour, samples, *palette, chunk(b"tRNS", key))
    grey, rgb = NOISE.randint(0, 256, (9, 11, 1)), NOISE.randint(0, 256, (9, 11, 3))
    files["png-short-palette"] = png(8, 3, grey, chunk(b"PLTE", bytes(range(60))), chunk(b"tRNS", b"\0"))
    files["png-key-16"] = png(16, 2, rgb * 257, chunk(b"tRNS", struct.pack(">3H", *rgb[3, 3])))
    files["png-no-palette"] = png(8, 3, grey)
    for name, options in {
        "no-end": {"end": b""}, "trailing": {"end": chunk(b"IEND", b"") + b"junk"},
        "text-after": {"after": chunk(b"tEXt", b"a\0b", 1)}, "split": {"data": lambda z: b"".join(
            chunk(b"IDAT", z[k:k + 9]) for k in range(0, len(z), 9))},
        "data-sum": {"data": lambda z: chunk(b"IDAT", z, 1)}, "adler": {"data": lambda z: chunk(b"IDAT", z[:-1] + bytes([z[-1] ^ 1]))},
        "no-adler": {"data": lambda z: chunk(b"IDAT", z[:-4])}, "cut": {"data": lambda z: chunk(b"IDAT", z[:-9])},
        "cut-file": {"data": lambda z: chunk(b"IDAT", z)[:-40], "end": b""}, "two": {"data": lambda z: chunk(b"IDAT", z[:50]) +
                                                                                     chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", z[50:])},
    }.items():
        files[f"png-{name}"] = png(8, 2, rgb, **options)
    for name, extra in {
        "text-sum": chunk(b"tEXt", b"a\0b", 1), "palette-sum": chunk(b"PLTE", b"abc", 1), "unknown-sum": chunk(b"abCd", b"abc", 1),
        "unknown": chunk(b"abCd", b"abc"), "name": chunk(b"a cd", b"abc"), "gamma": chunk(b"gAMA", b"a"), "text-packing":
        chunk(b"zTXt", b"a\0\1x"), "text-damaged": chunk(b"zTXt", b"a\0\0x"), "profile": chunk(b"iCCP", b"a\0\0" + zlib.compress(
            b"x" * (1 << 21))), "key-short": chunk(b"tRNS", b"\0\1"),
    }.items():
        files[f"png-{name}"] = png(8, 2, rgb, extra)


def lzw(codes, bits):
    """GIF's LZW, with a clear code before every 100 codes: no table is needed."""
    clear, out, held, count = 1 << bits, b"", 0, 0
    for k, code in enumerate(codes):
        for value in ([clear] if k % (clear - 2) == 0 else []) + [int(code)] + ([clear + 1] if k == len(codes) - 1 else []):
            held |= value << count
            count += bits + 1
            while count >= 8:
                out, held, count = out + bytes([held & 255]), held >> 8, count - 8
    out += bytes([held])
    return b"".join(bytes([len(out[k:k + 255])]) + out[k:k + 255] for k in range(0, len(out), 255)) + b"\0"


def gif(screen, frame, palettes, clear=None, background=0, interlaced=False, disposal=0, bits=4, junk=b"", end=b";"):
    """`palettes`: the screen's and the frame's, or None."""
    _, _, w, h = frame
    codes = noise(h, w, top=1 << bits)
    if interlaced:
        codes = codes[[y for start, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for y in range(start, h, step)]]
    flags = [0 if p is None else 0x80 | (len(p) // 3).bit_length() - 2 for p in palettes]
    out = b"GIF89a" + struct.pack("<HH", *screen) + bytes([flags[0], background, 0]) + (palettes[0] or b"") + junk
    if clear is not None or disposal:
        out += b"!\xf9\4" + bytes([(clear is not None) | disposal << 2, 0, 0, clear or 0]) + b"\0"
    out += b"," + struct.pack("<4H", *frame) + bytes([flags[1] | (64 if interlaced else 0)]) + (palettes[1] or b"")
    return out + bytes([bits]) + lzw(codes.ravel(), bits) + end


def make_gif():
    colours, grey = [noise(48).tobytes() for _ in range(2)], bytes(k for k in range(16) for _ in range(3))
    number = 0
    for screen, frame in (((12, 9), (0, 0, 12, 9)), ((12, 9), (3, 2, 5, 6)), ((12, 9), (0, 0, 17, 11)), ((12, 9), (9, 5, 6, 7)),
                          ((0, 0), (0, 0, 7, 5)), ((4, 3), (6, 5, 3, 2))):
        for clear in (None, 0, 5, 99):
            for palettes in ((colours[0], None), (None, colours[1]), colours, (None, None), (grey, None), (grey, colours[0]),
                             (colours[0][:6], None)):
                files[f"gif-{number}"] = gif(screen, frame, palettes, clear, number % 16, number % 3 == 0, number % 4)
                number += 1
    files["gif-grey-frame"] = gif((12, 9), (0, 0, 12, 9), (colours[0], grey))
    for bits in (2, 3, 6, 7):
        files[f"gif-bits-{bits}"] = gif((12, 9), (0, 0, 12, 9), (noise(3 << bits).tobytes(), None), bits=bits, interlaced=True)
    whole = files["gif-0"]
    files["gif-cut"], files["gif-no-end"], files["gif-junk"] = whole[:-20], whole[:-2], whole[:61] + b"\0\1" + whole[61:]
    files["gif-early-end"] = whole[:whole.index(b",", 61) + 11] + b"\2\x80\x08\0;"
    files["gif-comment"] = gif((12, 9), (0, 0, 12, 9), (colours[0], None), junk=b"!\xfe\3abc\2de\0!\xff\x0bNETSCAPE2.0\3\1\0\0\0")


def bmp(w, h, bits, data, palette=b"", header=40, compression=0, colours=0, masks=b"", start=None, top_down=False):
    if header == 12:
        head = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        head = struct.pack("<IIiHHIIIIII", header, w, -h if top_down else h, 1, bits, compression, len(data), 0, 0, colours, 0)
        head += masks if header == 40 else (masks + bytes(header))[:header - 40]
    start = 14 + len(head) + len(palette) if start is None else start
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(palette) + len(data), 0, 0, start) + head + palette + data


def make_bmp():
    def rows(bits, w=7, h=5):
        return noise(h * -(-w * bits // 32) * 4).tobytes()

    def table(count, size=4):
        return b"".join(noise(3).tobytes() + bytes(size - 3) for _ in range(count))

    for bits in (1, 4, 8):
        for header in (12, 40, 52, 56, 64, 108, 124):
            files[f"bmp-{bits}-{header}"] = bmp(7, 5, bits, rows(bits), table(1 << bits, 3 if header == 12 else 4), header)
        grey = [b"".join(bytes([k, k, k, 0]) for k in range(count)) for count in (2, 16, 256)]
        for name, palette in (("bw", b"\0\0\0\0\xff\xff\xff\0"), ("wb", b"\xff\xff\xff\0\0\0\0\0"), ("few", table(3)), *zip(
                ("grey2", "grey16", "grey256"), grey)):
            files[f"bmp-{bits}-{name}"] = bmp(7, 5, bits, rows(bits), palette, colours=len(palette) // 4)
        files[f"bmp-{bits}-down"] = bmp(7, 5, bits, rows(bits), table(1 << bits), top_down=True)
        files[f"bmp-{bits}-start0"] = bmp(7, 5, bits, rows(bits), table(1 << bits), start=0)
        files[f"bmp-{bits}-start54"] = bmp(7, 5, bits, rows(bits), table(1 << bits), start=54)
        files[f"bmp-{bits}-cut"] = bmp(7, 5, bits, rows(bits)[:-4], table(1 << bits))
    masks = ((0xf800, 0x7e0, 0x1f, 0), (0x7c00, 0x3e0, 0x1f, 0), (0xff0000, 0xff00, 0xff, 0), (0xff000000, 0xff0000, 0xff00, 0),
             (0xff000000, 0xff00, 0xff, 0), (0xff000000, 0xff0000, 0xff00, 0xff), (0xff, 0xff00, 0xff0000, 0xff000000),
             (0xff0000, 0xff00, 0xff, 0xff000000), (0xff000000, 0xff00, 0xff, 0xff0000), (0, 0, 0, 0), (0xf00, 0xf0, 0xf, 0xf000))
    for bits in (16, 24, 32):
        files[f"bmp-{bits}"] = bmp(7, 5, bits, rows(bits))
        files[f"bmp-{bits}-12"] = bmp(7, 5, bits, rows(bits), header=12)
        files[f"bmp-{bits}-down"] = bmp(7, 5, bits, rows(bits), top_down=True)
        for k, mask in enumerate(masks):
            for header in (40, 56):
                packed = struct.pack("<4I", *mask)[:12 if header == 40 else 16]
                files[f"bmp-{bits}-{header}-masks{k}"] = bmp(7, 5, bits, rows(bits), header=header, compression=3, masks=packed)
    runs = {8: b"\3\7\0\4\1\2\3\4\0\0\7\x11\0\0\0\2\2\1\5\x22\0\0\0\3\5\6\7\0\x09\x33\0\0\2\1\0\0\0\1",
            4: b"\3\x71\0\4\x12\x34\0\0\7\x12\0\0\0\2\2\1\5\x25\0\0\0\3\x56\x70\x09\x36\0\0\2\1\0\0\0\1"}
    for bits, data in runs.items():
        for down in (False, True):
            kind = 1 if bits == 8 else 2
            files[f"bmp-runs-{bits}-{down}"] = bmp(7, 6, bits, data, table(1 << bits), compression=kind, top_down=down)
        files[f"bmp-runs-{bits}-cut"] = bmp(7, 6, bits, data[:20], table(1 << bits), compression=1 if bits == 8 else 2)


def tiff(kind, little=True, packing=1, predictor=1, planar=1, rows=None, tile=None, orientation=1, reverse=False, drop=(), **other):
    """`kind`: photometric, bits, samples, extra samples."""
    photometric, bits, samples, extra = kind
    e = "<" if little else ">"
    values = NOISE.randint(0, 12, (9, 13, samples)) * (5557 if samples > 1 else 89) % (1 << bits)

    def packed(part):
        if bits < 8:
            raw = b"".join(np.packbits((row[:, :1] >> np.arange(bits)[::-1]) & 1).tobytes() for row in part)
        else:
            kind = np.dtype("u1" if bits == 8 else e + "u2")
            part = part.astype(kind)
            raw = part.tobytes() if predictor == 1 else np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], 1).astype(kind).tobytes()
        if reverse:
            raw = bytes(int(f"{byte:08b}"[::-1], 2) for byte in raw)
        if packing == 5:
            buffer = io.BytesIO()
            Image.frombytes("L", (len(raw), 1), raw).save(buffer, "TIFF", compression="tiff_lzw")
            tags = Image.open(buffer).tag_v2
            return buffer.getvalue()[tags[273][0]:][:tags[279][0]]
        if packing == 32773:
            return b"".join(bytes([len(raw[k:k + 5]) - 1]) + raw[k:k + 5] for k in range(0, len(raw), 5))
        return zlib.compress(raw) if packing in (8, 32946) else raw

    chunks = []
    for plane in [values] if planar == 1 else [values[..., k:k + 1] for k in range(samples)]:
        w, h = tile or (13, rows or 9)
        for y in range(0, 9, h):
            for x in range(0, 13, w):
                part = plane[y:y + h, x:x + w]
                if tile:
                    part = np.pad(part, ((0, h - part.shape[0]), (0, w - part.shape[1]), (0, 0)))
                chunks.append(packed(part))
    offsets = [8 + sum(map(len, chunks[:k])) for k in range(len(chunks))]
    tags = {256: ("H", [13]), 257: ("H", [9]), 258: ("H", [bits] * samples), 259: ("H", [packing]), 262: ("H", [photometric]),
            277: ("H", [samples]), 324 if tile else 273: ("I", offsets), 325 if tile else 279: ("I", list(map(len, chunks)))}
    for tag, value, default in ((266, 2 if reverse else 1, 1), (274, orientation, 1), (284, planar, 1), (317, predictor, 1)):
        if value != default:
            tags[tag] = ("H", [value])
    if rows:
        tags[278] = ("H", [rows])
    if tile:
        tags |= {322: ("H", [tile[0]]), 323: ("H", [tile[1]])}
    if extra:
        tags[338] = ("H", list(extra))
    if photometric == 3:
        tags[320] = ("H", [k * 331 % 65536 for k in range(3 << bits)])
    tags |= {int(tag[1:]): value for tag, value in other.items()}
    tags = {tag: value for tag, value in sorted(tags.items()) if tag not in drop}
    body, entries, tail = b"".join(chunks), b"", b""
    start = 8 + len(body)
    for tag, (code, numbers) in tags.items():
        raw = struct.pack(e + code * len(numbers), *numbers)
        if len(raw) > 4:
            raw, tail = struct.pack(e + "I", start + 6 + 12 * len(tags) + len(tail)), tail + raw
        entries += struct.pack(e + "HHI", tag, {"B": 1, "H": 3, "I": 4}[code], len(numbers)) + raw.ljust(4, b"\0")
    head = (b"II" if little else b"MM") + struct.pack(e + "HI", 42, start)
    return head + body + struct.pack(e + "H", len(tags)) + entries + bytes(4) + tail


def make_tiff():
    kinds = [(0, 1, 1, ()), (0, 2, 1, ()), (0, 8, 1, ()), (0, 16, 1, ()), (1, 1, 1, ()), (1, 4, 1, ()), (1, 8, 1, ()), (1, 16, 1, ()),
             (1, 8, 2, (0,)), (1, 8, 2, (2,)), (2, 8, 3, ()), (2, 8, 4, ()), (2, 8, 4, (0,)), (2, 8, 4, (1,)), (2, 8, 4, (2,)),
             (2, 8, 5, (2, 0)), (2, 16, 3, ()), (2, 16, 4, (2,)), (3, 1, 1, ()), (3, 4, 1, ()), (3, 8, 1, ()), (3, 8, 2, (2,)),
             (5, 8, 4, ()), (5, 8, 5, (0,)), (5, 16, 4, ())]
    for kind in kinds:
        name = "tiff-" + "-".join(map(str, kind[:3])) + "".join(map(str, kind[3]))
        for k, options in enumerate(({"little": False}, {"packing": 5, "rows": 4}, {"packing": 8, "tile": (16, 16)},
                                     {"packing": 32773, "little": False}, {"tile": (16, 16)})):
            files[f"{name}-{k}"] = tiff(kind, **options)
    rgb, grey = (2, 8, 3, ()), (1, 8, 1, ())
    for k in range(1, 10):
        files[f"tiff-turned-{k}"] = tiff(rgb, orientation=k)
        files[f"tiff-turned-packed-{k}"] = tiff(grey, orientation=k, packing=8)
    for kind in (rgb, grey, (2, 16, 3, ()), (5, 8, 4, ())):
        for packing in (5, 8):
            files[f"tiff-predictor-{kind[0]}-{kind[1]}-{packing}"] = tiff(kind, packing=packing, predictor=2, little=packing == 5)
    for packing in (1, 5):
        files[f"tiff-planes-{packing}"] = tiff(rgb, planar=2, rows=4, packing=packing)
        files[f"tiff-planes-tiles-{packing}"] = tiff(rgb, planar=2, tile=(16, 16), packing=packing)
    files["tiff-reversed"] = tiff((0, 1, 1, ()), reverse=True)
    whole = tiff(rgb)
    files["tiff-cut"], files["tiff-odd"] = whole[:-30], tiff(rgb, t257=("H", [19]))
    files["tiff-short-packed"] = tiff(rgb, packing=8, t279=("I", [60]))


def make_others():
    rgb = Image.fromarray(noise(9, 13, 3))
    rgba = Image.fromarray(noise(9, 13, 4))
    for name, image in (("rgb", rgb), ("rgba", rgba)):
        saved(f"webp-{name}", image, "WEBP", lossless=True, exact=True)
        saved(f"webp-{name}-lossy", image, "WEBP", quality=60)
        saved(f"webp-{name}-frames", image, "WEBP", lossless=True, save_all=True, append_images=[image.rotate(180)])
    webp = files["webp-rgba"]
    files["webp-cut"], files["webp-size"], files["webp-trailing"] = webp[:-5], webp[:4] + b"\xff" + webp[5:], webp + b"junk"
    for mode in ("L", "RGB", "CMYK"):
        saved(f"jpeg-{mode}", rgba.convert(mode), "JPEG")
        saved(f"jpeg-{mode}-progressive", rgba.convert(mode), "JPEG", progressive=True, subsampling=0)
    jpeg = files["jpeg-RGB"]
    scan = jpeg.index(b"\xff\xda")
    app = b"\xff\xee\0\x05Ado"
    for name, damaged in {
        "no-end": jpeg[:-2], "cut": jpeg[:-9], "junk": jpeg[:2] + b"junk" + jpeg[2:], "padding": jpeg[:scan] + b"\xff\xff" + jpeg[scan:],
        "end-first": jpeg[:2] + b"\xff\xd9" + jpeg[2:], "start-twice": jpeg[:2] + b"\xff\xd8" + jpeg[2:], "early-end":
        jpeg[:scan + 30] + b"\xff\xd9" + jpeg[scan + 30:], "short-table": jpeg.replace(b"\xff\xdb\0\x43", b"\xff\xdb\0\x33", 1),
        "no-table": jpeg[:scan - 100] + jpeg[scan:], "after": jpeg[:-2] + b"\xff\xfe\0\4ab" + jpeg[-2:], "unknown-after":
        jpeg[:-2] + b"\xff\xf1\0\4ab" + jpeg[-2:], "second-scan": jpeg[:-2] + jpeg[scan:], "trailing": jpeg + b"junk", "jfif":
        jpeg[:4] + b"\0\x06JFIF" + jpeg[20:], "frame": jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1), "adobe":
        jpeg[:2] + app + jpeg[2:],
    }.items():
        files[f"jpeg-{name}"] = damaged


def answer(data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            clear = "A" in image.getbands() or image.info.get("transparency") is not None
            rgb = image.convert("RGB")
            white = rgb
            if clear:
                background = Image.new("RGBA", image.size, (255,) * 4)
                white = Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
            return " ".join([*map(str, rgb.size), *(f"{zlib.crc32(x.tobytes()):08x}" for x in (rgb, white))])
    except Exception as error:
        return f"refused: {type(error).__name__}: {error}"


def sizes():
    """500 sizes from 1:6 to 6:1 to a shorter side as CLIP does it, and to any; with the bounds of Pillow's choice."""
    rand = random.Random(13)
    for _ in range(500):
        w = rand.randint(6, 90)
        h = max(1, min(540, round(w * 6 ** rand.uniform(-1, 1))))
        edge = rand.choice((8, 16, 24, 37, 64))
        short, long = min(w, h), max(w, h)
        long = int(edge * long / short)
        yield (w, h, *((edge, long) if w <= h else (long, edge)))
    for w, h in ((40, 60), (40, 61), (40, 59), (40, 40)):
        for dw in (-7, -1, 0, 1, 10, 13):
            for dh in (2 * dw - 1, 2 * dw, 2 * dw + 1, -3, 0, 1, 30):
                if h - dh > 0:
                    yield w, h, w - dw, h - dh


def resized(w, h, width, height):
    k = np.arange(3 * w * h, dtype=np.uint64)
    pixels = ((k * k * 31 + k * 17) >> 5).astype(np.uint8).reshape(h, w, 3)
    return f"{zlib.crc32(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).tobytes()):08x}"


def main():
    for make in (make_png, make_gif, make_bmp, make_tiff, make_others):
        make()
    said = {name: answer(data) for name, data in files.items()}
    said |= {"resize " + " ".join(map(str, size)): resized(*size) for size in sizes()}
    data = save({name: np.frombuffer(data, np.uint8) for name, data in files.items()}, said)
    Path("tests/golden/images_small.safetensors.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    print(len(files), "files,", sum(text.startswith("refused") for text in said.values()), "refused,", len(said) - len(files), "sizes")


if __name__ == "__main__":
    main()
