#!/usr/bin/env python3
"""How fast themo reads a WIT shard, beside others that read the same file.

    python3 tests/bench/wit_shard.py                     # makes a shard of 2 GB (packed) and a venv in a temporary folder
    python3 tests/bench/wit_shard.py --size 200MB --rounds 3 --work /tmp/wit --python .venv/bin/python
    python3 tests/bench/wit_shard.py --size 2GB --generate wit_v1.train.all-00000-of-00001.tsv.gz

Readers alternate over the rounds, each a process of its own with one core, then with two (taskset); medians count. Peak
memory is the kernel's. What is compared:

    themo          `themo::data::wit::read_split` by the example `wit` beside this file, which is built first
    libdeflate     libdeflate-gunzip -c > /dev/null (Debian: libdeflate-tools); for a text of 4 GiB or more, of which it
                   would guess the size wrong and begin again, PyPI's `deflate`, which is told the size. One core, the
                   whole text in memory
    gzip           gzip -dc > /dev/null
    pyarrow        pyarrow.csv over the unpacking stream, batch by batch: three columns, line ends allowed in quotes; then
                   the captions of both languages by image, a later row replacing the earlier, as the original does it

themo and pyarrow must find the same number of pairs with the same number of bytes. The shard is one gzip member of rows
like those of WIT v1: 17 columns, languages by their share, quoted fields with tabs and line ends.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "wit_v1.train.all-00000-of-00001.tsv.gz"
COLUMNS = """language page_url image_url page_title section_title hierarchical_section_title
caption_reference_description caption_attribution_description caption_alt_text_description mime_type original_height
original_width is_main_image attribution_passes_lang_id page_changed_recently context_page_description
context_section_description""".split()
# Shares of the rows, in percent; the rest is spread over languages of other scripts.
LANGUAGES = {"en": 15, "de": 9, "fr": 8, "es": 6, "ru": 5, "it": 5, "pl": 4, "ja": 4, "pt": 4, "sv": 4, "uk": 3}
OTHERS = ["ar", "ca", "cs", "el", "eu", "fa", "fi", "he", "hu", "hy", "ko", "nl", "no", "ro", "sr", "tr", "vi", "zh"]
LETTERS = {"latin": "eeeeeaaaaaooiinnrrsstttlldcumpbgvfhyqjzñáéíó", "cyrillic": "оооеееаааииинтсрвлкмдпуяызьбгчйх"}
CYRILLIC = {"ru", "uk", "sr"}
ROWS_A_BLOCK = 20_000


def words(rng, letters, count):
    """Made-up words, the frequent ones short."""
    return ["".join(rng.choices(letters, k=max(1, int(rng.gauss(3 + rank ** 0.15, 1.8))))) for rank in range(count)]


def phrases(rng, vocabulary, weights, count, least, most):
    lengths = rng.choices(range(least, most), k=count)
    return [" ".join(rng.choices(vocabulary, cum_weights=weights, k=n)).capitalize() for n in lengths]


def pools(seed):
    """For each script, captions, titles and paragraphs to draw from. Deflate looks back over 32 KiB, some fifteen
    rows: that a paragraph comes again after thousands of rows makes no difference to it."""
    made = {}
    for script, letters in [("latin", "eeeeeaaaaaooiinnrrsstttlldcumpbgvfhyqjzñáéíó"), ("cyrillic", "оооеееаааиинтсрвлкмдпуяызьбгчйх")]:
        rng = random.Random(f"{seed} {script}")
        vocabulary = words(rng, letters, 30_000)
        total, weights = 0.0, []
        for rank in range(len(vocabulary)):
            total += 1 / (rank + 2) ** 1.15
            weights.append(total)
        make = lambda count, least, most: phrases(rng, vocabulary, weights, count, least, most)
        made[script] = {"title": make(20_000, 1, 5), "caption": make(40_000, 2, 22), "text": make(20_000, 20, 150)}
    return made


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def row(rng, number, pool):
    """One row. Of sixteen, two are one image, first with an English and then with a Spanish caption."""
    paired = number % 16 < 2
    language = rng.choices(list(LANGUAGES) + [None], [*LANGUAGES.values(), 100 - sum(LANGUAGES.values())])[0]
    language = ["en", "es"][number % 16] if paired else language or rng.choice(OTHERS)
    texts = pool["cyrillic" if language in CYRILLIC else "latin"]
    image = number - 1 if number % 16 == 1 else number
    title, section = rng.choice(texts["title"]), rng.choice(texts["title"])
    caption = rng.choice(texts["caption"]) if paired or rng.random() < 0.4 else ""
    if number % 50 == 0:
        caption = quoted(f'{caption}\n"{title}"\tand more')
    page, section_text = rng.choice(texts["text"]), rng.choice(texts["text"]) if rng.random() < 0.8 else ""
    if number % 7 == 0:
        page = quoted(page[: len(page) // 2] + '\n"' + title + '"\n' + page[len(page) // 2 :])
    slug = title.replace(" ", "_")
    digest = f"{image * 2654435761 % 2**32:08x}"
    url = f"https://upload.wikimedia.org/wikipedia/commons/{digest[0]}/{digest[:2]}/Image_{digest}_{image}.jpg"
    attribution = f"English: {rng.choice(texts['caption'])}" if rng.random() < 0.8 else ""
    return "\t".join([
        language, f"https://{language}.wikipedia.org/wiki/{slug}", url, title, section, f"{title} / {section}", caption,
        attribution, "", "image/jpeg", str(rng.randrange(200, 4000)), str(rng.randrange(200, 4000)),
        "true" if number % 3 else "false", "true", "true", page, section_text,
    ])


def block(args):
    """Rows `start ..`, as raw deflate that ends on a byte, and what the whole file's trailer needs of them."""
    seed, index = args
    rng = random.Random(f"{seed} block {index}")
    pool = POOLS or pools(seed)
    start = index * ROWS_A_BLOCK
    rows = [row(rng, number, pool) for number in range(start, start + ROWS_A_BLOCK)]
    head = ["\t".join(COLUMNS)] if index == 0 else []
    text = "\n".join(head + rows + [""]).encode()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return text, packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


POOLS = None


def generate(path, size, seed=0):
    """Writes a shard of about `size` packed bytes; returns `(rows, bytes of text)`."""
    global POOLS
    POOLS = pools(seed)  # Before the fork: the workers share it.
    sum_, length, packed_length, rows = 0, 0, 0, 0
    with open(path, "wb") as out, multiprocessing.get_context("fork").Pool() as workers:
        out.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
        for text, packed in workers.imap(block, ((seed, index) for index in range(1 << 20))):
            out.write(packed)
            sum_, length, rows = zlib.crc32(text, sum_), length + len(text), rows + ROWS_A_BLOCK
            packed_length += len(packed)
            if packed_length >= size:
                workers.terminate()
                break
        out.write(b"\x03\0" + struct.pack("<II", sum_, length & 0xFFFFFFFF))
    return rows, length


def pyarrow_pairs(path):
    """The pairs of the shard at `path`, read with pyarrow.csv."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv

    columns = ["language", "image_url", "caption_reference_description"]
    texts = pyarrow.csv.ConvertOptions(include_columns=columns, column_types={name: pyarrow.string() for name in columns})
    parse = pyarrow.csv.ParseOptions(delimiter="\t", newlines_in_values=True, invalid_row_handler=lambda row: "skip")
    found = {}
    with pyarrow.input_stream(path, compression="gzip") as stream:
        for batch in pyarrow.csv.open_csv(stream, parse_options=parse, convert_options=texts):
            wanted = pyarrow.compute.is_in(batch["language"], value_set=pyarrow.array(["es", "en"]))
            batch = batch.filter(wanted)
            for language, url, caption in zip(*(batch[name].to_pylist() for name in columns)):
                if caption.strip():
                    found.setdefault(url, {})[language] = caption
    pairs = [(both["es"], both["en"]) for both in found.values() if len(both) == 2]
    print(json.dumps([len(pairs), sum(len(text.encode()) for pair in pairs for text in pair)]))


def libdeflate(path, length):
    import deflate

    assert len(deflate.gzip_decompress(Path(path).read_bytes(), length)) == length


def run(command, cores):
    """Wall seconds, CPU seconds, peak memory in bytes, and what `command` printed, on this many cores."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    start = time.perf_counter()
    out = subprocess.DEVNULL if command[0] in ("gzip", "libdeflate-gunzip") else subprocess.PIPE
    process = subprocess.Popen(list(map(str, command)), stdout=out, preexec_fn=lambda: os.sched_setaffinity(0, allowed))
    printed = process.stdout.read() if process.stdout else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{command[0]} failed")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, printed


def build():
    subprocess.run(["cargo", "build", "--release", "--example", "wit"], cwd=ROOT, check=True)
    metadata = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT)
    return Path(json.loads(metadata)["target_directory"]) / "release/examples/wit"


def make_venv(work):
    python = work / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pyarrow", "deflate"], check=True)
    return python


def measure(args, work):
    folder = work / f"shard-{args.size}"
    shard = folder / NAME
    if not (folder / "made.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "made.json").write_text(json.dumps(generate(shard, args.size)))
    rows, length = json.loads((folder / "made.json").read_text())
    python, themo = args.python or make_venv(work), build()
    own = [python, Path(__file__).resolve()]
    tool = length < 1 << 32 and shutil.which("libdeflate-gunzip")
    commands = {
        "themo": [themo, folder, "train"],
        "libdeflate": ["libdeflate-gunzip", "-c", shard] if tool else [*own, "--libdeflate", shard, str(length)],
        "gzip": ["gzip", "-dc", shard],
        "pyarrow": [*own, "--pyarrow", shard],
    }
    shard.read_bytes()  # into the page cache
    results = {(name, cores): [] for cores in (1, 2) for name in commands if cores == 1 or name in ("themo", "pyarrow")}
    for _ in range(args.rounds):
        for name, cores in results:
            results[name, cores].append(run(commands[name], cores))
    print(table(results, shard.stat().st_size, length, rows))


def table(results, packed, length, rows):
    read = json.loads(results["themo", 1][0][3])
    pairs = [read["report"]["pairs"], read["caption_bytes"]]
    assert pairs == json.loads(results["pyarrow", 1][0][3]), "themo and pyarrow find other pairs"
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    lines = [f"{cpu[1] if cpu else 'unknown CPU'}; {packed / 1e6:.0f} MB packed, {length / 1e6:.0f} MB of text, {rows} rows, "
             f"{pairs[0]} pairs", "", "| reader | cores | s | CPU s | MB/s of text | of libdeflate's speed | peak MB |",
             "|---|---|---|---|---|---|---|"]
    medians = {key: [statistics.median(run[k] for run in runs) for k in range(3)] for key, runs in results.items()}
    base = medians["libdeflate", 1][0]
    for (name, cores), (seconds, used, peak) in medians.items():
        lines.append(f"| {name} | {cores} | {seconds:.2f} | {used:.2f} | {length / seconds / 1e6:.0f} "
                     f"| {base / seconds:.0%} | {peak / 1e6:.0f} |")
    beyond = max(medians["themo", cores][2] for cores in (1, 2)) - read["pair_bytes"]
    bars = [("one core", base / medians["themo", 1][0], 0.5), ("two cores", base / medians["themo", 2][0], 0.8)]
    bars += [(f"pyarrow's time over themo's, {n} cores", medians["pyarrow", n][0] / medians["themo", n][0], 2) for n in (1, 2)]
    lines += ["", *(f"{what}: {value:.2f} (bar: {bar})" for what, value, bar in bars),
              f"memory beyond the pairs: {beyond / 1e6:.0f} MB (bar: 500)"]
    return "\n".join(lines)


def size(text):
    match = re.fullmatch(r"([0-9.]+)\s*(|k|M|G)B?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is no size such as 200MB")
    return int(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default=size("2GB"), help="of the packed shard")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keeps shard and venv from run to run")
    parser.add_argument("--python", type=Path, help="one with pyarrow and deflate")
    parser.add_argument("--generate", type=Path, metavar="FILE", help="only write a shard")
    parser.add_argument("--pyarrow", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--libdeflate", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pyarrow:
        return pyarrow_pairs(args.pyarrow)
    if args.libdeflate:
        return libdeflate(args.libdeflate[0], int(args.libdeflate[1]))
    if args.generate:
        rows, length = generate(args.generate, args.size)
        return print(f"{args.generate}: {rows} rows, {length} bytes of text")
    if args.work:
        return measure(args, args.work)
    with tempfile.TemporaryDirectory() as work:
        measure(args, Path(work))


if __name__ == "__main__":
    main()
