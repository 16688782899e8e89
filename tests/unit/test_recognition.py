"""Checkpoints as wrappers and other programs save them, and files that are no checkpoint."""

import argparse
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fast_style.checkpoints.files import CheckpointError, load_model, save_model
from fast_style.networks.transformer import TransformerNet

State = dict[str, Tensor]


def weights() -> State:
    """Random weights under the names of pytorch/examples, for a network of width 4."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def conv(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, size, size, generator=generator)
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator)

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = torch.rand(channels, generator=generator) + 0.5
        state[f"{name}.bias"] = torch.randn(channels, generator=generator)

    for i, (inputs, outputs, size) in enumerate(((3, 4, 9), (4, 8, 3), (8, 16, 3)), 1):
        conv(f"conv{i}.conv2d", inputs, outputs, size)
        norm(f"in{i}", outputs)
    for i in range(1, 6):
        for k in (1, 2):
            conv(f"res{i}.conv{k}.conv2d", 16, 16, 3)
            norm(f"res{i}.in{k}", 16)
    for i, (inputs, outputs, size) in enumerate(((16, 8, 3), (8, 4, 3), (4, 3, 9)), 1):
        conv(f"deconv{i}.conv2d", inputs, outputs, size)
        if i < 3:
            norm(f"in{i + 3}", outputs)
    return state


def before(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


def beside_another(state: State) -> dict[str, Any]:
    """As a Lightning module saves it that holds its loss network too."""
    other = {"loss.vgg.features.0.weight": torch.zeros(1), "loss.mean": torch.zeros(3)}
    return {"epoch": 3, "state_dict": {**before("network.")(state), **other}}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "compiled": before("_orig_mod."),
    "compiled, parallel": before("module._orig_mod."),
    "parallel, compiled": before("_orig_mod.module."),
    "three": before("model._orig_mod.module."),
    "seven": before("fabric.strategy.model._orig_mod.module._orig_mod.net."),
    "deeply nested": lambda state: {
        "a": {"b": {"c": {"state_dict": before("module.model.")(state)}}},
        "config": {"d": {}},
    },
    "prefixed everywhere": lambda state: {
        "trainer": {"module": before("ema.module.")(state), "optimizer": {"state": {}, "lr": 0.1}}
    },
    "lightning": lambda state: {"state_dict": before("model.")(state), "epoch": 3},
    "beside another": beside_another,
    "net": lambda state: {"net": state},
    "generator": lambda state: {"generator": state, "discriminator": {"a.weight": torch.zeros(2)}},
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {
        "params": {key: value + 1 for key, value in state.items()},
        "params_ema": state,
    },
    "any name": lambda state: {"my_best": state, "step": 4},
    "nested": lambda state: {"checkpoint": {"network": before("module.")(state)}},
    "numpy loss": lambda state: {"state_dict": state, "loss": np.float64(3), "n": np.int32(4)},
    "numpy float32": lambda state: {"state_dict": state, "loss": np.float32(3)},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_weights_are_found(tmp_path: Path, kind: str) -> None:
    state = weights()
    torch.save(state, tmp_path / "plain.pth")
    torch.save(WRAPPED[kind](state), tmp_path / "a.pth")
    plain, model = load_model(tmp_path / "plain.pth"), load_model(tmp_path / "a.pth")
    assert model.metadata == {"imported_from": "pytorch/examples"}
    found = model.network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in plain.network.state_dict().items())


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_safetensors_need_no_package(tmp_path: Path, dtype: str) -> None:
    kind = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}[dtype]
    state = {key: value.to(getattr(torch, kind)) for key, value in weights().items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, value in state.items():
        data = value.contiguous().view(torch.uint8).numpy().tobytes()
        place = [len(body), len(body) + len(data)]
        header[key] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": place}
        body += data
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + body
    (tmp_path / "a.safetensors").write_bytes(content)
    torch.save(state, tmp_path / "plain.pth")
    plain = load_model(tmp_path / "plain.pth").network.state_dict()
    found = load_model(tmp_path / "a.safetensors").network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in plain.items())
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: damaged .* is cut short"):
        load_model(tmp_path / "cut.safetensors")


def picture(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, "JPEG")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/candy.pth", b"weights")
        archive.writestr("saved/udnie.pth", b"weights")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")


def numpy_bytes(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, np.zeros(3))
    return file.getvalue()


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("candy.pth"))


class Part(nn.Module):
    """What is pickled by its name."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def cut(path: Path) -> None:
    save_model(path, TransformerNet(width=2, num_residual_blocks=0))
    path.write_bytes(path.read_bytes()[:-100])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 6728029\n"
NO_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lfs.pth": (lambda path: path.write_bytes(LFS), "a Git LFS pointer.*run `git lfs pull`"),
    "page.pth": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "is a web page"),
    "page2.pth": (lambda path: path.write_text("<HTML>404"), "is a web page"),
    "photo.pth": (picture, "is a JPEG, a picture and not a model"),
    "zip.pth": (zipped, r"is a zip with saved/candy\.pth and 1 more in it: unpack it"),
    "other.pth": (other_zip, "is a zip without any weights"),
    "lua.t7": (
        lambda path: path.write_bytes(struct.pack("<iii3s", 4, 1, 3, b"V 1") + bytes(40)),
        "is a file of Torch7",
    ),
    "net.onnx": (
        lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.6.0" + bytes(30)),
        "is an ONNX file",
    ),
    "net.pth": (
        lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.6.0" + bytes(30)),
        r"is an ONNX file: fast-style stylize --model net\.onnx runs .*, renamed to \.onnx",
    ),
    "photo2.pth": (
        lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)),
        "is a picture and not a model",
    ),
    "film.pth": (lambda path: path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(40)), "is a clip"),
    "text.pth": (lambda path: path.write_text('{"weights": "model.pth"}'), "is JSON, a text"),
    "array.pth": (lambda path: path.write_bytes(numpy_bytes(np.save)), "an array of NumPy"),
    "arrays.pth": (lambda path: path.write_bytes(numpy_bytes(np.savez)), "a zip of NumPy arrays"),
    "language.pth": (lambda path: path.write_bytes(b"GGUF" + bytes(40)), "a GGUF file"),
    "tar.pth": (tarred, "is a tar archive: unpack it"),
    "keras.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40)), "an HDF5 file"),
    "empty.pth": (lambda path: path.write_bytes(b""), "is empty"),
    "cut.pth": (cut, "is damaged or cut short: copy or download it again"),
    "whole.pth": (
        lambda path: torch.save(Part(), path),
        r"refused: holds pickled code \(.*Part\) .*torch\.save\(model\.state_dict\(\)",
    ),
    "args.pth": (
        lambda path: torch.save({"state_dict": weights(), "args": argparse.Namespace(a=1)}, path),
        r"refused: holds pickled code \(argparse\.Namespace\) .*save these alone",
    ),
    "path.pth": (
        lambda path: torch.save({"state_dict": weights(), "style": Path("a.jpg")}, path),
        r"refused: holds pickled code \(pathlib.*\) .*save these alone",
    ),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_checkpoint_is_named_with_its_cure(tmp_path: Path, name: str) -> None:
    write, what = NO_MODELS[name]
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name}: .*{what}") as caught:
        load_model(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt: is TorchScript, .*state_dict\(\)"):
        load_model(tmp_path / "a.pt")
