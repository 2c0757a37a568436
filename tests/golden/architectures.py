#!/usr/bin/env python3
"""Makes one tiny random model of every kind in src/models/kinds.rs, as transformers saves it, and what PyTorch makes of it.

    python tests/golden/architectures.py      # needs torch, transformers, safetensors; a few seconds on a CPU

Last run with Python 3.11.7, torch 2.15.0, transformers 5.24.0, safetensors 0.8.0. Written to kinds/NAME/:

    config.json, model.safetensors   by save_pretrained; students are task models, whose heads AutoModel leaves out
    golden.safetensors               students: ids, cu_seqlens, a projection, its output (masked mean, no bias) with the
                                     encoder that AutoModel loads from the folder, targets, the mean squared error, and the
                                     gradient of every parameter of encoder and projection
                                     CLIPs: ids, cu_seqlens, text_pooled, text_embeds, pixels, image_embeds, where there

As in models.py, outputs are float32's, gradients float64's. The ids of students have a padding token inside a sequence,
which RoBERTa's positions do not count. The flat CLIPs are the towers of tiny-clip by themselves, with the same outputs.
"""
import copy
import json
import shutil
from pathlib import Path

import torch
import transformers as T
from safetensors.torch import save_file
from torch import nn

from models import cu_seqlens, gradients, pad, randomise

HERE = Path(__file__).resolve().parent
OUT = HERE / "kinds"
SIZES = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
             max_position_embeddings=20)
ROBERTA = dict(SIZES, type_vocab_size=1, layer_norm_eps=1e-5)
LENGTHS = [1, 4, 9, 17, 2]


def students():
    """name, the task model, settings beside the sizes"""
    yield "bert", T.BertForSequenceClassification, T.BertConfig(**SIZES, hidden_act="gelu_new", pad_token_id=3)
    yield "roberta", T.RobertaForMaskedLM, T.RobertaConfig(**ROBERTA, hidden_act="gelu_python")
    yield "xlm-roberta", T.XLMRobertaForQuestionAnswering, T.XLMRobertaConfig(**ROBERTA, pad_token_id=0)
    yield "camembert", T.CamembertForTokenClassification, T.CamembertConfig(**ROBERTA, hidden_act="quick_gelu")
    yield "data2vec-text", T.Data2VecTextForMaskedLM, T.Data2VecTextConfig(**ROBERTA, hidden_act="gelu_fast")
    yield "electra", T.ElectraForPreTraining, T.ElectraConfig(**SIZES, embedding_size=16)
    yield "electra-narrow", T.ElectraForMaskedLM, T.ElectraConfig(**SIZES, embedding_size=12)
    yield "ernie", T.ErnieForMaskedLM, T.ErnieConfig(**SIZES, use_task_id=True, task_type_vocab_size=4)
    yield "ernie-plain", T.ErnieForMultipleChoice, T.ErnieConfig(**SIZES)
    yield "distilbert", T.DistilBertForQuestionAnswering, T.DistilBertConfig(
        vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=20,
        sinusoidal_pos_embds=True)


def save(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)


def store(folder, tensors):
    kept = {name: t.detach().to(torch.float32 if t.is_floating_point() else torch.int64).contiguous()
            for name, t in tensors.items()}
    save_file(kept, folder / "golden.safetensors")


def student(name, task, config):
    save(randomise(task(config)), OUT / name)
    bert = T.AutoModel.from_pretrained(OUT / name, dtype=torch.float32, attn_implementation="sdpa").eval()
    bert.pooler = None
    padding = config.pad_token_id
    sequences = [torch.randint(4, 40, (n,)) for n in LENGTHS]
    sequences[2][3] = padding
    # Nothing else may be padded: sequences run one by one.
    projection = nn.Linear(16, 10, bias=False)
    nn.init.normal_(projection.weight, std=0.25)
    targets = torch.randn(len(sequences), 10)

    def run(dtype):
        encoder, linear = copy.deepcopy(bert).to(dtype), copy.deepcopy(projection).to(dtype)
        encoder.requires_grad_(True)
        for module in encoder.modules():  # themo trains every row; PyTorch spares the padding's
            if isinstance(module, nn.Embedding):
                module.padding_idx = None
        states = [encoder(input_ids=s[None], attention_mask=torch.ones_like(s)[None]).last_hidden_state[0]
                  for s in sequences]
        output = linear(torch.stack([s.mean(0) for s in states]))
        loss = nn.functional.mse_loss(output, targets.to(dtype))
        parameters = dict(encoder.named_parameters()) | {"projection.weight": linear.weight}
        return output, loss, gradients(loss, parameters)

    output, loss, _ = run(torch.float32)
    _, _, grads = run(torch.float64)
    store(OUT / name, {"ids": torch.cat(sequences), "cu_seqlens": cu_seqlens(sequences), "output": output,
                       "projection": projection.weight, "targets": targets, "loss": loss,
                       **{f"grad.{n}": g for n, g in grads.items()}})
    print(f"{name}: {len(grads)} gradients, loss {loss.item():.4f}")


def metaclip():
    """eos_token_id 2 is the end of text itself, and not the largest id."""
    text = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=40,
                max_position_embeddings=12, hidden_act="gelu", bos_token_id=0, eos_token_id=2)
    vision = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8,
                  patch_size=4, hidden_act="gelu")
    clip = randomise(T.MetaClip2Model(T.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=6)))
    clip_golden("metaclip_2", clip, [[0, 17, 30, 2], [0, 39, 5, 8, 11, 2], [0, 2]], 1, 8)


def clip_golden(name, clip, texts, padding, size):
    save(clip, OUT / name)
    clip = type(clip).from_pretrained(OUT / name, dtype=torch.float32).eval()
    sequences = [torch.tensor(text) for text in texts]
    ids, _ = pad(sequences, padding)
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        pooled = clip.text_model(input_ids=ids).pooler_output
        image = clip.vision_model(pixel_values=pixels).pooler_output
        store(OUT / name, {"ids": ids.flatten(), "cu_seqlens": torch.arange(len(texts) + 1) * ids.shape[1],
                           "text_pooled": pooled, "text_embeds": clip.text_projection(pooled), "pixels": pixels,
                           "image_embeds": clip.visual_projection(image)})
    print(name)


def flat():
    """The towers of tiny-clip by themselves, as transformers saves them, and tiny-clip with the settings of 2021."""
    for name, model in [("clip-text", T.CLIPTextModelWithProjection), ("clip-vision", T.CLIPVisionModelWithProjection)]:
        tower = model.from_pretrained(HERE / "tiny-clip", dtype=torch.float32)
        save(tower, OUT / name)
    config = json.loads((HERE / "tiny-clip/config.json").read_text())
    for part in ["text_config", "vision_config"]:
        config[f"{part}_dict"] = dict(config[part])
        config[part] = dict(config[part], hidden_size=99, num_hidden_layers=7)
    (OUT / "clip_dict.json").write_text(json.dumps(config, indent=2) + "\n")
    read = T.CLIPConfig(**config)
    assert read.text_config.hidden_size == 32 and read.vision_config.num_hidden_layers == 3


def main():
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    for seed, (name, task, config) in enumerate(students()):
        torch.manual_seed(seed)
        student(name, task, config)
    torch.manual_seed(100)
    metaclip()
    flat()


if __name__ == "__main__":
    main()
