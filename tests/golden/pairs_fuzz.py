"""Fuzzed sets of pairs in every form, as themo reads and cleans them and as csv, json, pyarrow and Python do.

    pip install pyarrow==26.0.1 zstandard==0.25.0
    cargo build --release --example dump
    python tests/golden/pairs_fuzz.py --dump target/release/examples/dump [--rows 10000] [--seed 0]

Rows have quotes, delimiters, tabs, line ends of all kinds, NULs, bytes that are not UTF-8, missing and extra columns, nulls
and values of other types; files have byte-order marks and are packed. Pairs, the counts by kind and what the cleaning
leaves must be equal. Files in UTF-16 must be refused.
"""
import argparse
import csv
import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

WIDTH, UTF8, NULS = "with another number of columns", "not UTF-8", "with NULs"
MISSING, NO_TEXT, NO_JSON = "without one of the texts", "of which one side is no text", "not a JSON object"
RATIO, LEAST, MOST = 3.0, 2, 60
MARK = b"\xef\xbb\xbf"
csv.field_size_limit(1 << 30)

WORDS = ["un", "círculo", "rojo", "nin\u0303o", "niño", "ñandú", "el", "a", "cat", "The", "dog's", "«luna»", "日本", "👩‍🚀",
         "e\u0301tat", "\u212bngström", "¿qué?", "x", "", " "]
SPACES = [" "] * 12 + ["  ", "\u00a0", "\u2003", "\u2028", "\u200b", "\u3000", "\u0085", "\x1c"]
SEPARATORS = [",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "\\", "{", "'", "\ufeff"]


def text(rng, odd=True):
    words = [rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randint(0, 8))]
    if odd and rng.random() < 0.3:
        words.insert(rng.randint(0, len(words)), rng.choice(SEPARATORS))
    return "".join(words) + rng.choice(["", str(rng.randint(0, 999))])


def rows(rng, count):
    """Pairs, some of them seen before or with equal sides."""
    made = []
    for _ in range(count):
        roll = rng.random()
        if made and roll < 0.05:
            made.append(rng.choice(made))
        elif roll < 0.08:
            made.append((side := text(rng), side))
        else:
            made.append((text(rng), text(rng)))
    return made


def bend(rng, row):
    """Bytes of a row with a NUL or bytes that are not UTF-8 somewhere, now and then."""
    if rng.random() < 0.05:
        at = rng.randint(0, len(row))
        row = row[:at] + rng.choice([b"\0", b"\xff", b"\xf1o", b"\xed\xa0\x80"]) + row[at:]
    return row


class Read:
    """What an independent reading of a file finds."""

    def __init__(self):
        self.pairs, self.rejected = [], Counter()

    def put(self, es, en):
        if b"\0" in es or b"\0" in en:
            self.rejected[NULS] += 1
            return
        try:
            self.pairs.append((es.decode(), en.decode()))
        except UnicodeDecodeError:
            self.rejected[UTF8] += 1


# The forms: each writes `pairs` and gives (file, columns, what Python reads).

def lines_of(data):
    lines = data.removeprefix(MARK).split(b"\n")
    return [line.removesuffix(b"\r") for line in lines[:-1] + ([lines[-1]] if lines[-1] else [])]


def line_text(side):
    return side.replace("\n", " ").replace("\t", " ")


def tsv(rng, folder, pairs, header):
    out = [b"id\tEnglish\tSpanish\tnote\n"] if header else [b"primera\tfirst\n"]
    for k, (es, en) in enumerate(pairs):
        es, en = line_text(es), line_text(en)
        fields = [str(k), en, es, "x"] if header else [es, en]
        roll = rng.random()
        if roll < 0.02:
            fields.pop()
        elif roll < 0.04:
            fields.insert(rng.randint(0, len(fields)), "extra")
        out.append(bend(rng, "\t".join(fields).encode()) + rng.choice([b"\n", b"\n", b"\r\n", b"\n\n"]))
    data = rng.choice([b"", MARK]) + b"".join(out)
    (folder / "p.tsv").write_bytes(data)
    read, (width, at) = Read(), ((4, (2, 1)) if header else (2, (0, 1)))
    for line in lines_of(data)[int(header):]:
        fields = line.split(b"\t")
        if len(fields) == width:
            read.put(fields[at[0]], fields[at[1]])
        elif line:
            read.rejected[NULS if b"\0" in line else WIDTH] += 1
    return "p.tsv", None, read


def csv_form(rng, folder, pairs, delimiter):
    out = io.StringIO(newline="")
    names = ["id", "caption", "leyenda", "note"]
    writers = [csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
               for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL) for end in ("\n", "\r\n")]
    writers[0].writerow(names)
    data = [out.getvalue().encode()]
    for k, (es, en) in enumerate(pairs):
        fields = [k, en, es, "x"]
        roll = rng.random()
        if roll < 0.02:
            fields.pop()
        elif roll < 0.04:
            fields.insert(rng.randint(0, 4), "extra")
        out.seek(0), out.truncate()
        rng.choice(writers).writerow(fields)
        row = out.getvalue()
        if rng.random() < 0.01:
            row = row.replace('"', "", 1)  # a quote that is open, or in the middle of a field
        data.append(bend(rng, row.encode()) + rng.choice([b"", b"", b"\n"]))
    data = rng.choice([b"", MARK]) + b"".join(data)
    (folder / "p.csv").write_bytes(data)
    read = Read()
    decoded = data.removeprefix(MARK).decode(errors="surrogateescape")
    for k, row in enumerate(csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter)):
        fields = [field.encode(errors="surrogateescape") for field in row]
        if k > 0 and len(fields) == 4:
            read.put(fields[2], fields[1])
        elif k > 0 and fields:
            read.rejected[WIDTH] += 1
    return "p.csv", "es=leyenda,en=caption", read


def jsonl(rng, folder, pairs):
    out = [b'{"translation": {"es": "primera", "en": "first"}}\n']
    for k, (es, en) in enumerate(pairs):
        sides = {"en": en, "es": es}
        roll = rng.random()
        if roll < 0.02:
            sides.pop(rng.choice(["es", "en"]))
        elif roll < 0.06:
            sides[rng.choice(["es", "en"])] = rng.choice([None, 7, ["x"], {"x": 1}, "a\0b", "\ud800"])
        row = {"id": k, "translation": rng.choice([sides] * 50 + [None, "x"]), "es": "wrong", "extra": [1, {"es": 2.5}]}
        line = json.dumps(rng.choice([row] * 50 + [[row], "text", 1]), ensure_ascii=roll < 0.7)
        line = line.encode(errors="surrogatepass")
        if rng.random() < 0.01 and len(line) > 1:
            line = line[:rng.randint(1, len(line) - 1)]
        out.append(bend(rng, line) + rng.choice([b"\n", b"\r\n", b"\n \n"]))
    data = rng.choice([b"", MARK]) + b"".join(out)
    (folder / "p.jsonl").write_bytes(data)
    read = Read()
    for line in lines_of(data):
        if not line.strip(b" \t\r\n\x0c"):
            continue
        try:
            row = json.loads(line.decode())
            json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
            assert isinstance(row, dict)
        except (ValueError, AssertionError):
            read.rejected[NULS if b"\0" in line else NO_JSON] += 1
            continue
        sides = row.get("translation")
        es, en = [sides.get(side) if isinstance(sides, dict) else None for side in ("es", "en")]
        if es is None or en is None:
            read.rejected[MISSING] += 1
        elif isinstance(es, str) and isinstance(en, str):
            read.put(es.encode(), en.encode())
        else:
            read.rejected[NO_TEXT] += 1
    return "p.jsonl", "es=translation.es,en=translation.en", read


def parquet(rng, folder, pairs, nested):
    sides = [[], []]
    for pair in pairs:
        for side, value in zip(sides, pair):
            side.append(None if rng.random() < 0.02 else bend(rng, value.encode()))
    es, en = [pa.array(side, pa.binary()) for side in sides]
    if nested:
        mask = pa.array([rng.random() < 0.02 for _ in pairs])
        struct = pa.StructArray.from_arrays([en, es], ["en", "es"], mask=mask)
        table = pa.table({"id": range(len(pairs)), "translation": struct})
    else:
        # Strings by name, whatever their bytes are.
        strings = [pa.Array.from_buffers(pa.string(), len(side), side.buffers(), side.null_count) for side in (es, en)]
        table = pa.table({"id": range(len(pairs)), "non_english": strings[0], "english": strings[1]})
    options = {
        "compression": rng.choice(["snappy", "zstd", "gzip", "lz4", "none"]),
        "row_group_size": rng.choice([100, 1000, 3000, len(pairs)]),
        "use_dictionary": rng.random() < 0.5,
        "data_page_version": rng.choice(["1.0", "2.0"]),
        "data_page_size": rng.choice([1000, 1 << 20]),
        "write_page_checksum": rng.random() < 0.5,
    }
    pq.write_table(table, folder / "p.parquet", **options)
    read = Read()
    back = pq.read_table(folder / "p.parquet")
    if nested:
        rows = [row or {} for row in back["translation"].to_pylist()]
        back = [(row.get("es"), row.get("en")) for row in rows]
    else:
        back = list(zip(*[back[name].cast(pa.binary()).to_pylist() for name in ("non_english", "english")]))
    for es, en in back:
        if es is None or en is None:
            read.rejected[MISSING] += 1
        else:
            read.put(es, en)
    return "p.parquet", None, read


def moses(rng, folder, pairs, zipped):
    sides = [b"primera\n", b"first\n"]
    for pair in pairs:
        for side, value in enumerate(pair):
            sides[side] += bend(rng, value.replace("\n", " ").encode()) + rng.choice([b"\n", b"\n", b"\r\n"])
    sides[0] = rng.choice([b"", MARK]) + sides[0]
    if zipped:
        with zipfile.ZipFile(folder / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README", "none")
            archive.writestr("T.en-es.es", sides[0])
            archive.writestr("T.en-es.en", sides[1])
    else:
        (folder / "p.en-es.es").write_bytes(sides[0])
        (folder / "p.en-es.en").write_bytes(sides[1])
    read = Read()
    es, en = map(lines_of, sides)
    assert len(es) == len(en)
    for pair in zip(es, en):
        read.put(*pair)
    return ("p.zip" if zipped else "p.en-es.es"), None, read


def clean(pairs):
    """The cleaning, in Python's words."""
    kept, why, seen = [], Counter(), set()
    for pair in pairs:
        es, en = pair = tuple(" ".join(unicodedata.normalize("NFC", side).split()) for side in pair)
        lengths = sorted(map(len, pair))
        if not all(side.replace(" ", "").strip("\u200b\u200c\u200d\u2060\ufeff") for side in pair):
            why["with an empty side"] += 1
        elif es == en:
            why["with equal sides"] += 1
        elif lengths[0] < LEAST:
            why["with too short a side"] += 1
        elif lengths[1] > MOST:
            why["with too long a side"] += 1
        elif lengths[1] > RATIO * lengths[0]:
            why["with sides of too different lengths"] += 1
        elif pair in seen:
            why["seen before"] += 1
        else:
            seen.add(pair)
            kept.append(pair)
    return kept, why


def dump(args, path, columns, *limits):
    command = [args.dump, "pairs", path] + ([columns or "-"] if columns or limits else []) + list(map(str, limits))
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def compare(args, name, path, columns, read):
    counts = lambda tally: {count["kind"]: count["count"] for count in tally}
    done = dump(args, path, columns)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    answer = json.loads(done.stdout)
    got = [tuple(pair) for pair in answer["pairs"]]
    for k, (ours, theirs) in enumerate(zip(got, read.pairs)):
        assert ours == theirs, f"{name}, pair {k}: themo {ours!r}, Python {theirs!r}"
    assert len(got) == len(read.pairs), f"{name}: themo {len(got)} pairs, Python {len(read.pairs)}"
    rejected = counts(answer["read"]["rejected"])
    assert rejected == dict(read.rejected), f"{name}: themo {rejected}, Python {read.rejected}"
    assert answer["read"]["rows"] == len(got) + sum(rejected.values()), name
    cleaned = json.loads(dump(args, path, columns, RATIO, LEAST, MOST).stdout)
    kept, why = clean(read.pairs)
    assert [tuple(pair) for pair in cleaned["pairs"]] == kept, f"{name}: cleaning"
    left_out = counts(cleaned["cleaning"]["left_out"])
    assert left_out == dict(why), f"{name}: themo {left_out}, Python {why}"
    print(f"{name}: {len(got)} of {answer['read']['rows']} rows equal, {sum(rejected.values())} rejected in "
          f"{len(rejected)} kinds; cleaned {len(kept)}, left out in {len(left_out)} kinds")
    return len(got)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dump", required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    forms = {
        "TSV": lambda *a: tsv(*a, False),
        "TSV with a header": lambda *a: tsv(*a, True),
        "CSV": lambda *a: csv_form(*a, ","),
        "CSV, ;": lambda *a: csv_form(*a, ";"),
        "CSV, tab": lambda *a: csv_form(*a, "\t"),
        "JSON lines": jsonl,
        "Parquet, struct": lambda *a: parquet(*a, True),
        "Parquet, flat": lambda *a: parquet(*a, False),
        "moses": lambda *a: moses(*a, False),
        "moses in a zip": lambda *a: moses(*a, True),
    }
    equal = 0
    for name, write in forms.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            file, columns, read = write(rng, folder, rows(rng, args.rows))
            equal += compare(args, name, folder / file, columns, read)
            if file not in ("p.tsv", "p.csv", "p.jsonl"):
                continue
            data = (folder / file).read_bytes()
            (folder / f"{file}.gz").write_bytes(gzip.compress(data[:999]) + gzip.compress(data[999:]))
            (folder / f"{file}.zst").write_bytes(zstandard.compress(data))
            for packing in ("gz", "zst"):
                equal += compare(args, f"{name}, {packing}", folder / f"{file}.{packing}", columns, read)
            decoded = data.removeprefix(MARK).decode(errors="replace").replace("\0", "")
            for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
                (folder / f"u.{file}").write_bytes(decoded.encode(encoding, errors="replace"))
                done = dump(args, folder / f"u.{file}", columns)
                assert done.returncode != 0 and "UTF-" in done.stderr, f"{name} in {encoding}: {done.stderr}"
            print(f"{name}: refused in UTF-16 and UTF-32")
    print(f"{equal} pairs equal")


if __name__ == "__main__":
    sys.exit(main())
