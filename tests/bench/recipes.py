#!/usr/bin/env python3
"""Trains the demo with each loss and target for equal steps in three seeds, and prints the README's table.

    cargo build --release && python tests/bench/recipes.py --themo target/release/themo [--epochs 3] [--only TEXT]

Needs Python alone; run it from the repository's root. Every run is a real `themo train` and `themo test`.
"""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

LOSSES = ["mse", "cosine", "mse+cosine", "similarity", "mse+similarity", "clip", "mse+0.1*clip"]
TARGETS = ["hidden", "projected"]
SCHEDULE = ["--schedule", "linear", "--warmup-steps", "30"]
AVERAGE = ["--ema", "0.99"]
RECIPES = [(f"`{loss}`", target, ["--loss", loss, "--target", target]) for target in TARGETS for loss in LOSSES] + [
    ("`mse`, linear schedule with warm-up", "hidden", SCHEDULE),
    ("`mse+cosine`, linear schedule with warm-up", "hidden", ["--loss", "mse+cosine", *SCHEDULE]),
    ("`mse`, `--ema 0.99`", "hidden", AVERAGE),
    ("`mse`, `--ema 0.99`, linear schedule with warm-up", "hidden", [*AVERAGE, *SCHEDULE]),
    ("`mse+0.1*clip`, `--ema 0.99`", "hidden", ["--loss", "mse+0.1*clip", *AVERAGE]),
]


def run(themo, *args):
    done = subprocess.run([themo, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"themo {' '.join(args)}\n{done.stderr}")
    return done.stdout


def measure(themo, scratch, options, epochs, seed):
    out = run(themo, "train", "--config", "configs/demo.toml", "--log-dir", f"{scratch}/logs", "--cache-dir",
              f"{scratch}/cache", "--max-epochs", str(epochs), "--seed", str(seed), "-q", *options)
    folder = next(line.split()[-1] for line in out.splitlines() if line.startswith("run folder"))
    scores = json.loads(run(themo, "test", "--version-path", folder, "--json", "-q"))
    return scores["retrieval"]["text_to_image"]["recall@1"], scores["classification"]["accuracy@1"]


def cell(values):
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--themo", default="target/release/themo")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="only the recipes whose name holds this")
    args = parser.parse_args()
    themo = str(Path(args.themo).resolve())
    print("| loss | target | recall@1 | accuracy@1 |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, target, options in [recipe for recipe in RECIPES if args.only in recipe[0]]:
            figures = [measure(themo, scratch, options, args.epochs, seed) for seed in range(args.seeds)]
            recall, accuracy = zip(*figures)
            print(f"| {name} | {target} | {cell(recall)} | {cell(accuracy)} |", flush=True)


if __name__ == "__main__":
    main()
