"""Small data sets in the form of the hub's, for tests/hub: `python tests/golden/sets.py` (pyarrow 26.0.1).

opus100: one struct column `translation`, two shards of several row groups, snappy; validation in zstd. talks and tatoeba:
columns `english` and `non_english`. captions: a nested column as no known set has it, beside one that is not text.
The sentences are made up here.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).with_name("sets")
COLOURS = [("rojo", "red"), ("azul", "blue"), ("verde", "green"), ("negro", "black"), ("amarillo", "yellow")]
THINGS = [("un círculo", "circle"), ("un gato", "cat"), ("un niño", "child"), ("un pájaro", "bird")]


def pairs(prefix, count):
    spanish, english = prefix
    for i in range(count):
        (color, colour), (cosa, thing) = COLOURS[i % 5], THINGS[i // 5 % 4]
        yield f"{spanish} {cosa} {color} {i}", f"{english} a {colour} {thing} {i}"


def write(name, table, compression, group):
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression=compression, row_group_size=group)


def translation(rows):
    kind = pa.struct([("en", pa.string()), ("es", pa.string())])
    return pa.table({"translation": pa.array([{"en": en, "es": es} for es, en in rows], kind)})


def two_columns(rows):
    rows = list(rows)
    return pa.table({"english": [en for _, en in rows], "non_english": [es for es, _ in rows]})


opus = list(pairs(("hay", "there is"), 40))
write("opus100/en-es/train-00000-of-00002.parquet", translation(opus[:25]), "snappy", 10)
write("opus100/en-es/train-00001-of-00002.parquet", translation(opus[25:]), "zstd", 10)
write("opus100/en-es/validation-00000-of-00001.parquet", translation(pairs(("veo", "I see"), 8)), "zstd", 3)
write("opus100/en-es/test-00000-of-00001.parquet", translation(pairs(("no veo", "I do not see"), 4)), "snappy", 4)
write("talks/en-es/train-00000-of-00001.parquet", two_columns(pairs(("hablo de", "I speak of"), 20)), "snappy", 7)
write("talks/en-es/dev-00000-of-00001.parquet", two_columns(pairs(("oigo", "I hear"), 5)), "snappy", 5)
write("tatoeba/en-es/train-00000-of-00001.parquet", two_columns(pairs(("tengo", "I have"), 20)), "zstd", 20)
nested = [{"text": {"es": es, "en": en}, "tags": [en, es]} for es, en in pairs(("mira", "look at"), 12)]
write("captions/data/part.parquet", pa.table({"caption": nested, "score": pa.array(range(12), pa.float32())}), "snappy", 5)
