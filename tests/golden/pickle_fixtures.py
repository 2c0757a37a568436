"""Writes tests/golden/pickle/: tiny checkpoints for tests/pickle.rs. Run with Python and torch 2; no other package."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import tarfile
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
torch.save({"weight": torch.ones(1), "negative": torch.ones(2, dtype=torch.complex64).conj().imag}, HERE / "negative.bin")
for name in ["model", "model_state_dict"]:
    torch.save({"epoch": 1, name: model.state_dict(), "optimizer": optimizer.state_dict(), "args": Unknown()},
               HERE / f"{name}.pth")
torch.save({"state_dict": model.state_dict(), "model": {"layers": 2}, "model_state_dict": None}, HERE / "settings.pt")
torch.save({"state_dict": model.state_dict(), "model": {"bias": torch.ones(1)}}, HERE / "two.pt")

# The format before 1.6, as PyTorch writes it still.
torch.save(state, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save(dict(state), HERE / "legacy4.bin", _use_new_zipfile_serialization=False, pickle_protocol=4)
torch.save(checkpoint, HERE / "legacy.ckpt", _use_new_zipfile_serialization=False)
torch.save(model, HERE / "legacy_module.bin", _use_new_zipfile_serialization=False)
torch.save({"weight": torch.ones(1), "f8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, HERE / "legacy_f8.bin",
           _use_new_zipfile_serialization=False)
torch.save({**checkpoint, "hyper_parameters": Evil()}, HERE / "legacy_evil.ckpt", _use_new_zipfile_serialization=False)

# And as only old versions wrote it: storages that are parts of others, tensors without a function that rebuilds them,
# Python 2. PyTorch's own loader reads these as what follows them says.
STORAGE = collections.namedtuple("STORAGE", "type key location elements view")
CALL = collections.namedtuple("CALL", "function args state", defaults=[None])


class Old(pickle._Pickler):
    """Writes STORAGE as a persistent id and CALL as what it makes; with `python2`, strings as Python 2 does."""

    dispatch = dict(pickle._Pickler.dispatch)
    python2 = False

    def persistent_id(self, value):
        return ("storage", *value) if isinstance(value, STORAGE) else None

    def reducer_override(self, value):
        return (*value[:2], *filter(None, value[2:])) if isinstance(value, CALL) else NotImplemented

    def save_str(self, text):
        if not self.python2:
            return super().save_str(text)
        self.write(b"U" + bytes([len(text)]) + text.encode())
        self.memoize(text)

    dispatch[str] = save_str


def write_old(name, value, storages, expected, python2=False):
    file = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 8}}
    for part in [0x1950A86A20F9469CFC6C, 1001, system, value, list(storages)]:
        pickler = Old(file, 2)
        pickler.python2 = python2
        pickler.dump(part)
    for tensor in storages.values():
        file.write(len(tensor).to_bytes(8, "little") + tensor.numpy().tobytes())
    (HERE / name).write_bytes(file.getvalue())
    loaded = torch.load(HERE / name, weights_only=True)
    assert list(loaded) == list(expected), name
    assert all(torch.equal(loaded[key], expected[key]) for key in expected), name


def stored(view=None, key="94371840", type=torch.FloatStorage, location="cpu"):
    return STORAGE(type, key, location, 24, view)


numbers = torch.arange(24.0)
table = numbers.reshape(4, 6)
block = {"block": table[1:3, 1:6:2].t()}
first = CALL(torch._utils._rebuild_tensor, (stored(), 7, (3, 2), (2, 6)))
hooks = CALL(collections.OrderedDict, ())
second = lambda *args: CALL(torch._utils._rebuild_tensor_v2, (*args, False, hooks))
views = {
    "whole": second(stored(), 0, (4, 6), (6, 1)),
    "part": second(stored(("94371999", 5, 9)), 0, (3, 3), (3, 1)),
    "again": second(stored(("94371999", 5, 9)), 4, (2,), (4,)),
    "cuda": second(stored(("94371777", 23, 1), location="cuda:0"), 0, (1,), (1,)),
    "twice": second(stored(key="5"), 0, (2,), (1,)),
}
expected = {"whole": table, "part": numbers[5:14].reshape(3, 3), "again": numbers[[9, 13]], "cuda": numbers[23:],
            "twice": numbers[:2] * 2}
write_old("legacy_views.bin", views, {"5": numbers * 2, "94371840": numbers}, expected)
write_old("legacy_first.bin", {"block": first}, {"94371840": numbers}, block)
parameter = CALL(torch.nn.Parameter, (first,), (True, False, collections.OrderedDict()))
variable = CALL(torch.nn.Parameter, (), (first, None, collections.OrderedDict(), True, False))
typed = CALL(torch.FloatTensor, (), (stored(), 7, (3, 2), (2, 6)))
write_old("legacy_types.bin", {"parameter": parameter, "variable": variable, "typed": typed}, {"94371840": numbers},
          dict.fromkeys(["parameter", "variable", "typed"], block["block"]))
file = {"94371840": numbers, "5": numbers.half()}
half = CALL(torch.HalfTensor, (), (stored(type=torch.HalfStorage, key="5"), 1, (2,), (1,)))
python2 = CALL(collections.OrderedDict, ([["block", first], ["half", half]],), {"_metadata": {}})
write_old("legacy_python2.bin", python2, file, {**block, "half": numbers[1:3].half()}, python2=True)
with tarfile.open(HERE / "tar.pt", "w", format=tarfile.PAX_FORMAT) as tar:
    for name in ["storages", "tensors", "pickle"]:
        tar.addfile(tarfile.TarInfo(name))
