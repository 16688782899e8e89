"""The chain of graphs: strip by strip the very picture of the whole network."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import photo

from fast_style.checkpoints.files import save_model
from fast_style.commands import export, main
from fast_style.errors import UserError
from fast_style.networks.patch import PatchNet
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer

pytest.importorskip("onnx", reason="pip install 'fast-style[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'fast-style[export]'")

from test_export_onnx import network

from fast_style.export import portable
from fast_style.export.gate import check_parity, strips_runtime
from fast_style.export.onnx import GraphForm
from fast_style.export.stages import stage_bytes
from fast_style.export.strips import STAGES


@pytest.mark.parametrize("half", [False, True])
def test_the_chain_gives_the_networks_picture_at_any_size(half: bool) -> None:
    net = network(half=half)
    stages = stage_bytes(net, half=half)
    assert tuple(stages) == STAGES
    run = strips_runtime(stages, strip_pixels=2000)
    check_parity(run, net, GraphForm(half=half))


def test_the_strips_change_nothing() -> None:
    net = network()
    stages, stylizer = stage_bytes(net), Stylizer(net, device="cpu")

    @settings(max_examples=15)
    @given(st.integers(5, 60), st.integers(5, 60), st.integers(1, 3000))
    @example(60, 30, 1)
    @example(5, 5, 1)
    def compare(height: int, width: int, strip_pixels: int) -> None:
        generator = np.random.default_rng(height * width)
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        found = strips_runtime(stages, strip_pixels=strip_pixels)(image[None])[0]
        apart = np.abs(found.astype(int) - stylizer(image).astype(int))
        assert apart.max() <= 1
        assert (apart > 0).mean() <= 0.01

    compare()


def test_the_chain_is_the_same_each_time() -> None:
    assert stage_bytes(network()) == stage_bytes(network())


def test_a_network_of_the_fast_family_has_no_chain() -> None:
    with pytest.raises(UserError, match="fast family has no stages: export it whole"):
        stage_bytes(PatchNet(4, 1))


def test_a_network_with_transposed_convolutions_has_no_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="has no stages: export it whole"):
        stage_bytes(network("transposed"))
    save_model(tmp_path / "a.pth", TransformerNet(4, 1, upsampling="transposed"))
    output = tmp_path / "a.onnx"
    assert main(["export", "--model", str(tmp_path / "a.pth"), "-o", str(output), "--strips"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network: TransformerNet) -> Path:
    """The working folder, with sea.onnx and its strips, taken for images of 2,000 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(portable, "_STRIPS_FROM", 2000)
    save_model("sea.pth", tiny_network)
    assert main(["export", "--model", "sea.pth", "-o", "sea.onnx", "--strips"]) == 0
    photo(3, 60, 61).save("a.png")
    return tmp_path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_large_image_goes_through_the_strips(
    folder: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="pip install 'fast-style[openvino]'")
    arguments = ["--model", "sea.onnx", "a.png", "--backend", backend]
    assert main(["stylize", *arguments, "-o", "strips.png"]) == 0
    assert main(["stylize", "--model", "sea.pth", "a.png", "-o", "torch.png"]) == 0
    strips, whole = (np.asarray(Image.open(name)) for name in ("strips.png", "torch.png"))
    assert np.abs(strips.astype(int) - whole.astype(int)).max() <= 1
    # It was the strips that painted it.
    (folder / "sea.strips/decode3.onnx").write_bytes(b"")
    capsys.readouterr()
    assert main(["stylize", *arguments, "-o", "other.png"]) != 0


def test_strips_of_another_model_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    save_model("sky.pth", TransformerNet(4, 1))
    assert main(["export", "--model", "sky.pth", "-o", "sky.onnx"]) == 0
    shutil.copytree("sea.strips", "sky.strips")
    capsys.readouterr()
    assert main(["stylize", "--model", "sky.onnx", "a.png", "-o", "b.png"]) != 0
    assert "is of another model than sky.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--io", "float"], ["--size", "32x32"], ["--edge", "none"]])
def test_strips_are_for_bytes_of_any_size(
    folder: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--model", "sea.pth", "-o", "b.onnx", "--strips", *option]) == 2
    assert "--strips is for --io uint8" in capsys.readouterr().err


def test_an_export_takes_the_strips_of_the_model_before_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use: list[bool] = []
    write = export.atomic_write

    def watched(path: Path) -> AbstractContextManager[BinaryIO]:
        files = [folder / f"sea.strips/{stage}.onnx" for stage in STAGES]
        in_use.append(all(file.is_file() for file in files))
        return write(path)

    monkeypatch.setattr(export, "atomic_write", watched)
    export_sea = ["export", "--model", "sea.pth", "-o", "sea.onnx"]
    assert main([*export_sea, "--strips"]) == 0
    # Killed at whatever file, it would leave no strips of the old model beside the new one.
    assert in_use == [False] * 8
    (folder / "sea.strips/.trunk.onnx.tmp").write_bytes(b"of an export that was killed")
    # The old strips would be taken, whose edges are other ones.
    assert main([*export_sea, "--edge", "none"]) == 0
    assert not (folder / "sea.strips").exists()


def test_strips_of_which_one_is_missing_are_not_taken(folder: Path) -> None:
    (folder / "sea.strips/decode2.onnx").unlink()
    assert main(["stylize", "--model", "sea.onnx", "a.png", "-o", "whole.png"]) == 0


def test_strips_with_other_edges_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--model", "sea.pth", "-o", "sky.onnx", "--edge", "none"]) == 0
    shutil.copytree("sea.strips", "sky.strips")
    capsys.readouterr()
    assert main(["stylize", "--model", "sky.onnx", "a.png", "-o", "b.png"]) != 0
    told = (
        "encode1.onnx: is of another --edge than sky.onnx: export that again, or remove sky.strip"
    )
    assert told in capsys.readouterr().err
