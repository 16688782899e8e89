"""`fast-style export`: the files that it writes, and what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_style.checkpoints.files import CheckpointError, load_model, save_model, shipped_models
from fast_style.checkpoints.safe_weights import read_safetensors, tensor_bytes
from fast_style.commands import main
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer

METADATA = {
    "version": "0.0.1",
    "name": "sea",
    "step": 7,
    "config": {"style": {"image": "sea.jpg"}, "data": {"description": "photos of mine (CC0)"}},
}

Export = Callable[..., int]


@pytest.fixture
def model(tmp_path: Path, tiny_network: TransformerNet) -> Path:
    return save_model(tmp_path / "in" / "sea.pth", tiny_network, metadata=METADATA)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()


def export(model: Path, output: Path, *options: str) -> int:
    return main(["export", "--model", str(model), "-o", str(output), *options])


def same_bits(one: TransformerNet, other: TransformerNet) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_an_onnx_file_is_written_and_says_where_it_is_from(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    output = tmp_path / "sea.onnx"
    assert export(model, output, "--licence", "CC BY 4.0") == 0
    assert capsys.readouterr().out.startswith(f"{output}: sea, 0.07 MB, opset 17; at most ")
    properties = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert properties.pop("checksum").startswith("sha256:")
    assert properties == {
        "style": "sea",
        "style_image": "sea.jpg",
        "trained_on": "photos of mine (CC0)",
        "licence": "CC BY 4.0",
        "version": "0.1.0",
        "edge": "reflect",
        "width": "4",
    }
    first = output.read_bytes()
    assert export(model, output, "--licence", "CC BY 4.0") == 0
    assert output.read_bytes() == first


@pytest.mark.parametrize("path", shipped_models(), ids=lambda path: path.stem)
def test_a_shipped_model_passes_the_gate_in_less_than_two_megabytes(
    path: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    output = tmp_path / "shipped.onnx"
    assert export(path, output) == 0
    assert output.stat().st_size < 2_000_000
    properties = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert properties["licence"] == "MIT"


def test_safetensors_give_back_the_bits_of_the_model(
    model: Path, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    output = tmp_path / "hub" / "model.safetensors"
    output.parent.mkdir()
    assert export(model, output) == 0
    back = load_model(output)
    assert back.metadata == METADATA
    assert same_bits(back.network, tiny_network)
    card = output.with_name("README.md").read_text()
    assert "license: unknown\n" in card
    assert "| Trained on | photos of mine (CC0) |" in card
    config = json.loads(output.with_name("config.json").read_text())
    assert config["network"] == {"width": 4, "num_residual_blocks": 1, "upsampling": "nearest"}
    # The model's own files are replaced.
    assert export(model, output, "--half") == 0
    halved = load_model(output).network.state_dict()
    for name, weight in tiny_network.state_dict().items():
        assert torch.equal(halved[name], weight.half().float())


def test_the_formats_own_package_agrees(
    model: Path, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    package = pytest.importorskip("safetensors.torch")
    output = tmp_path / "sea.safetensors"
    assert export(model, output) == 0
    theirs = package.load_file(output)
    weights = tiny_network.state_dict()
    assert theirs.keys() == weights.keys()
    assert all(torch.equal(theirs[name], weights[name]) for name in weights)
    tensors = {
        "half": torch.randn(2, 5).half(),
        "bf16": torch.randn(7).bfloat16(),
        "count": torch.tensor(3),
        "empty": torch.empty(0, 4),
    }
    package.save_file(tensors, tmp_path / "theirs.safetensors")
    ours = read_safetensors(tmp_path / "theirs.safetensors")
    assert ours.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(ours[name], tensor)
        assert ours[name].dtype == tensor.dtype


def test_a_damaged_safetensors_file_is_a_checkpoint_error(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    path = tmp_path / "damaged.safetensors"
    whole = tensor_bytes(tiny_network.state_dict(), {"fast-style": json.dumps({"format": "x"})})
    header = 8 + int.from_bytes(whole[:8], "little")

    @settings(max_examples=200)
    @given(st.integers(0, header - 1), st.integers(0, 255), st.integers(0, len(whole)))
    def damage(position: int, value: int, length: int) -> None:
        changed = bytearray(whole)
        changed[position] = value
        for content in (bytes(changed), whole[:length]):
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match="damaged"):
                load_model(path)

    damage()


def test_a_header_that_points_beside_the_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    for offsets in ([0, 8], [-4, 0], [4, 8], [8, 4]):
        entry = {"dtype": "F32", "shape": [1], "data_offsets": offsets}
        header = json.dumps({"x": entry}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(CheckpointError, match="is cut short, or its header is damaged"):
            load_model(path)


@pytest.mark.slow
def test_a_program_gives_the_networks_picture_without_this_package(
    model: Path, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    output = tmp_path / "sea.pt2"
    assert export(model, output) == 0
    images = {str(size): torch.rand(*size) for size in [(1, 3, 5, 7), (3, 3, 40, 33)]}
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; sys.modules['fast_style'] = None\n"
        "run = torch.export.load('sea.pt2').module(); images = torch.load('images.pt')\n"
        "pictures = {name: run(image) for name, image in images.items()}\n"
        "torch.save([pictures, run.state_dict()], 'out.pt')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    pictures, weights = torch.load(tmp_path / "out.pt")
    for name, weight in tiny_network.state_dict().items():
        assert torch.equal(weights[f"network.{name}"], weight)
    stylizer = Stylizer(tiny_network, device="cpu")
    for name, image in images.items():
        assert (pictures[name] - stylizer(image)).abs().max() <= 0.02 / 255


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("sea.tflite", [], "name a .onnx, .pt2 or .safetensors file"),
        ("sea.pt2", ["--half"], "--half does nothing for a .pt2 file"),
        ("sea.pt2", ["--edge", "none"], "--edge does nothing for a .pt2 file"),
        ("sea.safetensors", ["--size", "64x64"], "--size does nothing for a .safetensors file"),
        ("sea.onnx", ["--opset", "12"], "opset 12: use 13 to 24"),
        ("nowhere/sea.onnx", [], "there is no folder"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    model: Path,
    tmp_path: Path,
    output: str,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnx")
    assert export(model, tmp_path / output, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_another_projects_file_is_not_overwritten(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("{}")
    assert export(model, tmp_path / "sea.safetensors") == 2
    assert f"{name}: is in the way" in capsys.readouterr().err
    assert not (tmp_path / "sea.safetensors").exists()
    assert (tmp_path / name).read_text() == "{}"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("onnxruntime", "an exported graph is checked in ONNX Runtime: pip install"),
        ("onnx", "a .onnx file needs pip install"),
    ],
)
def test_a_graph_that_cannot_be_checked_is_not_written(
    model: Path, tmp_path: Path, missing: str, message: str
) -> None:
    pytest.importorskip("onnx")
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from fast_style.commands import main\n"
        f"raise SystemExit(main(['export', '--model', {str(model)!r}, '-o', 'sea.onnx']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stderr == f"error: {message} 'fast-style[export]'\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_weights_too_large_for_float16_are_refused(
    tmp_path: Path, tiny_network: TransformerNet, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.no_grad():
        next(tiny_network.parameters()).view(-1)[0] = 7e4
    model = save_model(tmp_path / "in" / "a.pth", tiny_network)
    assert export(model, tmp_path / "b.onnx", "--half") == 2
    assert "too large for float16: leave out --half" in capsys.readouterr().err
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize(
    ("licence", "for_the_hub", "row"),
    [
        (" ", "unknown", "not stated"),
        ("MIT: as\nit is | here", "mit", "MIT: as it is / here"),
        ("©", "other", "©"),
    ],
)
def test_any_licence_makes_a_whole_model_card(
    model: Path, tmp_path: Path, licence: str, for_the_hub: str, row: str
) -> None:
    assert export(model, tmp_path / "sea.safetensors", "--licence", licence) == 0
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"\nlicense: {for_the_hub}\n" in card
    assert f"\n| Licence of the weights | {row} |\n" in card
