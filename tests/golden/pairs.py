"""Writes tests/golden/pairs: the same pairs in every form that --pairs reads, written by csv, json, pyarrow and zstandard.

    pip install pyarrow==26.0.1 zstandard==0.25.0 && python tests/golden/pairs.py

`expected.json` has the pairs; forms of lines have those without line ends and tabs (`lines`), Parquet a row with a null
side before each tenth one.
"""
import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

HERE = Path(__file__).resolve().parent / "pairs"
HERE.mkdir(exist_ok=True)

PLAIN = [(f"el círculo {k} está junto al {k * k % 97}", f"circle {k} is beside {k * k % 97}") for k in range(40)]
ODD = [
    ('un "gato"', 'a "cat"'),
    ('"entre comillas"', '"in quotes"'),
    ("uno, dos; tres", "one, two; three"),
    ("barra \\ y {llaves}", "backslash \\ and [brackets]"),
    ("emoji 👩‍🚀 y ñandú", "emoji 👩‍🚀 and rhea"),
    ("espacio\u00a0duro\u2028y línea", "hard\u00a0space\u2028and line"),
]
BROKEN = [("dos\nlíneas", "two\nlines"), ("con\ttabulador", "with\ta tab"), ("CR\r\nLF", "CR\r\nLF\n")]
LINES, ALL = PLAIN + ODD, PLAIN + ODD + BROKEN


def csv_text(delimiter, names, rows, end="\r\n"):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue().encode()


def with_nulls():
    """A null before each tenth pair: of the Spanish side, of the English side, of both."""
    for k, pair in enumerate(ALL):
        if k % 10 == 0:
            yield [(None, "no Spanish"), ("sin inglés", None), (None, None)][k // 10 % 3]
        yield pair


def parquet(name, table, **options):
    pq.write_table(table, HERE / name, **{"row_group_size": 20, "compression": "snappy", **options})


def main():
    (HERE / "expected.json").write_text(json.dumps({"lines": LINES, "all": ALL}, ensure_ascii=False, indent=0))

    # Text forms.
    tsv = "".join(f"{es}\t{en}\n" for es, en in LINES).encode()
    (HERE / "plain.tsv").write_bytes(tsv)
    header = "id\tEnglish\tSpanish\n" + "".join(f"{k}\t{en}\t{es}\r\n" for k, (es, en) in enumerate(LINES))
    (HERE / "header.tsv").write_bytes(b"\xef\xbb\xbf" + header.encode())
    tatoeba = "".join(f"{k}\t{es}\t{k + 1}\t{en}\n" for k, (es, en) in enumerate(LINES))
    (HERE / "numbered.tsv.zst").write_bytes(zstandard.compress(tatoeba.encode()))
    rows = [(k, en, es) for k, (es, en) in enumerate(ALL)]
    (HERE / "corpus.csv.gz").write_bytes(gzip.compress(csv_text(",", ["id", "en", "es"], rows), mtime=0))
    (HERE / "semicolon.csv").write_bytes(csv_text(";", ["id", "en", "es"], rows, "\n"))
    (HERE / "tab.csv").write_bytes(csv_text("\t", ["id", "en", "es"], rows, "\n"))
    objects = [{"id": k, "translation": {"es": es, "en": en}, "tags": ["x"]} for k, (es, en) in enumerate(ALL)]
    (HERE / "opus.jsonl").write_text("".join(json.dumps(o) + "\n" for o in objects))
    flat = "".join(json.dumps({"english": en, "non_english": es}, ensure_ascii=False) + "\r\n" for es, en in ALL)
    (HERE / "flat.jsonl.zst").write_bytes(zstandard.compress(flat.encode()))
    sides = ["".join(pair[side] + "\n" for pair in LINES).encode() for side in (0, 1)]
    (HERE / "moses.es").write_bytes(sides[0])
    (HERE / "moses.en").write_bytes(sides[1])
    (HERE / "OPUS.en-es.es").write_bytes(sides[0])
    (HERE / "OPUS.en-es.en.gz").write_bytes(gzip.compress(sides[1], mtime=0))
    with zipfile.ZipFile(HERE / "opus.zip", "w") as archive:
        stored = {"README": b"none", "LICENSE": b"none", "T.en-es.ids": b"1\n"}
        for name, data in {**stored, "T.en-es.en": sides[1], "T.en-es.es": sides[0]}.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, data, zipfile.ZIP_DEFLATED if name.endswith(".es") else zipfile.ZIP_STORED)

    # Parquet: opus-100's one struct column, with several row groups and dictionary pages.
    nulls = list(with_nulls())
    struct = pa.array([None if es is en is None else {"en": en, "es": es} for es, en in nulls])
    parquet("opus.parquet", pa.table({"translation": struct}))
    es, en = [pa.array([pair[side] for pair in nulls]) for side in (0, 1)]
    ids = pa.array(range(len(nulls)))
    sets = pa.table({"id": ids, "english": en, "non_english": es})
    parquet("zstd.parquet", sets, compression="zstd", use_dictionary=False)
    parquet("gzip.parquet", sets, compression="gzip", data_page_version="2.0")
    parquet("brotli.parquet", sets, compression="brotli")
    parquet("lz4.parquet", sets, compression="lz4")
    deltas = {"non_english": "DELTA_BYTE_ARRAY", "english": "DELTA_LENGTH_BYTE_ARRAY"}
    parquet("delta.parquet", sets, use_dictionary=False, column_encoding=deltas, compression="none",
            write_page_checksum=True, write_statistics=False)
    # Required columns, raw bytes and large strings, dictionaries, pages of a few rows.
    es, en = [pa.array([pair[side] for pair in ALL]) for side in (0, 1)]
    required = pa.schema([pa.field("es", pa.binary(), False), pa.field("en", pa.large_string(), False)])
    parquet("required.parquet", pa.table([es.cast(pa.binary()), en.cast(pa.large_string())], schema=required),
            data_page_size=64, write_batch_size=4)
    parquet("categories.parquet", pa.table({"ES": es.dictionary_encode(), "EN": en.dictionary_encode()}))
    deep = pa.array([{"b": {"es": a, "en": b}, "es": "wrong"} for a, b in ALL])
    parquet("deep.parquet", pa.table({"a": deep}))
    # Refused by name.
    parquet("lists.parquet", pa.table({"es": pa.array([[a, a] for a, _ in ALL]), "en": en}))
    parquet("numbers.parquet", pa.table({"es": pa.array(range(len(ALL))), "en": en}))


main()
