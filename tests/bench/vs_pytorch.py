#!/usr/bin/env python3
"""themo against PyTorch on this machine: training, teacher features, image features.

    python3 tests/bench/vs_pytorch.py                     # everything; makes its own venv from PyPI
    python3 tests/bench/vs_pytorch.py --only train32      # one of train32, train256, teacher, images, memory77
    python3 tests/bench/vs_pytorch.py --python .venv/bin/python --captions captions.tsv --tokenizer beto/

All sides get the same captions, the same tokenizer, the same random weights (BERT-base with BETO's 31,002 words, CLIP
ViT-L/14) and the same batch size; rounds alternate between them, and medians over the rounds are compared. themo is
timed as it is used: `themo train` by the tokens/s of each step in metrics.csv, teacher features and images by the rate
that `themo embed` logs. PyTorch comes in three variants:

    original    the Python original's recipe: padded to 77 tokens, f32, eager attention
    f32         tuned: batches of captions of like length, SDPA attention, fused AdamW
    bf16        the same under autocast to bf16
"""

import argparse
import csv
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ITEMS = ["train32", "train256", "teacher", "images", "memory77"]
TORCH = ["original", "f32", "bf16"]
THEMO = ["themo-f32", "themo-bf16"]
VOCABULARY, MAX_TOKENS = 31_002, 77


def main():
    args = parse()
    if args.worker:
        return worker(args)
    python = args.python or make_venv(args.work)
    args.work.mkdir(parents=True, exist_ok=True)
    common = ["--work", args.work, "--captions", args.captions, "--tokenizer", args.tokenizer,
              "--clip-tokenizer", args.clip_tokenizer, "--images", args.images, "--threads", args.threads]
    if not (args.work / "ready").exists():
        subprocess.run([python, __file__, "--worker", "prepare", *map(str, common)], check=True)
        (args.work / "ready").touch()
    results_path = args.work / "results.json"
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    for item in args.only or ITEMS:
        variants = args.variants or ([v for v in TORCH + THEMO if (item, v) not in SKIPPED])
        for name, result in measure(item, variants, args, python, [str(c) for c in common]).items():
            results.setdefault(item, {})[name] = result
        results_path.write_text(json.dumps(results, indent=1))
    print(table(results))


# Eager attention at 77 tokens keeps 17 GiB at batch 256: its memory is not worth a swapping machine.
SKIPPED = {("memory77", v) for v in TORCH}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo = ROOT / "data/demo"
    parser.add_argument("--python", help="an interpreter with torch and transformers (default: make a venv)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "themo-bench", help="models, results")
    parser.add_argument("--themo", type=Path, default=ROOT / "target/release/themo")
    parser.add_argument("--captions", type=Path, help="lines of `Spanish TAB English` (default: made from the demo)")
    parser.add_argument("--tokenizer", type=Path, default=demo / "models/toy-beto")
    parser.add_argument("--clip-tokenizer", type=Path, default=demo / "models/toy-clip")
    parser.add_argument("--images", type=Path, default=demo / "mscoco/val2014", help="a folder of images")
    parser.add_argument("--only", action="append", choices=ITEMS)
    parser.add_argument("--variants", action="append", choices=TORCH + THEMO)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps or batches a round (default: by item)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--item", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.captions = args.captions or demo_captions(args.work)
    args.themo = args.themo.resolve()  # a bare name would be looked for in PATH
    return args


def demo_captions(work):
    """The demo's Spanish and English captions as a TSV."""
    work.mkdir(parents=True, exist_ok=True)
    path, lines = work / "demo.tsv", []
    read = lambda code: (ROOT / f"data/demo/xtd10/test_1kcaptions_{code}.txt").read_text().splitlines()
    lines = [f"{es}\t{en}" for es, en in zip(read("es"), read("en")) if es and en]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_venv(work):
    venv = work / "venv"
    if not (venv / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        packages = ["torch", "transformers", "safetensors", "tokenizers", "pillow", "numpy"]
        subprocess.run([venv / "bin/pip", "install", "-q", *packages], check=True)
    return str(venv / "bin/python")


def plan(item, args):
    """(batch size, batches a round)."""
    batch = {"train32": 32, "train256": 256, "memory77": 256, "teacher": 64, "images": 8}[item]
    steps = {"train32": 10, "train256": 2, "memory77": 1, "teacher": 8, "images": 6}[item]
    return batch, args.steps or steps


# ------------------------------------------------------------------------------------------------ the driver


def measure(item, variants, args, python, common):
    batch, steps = plan(item, args)
    rounds = {v: [] for v in variants}
    for _ in range(args.rounds):
        for v in variants:
            if v in TORCH:
                command = [python, "-W", "ignore", __file__, "--worker", v, "--item", item, "--steps", str(steps), *common]
                rounds[v].append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            else:
                rounds[v].append(themo(item, v.removeprefix("themo-"), batch, steps, args))
            print(item, v, rounds[v][-1], file=sys.stderr)
    middle = lambda rows, key: statistics.median(row[key] for row in rows)
    return {v: {key: middle(rows, key) for key in rows[0]} for v, rows in rounds.items()}


def themo(item, precision, batch, steps, args):
    """One run of the program: rates, and the peak memory of the process."""
    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    out = Path(tempfile.mkdtemp(dir=args.work))
    command = [args.themo]
    if item in ("train32", "train256", "memory77"):
        captions = batch_captions(args, item, batch, steps + 1)  # the first step warms up
        command += ["train", "--pairs", captions, "--student", args.work / "bert", "--teacher", args.work / "narrow-clip",
                    "--batch-size", batch, "--max-steps", steps + 1, "--no-shuffle", "--log-every", 1, "--log-speed",
                    "--cache-dir", args.work / "cache", "--log-dir", out, "--learn-rate", "1e-5"]
    elif item == "teacher":
        texts = out / "texts.txt"
        texts.write_text("".join(line.split("\t")[1] for line in read_lines(args.captions, batch * steps)))
        command += ["embed", "--model", args.work / "clip", "--texts", texts, "--output", out / "out.safetensors"]
    else:
        listed = out / "images.txt"
        listed.write_text("".join(f"{path}\n" for path in list_images(args.images, batch * steps)))
        command += ["embed", "--model", args.work / "clip", "--images", listed, "--output", out / "out.safetensors",
                    "--batch-size", batch]
    command += ["--precision", precision]
    process = subprocess.Popen([str(part) for part in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"themo failed: {log}")
    if "--log-speed" in command:
        metrics = next(out.glob("**/metrics.csv"))
        with open(metrics) as file:
            rows = list(csv.DictReader(file))
        speeds = {int(row["step"]): float(row["tokens_per_sec"]) for row in rows[: steps + 1]}
        lengths = batch_lengths(args, captions, batch)
        secs = sum(lengths[step - 1] / speeds[step] for step in speeds if step > 1)
        result = rates(item, batch * steps, sum(lengths[1 : steps + 1]), secs)
    else:
        found = re.search(r"(\d+) (?:texts|images) in ([0-9.]+) s", log)
        tokens = 257 * batch * steps if item == "images" else sum(count_tokens(args, texts, args.clip_tokenizer))
        result = rates(item, int(found[1]), tokens, float(found[2]))
    shutil.rmtree(out)
    return result | {"peak_gib": usage.ru_maxrss / 2**20}


def rates(item, samples, tokens, secs):
    """`tokens` are the real ones, without padding: GF/s then compares useful work."""
    layers, hidden, passes = {"teacher": (12, 768, 1), "images": (24, 1024, 1)}.get(item, (12, 768, 3))
    flop = tokens * passes * layers * 24 * hidden**2  # products with weights
    return {"samples_per_s": samples / secs, "tokens_per_s": tokens / secs, "gflops": flop / secs / 1e9}


def read_lines(path, count):
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.count("\t") == 1]
    return (lines * (count // len(lines) + 1))[:count]


def batch_captions(args, item, batch, steps):
    """A file with as many captions as the steps use; for memory77, captions joined until all are cut at 77 tokens."""
    path, lines = args.work / f"{item}-{batch * steps}.tsv", read_lines(args.captions, batch * steps)
    if item == "memory77":
        lines = [" ".join([line.split("\t")[0]] * 20) + "\t" + line.split("\t")[1] for line in lines]
    path.write_text("".join(lines))
    return path


def batch_lengths(args, captions, batch):
    """Student tokens of each batch."""
    lengths = count_tokens(args, captions, args.tokenizer)
    return [sum(lengths[i : i + batch]) for i in range(0, len(lengths), batch)]


def count_tokens(args, texts, tokenizer):
    """Tokens of each line's first column, as the venv's tokenizer counts them."""
    python = args.python or make_venv(args.work)
    command = [python, __file__, "--worker", "lengths", "--captions", texts, "--tokenizer", tokenizer]
    return json.loads(subprocess.run([str(c) for c in command], capture_output=True, check=True).stdout)


def list_images(folder, count):
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return (paths * (count // len(paths) + 1))[:count]


def table(results):
    titles = {"train32": "training, batch 32", "train256": "training, batch 256", "teacher": "teacher features, batch 64",
              "images": "ViT-L/14 image features", "memory77": "training, batch 256 of 77 tokens"}
    lines = ["| work | variant | samples/s | tokens/s | GF/s | peak GiB | against original | against the tuned one |",
             "|---|---|---|---|---|---|---|---|"]
    for item in ITEMS:
        found = results.get(item, {})
        for v in [v for v in TORCH + THEMO if v in found]:
            row, rate = found[v], found[v]["samples_per_s"]
            ratio = lambda other: f"{rate / found[other]['samples_per_s']:.2f}" if other in found else "-"
            tuned = "bf16" if v.endswith("bf16") else "f32"
            name = v if v.startswith("themo") else f"PyTorch {v}"
            lines.append(f"| {titles[item]} | {name} | {rate:.2f} | {row['tokens_per_s']:.0f} | {row['gflops']:.0f} | "
                         f"{row['peak_gib']:.1f} | {ratio('original')} | {ratio(tuned)} |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ PyTorch


def worker(args):
    if args.worker == "lengths":
        return print(json.dumps([len(ids) for ids in encode(args.tokenizer, spanish(args.captions))]))
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.worker == "prepare":
        return prepare(args)
    batch, steps = plan(args.item, args)
    make = {"teacher": teacher_rounds, "images": image_rounds}.get(args.item, training_rounds)
    one_round = make(args, args.worker, batch, steps)
    began = time.perf_counter()
    samples, tokens = one_round()
    result = rates(args.item, samples, tokens, time.perf_counter() - began)
    result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(result))


def prepare(args):
    """Models with random weights in the layouts of the hub, and their tokenizers."""
    from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

    def save(model, name, tokenizer):
        model.save_pretrained(args.work / name)
        for path in tokenizer.iterdir():
            if path.name.startswith(("tokenizer", "vocab", "merges", "special", "preprocessor")):
                shutil.copy(path, args.work / name)

    save(BertModel(BertConfig(vocab_size=VOCABULARY), add_pooling_layer=False), "bert", args.tokenizer)
    dim = lambda tower, dim: tower | dict(projection_dim=dim)
    clip = lambda text, vision, d: CLIPModel(
        CLIPConfig(text_config=dim(text, d), vision_config=dim(vision, d), projection_dim=d))
    end = read_end_of_text(args.clip_tokenizer)
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, eos_token_id=end)
    vision = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, patch_size=14)
    save(clip(text, vision, 768), "clip", args.clip_tokenizer)
    # A teacher of the real one's width that costs nothing, for timing the student alone.
    vision = dict(hidden_size=32, intermediate_size=32, num_attention_heads=1, num_hidden_layers=1)
    save(clip(text | dict(num_hidden_layers=1, intermediate_size=64), vision, 32), "narrow-clip", args.clip_tokenizer)
    settings = dict(crop_size=224, size=224, do_center_crop=True, do_normalize=True, do_resize=True, resample=3,
                    image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
    (args.work / "clip/preprocessor_config.json").write_text(json.dumps(settings))


def read_end_of_text(folder):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")


def spanish(path):
    return [line.split("\t")[0] for line in path.read_text().splitlines()]


def encode(folder, texts):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def batches(sequences, variant, batch, pad):
    """(indices, ids, mask) of each batch: in order and padded to 77, or sorted by length and padded to the longest."""
    import torch

    order = list(range(len(sequences)))
    if variant != "original":
        order.sort(key=lambda i: len(sequences[i]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = MAX_TOKENS if variant == "original" else max(len(sequences[i]) for i in chosen)
        ids, mask = torch.full((len(chosen), width), pad), torch.zeros((len(chosen), width), dtype=torch.long)
        for row, i in enumerate(chosen):
            ids[row, : len(sequences[i])] = torch.tensor(sequences[i])
            mask[row, : len(sequences[i])] = 1
        yield chosen, ids, mask


def attention_of(variant):
    return "eager" if variant == "original" else "sdpa"


def autocast(variant):
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=variant == "bf16")


def training_rounds(args, variant, batch, steps):
    import torch
    from transformers import BertModel

    bert = BertModel.from_pretrained(args.work / "bert", add_pooling_layer=False, attn_implementation=attention_of(variant))
    projection = torch.nn.Linear(bert.config.hidden_size, 768, bias=False)
    bert.train()
    parameters = [*bert.parameters(), *projection.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=None if variant == "original" else True)
    lines = read_lines(batch_captions(args, args.item, batch, steps + 1), batch * (steps + 1))
    sequences = encode(args.tokenizer, [line.split("\t")[0] for line in lines])[batch:]
    targets = torch.randn(len(sequences), 768)

    def step(chosen, ids, mask):
        optimizer.zero_grad()
        with autocast(variant):
            states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(states.dtype)
            output = projection((states * weights).sum(1) / weights.sum(1))
        loss = torch.nn.functional.mse_loss(output.float(), targets[chosen])
        loss.backward()
        optimizer.step()
        return loss.item()

    def one_round():
        for part in batches(sequences, variant, batch, 1):
            step(*part)
        return len(sequences), sum(map(len, sequences))

    step(*next(batches(sequences, variant, min(batch, 32), 1)))  # threads, moments
    return one_round


def teacher_rounds(args, variant, batch, steps):
    import torch
    from transformers import CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection.from_pretrained(args.work / "clip", attn_implementation=attention_of(variant))
    model.eval()
    end = model.config.eos_token_id
    lines = read_lines(args.captions, batch * steps)
    sequences = encode(args.clip_tokenizer, [line.split("\t")[1].strip() for line in lines])

    @torch.no_grad()
    def one_round(only=None):
        # One context for all batches, so that the weights are cast once if autocast can keep them.
        with autocast(variant):
            for _, ids, mask in list(batches(sequences, variant, batch, end))[:only]:
                model(input_ids=ids, attention_mask=mask).text_embeds.float()
        return len(sequences), sum(map(len, sequences))

    one_round(1)
    return one_round


def image_rounds(args, variant, batch, steps):
    import numpy
    import torch
    from PIL import Image
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(args.work / "clip", attn_implementation=attention_of(variant))
    model.eval()
    mean, std = (numpy.array(v, dtype=numpy.float32) for v in
                 ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]))

    def pixels(path):
        image = Image.open(path).convert("RGB")
        scale = 224 / min(image.size)
        width, height = (max(224, int(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - 224) // 2, (height - 224) // 2
        values = numpy.asarray(image.crop((left, top, left + 224, top + 224)), dtype=numpy.float32) / 255
        return torch.from_numpy((values - mean) / std).permute(2, 0, 1)

    paths = list_images(args.images, batch * steps)

    @torch.no_grad()
    def one_round(count=len(paths)):
        with autocast(variant):
            for start in range(0, count, batch):
                model(pixel_values=torch.stack([pixels(p) for p in paths[start : start + batch]])).image_embeds.float()
        return count, count * 257

    one_round(1)
    return one_round


if __name__ == "__main__":
    main()
