"""The wheel, built from the sdist and installed, in an empty folder: a whole product."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from synthetic import photo, vgg_weights, write_photos

from fast_style import __version__
from fast_style.commands import COMMANDS

# At the top of the repository: what git leaves out, and what is no part of the package.
_LEFT_OUT = (".*", "*.egg-info", "build", "dist", "data", "checkpoints", "tests", "docs")
_COMMANDS_IN_ONE_PROCESS = """
import sys
from fast_style.commands import COMMANDS, main
sys.argv[0] = {program!r}
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as end:
        print(f"# {{name}} ends with {{end.code}}")
"""
Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """The installed program, and the environment of a user who has nothing else."""

    python: Path
    program: Path
    environment: dict[str, str]

    def run(self, *arguments: object, cwd: Path, **variables: object) -> Result:
        environment = self.environment | {name: str(value) for name, value in variables.items()}
        command = [str(argument) for argument in arguments]
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=300
        )


def _left_out(folder: str, names: list[str]) -> set[str]:
    patterns = _LEFT_OUT if (Path(folder) / "pyproject.toml").is_file() else ("__pycache__",)
    return shutil.ignore_patterns(*patterns)(folder, names)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Build the sdist from a copy of the repository, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(repository, folder / "tree", ignore=_left_out)
    photo(0).save(folder / "tree/styles/scream.jpg")  # a scan of one's own
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    for command in (
        ["-c", build],
        ["-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", ".."],
    ):
        sources = [str(path) for path in folder.glob("*.tar.gz")]
        result = subprocess.run(
            [sys.executable, *command, *sources],
            cwd=folder / "tree",
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Installed:
    """Install the wheel into an environment of its own that lies over the suite's."""
    folder = wheel.parent / "environment"
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(venv, check=True, capture_output=True)
    base = {"base": str(folder), "platbase": str(folder)}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    scripts, libraries = (
        Path(sysconfig.get_path(name, scheme, vars=base)) for name in ("scripts", "purelib")
    )
    below = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    # Their own .pth files, among them the editable install of the repository, are not read.
    (libraries / "suite.pth").write_text("\n".join(below))
    suffix = ".exe" if os.name == "nt" else ""
    python = scripts / f"python{suffix}"
    install = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    result = subprocess.run(
        [sys.executable, *install, str(wheel)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    of_the_suite = ("FAST_STYLE", "PYTHON", "OMP_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(of_the_suite)
    }
    # There is no network, and no cache of weights either.
    environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment |= {"TORCH_HOME": str(folder / "no-cache"), "OMP_NUM_THREADS": "1"}
    return Installed(
        python=python, program=scripts / f"fast-style{suffix}", environment=environment
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of the loss network as far as the default layers need them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(vgg_weights(convolutions=10), folder / "vgg16_features.pth")
    return folder


@pytest.fixture
def fast_style(installed: Installed, tmp_path: Path, weights: Path) -> Callable[..., Result]:
    """Run the program in an empty folder, with weights of the loss network."""

    def run(*arguments: object, **variables: object) -> Result:
        variables = {"FAST_STYLE_WEIGHTS": weights, **variables}
        return installed.run(installed.program, *arguments, cwd=tmp_path, **variables)

    return run


def assert_one_line_of_error(result: Result, *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if "rror:" in line]
    assert len(errors) == 1, result.stderr
    for part in parts:
        assert part in errors[0]


def test_the_installed_program_is_the_wheels(installed: Installed, tmp_path: Path) -> None:
    result = installed.run(installed.program, "--version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"fast-style {__version__}\n")
    code = "import fast_style, importlib.metadata as m; print(fast_style.__file__); "
    code += "print(*m.metadata('fast-style').get_all('Project-URL'), sep='\\n')"
    result = installed.run(installed.python, "-c", code, cwd=tmp_path)
    place, *urls = result.stdout.splitlines()
    assert Path(place).is_relative_to(installed.python.parents[1])
    assert "Homepage, https://github.com/fast-style/fast-style" in urls


def test_its_readme_points_to_no_file_beside_it(installed: Installed, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; print(m.metadata('fast-style').get_payload())"
    readme = installed.run(installed.python, "-c", code, cwd=tmp_path).stdout
    targets = re.findall(r"\]\(([^)]*)\)", readme)
    assert targets
    assert all(target.startswith("https://") for target in targets)


def test_it_holds_no_scripts_and_no_scans_of_paintings(installed: Installed) -> None:
    (package,) = installed.python.parents[1].rglob("fast_style")
    assert (package / "styles/wave.jpg").is_file()
    assert not (package / "styles/scream.jpg").exists()
    assert not list(package.rglob("gallery*"))
    assert not list(package.rglob("benchmark*"))


def test_the_module_is_the_program(installed: Installed, tmp_path: Path) -> None:
    module = [installed.python, "-m", "fast_style"]
    help_of_all = installed.run(*module, "--help", cwd=tmp_path).stdout
    assert help_of_all.startswith("usage: python -m fast_style COMMAND")
    assert "scripts" not in help_of_all
    result = installed.run(*module, "train", "--help", cwd=tmp_path)
    assert result.stdout.startswith("usage: python -m fast_style train ")


def test_every_help_begins_with_what_was_typed(
    installed: Installed, fast_style: Callable[..., Result], tmp_path: Path
) -> None:
    code = _COMMANDS_IN_ONE_PROCESS.format(program=str(installed.program))
    said = installed.run(installed.python, "-c", code, cwd=tmp_path).stdout
    for name in COMMANDS:
        assert f"usage: fast-style {name} " in said
        assert f"# {name} ends with 0" in said
    for word in ("scripts", "gallery", "benchmark", ".py"):
        assert word not in said
    assert fast_style("--help").stdout.startswith("usage: fast-style COMMAND")


def test_what_a_shipped_config_lacks_is_one_line_with_the_cure(
    fast_style: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    dry_run = ["train", "--config", "wave", "--dry-run"]
    assert_one_line_of_error(
        fast_style(*dry_run, FAST_STYLE_WEIGHTS="none"),
        "no weights for vgg16",
        "set FAST_STYLE_WEIGHTS",
    )
    assert_one_line_of_error(
        fast_style(*dry_run),
        "data.train: data/coco/train2017: no such folder of photos",
        "--set data.train=photos/",
    )
    assert_one_line_of_error(
        fast_style("train", "--config", "configs/wavee.yaml"), "did you mean 'wave'?"
    )


def test_a_shipped_config_trains_with_photos_and_weights(
    fast_style: Callable[..., Result], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 4)
    tiny = ["data.train=photos", "style.size=128", "training.image_size=32", "data.workers=0"]
    settings = [part for setting in tiny for part in ("--set", setting)]
    result = fast_style("train", "--config", "wave", "--dry-run", *settings)
    assert result.returncode == 0, result.stderr
    assert "# all inputs are there" in result.stdout
    assert "image: styles/wave.jpg\n" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    result = fast_style(
        *("sweep", "--config", "configs/wave.yaml", *settings[2:], "--images", "photos"),
        *("--set", "loss.strength=0.3,3", "--n", 1, "--size", 48, "--steps", 1),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "checkpoints/sweep-wave/sheet.png").is_file()


def test_shipped_models_stylize_and_are_listed_and_certified(
    fast_style: Callable[..., Result], tmp_path: Path
) -> None:
    (path,) = write_photos(tmp_path / "photos", 1, height=80, width=90)
    result = fast_style("stylize", "--model", "wave", path, "-o", "out.png", OMP_DISPLAY_ENV="true")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (90, 80)
    if "OMP_WAIT_POLICY" in result.stderr:  # PyTorch's own OpenMP tells how its threads wait
        assert re.search("OMP_WAIT_POLICY = '?PASSIVE", result.stderr)
    result = fast_style("models")
    assert "wave          styles/wave.jpg" in result.stdout
    assert "(fast-style train --config autumn makes one)" in result.stdout
    result = fast_style(
        *("evaluate", "--model", "wave", "--images", "photos", "--n", 1, "--sizes", 64),
        *("--steps", 1, "--style", "styles/wave.jpg"),
    )
    assert result.returncode == 0, result.stderr
    result = fast_style("evaluate", "--model", "scream", "--images", "photos")
    assert_one_line_of_error(result, "--style", "styles/README.md says where to get it")
