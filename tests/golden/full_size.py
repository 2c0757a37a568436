#!/usr/bin/env python3
"""Compares `themo embed` with transformers on models of the real sizes with random weights. Run by hand: it needs
torch, transformers, sentencepiece, Pillow, 8 GB of memory, 3 GB of disk at a time, and three minutes on two cores.

    cargo build --release
    python tests/golden/full_size.py --captions pairs.tsv --images FOLDER --beto FOLDER --clip FOLDER [--scratch DIR]

--captions  Spanish TAB English sentences; 32 of them, evenly spread, are embedded (and all train a tokenizer)
--images    a tree with .JPEG files; 8 of them are embedded, as they are, as PNG files of what PIL decodes, and as PNG
            files of the final size, where neither a decoder nor a resizer can differ
--beto      config.json, vocab.txt and tokenizer_config.json of BETO;  --clip  tokenizer files of CLIP

    CLIP ViT-L/14    its own towers, English texts (eos_token_id 2, as on the hub: pooled at the largest id)
    student          BERT-base with BETO's vocabulary, masked mean, Linear(768 -> 768), L/14's text projection
    CLIP ViT-B/32    its own towers (eos_token_id 49407)
    M-CLIP           XLM-R large, masked mean, Linear(1024 -> 512) with bias, in a pytorch_model.bin; a SentencePiece
                     tokenizer of 3,000 pieces

Weights are as transformers initialises them, but norms and biases are not left at 1 and 0. Printed for each tensor, in
f32: `largest` max |a - b| / max |b|; `row` the worst row's |a - b| / |b|; `spread` max |a - b| over the rows' largest
distance from their mean, which tells wrong inputs where all rows look alike. Fails if `largest` or `row` is above 1e-4.

Last run with Python 3.11, torch 2.15.0, transformers 5.24.0: `largest` and `row` at most 1.3e-6 everywhere.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (AutoTokenizer, BertConfig, BertModel, CLIPConfig, CLIPModel, CLIPTokenizer, XLMRobertaConfig,
                          XLMRobertaModel, XLMRobertaTokenizer)
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-4
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
failures = []


@torch.no_grad()
def disturb(model):
    """Norms and biases that no comparison can mistake for 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.normal_(1, 0.1)
        if getattr(module, "bias", None) is not None:
            module.bias.normal_(0, 0.05)
    return model.eval()


def themo(args, *options):
    output = args.scratch / "out.safetensors"
    command = [args.themo, "embed", "-q", "--output", output, "--batch-size", 8, *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return load_file(output)


def compare(what, found, wanted):
    found, wanted = found.double(), wanted.double()
    assert found.shape == wanted.shape, (what, found.shape, wanted.shape)
    difference = (found - wanted).abs().max().item()
    largest = difference / wanted.abs().max().item()
    row = ((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max().item()
    spread = difference / (wanted - wanted.mean(0)).abs().max().item()
    good = max(largest, row) <= LIMIT
    figures = f"{what:44} {str(list(wanted.shape)):12} {largest:9.1e} {row:9.1e} {spread:9.1e}"
    print(figures if good else f"{figures}  TOO FAR", flush=True)
    if not good:
        failures.append(what)


def pad(ids, value):
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
    return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=value), mask


def masked_mean(states, mask):
    return (states * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)


def tokenize(tokenizer, texts, limit):
    return [torch.tensor(tokenizer(text, truncation=True, max_length=limit)["input_ids"]) for text in texts]


def pixels(path):
    """CLIPImageProcessor's steps with PIL: shorter side to 224 (bicubic), centre crop, scale, normalise."""
    image = Image.open(path).convert("RGB")
    short, long = sorted(image.size)
    long = int(224 * long / short)
    image = image.resize((224, long) if image.width <= image.height else (long, 224), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    x = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / np.float32(255)
    return torch.from_numpy((x - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).permute(2, 0, 1)


def make_clip(args, name, text, vision, projection):
    folder = args.scratch / name
    model = disturb(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)))
    model.save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"]:
        shutil.copy(args.clip / name, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "image_mean": MEAN,
        "image_std": STD, "resample": 3, "size": 224}))
    return folder, model


@torch.no_grad()
def check_clip(args, title, folder, model):
    _, english, kinds = args.inputs
    tokenizer = CLIPTokenizer.from_pretrained(args.clip)
    ids, mask = pad(tokenize(tokenizer, english, 77), tokenizer.eos_token_id)
    wanted = model.get_text_features(input_ids=ids, attention_mask=mask)
    wanted = getattr(wanted, "pooler_output", wanted)  # transformers 5 wraps it
    compare(f"{title}, text", themo(args, "--model", folder, "--texts", args.scratch / "en.txt")["text_embeds"], wanted)
    for kind, paths in kinds.items():
        wanted = model.get_image_features(pixel_values=torch.stack([pixels(path) for path in paths]))
        wanted = getattr(wanted, "pooler_output", wanted)
        listed = args.scratch / "images.txt"
        listed.write_text("\n".join(map(str, paths)))
        found = themo(args, "--model", folder, "--images", listed)["image_embeds"]
        compare(f"{title}, {kind}", found, wanted)


@torch.no_grad()
def check_student(args, teacher_folder, teacher):
    run = args.scratch / "run"
    folder = run / "checkpoints/last"
    folder.mkdir(parents=True)
    config = json.loads((args.beto / "config.json").read_text())
    bert = disturb(BertModel(BertConfig(**config), add_pooling_layer=False))
    projection = torch.randn(768, 768) * 768 ** -0.5
    state = {f"transformer.{name}": value.contiguous() for name, value in bert.state_dict().items()}
    save_file({**state, "projection.weight": projection}, folder / "model.safetensors")
    (folder / "themo.json").write_text('{"pooling": "mean", "dim": 768}')
    for name in ["config.json", "vocab.txt", "tokenizer_config.json"]:
        shutil.copy(args.beto / name, folder)
    (run / "config.toml").write_text(f"teacher = {json.dumps(str(teacher_folder))}\n")
    tokenizer = AutoTokenizer.from_pretrained(args.beto)
    ids, mask = pad(tokenize(tokenizer, args.inputs[0], 77), tokenizer.pad_token_id)
    mean = masked_mean(bert(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    wanted = teacher.text_projection(mean @ projection.T)
    found = themo(args, "--version-path", run, "--texts", args.scratch / "es.txt")["text_embeds"]
    compare("student, text in the shared space", found, wanted)
    shutil.rmtree(run)


@torch.no_grad()
def check_mclip(args):
    folder = args.scratch / "mclip"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        input=str(args.captions), model_prefix=str(folder / "sentencepiece.bpe"), vocab_size=3000, minloglevel=2)
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder)
    encoder = XLMRobertaModel(XLMRobertaConfig(
        vocab_size=250002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1))
    disturb(encoder)
    linear = nn.Linear(1024, 512)
    state = {f"transformer.{name}": value for name, value in encoder.state_dict().items()}
    state |= {f"LinearTransformation.{name}": value for name, value in linear.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["MultilingualCLIP"], "model_type": "M-CLIP", "modelBase": "xlm-roberta-large",
        "transformerDimensions": 1024, "numDims": 512}))
    long = " ".join(args.inputs[0] * 3)  # more than the 512 tokens allowed
    texts = args.inputs[0] + [long]
    ids, mask = pad(tokenize(tokenizer, texts, 512), 1)
    assert ids.shape[1] == 512, ids.shape
    parts = [encoder(input_ids=i[:, :m.sum(1).max()], attention_mask=m[:, :m.sum(1).max()]).last_hidden_state
             for i, m in [(ids[:-1], mask[:-1]), (ids[-1:], mask[-1:])]]
    means = [masked_mean(part, m[:, :part.shape[1]]) for part, m in zip(parts, [mask[:-1], mask[-1:]])]
    wanted = linear(torch.cat(means))
    del encoder, state
    (args.scratch / "mclip.txt").write_text("\n".join(texts))
    found = themo(args, "--model", folder, "--texts", args.scratch / "mclip.txt")["text_embeds"]
    compare("M-CLIP XLM-R large, text (one of 512 tokens)", found, wanted)
    shutil.rmtree(folder)


def main():
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser()
    for name in ["captions", "images", "beto", "clip"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--themo", type=Path, default=ROOT / "target/release/themo")
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        args.scratch = Path(scratch)
        lines = args.captions.read_text(encoding="utf-8").splitlines()
        spanish, english = zip(*(line.split("\t")[:2] for line in lines[::len(lines) // 32][:32]))
        jpegs = sorted(args.images.rglob("*.JPEG"))
        jpegs = jpegs[::max(1, len(jpegs) // 8)][:8]
        kinds = {"PNG images of 224 x 224": [], "PNG images": [], "JPEG images": jpegs}
        for path in jpegs:
            image = Image.open(path).convert("RGB")
            for kind, paths in list(kinds.items())[:2]:
                paths.append(args.scratch / f"{path.stem}-{len(kind)}.png")
                (image.resize((224, 224)) if "224" in kind else image).save(paths[-1])
        (args.scratch / "es.txt").write_text("\n".join(spanish), encoding="utf-8")
        (args.scratch / "en.txt").write_text("\n".join(english), encoding="utf-8")
        args.inputs = (list(spanish), list(english), kinds)
        print(f"{'':44} {'shape':12} {'largest':>9} {'row':>9} {'spread':>9}")

        text = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                    projection_dim=768, bos_token_id=0, eos_token_id=2, pad_token_id=1)
        vision = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                      patch_size=14, projection_dim=768)
        folder, model = make_clip(args, "l14", text, vision, 768)
        check_clip(args, "CLIP ViT-L/14", folder, model)
        check_student(args, folder, model)
        shutil.rmtree(folder)
        folder, model = make_clip(args, "b32", dict(bos_token_id=49406, eos_token_id=49407), {}, 512)
        check_clip(args, "CLIP ViT-B/32", folder, model)
        shutil.rmtree(folder)
        del model
        check_mclip(args)
    if failures:
        sys.exit(f"more than {LIMIT} apart: {', '.join(failures)}")


if __name__ == "__main__":
    main()
