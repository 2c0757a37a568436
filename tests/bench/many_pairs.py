#!/usr/bin/env python3
"""Training with very many pairs: how long until the first step, how much anonymous memory, what a step takes.

    tests/bench/many_pairs.py THEMO [--pairs 10000000] [--scratch DIR] [--steps 300]

Makes two sets of synthetic pairs (10,000 and --pairs) from the words of the demo, trains the demo's toy models on each
(--log-every 1 --log-speed), and prints for a cold and a warm cache: seconds until the first step, the highest RssAnon of
/proc/PID/status (pages of memory-mapped files do not count), and the median and 95th percentile of a step's seconds.
Then it stops a run on the large set with SIGKILL, resumes it, and compares its metrics with an undisturbed run's.
Linux only; needs nothing but Python.
"""

import argparse
import csv
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ["grande", "pequeño", "mediano", "enorme"], ["big", "small", "medium", "huge"]
COLOURS = ["rojo", "azul", "verde", "amarillo"], ["red", "blue", "green", "yellow"]
SHAPES = ["círculo", "cuadrado", "triángulo", "corazón"], ["circle", "square", "triangle", "heart"]


def generate(path: pathlib.Path, count: int) -> None:
    """Pairs that are all different: shapes in a numbered place."""
    if path.exists():
        return
    draw = random.Random(7)
    with open(path.with_suffix(".part"), "w", encoding="utf-8") as file:
        for i in range(count):
            a, b, c, d = (draw.randrange(4) for _ in range(4))
            place = " ".join(str(i))
            file.write(
                f"un {SHAPES[0][a]} {SIZES[0][b]} {COLOURS[0][c]} y un {SHAPES[0][d]} en {place}\t"
                f"a {SIZES[1][b]} {COLOURS[1][c]} {SHAPES[1][a]} and a {SHAPES[1][d]} in {place}\n"
            )
    path.with_suffix(".part").rename(path)


class Run:
    """One `themo train`, watched while it works."""

    def __init__(self, themo: str, scratch: pathlib.Path, name: str, arguments: list):
        self.log = scratch / f"{name}.log"
        self.folder = scratch / "logs" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        command = [themo, "train", *arguments, "--name", name, "--log-dir", str(scratch / "logs")]
        self.start(command)

    def start(self, command: list) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=open(self.log, "wb"), stdout=subprocess.DEVNULL)
        self.anonymous, self.first_step = 0, None
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def watch(self) -> None:
        while self.process.poll() is None:
            try:
                for line in open(f"/proc/{self.process.pid}/status"):
                    if line.startswith("RssAnon:"):
                        self.anonymous = max(self.anonymous, int(line.split()[1]))
            except OSError:
                pass
            if self.first_step is None and self.rows():
                self.first_step = time.monotonic() - self.began
            time.sleep(0.02)

    def rows(self) -> list:
        for path in self.folder.glob("version_*/metrics.csv"):
            with open(path, newline="") as file:
                return list(csv.DictReader(file))
        return []

    def wait(self) -> "Run":
        self.process.wait()
        self.watcher.join()
        if self.process.returncode:
            sys.exit(f"{self.log}: exit code {self.process.returncode}\n{self.log.read_text()}")
        return self

    def step_seconds(self, batch_tokens: float = 1.0) -> list:
        speeds = [row["tokens_per_sec"] for row in self.rows() if row["tokens_per_sec"]]
        return [batch_tokens / float(speed) for speed in speeds][10:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("themo")
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("/tmp/themo-many-pairs"))
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    themo, scratch = os.path.abspath(args.themo), args.scratch
    scratch.mkdir(parents=True, exist_ok=True)
    models = ["--student", "data/demo/models/toy-beto", "--teacher", "data/demo/models/toy-clip"]
    speeds = {}
    for count in (10_000, args.pairs):
        pairs = scratch / f"pairs_{count}.tsv"
        generate(pairs, count)
        cache = scratch / f"cache_{count}"
        shutil.rmtree(cache, ignore_errors=True)
        common = [*models, "--pairs", str(pairs), "--cache-dir", str(cache), "--max-steps", str(args.steps)]
        common += ["--batch-size", "64", "--log-every", "1", "--max-epochs", "100"]
        for state in ("cold", "warm"):
            run = Run(themo, scratch, f"{state}_{count}", [*common, "--log-speed"]).wait()
            seconds = run.step_seconds()
            speeds[count, state] = statistics.median(seconds)
            print(
                f"{count} pairs, {state} cache: first step after {run.first_step:.1f} s, RssAnon at most "
                f"{run.anonymous / 1024:.0f} MiB, relative time of a token: median {statistics.median(seconds):.3e} s, "
                f"95th percentile {sorted(seconds)[len(seconds) * 95 // 100]:.3e} s"
            )
    ratio = speeds[args.pairs, "warm"] / speeds[10_000, "warm"]
    print(f"a step with {args.pairs} pairs takes {ratio:.3f} times one with 10,000 (warm)")

    whole = Run(themo, scratch, "whole", common).wait()
    killed = Run(themo, scratch, "killed", [*common, "--checkpoint-every", "50"])
    while len(killed.rows()) < args.steps // 2:
        time.sleep(0.02)
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    killed.watcher.join()
    killed.start([themo, "train", "--resume", str(next(killed.folder.glob("version_*")))])
    resumed = killed.wait().rows()
    print("resumed run equals the undisturbed one:", resumed == whole.rows(), f"({len(resumed)} rows)")


if __name__ == "__main__":
    main()
