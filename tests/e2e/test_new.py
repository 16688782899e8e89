"""`fast-style new` as a user runs it: one command from a picture and photos to a model."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
import yaml
from PIL import Image
from synthetic import photo, vgg_weights, write_photos

from fast_style.checkpoints.files import find_states, load_model, shipped_models
from fast_style.config import load_config

SCRIPT = Path(__file__).parents[2] / "scripts" / "new.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of VGG-16 up to relu4_3."""
    folder = tmp_path_factory.mktemp("vgg")
    torch.save(vgg_weights(convolutions=10), folder / "vgg16_features.pth")
    return folder


@pytest.fixture
def user(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a painting and a folder of photos in it."""
    write_photos(tmp_path / "photos", 6)
    photo(7, 40, 48).save(tmp_path / "My Painting.png")
    monkeypatch.setenv("FAST_STYLE_WEIGHTS", str(weights))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


QUICK = ("--image-size", "32", "--device", "cpu")


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments]


def new(user: Path, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    result = processes.run(command(*arguments, *QUICK), cwd=user, timeout=300)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_one_command_makes_a_model_and_again_it_is_there(user: Path) -> None:
    arguments = ("My Painting.png", "photos", "--minutes", "0.05", "--strength", "2")
    result = new(user, *arguments)
    run = user / "checkpoints" / "My_Painting"
    data = yaml.safe_load((user / "My_Painting.yaml").read_text())
    assert data["style"] == {"image": "My Painting.png", "size": 48}  # not enlarged
    assert data["data"] == {"train": ["photos"]}
    assert data["loss"] == {"strength": 2}
    assert data["training"]["init_from"] in {path.stem for path in shipped_models()}
    load_config(user / "My_Painting.yaml")
    model = load_model(run / "My_Painting.pth")
    assert model.network.width == 16
    assert model.metadata["step"] > 0
    with Image.open(run / "strengths.png") as sheet:
        assert sheet.width == 12 + 4 * (192 + 12)  # a photo and three strengths
    with Image.open(run / "photos.jpg") as sheet:
        assert sheet.width > 2 * 512
    lines = result.stdout.splitlines()
    assert lines[0].startswith(str(Path("checkpoints/My_Painting/strengths.png")))
    assert "done by about " in lines[1]
    stylize = str(SCRIPT.with_name("stylize.py"))  # as it was called itself
    assert lines[-1].split() == [stylize, "--model", "My_Painting", "photo.jpg"]
    # Again: nothing is left to do, and nothing changes.
    before = (run / "strengths.png").stat().st_mtime_ns, (run / "My_Painting.pth").read_bytes()
    again = new(user, *arguments)
    assert again.stdout.splitlines()[-1] == lines[-1]
    assert "strengths" not in again.stdout
    assert before == ((run / "strengths.png").stat().st_mtime_ns, model_bytes(run))
    # Another strength is another style.
    other = new(user, *arguments[:-1], "3", code=2)
    assert "My_Painting.yaml: loss.strength: is 2.0 there, and 3.0 in this command" in other.stderr
    assert other.stderr.count("error:") == 1


def model_bytes(run: Path) -> bytes:
    return (run / "My_Painting.pth").read_bytes()


def test_an_interrupted_training_goes_on_and_names_a_broken_photo_once(user: Path) -> None:
    (user / "photos" / "bad.jpg").write_bytes(b"nothing")
    arguments = ("My Painting.png", "photos", "--minutes", "0.1", "--name", "mine")
    process = subprocess.Popen(
        command(*arguments, *QUICK),
        cwd=user,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while "done by about" not in process.stdout.readline():
        assert process.poll() is None
    run = user / "checkpoints" / "mine"
    end = time.monotonic() + 60
    while not any(run.glob("events*")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert find_states(run)
    step = int(find_states(run)[-1].stem.removeprefix("state-"))
    result = new(user, *arguments, code=1)
    assert result.stderr.count("bad.jpg") == 1
    assert "strengths.png" not in result.stdout  # that was shown
    assert load_model(run / "mine.pth").metadata["step"] > step
