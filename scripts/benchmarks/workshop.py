"""What the checks of a card work with: photos, weights, configs, and programs that are started."""

import csv
import functools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torchvision.models.vgg import cfgs

from benchmarks.data import write_photos
from fast_style.config import Config, config_from_dict
from fast_style.training.inputs import Inputs, prepare, with_start

_REPOSITORY = Path(__file__).parents[2]
# The convolutions of VGG-16 up to relu4_3.
_CONVOLUTIONS = 10
_TIMEOUT = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of the table; `is_right` is None where there is nothing to expect."""

    check: str
    expected: str
    seen: str
    is_right: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of everything."""

    photos: int
    width: int
    size: int
    style_size: int
    batch_sizes: tuple[int, ...]
    steps: int
    timed: int
    megapixels: tuple[float, ...]
    folder: int
    is_small: bool


FULL = Sizes(
    photos=64,
    width=32,
    size=256,
    style_size=768,
    batch_sizes=(4, 16),
    steps=300,
    timed=30,
    megapixels=(1, 24, 100),
    folder=200,
    is_small=False,
)
SMALL = Sizes(
    photos=6,
    width=4,
    size=32,
    style_size=64,
    batch_sizes=(2,),
    steps=12,
    timed=2,
    megapixels=(0.01,),
    folder=2,
    is_small=True,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    errors: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line of what it said."""
        return (self.errors.strip().splitlines() or [""])[-1]


class Workshop:
    """A folder with photos and weights, and the device that is checked."""

    def __init__(self, folder: Path, device: torch.device, sizes: Sizes) -> None:
        self.folder, self.device, self.sizes = folder, device, sizes
        self.photos = write_photos(folder / "photos", sizes.photos)
        self.weights = None if os.environ.get("FAST_STYLE_WEIGHTS") else folder / "vgg16.pth"
        if self.weights:
            torch.save(_random_weights(), self.weights)

    def settings(self, **training: Any) -> dict[str, Any]:
        """Return the plain data of the canonical run's config, on the drawn photos."""
        sizes = self.sizes
        fixed = {"init_from": None, "first_share": 0, "image_size": sizes.size, "compile": False}
        return {
            "name": "checked",
            "style": {"image": "styles/wave.jpg", "size": sizes.style_size},
            "data": {
                "train": str(self.folder / "photos"),
                "workers": 0 if sizes.is_small else "auto",
            },
            "loss": {"weights": str(self.weights) if self.weights else None},
            "network": {"width": sizes.width},
            "training": {**fixed, "steps": sizes.steps, **training},
        }

    def inputs(self, device: str | None = None, **training: Any) -> tuple[Config, Inputs]:
        """Return such a config, and what a training with it needs."""
        config = with_start(config_from_dict(self.settings(**training))).resolved()
        return config, prepare(config, device=device or str(self.device))

    def command(self, name: str, **training: Any) -> list[str]:
        """Return the command of a training in a run folder of this name."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.settings(**training)), encoding="utf-8")
        run = ["train", "--config", str(path), "--run-dir", str(self.folder / name)]
        return [*self.program, *run, "--device", str(self.device)]

    @functools.cached_property
    def program(self) -> list[str]:
        """The beginning of every command."""
        return [sys.executable, "-m", "fast_style"]

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the programs."""
        paths = [str(_REPOSITORY), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        joined = os.pathsep.join(path for path in paths if path)
        return {**os.environ, "PYTHONPATH": joined, **changes}

    def run(self, command: list[str], environment: Mapping[str, str] | None = None) -> Ended:
        """Run a program to its end, in the repository."""
        start = time.monotonic()
        result = subprocess.run(
            command,
            cwd=_REPOSITORY,
            env=self.environment(environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
        seconds = time.monotonic() - start
        return Ended(code=result.returncode, errors=result.stderr, seconds=seconds)

    def start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a program, in the repository."""
        environment = self.environment({})
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=_REPOSITORY, env=environment, stdout=quiet, stderr=quiet
        )

    def metrics(self, name: str) -> list[dict[str, str]]:
        """Return the rows that a training has reported so far."""
        path = self.folder / name / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if row["part"] == "training"]


def _random_weights() -> dict[str, torch.Tensor]:
    """Draw weights of VGG-16 that keep the signal's size, under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    channels, index = 3, 0
    for entry in cfgs["D"]:
        if entry == "M" or len(weights) == 2 * _CONVOLUTIONS:
            index += 1
            continue
        out = int(entry)
        kernel = torch.randn(out, channels, 3, 3, generator=generator)
        weights[f"{index}.weight"] = kernel * (2 / (9 * channels)) ** 0.5
        weights[f"{index}.bias"] = torch.zeros(out)
        channels, index = out, index + 2
    return weights
