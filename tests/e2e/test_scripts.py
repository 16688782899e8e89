"""The scripts as a user runs them."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
import yaml
from PIL import Image
from synthetic import photo, tiny_config_data

from fast_style.config import load_config, to_dict

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY_RUN = {"training.steps": 3, "training.checkpoint_every": 2}


def run_script(name: str, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return processes.run(command, cwd=cwd)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_one_line_of_error(result: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]
    for part in parts:
        assert part in errors[0]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, style_file: Path, vgg_file: Path
) -> Path:
    """A folder in which a user has trained `tiny`, with a photo `in.png` in it."""
    folder = tmp_path_factory.mktemp("user")
    data = tiny_config_data(photos=photos, style=style_file, weights=vgg_file)
    del data["name"]
    data["training"] |= {"steps": 3, "checkpoint_every": 2}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(data))
    photo(50, 37, 51).save(folder / "in.png")
    command = [sys.executable, str(SCRIPTS / "train.py"), "--config", "tiny.yaml"]
    command += ["--device", "cpu"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(Path("checkpoints/tiny/tiny.pth"))
    assert "3/3" in result.stderr
    return folder


@pytest.fixture
def user(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder for one test."""
    return Path(shutil.copytree(trained, tmp_path / "user"))


def test_training_leaves_the_run_where_tensorboard_looks(trained: Path) -> None:
    names = {path.name.split(".")[0] for path in (trained / "checkpoints/tiny").iterdir()}
    assert names == {
        "config",
        "events",
        "metrics",
        "state-00000002",
        "state-00000003",
        "tiny",
    }


def test_a_dry_run_shows_the_whole_config_and_leaves_nothing_behind(
    tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    config = tiny_yaml({**TINY_RUN, "data.workers": 2, "data.cache": str(tmp_path / "cache")})
    before = files_below(tmp_path)
    result = run_script(
        "train.py", "--config", config, "--dry-run", "--set", "training.seed=3", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert files_below(tmp_path) == before
    overridden = load_config(config, overrides=["training.seed=3"])
    assert yaml.safe_load(result.stdout) == to_dict(overridden)
    assert "for 3 steps" in result.stdout.splitlines()[-1]


def stylize(*arguments: str, cwd: Path) -> None:
    result = run_script("stylize.py", *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("model", ["tiny", "tiny.pth", "checkpoints/tiny/tiny.pth"])
def test_a_photo_is_stylized_by_a_models_name_or_path(user: Path, model: str) -> None:
    stylize("--model", model, "in.png", cwd=user)
    assert size_of(user / "in.tiny.png") == (51, 37)
    assert (user / "in.tiny.png").read_bytes() != (user / "in.png").read_bytes()


def test_the_output_may_be_named(user: Path) -> None:
    stylize("--model", "tiny", "in.png", "-o", "picture.jpg", cwd=user)
    assert size_of(user / "picture.jpg") == (51, 37)
    assert not (user / "in.tiny.png").exists()


def test_several_photos_each_get_an_upright_output_beside_them(user: Path) -> None:
    (user / "more").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(52, 24, 40).save(user / "more" / "sideways.jpg", exif=exif)
    stylize("--model", "tiny", "in.png", "more/sideways.jpg", cwd=user)
    assert size_of(user / "in.tiny.png") == (51, 37)
    with Image.open(user / "more" / "sideways.tiny.jpg") as output:
        assert output.size == (24, 40)
        assert output.getexif().get(0x0112, 1) == 1


def test_a_missing_photo_folder_is_one_line_and_leaves_nothing(
    tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    config = tiny_yaml({"data.train": "data/coco/train2017"})
    before = files_below(tmp_path)
    result = run_script("train.py", "--config", config, "--device", "cpu", cwd=tmp_path)
    # What was looked for, where it is to be had, and what needs none.
    assert_one_line_of_error(result, "data/coco/train2017", "cocodataset.org", "quickstart.yaml")
    assert files_below(tmp_path) == before


def test_a_missing_model_is_one_line(user: Path) -> None:
    result = run_script("stylize.py", "--model", "gone", "in.png", cwd=user)
    assert_one_line_of_error(result, str(Path("checkpoints/gone/gone.pth")))


def program(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    path = Path(sysconfig.get_path("scripts")) / "fast-style"
    assert path.exists(), "the installed program is missing: pip install -e ."
    command = [str(path), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_program_says_what_it_can_do(tmp_path: Path) -> None:
    result = program("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    for command in ("train", "stylize"):
        assert command in result.stdout


def test_the_program_does_what_the_script_does(user: Path) -> None:
    result = program("stylize", "--model", "tiny", "in.png", cwd=user)
    assert result.returncode == 0, result.stderr
    assert size_of(user / "in.tiny.png") == (51, 37)
