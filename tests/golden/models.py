#!/usr/bin/env python3
"""Makes the golden values that themo's tests compare against, from PyTorch and transformers.

    python tests/golden/models.py        # from anywhere; needs torch, transformers, safetensors; about 10 s on a CPU

Last run with Python 3.11.7, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, numpy 2.4.6.
Everything is random from fixed seeds, in one thread and in eval mode (so no dropout, whatever config.json says).
Written beside this script:

    tiny-bert/           a BertModel with pooler (pad id 1, as BETO's vocabulary has it; [MASK] is 0)
    tiny-clip/           a CLIPModel; eos_token_id 2, so the text is pooled at the argmax of the ids (89 = end of text)
    student.safetensors  tiny-bert without its pooler + masked mean + Linear(32 -> 20, no bias), against mse targets
    clip.safetensors     tiny-clip's text and image outputs, and the gradients of a loss on its pooled text
    tokens.json          what the demo's tokenizers make of 12 Spanish and 12 English captions

Precision.  Forward outputs (hidden, output, output_first, loss, text_*, image_*) come from the float32 model.  Every
`grad.*`, and the training run (`losses`, `final.*`), comes from the same weights cast to float64 and is rounded to
float32 when stored; what float32 makes of them is printed as the noise floor.  The gradients of the key biases are
zero in exact arithmetic (softmax ignores a constant per query), so what is stored for them is rounding noise.

Training run.  torch.optim.AdamW (lr 1e-3, betas 0.9/0.999, eps 1e-8, weight decay 0.01) over all parameters except
the pooler, ten steps; step s = 0..9 sees the sequences i with (i + s) % 3 != 0, in order; `losses` are before the
update.  Rows that a step does not touch have gradient zero, so weight decay and momentum still move them.
"""
import copy
import json
import sys
from pathlib import Path

import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel, CLIPConfig, CLIPModel

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden"
DEMO = ROOT / "data/demo"

BERT_PAD, CLIP_START, CLIP_END = 1, 88, 89
STUDENT_LENGTHS = [1, 2, 5, 9, 3, 40, 12]
TEXT_LENGTHS = [2, 5, 77, 20, 9]
FINALS = ["projection.weight", "encoder.layer.0.attention.self.query.weight", "embeddings.word_embeddings.weight"]


# ---- models

@torch.no_grad()
def randomise(model):
    """Weights large enough for peaked attention; biases and norms that no test can mistake for 0 and 1."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in [m.weight]}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, p in model.named_parameters():
        if name == "logit_scale":
            p.fill_(3.1)
        elif id(p) in norms:
            p.copy_(1 + 0.2 * torch.randn_like(p))
        elif name.endswith(".bias"):
            p.copy_(0.2 * torch.randn_like(p))
        elif id(p) in embeddings or p.dim() == 1:  # the latter: CLIP's class embedding
            p.copy_(0.5 * torch.randn_like(p))
        else:
            p.copy_(torch.randn_like(p) * 1.2 / p[0].numel() ** 0.5)
    return model


def save_and_reload(model, name):
    """What the goldens are computed with is what stands on disk.  SDPA, since CLIP's eager attention takes its
    softmax in float32 even in a float64 model."""
    model.save_pretrained(OUT / name)
    return type(model).from_pretrained(OUT / name, dtype=torch.float32, attn_implementation="sdpa").eval()


def make_bert():
    return save_and_reload(randomise(BertModel(BertConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, hidden_act="gelu", layer_norm_eps=1e-12, hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1, pad_token_id=BERT_PAD))), "tiny-bert")


def make_clip():
    text = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=90,
                max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=16,
                bos_token_id=CLIP_START, eos_token_id=2)
    vision = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40, image_size=28,
                  patch_size=7, hidden_act="quick_gelu", projection_dim=16)
    clip = save_and_reload(randomise(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))),
                           "tiny-clip")
    write_json(OUT / "tiny-clip/preprocessor_config.json", {
        "crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor", "resample": 3, "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 28}})
    return clip


class Student(nn.Module):
    def __init__(self, bert, width):
        super().__init__()
        self.bert = copy.deepcopy(bert)
        self.bert.pooler = None
        self.projection = nn.Linear(bert.config.hidden_size, width, bias=False)

    def forward(self, ids, mask):
        """Token type 0 throughout.  -> last hidden state, mean-pooled output, first-token output"""
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        return hidden, self.projection(mean), self.projection(hidden[:, 0])

    def parameters_by_name(self):
        return {name.removeprefix("bert."): p for name, p in self.named_parameters()}


# ---- helpers

def pad(sequences, value, length=None):
    length = length or max(map(len, sequences))
    ids = torch.full((len(sequences), length), value)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, :len(sequence)] = sequence
        mask[row, :len(sequence)] = 1
    return ids, mask


def cu_seqlens(sequences):
    return torch.tensor([0] + [len(s) for s in sequences]).cumsum(0)


def gradients(loss, parameters):
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def report(title, single, double):
    """Prints how far float32 gradients are from float64 ones."""
    size = lambda gs: max(g.norm().item() for g in gs.values())
    zero = [n for n in double if double[n].norm() < 1e-10 * size(double)]
    noise = sorted(((relative(single[n], double[n]), n) for n in double if n not in zero), reverse=True)
    norms = sorted(double[n].norm().item() for _, n in noise)
    print(f"\n{title}: {len(double)} gradients, norms {norms[0]:.2e} .. {norms[-1]:.2e}")
    print("  float32 against float64, worst:")
    for r, n in noise[:4]:
        print(f"  {r:.2e}  {n}")
    print("  zero in exact arithmetic (norm in float32, float64):")
    for n in zero:
        print(f"  {single[n].norm():.2e} {double[n].norm():.2e}  {n}")


def check(name, found, expected, tolerance):
    r = relative(found, expected)
    print(f"  {name}: {r:.2e}")
    assert r < tolerance, name


def store(name, tensors):
    tensors = {n: t.detach().to(torch.float32 if t.is_floating_point() else torch.int64).contiguous()
               for n, t in tensors.items()}
    save_file(tensors, OUT / name)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- goldens

def student_golden(bert):
    sequences = [torch.randint(2, 120, (n,)) for n in STUDENT_LENGTHS]
    sequences[3][4] = sequences[5][39] = 0  # [MASK], a token like any other here
    ids, mask = pad(sequences, BERT_PAD)
    targets = torch.randn(len(sequences), 20)
    student = Student(bert, 20).eval()
    nn.init.normal_(student.projection.weight, std=32 ** -0.5)

    def run(dtype):
        model = copy.deepcopy(student).to(dtype)
        parameters = model.parameters_by_name()
        hidden, output, first = model(ids, mask)
        loss = nn.functional.mse_loss(output, targets.to(dtype))
        grads = gradients(loss, parameters)

        optimizer, losses = torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=0.01), []
        for s in range(10):
            rows = [i for i in range(len(sequences)) if (i + s) % 3 != 0]
            batch = nn.functional.mse_loss(model(ids[rows], mask[rows])[1], targets[rows].to(dtype))
            optimizer.zero_grad()
            batch.backward()
            optimizer.step()
            losses.append(batch.item())
        return hidden[mask.bool()], output, first, loss, grads, torch.tensor(losses, dtype=torch.float64), parameters

    hidden, output, first, loss, grads, losses, final = run(torch.float32)
    hidden64, output64, first64, loss64, grads64, losses64, final64 = run(torch.float64)
    report("student", grads, grads64)
    print("  float32 against float64:")
    check("hidden", hidden, hidden64, 1e-5)
    check("output", output, output64, 1e-5)
    check("output_first", first, first64, 1e-5)
    check("loss", loss, loss64, 1e-5)
    check("losses", losses, losses64, 1e-5)
    for name in FINALS:
        check(f"final.{name}", final[name], final64[name], 1e-3)
        check("... its movement", final[name] - student.parameters_by_name()[name],
              final64[name] - student.parameters_by_name()[name], 1e-2)
    print("  losses", [round(x, 4) for x in losses64.tolist()])
    print("  float32: each sequence alone, unpadded, against the padded batch:")
    with torch.no_grad():
        check("output", torch.cat([student(s[None], torch.ones_like(s)[None])[1] for s in sequences]), output, 1e-5)

    store("student.safetensors", {
        "ids": torch.cat(sequences), "cu_seqlens": cu_seqlens(sequences),
        "projection.weight": student.projection.weight, "targets": targets,
        "hidden": hidden, "output": output, "output_first": first, "loss": loss,
        **{f"grad.{n}": g for n, g in grads64.items()},
        "losses": losses64, **{f"final.{n}": final64[n] for n in FINALS}})


def clip_golden(clip):
    sequences = [torch.cat([torch.tensor([CLIP_START]), torch.randint(0, CLIP_START, (n - 2,)),
                            torch.tensor([CLIP_END])]) for n in TEXT_LENGTHS]
    ids, _ = pad(sequences, CLIP_END, 77)  # as the CLIP tokenizer pads; the causal mask hides the padding
    pixels = torch.randn(3, 3, 28, 28)
    text_weights = torch.randn(len(sequences), 32)

    def run(dtype):
        model = copy.deepcopy(clip).to(dtype)
        text = model.text_model(input_ids=ids)
        image = model.vision_model(pixel_values=pixels.to(dtype)).pooler_output
        ends = text.last_hidden_state[torch.arange(len(sequences)), torch.tensor(TEXT_LENGTHS) - 1]
        assert torch.equal(ends, text.pooler_output)
        text = text.pooler_output
        parameters = {n: p for n, p in model.named_parameters() if n.startswith("text_model.")}
        grads = gradients((text * text_weights.to(dtype)).sum(), parameters)
        return {"text_pooled": text, "text_embeds": model.text_projection(text),
                "image_pooled": image, "image_embeds": model.visual_projection(image)}, grads

    outputs, grads = run(torch.float32)
    outputs64, grads64 = run(torch.float64)
    report("clip", grads, grads64)
    print("  float32 against float64:")
    for name in outputs:
        check(name, outputs[name], outputs64[name], 1e-5)
    print("  float32: each text alone, unpadded, against the padded batch:")
    with torch.no_grad():
        check("text_pooled", torch.cat([clip.text_model(input_ids=s[None]).pooler_output for s in sequences]),
              outputs["text_pooled"], 1e-5)

    store("clip.safetensors", {
        "text_ids": torch.cat(sequences), "text_cu_seqlens": cu_seqlens(sequences), "pixels": pixels, **outputs,
        "logit_scale": clip.logit_scale, "text_weights": text_weights,
        **{f"grad.{n}": g for n, g in grads64.items()}})


def tokens_golden():
    """Every third caption is cut to 8 ids, special tokens included."""
    captions = []
    for language in ["es", "en"]:
        lines = (DEMO / f"xtd10/test_1kcaptions_{language}.txt").read_text(encoding="utf-8").splitlines()
        captions += lines[::len(lines) // 12][:12]
    golden = {}
    for key, name in [("beto", "toy-beto"), ("clip", "toy-clip")]:
        fast = tokenizers.Tokenizer.from_file(str(DEMO / "models" / name / "tokenizer.json"))
        auto = AutoTokenizer.from_pretrained(DEMO / "models" / name)
        golden[key] = []
        for i, text in enumerate(captions):
            max_length = 8 if i % 3 == 0 else 77
            ids = auto(text, truncation=True, max_length=max_length)["input_ids"]
            fast.enable_truncation(max_length)
            assert fast.encode(text).ids == ids, (name, text)
            golden[key].append({"text": text, "ids": ids, "max_length": max_length})
        print(f"\n{name}: lengths {[len(g['ids']) for g in golden[key]]}")
    lists = lambda entries: ",\n".join("    " + json.dumps(e, ensure_ascii=False) for e in entries)
    (OUT / "tokens.json").write_text(
        "{\n" + ",\n".join(f'  "{k}": [\n{lists(v)}\n  ]' for k, v in golden.items()) + "\n}\n", encoding="utf-8")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print("Python", sys.version.split()[0],
          *(f"{m.__name__} {m.__version__}" for m in [torch, transformers, tokenizers, safetensors]))
    torch.manual_seed(1)
    bert = make_bert()
    student_golden(bert)
    torch.manual_seed(2)
    clip = make_clip()
    clip_golden(clip)
    tokens_golden()


if __name__ == "__main__":
    main()
