"""Writes tests/golden/pickle/: tiny checkpoints for tests/pickle.rs. Run with Python and torch 2; no other package."""

import argparse
import collections
import os
import pathlib
import pickle
import zipfile

import torch

HERE = pathlib.Path(__file__).parent / "pickle"


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


class Unknown:
    pass


def tensors():
    base = torch.arange(24, dtype=torch.float32)
    table = base.reshape(4, 6)
    state = collections.OrderedDict()
    state["f32"] = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 2
    state["f16"] = torch.arange(4, dtype=torch.float16)
    state["bf16"] = torch.arange(4, dtype=torch.bfloat16)
    state["f64"] = torch.arange(3, dtype=torch.float64) - 1
    state["i64"] = torch.arange(3) - 1
    state["i32"] = torch.arange(3, dtype=torch.int32) - 1
    state["i16"] = torch.arange(3, dtype=torch.int16) - 1
    state["i8"] = torch.arange(3, dtype=torch.int8) - 1
    state["u8"] = torch.arange(3, dtype=torch.uint8)
    state["bool"] = torch.tensor([True, False, True])
    state["whole"] = table  # shares its storage with the next four
    state["transposed"] = table.t()
    state["offset"] = base[5:9]
    state["column"] = table[:, 2]
    state["block"] = table[1:3, 1:6:2].t()
    state["scalar"] = torch.tensor(7.5)
    state["empty"] = torch.zeros(0, 3)
    state["parameter"] = torch.nn.Parameter(torch.ones(2, 2))
    with_state = torch.nn.Parameter(torch.ones(2))
    with_state.note = "kept by torch"
    state["attributed"] = with_state
    state["position_ids"] = torch.arange(5).expand(1, -1)
    state["steps"] = 3
    state["note"] = "plain"
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    return state


def rezip(source, target, compression, change=lambda name, data: data):
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(HERE / target, "w", compression) as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), change(info.filename, old.read(info)), compression)


HERE.mkdir(exist_ok=True)
state = tensors()
torch.save(state, HERE / "state.bin")
torch.save(dict(state), HERE / "protocol4.bin", pickle_protocol=4)
rezip("state.bin", "deflated.bin", zipfile.ZIP_DEFLATED)
big = lambda name, data: b"big" if name.endswith("byteorder") else data
rezip("state.bin", "big.bin", zipfile.ZIP_STORED, big)
model = torch.nn.Linear(2, 2)
with torch.no_grad():
    model.weight.copy_(torch.arange(4.0).reshape(2, 2))
    model.bias.fill_(0.5)
optimizer = torch.optim.Adam(model.parameters())
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
with torch.no_grad():
    model.weight.copy_(torch.arange(4.0).reshape(2, 2))
    model.bias.fill_(0.5)
checkpoint = {
    "epoch": 1,
    "pytorch-lightning_version": "2.0.0",
    "callbacks": {"EarlyStopping": {"best": torch.tensor(1.0), "mode": min, "other": Unknown()}},
    "state_dict": model.state_dict(),
    "optimizer_states": [optimizer.state_dict()],
    "hyper_parameters": argparse.Namespace(lr=1e-3, path=pathlib.PurePosixPath("a"), names={"a", "b"}, big=1 << 80),
    "loops": None,
}
torch.save(checkpoint, HERE / "lightning.ckpt")
torch.save({**checkpoint, "state_dict": {"weight": torch.ones(1), "evil": Unknown()}}, HERE / "unknown.ckpt")
torch.save({"weight": torch.ones(1), "other": Unknown()}, HERE / "unknown.bin")
torch.save({**checkpoint, "hyper_parameters": Evil()}, HERE / "evil.ckpt")
torch.save({"weight": torch.ones(1), "complex": torch.zeros(2, dtype=torch.complex64)}, HERE / "complex.bin")
torch.save({"weight": torch.ones(1), "f8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, HERE / "f8.bin")
torch.save({"weight": torch.ones(1), "wide": torch.ones(1).expand(1000)}, HERE / "expanded.bin")
torch.save({"model": model.state_dict()}, HERE / "nested.bin")
torch.save({1: torch.ones(1)}, HERE / "numbered.bin")
torch.save(model, HERE / "module.bin")
torch.save({"weight": torch.ones(1)}, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
