"""A folder of forty photos, ten of them broken in ten ways, as every command that reads one."""

import json
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import torch
import yaml
from kinds import BROKEN, write_broken
from PIL import Image
from synthetic import photo, tiny_config_data, vgg_weights

from fast_style.checkpoints.files import load_model, save_model
from fast_style.commands import main
from fast_style.networks.transformer import TransformerNet

SCRIPTS = Path(__file__).parents[2] / "scripts"
# As if the `formats` extra were not installed.
WITHOUT = """
import sys
from fast_style.images import deep
deep.available = lambda: False
from fast_style.commands import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def user(tmp_path: Path, vgg_file: Path, tiny_network: TransformerNet) -> Path:
    """A user's folder: photos, a style image, a config and a model trained by it."""
    (tmp_path / "photos").mkdir()
    write_broken(tmp_path / "photos")
    photo(1000, 40, 40).save(tmp_path / "style.png")
    data = tiny_config_data(
        photos=tmp_path / "photos", style=tmp_path / "style.png", weights=vgg_file
    )
    data["training"] |= {"steps": 2, "preview_every": 2, "validate_every": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (tmp_path / "models").mkdir()
    metadata = {"name": "tiny", "step": 3, "config": data}
    save_model(tmp_path / "models" / "tiny.pth", tiny_network, metadata=metadata)
    return tmp_path


def run(
    user: Path, *arguments: object, code: int = 1, said: str = "error: "
) -> "subprocess.CompletedProcess[str]":
    """Run a program, and look at its stderr: ten lines, each with a broken photo's name."""
    result = processes.run([sys.executable, *arguments], cwd=user)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(said)]
    named = [name for line in lines for name in BROKEN if f"/{name}: " in line]
    assert sorted(named) == sorted(BROKEN), result.stderr
    assert len(lines) == len(BROKEN)
    return result


def strange(stderr: str, *starts: str) -> list[str]:
    """Return the lines that begin with none of what this program writes."""
    return [line for line in stderr.splitlines() if line and not line.startswith(starts)]


@pytest.mark.parametrize("extra", ["with", "without"])
def test_thirty_of_forty_photos_are_stylized(user: Path, extra: str) -> None:
    command = (SCRIPTS / "stylize.py",) if extra == "with" else ("-c", WITHOUT, "stylize")
    options = ("--model", "models/tiny.pth", "--device", "cpu", "--manifest", "m.json")
    result = run(user, *command, "photos", "-o", "out", *options)
    assert len(list((user / "out").iterdir())) == 30
    assert result.stderr.splitlines()[-1] == "30 stylized, 10 failed"
    assert strange(result.stderr, "error: photos/", "30 stylized") == []
    entries = [json.loads(line) for line in (user / "m.json").read_text().splitlines()]
    assert sum(entry["error"] is not None for entry in entries) == 10


def test_a_sheet_shows_thirty_of_forty_photos(user: Path) -> None:
    options = ("--model", "models/tiny.pth", "--device", "cpu", "--size", 16)
    result = run(user, SCRIPTS / "stylize.py", "photos", "--sheet", "sheet.png", *options)
    assert strange(result.stderr, "error: photos/") == []
    with Image.open(user / "sheet.png") as sheet:
        assert sheet.height == 12 + 30 * (13 + 28 + 12)


def test_check_data_names_ten_of_forty_photos(user: Path) -> None:
    result = processes.run([sys.executable, SCRIPTS / "check_data.py", "photos"], cwd=user)
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "40 image files, 30 usable"
    named = [line.split(": ")[0].removeprefix("  photos/") for line in lines[2:12]]
    assert named == sorted(BROKEN)


def test_training_goes_on_with_thirty_of_forty_photos(user: Path) -> None:
    options = ("--config", "tiny.yaml", "--device", "cpu")
    result = run(user, SCRIPTS / "train.py", *options, "--dry-run", said="skipped: ")
    assert not (user / "checkpoints").exists()
    result = run(user, SCRIPTS / "train.py", *options, said="skipped: ")
    assert (user / "checkpoints/tiny/tiny.pth").is_file()
    assert "10 photos could not be read and were left out" in result.stderr.splitlines()
    # Its command again finds the run finished, and reads no photo.
    again = processes.run([sys.executable, SCRIPTS / "train.py", *options], cwd=user)
    assert (again.returncode, "skipped" in again.stderr) == (0, False)


def test_the_loader_leaves_out_what_the_scan_did_not_decode(
    user: Path,
) -> None:
    program = "\n".join(
        (
            "import sys",
            "from fast_style.data import photos",
            "photos.inspect_images.__kwdefaults__['decoded'] = 1",
            "from fast_style.commands import main",
            "sys.exit(main(sys.argv[1:]))",
        )
    )
    # Three steps see each of the photos.
    steps = ("--set", "training.steps=3", "--set", "training.batch_size=12")
    options = ("--config", "tiny.yaml", "--device", "cpu", *steps)
    run(user, "-c", program, "train", *options, said="skipped: ")
    assert (user / "checkpoints/tiny/tiny.pth").is_file()


@pytest.mark.parametrize("kind", [("--steps", "1"), ("--card",), ("--video-stability",)])
def test_a_model_is_judged_by_thirty_of_forty_photos(user: Path, kind: tuple[str, ...]) -> None:
    options = ("--images", "photos", "--device", "cpu", "--sizes", "32", "--json", "c.json")
    if kind == ("--card",):  # which looks deeper than the config
        torch.save(vgg_weights(convolutions=10), user / "deep.pth")
        model = load_model(user / "models/tiny.pth")
        model.metadata["config"]["loss"]["weights"] = str(user / "deep.pth")
        save_model(user / "models/tiny.pth", model.network, metadata=model.metadata)
    if kind == ("--video-stability",):
        options = (*options, "--n", "1")
    result = run(
        user, SCRIPTS / "evaluate.py", "--model", "models/tiny.pth", *options, *kind,
        said="skipped: ",
    )  # fmt: skip
    assert "10 photos could not be read and were left out" in result.stderr.splitlines()
    if kind == ("--steps", "1"):
        data = json.loads((user / "c.json").read_text())
        assert len(data["certificates"][0]["per_image"]) == 30


def test_a_network_is_taught_with_thirty_of_forty_photos(user: Path) -> None:
    options = ("--images", "photos", "--crop", "32", "--steps", "2", "-o", "fast.pth")
    result = run(
        user, SCRIPTS / "distill.py", "--model", "models/tiny.pth", *options, "--device", "cpu",
        said="skipped: ",
    )  # fmt: skip
    assert "10 photos could not be read and were left out" in result.stderr.splitlines()
    assert load_model(user / "fast.pth").network.kind == "patch"


def test_a_sweep_shows_thirty_of_forty_photos(user: Path) -> None:
    options = ("--images", "photos", "--n", 40, "--size", 16, "--steps", 1, "--device", "cpu")
    axis = ("--set", "loss.style_weight=0.1,1")
    result = run(
        user, SCRIPTS / "sweep.py", "--config", "tiny.yaml", *axis, *options, said="skipped: "
    )
    assert "10 photos could not be read and were left out" in result.stderr.splitlines()
    made = list(user.rglob("checkpoints/sweep-tiny/*/*.png"))
    assert len(made) == 60


def test_a_gallery_shows_thirty_of_forty_photos(user: Path) -> None:
    names = sorted(path.name for path in (user / "photos").iterdir())
    chosen = [word for name in names for word in ("--photo", name)]
    options = ("--models", "models", "-o", "page.md", "--size", "16", "--device", "cpu")
    result = run(
        user, SCRIPTS / "gallery.py", "--photos", "photos", *chosen, *options, said="skipped: "
    )
    assert "10 photos could not be read and were left out" in result.stderr.splitlines()
    assert len(list((user / "images/gallery").glob("photo-*-tiny.jpg"))) == 30


def test_thirty_of_forty_photos_are_optimised_and_a_broken_one_alone_is_a_mistake(
    user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(user)
    recipe = {
        "loss": yaml.safe_load((user / "tiny.yaml").read_text())["loss"],
        "style": {"size": 24},
        "content": {"maximum": 24},
        "optimization": {"steps": 1},
    }
    (user / "mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (user / "photos/film.mov").write_bytes(b"")
    options = ("--recipe", "mine.yaml", "--content", "photos", "--style", "style.png")
    result = run(user, SCRIPTS / "optimize.py", *options, "-o", "all", "--device", "cpu")
    assert len(list((user / "all").iterdir())) == 30
    assert "1 file left out: 1 .mov" in result.stderr.splitlines()
    for name in BROKEN:
        for content, style in ((f"photos/{name}", "style.png"), ("style.png", f"photos/{name}")):
            options = ("--recipe", "mine.yaml", "--content", content, "--style", style)
            assert main(["optimize", *options, "-o", "out/a.png", "--device", "cpu"]) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert line.startswith(f"error: photos/{name}: ")
    assert not (user / "out").exists()
