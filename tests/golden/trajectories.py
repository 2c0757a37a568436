#!/usr/bin/env python3
"""Makes the training trajectories that tests/trajectories.rs follows, from PyTorch and transformers.

    python tests/golden/trajectories.py     # from anywhere; needs torch, transformers, safetensors; a minute on a CPU

Last run with Python 3.11.7, torch 2.15.0, transformers 5.24.0, safetensors 0.8.0.

Every run trains the student of models.py (tiny-bert without pooler, masked mean, Linear(32 -> 20)) from the weights in
student.safetensors for 50 steps in float64, without dropout; what is stored is rounded to float32.  Step s sees the
sequences i with (i + s) % 3 != 0, in order.  The learning rate is 1e-3 unless a schedule changes it.  RUNS names the
runs; their options are written as in a configuration file of themo, which tests/trajectories.rs reads from the
metadata of trajectories.safetensors.  Stored for each run: `NAME.losses` [50], before the update; for `ema`, the moving
average of the weights and the weights themselves after the last step; `text_projection` [12, 20]; `head.*`, the bias
and norm weights of the run `head`.
"""
import json
import sys
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from transformers import (BertModel, get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup,
                          get_linear_schedule_with_warmup)

OUT = Path(__file__).resolve().parent
sys.path.insert(0, str(OUT))
import models  # noqa: E402

STEPS, RATE, LAYERS = 50, 1e-3, 3

RUNS = {
    "adamw": {},
    "adam": {"optimizer": "adam"},
    "adam-decay": {"optimizer": "adam", "weight-decay": 0.1, "betas": [0.8, 0.99]},
    "no-decay": {"weight-decay": 0.5, "no-decay-bias-norm": True},
    "constant": {"schedule": "constant", "warmup-steps": 10},
    "linear": {"schedule": "linear", "warmup-steps": 10},
    "cosine": {"schedule": "cosine", "warmup-steps": 10},
    "clip-norm": {"grad-clip": 0.3},
    "layer-decay": {"layer-decay": 0.6},
    "freeze-0": {"freeze-layers": 0},
    "freeze-2": {"freeze-layers": 2},
    "ema": {"ema": 0.9},
    "first": {"pooling": "first"},
    "head": {"projection-bias": True, "final-norm": True},
    "loss-cosine": {"loss": "cosine"},
    "loss-mse-cosine": {"loss": "mse+cosine"},
    "loss-similarity": {"loss": "similarity"},
    "loss-clip": {"loss": "clip", "temperature": 0.1},
    "loss-mix": {"loss": "mse+0.1*clip+2*similarity"},
    "projected": {"target": "projected"},
    "projected-normalized": {"target": "projected-normalized"},
    "projected-cosine": {"target": "projected", "loss": "cosine"},
    "projected-clip": {"target": "projected-normalized", "loss": "mse+clip"},
    "all": {"optimizer": "adam", "schedule": "linear", "warmup-steps": 5, "pooling": "first", "final-norm": True,
            "projection-bias": True, "grad-clip": 1.0, "layer-decay": 0.8, "freeze-layers": 1, "loss": "mse+0.5*clip"},
}


class Student(models.Student):
    def __init__(self, bert, width, config, head):
        super().__init__(bert, width)
        self.first = config.get("pooling") == "first"
        if config.get("projection-bias"):
            self.projection.bias = torch.nn.Parameter(head["projection.bias"].double())
        self.norm = None
        if config.get("final-norm"):
            self.norm = torch.nn.LayerNorm(width)
            self.norm.load_state_dict({part: head[f"final_norm.{part}"] for part in ["weight", "bias"]})

    def forward(self, ids, mask):
        _, mean, first = super().forward(ids, mask)
        output = first if self.first else mean
        return output if self.norm is None else self.norm(output)


def depth(name):
    """0 for the embeddings, then the layers from 1, then the head."""
    if name.startswith("bert.embeddings."):
        return 0
    if name.startswith("bert.encoder.layer."):
        return int(name.split(".")[3]) + 1
    return LAYERS + 1


def groups(student, config):
    adam = config.get("optimizer") == "adam"
    decay = config.get("weight-decay", 0.0 if adam else 0.01)
    made = []
    for name, p in student.named_parameters():
        if "freeze-layers" in config and depth(name) <= config["freeze-layers"]:
            p.requires_grad_(False)
            continue
        spared = config.get("no-decay-bias-norm") and (name.endswith(".bias") or "norm" in name.lower())
        made.append({"params": [p], "weight_decay": 0.0 if spared else decay,
                     "lr": RATE * config.get("layer-decay", 1.0) ** (LAYERS + 1 - depth(name))})
    return made


def schedule(optimizer, config):
    kind, warmup = config.get("schedule", "constant"), config.get("warmup-steps", 0)
    if kind == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup)
    make = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[kind]
    return make(optimizer, warmup, STEPS)


def clip_loss(outputs, targets, temperature):
    logits = F.normalize(outputs) @ F.normalize(targets).T / temperature
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def similarity_loss(outputs, targets):
    matrix = lambda x: F.cosine_similarity(x[:, None], x[None], dim=-1)
    return F.mse_loss(matrix(outputs), matrix(targets))


def objective(outputs, targets, config, text_projection):
    target = config.get("target", "hidden")
    if target != "hidden":
        outputs, targets = outputs @ text_projection.T, targets @ text_projection.T
    if target == "projected-normalized":
        outputs, targets = F.normalize(outputs), F.normalize(targets)
    losses = {
        "mse": lambda: F.mse_loss(outputs, targets),
        "cosine": lambda: (1 - F.cosine_similarity(outputs, targets)).mean(),
        "similarity": lambda: similarity_loss(outputs, targets),
        "clip": lambda: clip_loss(outputs, targets, config.get("temperature", 0.07)),
    }
    total = 0
    for term in config.get("loss", "mse").split("+"):
        weight, name = term.split("*") if "*" in term else (1, term)
        total = total + float(weight) * losses[name]()
    return total


def train(config, bert, golden, stored):
    student = Student(bert, 20, config, stored).double()
    student.projection.weight.data.copy_(golden["projection.weight"])
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.get("optimizer", "adamw")](
        groups(student, config), lr=RATE, betas=config.get("betas", (0.9, 0.999)))
    scheduler = schedule(optimizer, config)
    average = None
    if "ema" in config:
        average = AveragedModel(student, avg_fn=get_ema_avg_fn(config["ema"]))
        average.update_parameters(student)  # the first update copies: the average starts with the initial weights
    ends = golden["cu_seqlens"].tolist()
    sequences = [golden["ids"][a:b] for a, b in zip(ends, ends[1:])]
    losses = []
    for step in range(STEPS):
        chosen = [i for i in range(len(sequences)) if (i + step) % 3 != 0]
        outputs = student(*models.pad([sequences[i] for i in chosen], models.BERT_PAD))
        loss = objective(outputs, golden["targets"][chosen].double(), config, stored["text_projection"].double())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if "grad-clip" in config:
            torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], config["grad-clip"])
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(student)
    return losses, student, average


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print("Python", sys.version.split()[0], *(f"{m.__name__} {m.__version__}" for m in [torch, transformers, safetensors]))
    torch.manual_seed(4)
    bert = BertModel.from_pretrained(OUT / "tiny-bert", dtype=torch.float32, attn_implementation="sdpa").eval()
    golden = load_file(OUT / "student.safetensors")
    stored = {"text_projection": torch.randn(12, 20) * 20 ** -0.5, "projection.bias": torch.randn(20) * 0.2,
              "final_norm.weight": 1 + torch.randn(20) * 0.2, "final_norm.bias": torch.randn(20) * 0.2}
    tensors = {("" if name == "text_projection" else "head.") + name: t for name, t in stored.items()}
    for name, config in RUNS.items():
        losses, student, average = train(config, bert, golden, stored)
        print(f"{name:22} {losses[0]:.5f} {losses[10]:.5f} {losses[-1]:.5f}")
        tensors[f"{name}.losses"] = torch.tensor(losses, dtype=torch.float32)
        if average is not None:
            for what, model in [("weights", student), ("average", average.module)]:
                tensors[f"{name}.{what}"] = model.projection.weight.detach().float().clone()
    runs = {name: json.dumps(config) for name, config in RUNS.items()}
    save_file(tensors, OUT / "trajectories.safetensors", metadata=runs)


if __name__ == "__main__":
    main()
