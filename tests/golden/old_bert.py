#!/usr/bin/env python3
"""Makes old-bert.bin: tiny-bert as an old pytorch_model.bin (prefix bert., LayerNorm's gamma and beta), some tensors as
transposed views, as views into a larger storage, in f64, or as parameters. legacy-bert.bin is the same in the format of
PyTorch before 1.6.

    python tests/golden/old_bert.py      # needs torch and safetensors; run with torch 2.15.0
"""
import collections
from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent


def main():
    state = collections.OrderedDict()
    for name, value in load_file(HERE / "tiny-bert/model.safetensors").items():
        name = "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if "query.weight" in name:
            value = value.t().contiguous().t()
        elif "key.weight" in name:
            storage = torch.zeros(3, *value.shape)
            storage[1] = value
            value = storage[1]
        elif "value.weight" in name:
            value = value.double()
        elif "dense.weight" in name:
            value = torch.nn.Parameter(value)
        state[name] = value
    torch.save(state, HERE / "old-bert.bin")
    torch.save(state, HERE / "legacy-bert.bin", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
