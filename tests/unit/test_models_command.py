import json
from pathlib import Path

import pytest
import torch

from fast_style.checkpoints import files as checkpoint
from fast_style.checkpoints.files import save_model
from fast_style.commands import main
from fast_style.config import places
from fast_style.networks.transformer import TransformerNet

CERTIFICATE = {"size": 256, "initial": "content", "steps": 63, "baseline_steps": 200}
CONFIG = {
    "style": {"image": "styles/wave.jpg"},
    "data": {"description": "3,298 photos, for research only"},
    "training": {"init_from": "starry"},
}


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    monkeypatch.setattr(places, "CONFIGS", tmp_path / "shipped-configs")
    return tmp_path


def test_without_models_it_says_so(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out == (
        "no models are shipped with this version; fast-style train makes one\n"
    )
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_each_model_is_a_line_of_a_table_and_configs_without_one_are_named(
    shipped: Path,
    tiny_network: TransformerNet,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_model(shipped / "wave.pth", tiny_network, metadata={"config": CONFIG})
    save_model(shipped / "bare.pth", tiny_network)
    monkeypatch.chdir(shipped)
    table = [
        "name  style image      size",
        "bare  unknown          0.0 MB",
        "wave  styles/wave.jpg  0.0 MB",
        "(fast-style models bare describes one in full)",
    ]
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == table
    (shipped / "configs").mkdir()
    for name in ("wave", "sea", "mine"):
        (shipped / "configs" / f"{name}.yaml").touch()
    (shipped / "checkpoints/mine").mkdir(parents=True)
    save_model(shipped / "checkpoints/mine/mine.pth", tiny_network)
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *table,
        "a config but no model: sea (fast-style train --config configs/sea.yaml makes one)",
    ]
    (shipped / "shipped-configs").mkdir()
    for name in ("wave", "lake"):
        (shipped / "shipped-configs" / f"{name}.yaml").touch()
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *table,
        "a config but no model: lake, sea (fast-style train --config lake makes one)",
    ]


def test_a_named_model_is_described_with_its_style_photos_and_worth(
    shipped: Path, tiny_network: TransformerNet, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = {**CERTIFICATE, "size": 512, "initial": "noise", "steps": None}
    metadata = {"step": 1500, "config": CONFIG, "quality": [CERTIFICATE, noise]}
    save_model(shipped / "wave.pth", tiny_network, metadata=metadata, dtype=torch.float16)
    save_model(shipped / "bare.pth", tiny_network)
    assert main(["models", "bare", str(shipped / "wave.pth")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "bare: width 4, 0.0 MB, steps unknown",
        "    style image  unknown",
        "    trained on   photos that the model does not name",
        "    worth        not certified",
        "wave: width 4, 0.0 MB, 1,500 steps from starry",
        "    style image  styles/wave.jpg",
        "    trained on   3,298 photos, for research only",
        "    worth        63 steps of L-BFGS from the photo at 256 pixels; more than 200 steps of "
        "L-BFGS from noise at 512 pixels",
    ]


def test_json_has_everything(
    shipped: Path, tiny_network: TransformerNet, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = {"step": 1500, "config": CONFIG, "quality": [CERTIFICATE]}
    path = save_model(shipped / "wave.pth", tiny_network, metadata=metadata)
    assert main(["models", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["name"] == "wave"
    assert (entry["path"], entry["bytes"]) == (str(path), path.stat().st_size)
    assert (entry["width"], entry["num_residual_blocks"], entry["steps"]) == (4, 1, 1500)
    assert entry["style_image"] == "styles/wave.jpg"
    assert entry["data"] == "3,298 photos, for research only"
    assert entry["quality"] == [CERTIFICATE]


def test_a_damaged_model_is_told_and_the_others_are_listed(
    shipped: Path, tiny_network: TransformerNet, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(shipped / "wave.pth", tiny_network)
    (shipped / "broken.pth").write_bytes(b"not a model")
    assert main(["models"]) == 1
    captured = capsys.readouterr()
    (error,) = captured.err.splitlines()
    assert error.startswith(f"error: {shipped / 'broken.pth'}: ")
    assert captured.out.splitlines()[1].startswith("wave ")


@pytest.mark.parametrize("quality", [None, 3, "good", [3], [{}], {}])
@pytest.mark.parametrize("config", [None, 3, {}, {"style": None}, {"data": {"description": ""}}])
def test_metadata_of_any_shape_is_listed(
    shipped: Path,
    tiny_network: TransformerNet,
    capsys: pytest.CaptureFixture[str],
    quality: object,
    config: object,
) -> None:
    metadata = {"quality": quality, "config": config}
    save_model(shipped / "wave.pth", tiny_network, metadata=metadata)
    assert main(["models"]) == 0
    capsys.readouterr()
    assert main(["models", "wave"]) == 0
    assert "trained on   photos that the model does not name" in capsys.readouterr().out
