#!/usr/bin/env python3
"""`themo train` with its default models, as a stranger's first run meets them: BETO with a pytorch_model.bin in the format of
torch before 1.6, and CLIP L/14 in safetensors, fetched by name from a hub on the loopback interface. The first step's loss
must equal PyTorch's from the same files. Run by hand: needs torch, transformers, 6 GB of disk and of memory, two minutes.

    cargo build --release
    python tests/golden/default_models.py --pairs pairs.tsv --beto FOLDER --clip FOLDER [--themo BINARY]

--pairs  Spanish TAB English sentences, of which the first 32 are used
--beto   config.json, vocab.txt and tokenizer_config.json of BETO;  --clip  tokenizer files of CLIP

Weights are random, and the BETO's names are those of 2019 (prefix `bert.`, LayerNorm's gamma and beta, heads of the
pre-training beside them). Last run with torch 2.15.0, transformers 5.24.0: see the output's last line.
"""
import argparse
import csv
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForPreTraining, CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BETO, CLIP = "dccuchile/bert-base-spanish-wwm-uncased", "openai/clip-vit-large-patch14"
LIMIT = 1e-4


@torch.no_grad()
def disturb(model):
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.normal_(1, 0.1)
        if getattr(module, "bias", None) is not None:
            module.bias.normal_(0, 0.05)
    return model.eval()


def make_beto(args, folder):
    folder.mkdir(parents=True)
    for name in ["config.json", "vocab.txt", "tokenizer_config.json"]:
        shutil.copy(args.beto / name, folder)
    model = disturb(BertForPreTraining(BertConfig(**json.loads((folder / "config.json").read_text()))))
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    state = {old(name): value for name, value in model.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert not (folder / "pytorch_model.bin").read_bytes()[:2] == b"PK"


def make_clip(args, folder):
    text = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                projection_dim=768, bos_token_id=0, eos_token_id=2, pad_token_id=1)
    vision = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                  patch_size=14, projection_dim=768)
    model = disturb(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)))
    model.save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"]:
        shutil.copy(args.clip / name, folder)


class Hub(http.server.SimpleHTTPRequestHandler):
    """The two requests that a hub answers: a listing, and a file with its ETag."""

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        path = self.path.lstrip("/")
        for name in [BETO, CLIP]:
            folder = self.server.root / name
            if path.startswith(f"api/models/{name}/revision/"):
                siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                return self.send(json.dumps({"sha": COMMIT, "siblings": siblings}).encode(), "listing", with_body)
            if path.startswith(f"{name}/resolve/{COMMIT}/"):
                file = folder / path.rsplit("/", 1)[1]
                if not file.exists():
                    return self.send_error(404)
                content = file.read_bytes()
                return self.send(content, hashlib.sha256(content).hexdigest(), with_body)
        self.send_error(404)

    def send(self, content, etag, with_body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def themo(args, port, *options):
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(args.scratch / "hf")}
    command = [args.themo, "train", "--dropout", 0, "--no-shuffle", "--pairs", args.scratch / "pairs.tsv", "--log-every", 1,
               "--log-dir", args.scratch / "logs", "--cache-dir", args.scratch / "cache", *options]
    subprocess.run([str(part) for part in command], check=True, env=environment, stdout=subprocess.DEVNULL)


@torch.no_grad()
def pytorch(args, projection):
    """The mean squared error of the untrained student, from the files alone."""
    spanish, english = zip(*args.lines)
    folder = args.scratch / "hub" / BETO
    # transformers reads config.json's kind from the folder's name no more: it is given.
    bert = AutoModel.from_pretrained(folder, config=BertConfig.from_pretrained(folder), add_pooling_layer=False)
    tokenizer = AutoTokenizer.from_pretrained(args.beto)
    ids = tokenizer(list(spanish), truncation=True, max_length=77, padding=True, return_tensors="pt")
    states = bert.eval()(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state
    mask = ids["attention_mask"].unsqueeze(2)
    output = (states * mask).sum(1) / mask.sum(1) @ projection.T
    clip = CLIPModel.from_pretrained(args.scratch / "hub" / CLIP).eval()
    ids = CLIPTokenizer.from_pretrained(args.clip)(
        list(english), truncation=True, max_length=77, padding="max_length", return_tensors="pt")
    target = clip.text_model(input_ids=ids["input_ids"]).pooler_output
    return nn.functional.mse_loss(output, target).item()


def main():
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser()
    for name in ["pairs", "beto", "clip"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--themo", type=Path, default=ROOT / "target/release/themo")
    args = parser.parse_args()
    args.themo = args.themo.resolve()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        args.scratch = Path(scratch)
        args.lines = [line.split("\t")[:2] for line in args.pairs.read_text(encoding="utf-8").splitlines()[:32]]
        (args.scratch / "pairs.tsv").write_text("".join(f"{es}\t{en}\n" for es, en in args.lines), encoding="utf-8")
        make_beto(args, args.scratch / "hub" / BETO)
        make_clip(args, args.scratch / "hub" / CLIP)
        hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        hub.root = args.scratch / "hub"
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        themo(args, hub.server_port, "--max-steps", 2, "--name", "trained")
        themo(args, hub.server_port, "--max-epochs", 0, "--name", "new")
        with open(args.scratch / "logs/trained/version_0/metrics.csv", newline="") as file:
            found = float(next(csv.DictReader(file))["train/loss"])
        head = load_file(args.scratch / "logs/new/version_0/checkpoints/last/head.safetensors")
        wanted = pytorch(args, head["projection.weight"])
    difference = abs(found / wanted - 1)
    print(f"first step's loss: themo {found:.7f}, PyTorch {wanted:.7f}, relative difference {difference:.1e}")
    if difference > LIMIT:
        sys.exit(f"more than {LIMIT} apart")


if __name__ == "__main__":
    main()
