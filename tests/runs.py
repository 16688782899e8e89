"""Tiny trainings on the CPU, and what they end with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast_style import training
from fast_style.checkpoints.files import load_model
from fast_style.config import Config
from fast_style.training import train


def run(config: Config, run_dir: Path, **options: Any) -> training.Result:
    return train(config, run_dir, device="cpu", **options)


def weights_of(run_dir: Path) -> dict[str, Tensor]:
    return load_model(run_dir / "tiny.pth").network.state_dict()


def assert_equal_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert list(a) == list(b)
    assert all(torch.equal(a[key], b[key]) for key in a)
