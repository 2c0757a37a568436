#!/usr/bin/env python3
"""Makes lightning/: a run of the Python Themo as PyTorch Lightning writes it, on a tiny BERT with the demo's vocabulary,
and what PyTorch makes of some texts with it.

    python tests/golden/lightning.py      # needs torch, transformers, safetensors; from the root of the repository

Last run with torch 2.15.0, transformers 5.24.0.
    bert/config.json               the BERT; its tokenizer is the demo's (data/demo/models/toy-beto)
    version_0/                     hparams.yaml, checkpoints/epoch=E-train-loss=L.ckpt (the second has other weights)
    texts.txt, embeds.safetensors  the better checkpoint through toy-clip's text projection; texts are cut at 12 ids
"""
import argparse
import collections
import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/lightning"
DEMO = ROOT / "data/demo/models"


class Module(torch.nn.Module):
    def __init__(self, config, dim):
        super().__init__()
        self.transformer = BertModel(config, add_pooling_layer=False)
        self.projection = torch.nn.Linear(config.hidden_size, dim, bias=False)


def checkpoint(module, loss, epoch):
    optimizer = torch.optim.AdamW([module.projection.weight], lr=8e-5)
    module.projection(torch.ones(1, module.projection.in_features)).sum().backward()
    weight = module.projection.weight.detach().clone()
    optimizer.step()
    with torch.no_grad():
        module.projection.weight.copy_(weight)
    name = f"epoch={epoch}-train-loss={loss:.4f}.ckpt"
    state = module.state_dict()
    state["transformer.embeddings.position_ids"] = torch.arange(40).expand(1, -1)  # transformers before 4.31 saved it
    torch.save({
        "epoch": epoch,
        "global_step": 100 * epoch,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}, "current": {"ready": 3}}}},
        "callbacks": {
            "EarlyStopping{'monitor': 'train/loss', 'mode': 'min'}": {
                "wait_count": 0, "stopped_epoch": 0, "best_score": torch.tensor(loss), "patience": 5},
            "ModelCheckpoint{'monitor': 'train/loss', 'mode': 'min'}": {
                "monitor": "train/loss", "best_model_score": torch.tensor(loss), "best_model_path": name,
                "best_k_models": {name: torch.tensor(loss)}, "dirpath": pathlib.PurePosixPath("checkpoints")},
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": collections.OrderedDict(
            batch_size=256, learn_rate=8e-5, args=argparse.Namespace(max_sequence_length=12)),
    }, OUT / "version_0/checkpoints" / name)


@torch.no_grad()
def main():
    (OUT / "version_0/checkpoints").mkdir(parents=True, exist_ok=True)
    (OUT / "bert").mkdir(exist_ok=True)
    clip = load_file(DEMO / "toy-clip/model.safetensors")["text_projection.weight"].float()
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "toy-beto")
    config = BertConfig(vocab_size=558, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=40)
    config.save_pretrained(OUT / "bert")
    for epoch, loss in [(7, 0.9), (3, 0.244)]:
        torch.manual_seed(epoch)
        module = Module(config, clip.shape[1]).eval()
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        with torch.enable_grad():
            checkpoint(module, loss, epoch)
    (OUT / "version_0/hparams.yaml").write_text("batch_size: 256\nlearn_rate: 8.0e-05\nmax_sequence_length: 12\n")
    texts = (ROOT / "data/demo/xtd10/test_1kcaptions_es.txt").read_text(encoding="utf-8").splitlines()[:12] + ["", "un"]
    (OUT / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    rows = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=12, return_tensors="pt")
        state = module.transformer(**batch).last_hidden_state[0].mean(0)
        rows.append(module.projection(state) @ clip.T)
    save_file({"text_embeds": torch.stack(rows)}, OUT / "embeds.safetensors")
    for path in sorted(OUT.rglob("*")):
        print(path.relative_to(OUT), path.stat().st_size)


if __name__ == "__main__":
    main()
