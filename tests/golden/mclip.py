#!/usr/bin/env python3
"""Makes a tiny M-CLIP and the embeddings that themo's tests compare with.

    python tests/golden/mclip.py        # from anywhere; needs torch, transformers, tokenizers, safetensors; 10 s

Last run with Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3.  Written beside this script:

    tiny-mclip/         an XLM-R (pad id 1: positions start at 2) with random weights from a fixed seed, masked mean and
                        Linear(16 -> 64) into the space of data/demo/models/toy-clip: pytorch_model.bin with the names
                        and the unused tensors (pooler, position_ids) of the M-CLIP checkpoints on the hub, their kind of
                        config.json plus the encoder's sizes, and a Unigram tokenizer.json trained on the demo's captions
    mclip.safetensors   `text_embeds` of the texts in its metadata; the longest has all of the 38 tokens allowed
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import XLMRobertaConfig, XLMRobertaModel

OUT = Path(__file__).resolve().parent
CAPTIONS = OUT.parents[1] / "data/demo/xtd10/test_1kcaptions_es.txt"
MAX_TOKENS = 38


class MultilingualCLIP(nn.Module):
    """As in multilingual_clip/pt_multilingual_clip.py of FreddeFrallan/Multilingual-CLIP."""

    def __init__(self, config, dims):
        super().__init__()
        self.transformer = XLMRobertaModel(config)
        self.LinearTransformation = nn.Linear(config.hidden_size, dims)

    def forward(self, ids, mask):
        states = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask.unsqueeze(2)).sum(dim=1) / mask.sum(dim=1)[:, None]
        return self.LinearTransformation(mean)


def make_tokenizer(captions):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=100, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


@torch.no_grad()
def randomise(model):
    """Weights large enough for peaked attention; biases and norms that no test can mistake for 0 and 1."""
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    for name, p in model.named_parameters():
        if id(p) in norms:
            p.copy_(1 + 0.2 * torch.randn_like(p))
        elif name.endswith(".bias"):
            p.copy_(0.2 * torch.randn_like(p))
        elif "embeddings" in name:
            p.copy_(0.5 * torch.randn_like(p))
        else:
            p.copy_(torch.randn_like(p) * 1.2 / p[0].numel() ** 0.5)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(3)
    captions = CAPTIONS.read_text(encoding="utf-8").splitlines()
    folder = OUT / "tiny-mclip"
    folder.mkdir(exist_ok=True)
    tokenizer = make_tokenizer(captions)
    tokenizer.save(str(folder / "tokenizer.json"))

    sizes = dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                 intermediate_size=32, max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1, layer_norm_eps=1e-5,
                 pad_token_id=1)
    model = MultilingualCLIP(XLMRobertaConfig(**sizes, attn_implementation="sdpa"), 64).eval()
    randomise(model)
    state = dict(model.state_dict())
    state["transformer.embeddings.position_ids"] = torch.arange(MAX_TOKENS + 2)[None]
    torch.save(state, folder / "pytorch_model.bin")
    config = {"architectures": ["MultilingualCLIP"], "model_type": "M-CLIP", "modelBase": "xlm-roberta-large",
              "transformerDimensions": 16, "numDims": 64, "torch_dtype": "float32", **sizes}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    texts = captions[:10] + ["luna", "una imagen de <unk> ñandú №1", " ".join(captions[10:14])]
    tokenizer.enable_truncation(MAX_TOKENS)
    ids = [torch.tensor(tokenizer.encode(text).ids) for text in texts]
    print("tokens", [len(i) for i in ids], "of", sizes["vocab_size"])
    assert max(map(len, ids)) == MAX_TOKENS
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
    with torch.no_grad():
        embeds = model(padded, mask)
        alone = torch.cat([model(i[None], torch.ones_like(i)[None]) for i in ids])
        exact = model.double()(padded, mask)
    print(f"float32 against float64 {(embeds - exact).norm() / exact.norm():.1e}, "
          f"alone against padded {(embeds - alone).norm() / exact.norm():.1e}")
    save_file({"text_embeds": embeds}, OUT / "mclip.safetensors", {"texts": json.dumps(texts, ensure_ascii=False)})


if __name__ == "__main__":
    main()
