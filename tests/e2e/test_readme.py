"""README's commands and its Python, run as they stand there but for small settings.

A new command in README is unknown here and fails: it needs a line in `RUN`, or in `NOT_RUN` with
the reason.
"""

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from PIL import Image
from synthetic import photo, tiny_config_data, vgg_weights, write_photos

import fast_style
from fast_style.commands import main
from fast_style.config import config_from_dict

pytestmark = pytest.mark.usefixtures("signal_handlers_restored")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(language, text) for language, text in FENCE.findall(README)]
COMMANDS = [
    re.split(r"\s+# ", line)[0].strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.strip()
]


@dataclass(frozen=True)
class Small:
    """How a command becomes a small one, and a file or folder that it leaves."""

    leaves: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)
    besides: str = ""


# Random weights reach relu3_3 only, and three steps show as much as a hundred.
_OPTIMIZE = (
    "--set loss.weights=vgg.pth --set loss.content_layers=[relu2_2] "
    "--set loss.style_layers=[relu1_2] --set optimization.steps=2"
)
_LOOKS = "--strength 0.6 --preserve-color luma --stroke-scale 2"
RUN = {
    "fast-style stylize --model wave in.jpg": Small(leaves="in.wave.jpg"),
    "fast-style train --config configs/wave.yaml": Small(
        leaves="checkpoints/my/my.pth", instead={"configs/wave.yaml": "my.yaml"}
    ),
    "fast-style stylize --model wave photos/ --recursive -o out/": Small(leaves="out"),
    "fast-style stylize --model wave scan.tif --depth 16 --keep-metadata": Small(
        leaves="scan.wave.tif"
    ),
    f"fast-style stylize --model wave in.jpg {_LOOKS}": Small(leaves="in.wave.jpg"),
    "fast-style stylize --model wave panorama.jpg --wrap x": Small(
        leaves="in.wave.jpg", instead={"panorama.jpg": "in.jpg"}
    ),
    "fast-style stylize in.jpg --sheet sheet.jpg": Small(leaves="sheet.jpg"),
    "fast-style models": Small(),
    "fast-style models wave": Small(),
    "fast-style optimize --content in.jpg --style styles/wave.jpg -o out.png": Small(
        leaves="out.png", besides=_OPTIMIZE
    ),
    # The shipped model would need real weights.
    "fast-style evaluate --model wave --images photos/": Small(
        instead={"wave": "my"}, besides="--n 2 --sizes 32 --steps 2"
    ),
    "fast-style train --config my.yaml --dry-run": Small(),
    "fast-style train --config my.yaml --set training.steps=2000 --max-minutes 30": Small(
        leaves="checkpoints/my/my.pth", instead={"training.steps=2000": "training.steps=3"}
    ),
    "fast-style check-data photos/": Small(besides="--image-size 32"),
    "fast-style sweep --config my.yaml --set loss.strength=0.3,1,3": Small(
        leaves="checkpoints/sweep-my", besides="--steps 1 --size 32 --n 1"
    ),
}
NOT_RUN = {
    "fast-style new painting.jpg photos/": "tests/e2e/test_new.py does",
    "fast-style stylize --model wave clip.mp4 -o out.mp4": "tests/unit/test_stylize_clips.py does",
    "fast-style live --model wave ink": "tests/unit/test_live.py does, without a camera",
    "fast-style distill --model wave --images photos/ -o wave-fast.pth": (
        "tests/unit/test_patch_net.py does"
    ),
    "fast-style evaluate --model wave --images photos/ --card": (
        "tests/unit/test_report_card.py does"
    ),
    "fast-style evaluate --model my --against other.pth --images photos/ --sheet both.png": (
        "tests/unit/test_report_card.py does"
    ),
    "fast-style export --model wave -o wave.onnx": "tests/unit/test_export_onnx.py does",
    "make web": "tests/web does",
    "fast-style serve": "tests/unit/test_serving.py does",
    "fast-style stylize --model wave s3://bucket/in/ -o s3://bucket/out/ --ray auto": (
        "tests/e2e/test_object_store.py and test_ray.py do"
    ),
    "fast-style stylize --model wave photos/ -o out/ --mask masks/": (
        "tests/unit/test_masks.py does"
    ),
    "tensorboard --logdir checkpoints": "a server of another project",
    "make demo": "makes an environment, and trains for minutes",
    "make test": "is this suite",
    "torchrun --nproc-per-node 4 -m fast_style stylize --model wave photos/ -o out/": (
        "tests/e2e/test_many_processes.py does"
    ),
    "torchrun --nproc-per-node 4 -m fast_style train --config my.yaml": (
        "tests/e2e/test_many_processes.py does"
    ),
}
PYTHON = {
    "training.steps=2000": "training.steps=3",
    "OptimizationConfig(steps=100)": "OptimizationConfig(steps=2)",
    # Random weights, so that none have to be at hand.
    'load_vgg("vgg19", ["relu2_2", "relu3_3"])': (
        'load_vgg("vgg16", ["relu2_2", "relu3_3"], path="vgg.pth")'
    ),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    write_photos(folder / "photos", 6)
    (folder / "styles").mkdir()
    photo(7).save(folder / "in.jpg")
    photo(8, 64, 64).save(folder / "styles/wave.jpg")
    pixels = numpy.arange(24 * 32, dtype=numpy.uint16).reshape(24, 32) * 80
    Image.fromarray(pixels).save(folder / "scan.tif")
    torch.save(vgg_weights(convolutions=7), folder / "vgg.pth")
    data = tiny_config_data(
        photos=Path("photos"), style=Path("styles/wave.jpg"), weights=Path("vgg.pth")
    )
    del data["name"], data["loss"]["style_weight"]
    data["loss"]["strength"] = 1
    data["training"]["steps"] = 3
    (folder / "my.yaml").write_text(yaml.safe_dump(data))
    return folder


@pytest.fixture
def user(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder for one test, with a user in it."""
    folder = Path(shutil.copytree(prepared, tmp_path / "user"))
    monkeypatch.chdir(folder)
    return folder


def test_every_command_is_run_or_left_out_for_a_reason() -> None:
    assert len(COMMANDS) > 15
    unknown = set(COMMANDS) - set(RUN) - set(NOT_RUN)
    assert not unknown, "new in README: give it a line in RUN, or in NOT_RUN"
    gone = (set(RUN) | set(NOT_RUN)) - set(COMMANDS)
    assert not gone, "no longer in README"


def test_every_block_says_its_language() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "yaml", "text"}


@pytest.mark.parametrize("command", RUN)
def test_a_command_of_readme_works(command: str, user: Path) -> None:
    small = RUN[command]
    program, *words = shlex.split(f"{command} {small.besides}")
    assert program == "fast-style"
    assert set(small.instead) <= set(words)
    words = [small.instead.get(word, word) for word in words]
    if words[0] == "evaluate":
        assert main(["train", "--config", "my.yaml"]) == 0
    assert not small.leaves or not (user / small.leaves).exists()
    assert main(words) == 0
    assert not small.leaves or (user / small.leaves).exists()


def test_the_python_of_readme_works(user: Path) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python")
    for old, new in PYTHON.items():
        assert old in code
        code = code.replace(old, new)
    assert len(code.splitlines()) == 10
    names = {name: getattr(fast_style, name) for name in fast_style.__all__}
    names |= {"numpy": numpy, "torch": torch, "Image": Image}
    exec(code, names)
    assert names["picture"].size == (48, 40)
    assert names["array"].shape == (*names["picture"].size[::-1], 3)
    assert names["batch"].shape == (2, 3, 64, 64)
    assert (user / "out.png").is_file()
    assert names["result"].model == Path("checkpoints/my/my.pth")
    assert names["best"].shape == names["content"].shape


def test_the_config_of_readme_is_one() -> None:
    (text,) = (text for language, text in BLOCKS if language == "yaml")
    config = config_from_dict({"name": "my", **yaml.safe_load(text)})
    assert config.loss.strength == 1


def test_the_extras_of_readme_are_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"pip install[^`]*\[(\w+)\]", README))
    assert {"demo", "formats", "raw"} <= extras
    for extra in extras:
        assert f"\n{extra} = [\n" in project
