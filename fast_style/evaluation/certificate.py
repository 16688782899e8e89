"""The certificate: how many optimisation steps a network is worth, and how much faster it is.

Johnson et al. 2016, figure 5 and table 1: for held-out images, the objective at the content image,
at the network's output, and along the baseline's L-BFGS, from the content image or, as the paper
has it (section 4.1), from white noise. Both sides minimise the objective that the network was
trained with, over images in [0, 1].
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fast_style.baseline.optimization import optimize_image
from fast_style.checkpoints.files import Model
from fast_style.config import ConfigError, OptimizationConfig, StyleConfig, config_from_stored
from fast_style.config.style_names import styles_text
from fast_style.data import center_crop
from fast_style.devices import resolve_device, tf32
from fast_style.images import to_float
from fast_style.networks.transformer import TransformerNet
from fast_style.objective.building import build_features
from fast_style.objective.losses import Losses, PerceptualLoss
from fast_style.training.styles import load_styles, style_objective

# The numbers of optimisation steps in the paper's table 1.
TABLE_STEPS = (100, 500)
# Where the optimisation starts: at the content image, or at noise.
Initial = Literal["content", "noise"]
_TIMED_PASSES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageResult:
    """One image: its objective at itself, at the network's output, and along the baseline.

    `baseline[k]` is the lowest total up to step k; step 0 is the initial image.
    """

    image: str
    content: float
    network: float
    baseline: tuple[float, ...]

    @property
    def steps(self) -> float:
        """The first step at or below the network's total; infinite where none is."""
        reached = (step for step, total in enumerate(self.baseline) if total <= self.network)
        return next(reached, math.inf)

    def __str__(self) -> str:
        last = len(self.baseline) - 1
        return (
            f"{self.image}: content image {self.content:.4g}, network {self.network:.4g}, "
            f"after {last} steps {self.baseline[-1]:.4g}; the network = "
            f"{step_text(self.steps, last)} steps"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """The comparison at one size: squares of `size` pixels; times are medians, in seconds."""

    size: int
    initial: Initial
    device: str
    images: tuple[ImageResult, ...]
    network_seconds: float
    step_seconds: float

    @property
    def content(self) -> float:
        """The mean objective at the content image."""
        return statistics.fmean(result.content for result in self.images)

    @property
    def network(self) -> float:
        """The mean objective at the network's output."""
        return statistics.fmean(result.network for result in self.images)

    @property
    def baseline(self) -> list[float]:
        """The mean objective of the baseline, by step."""
        curves = [result.baseline for result in self.images]
        return [statistics.fmean(totals) for totals in zip(*curves, strict=True)]

    @property
    def steps(self) -> float:
        """The network in optimisation steps: the images' median, infinite if not reached."""
        return statistics.median_low(result.steps for result in self.images)

    def speedup(self, steps: int) -> float:
        """Return how many times the network runs in the time of `steps` optimisation steps."""
        return steps * self.step_seconds / self.network_seconds

    def summary(self) -> dict[str, Any]:
        """Return what a model's metadata keeps, as plain data; `steps` is None if not reached."""
        return {
            "size": self.size,
            "initial": self.initial,
            "images": len(self.images),
            "device": self.device,
            "content": self.content,
            "network": self.network,
            "baseline": self.baseline[-1],
            "baseline_steps": len(self.baseline) - 1,
            "steps": self.steps if math.isfinite(self.steps) else None,
            "network_seconds": self.network_seconds,
            "step_seconds": self.step_seconds,
            "speedup": {str(steps): self.speedup(steps) for steps in TABLE_STEPS},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        images = [
            {
                "image": result.image,
                "content": result.content,
                "network": result.network,
                "steps": result.steps if math.isfinite(result.steps) else None,
                "baseline": list(result.baseline),
            }
            for result in self.images
        ]
        return {**self.summary(), "per_image": images}


def training_objective(
    model: Model, *, style_image: Path | None = None, device: str = "auto"
) -> PerceptualLoss:
    """Rebuild the objective that a model was trained with, from the config in its metadata.

    `style_image` is where that style image lies now, if it moved, or the folder of several. Raises
    ConfigError and WeightsError.
    """
    data = model.metadata.get("config")
    if not data:
        raise ConfigError("the model's metadata holds no config, so its objective is unknown")
    config = config_from_stored(data, source="the model's config")
    if style_image:
        config = replace(config, style=moved(config.style, style_image))
    # The photos that it was trained on are another machine's.
    config = replace(config, style=config.style.resolved(), loss=config.loss.resolved())
    on = resolve_device(device)
    styles = load_styles(config.style).to(on)
    return style_objective(config, build_features(config.loss, on), styles).criterion


def moved(style: StyleConfig, place: Path) -> StyleConfig:
    """Return the style with its image at another place, or several by their names in a folder.

    Raises ConfigError.
    """
    if style.image is not None and not place.is_dir():
        return replace(style, image=place)
    found = {place / path.name: share for path, share in style.shares.items()}
    if not place.is_dir() or len(found) < len(style.shares):
        raise ConfigError(
            f"--style {place}: the model has {len(style.shares)} style images, "
            f"{styles_text(style.shares)}: name the folder that holds them, under these names"
        )
    if style.image is not None:
        return replace(style, image=next(iter(found)))
    return replace(style, images=found)


def certify(
    network: TransformerNet,
    criterion: PerceptualLoss,
    paths: Sequence[Path],
    *,
    size: int,
    initial: Initial = "content",
    steps: int = 200,
    device: str = "auto",
    on_image: Callable[[ImageResult], None] = lambda result: None,
) -> Certificate:
    """Compare a network with `steps` steps of L-BFGS on the central squares of image files.

    `criterion` lies on `device`. Raises ImageError, ValueError for a size too small for the layers,
    and OptimizationError.
    """
    on = resolve_device(device)
    network = network.to(on).eval()
    results, network_seconds, step_seconds = [], [], []
    for path in paths:
        content = to_float(center_crop(path, size)[None].to(on))
        # As pictures are made, and as the baseline works.
        with tf32(on, allowed=False), torch.inference_mode():
            stylized, seconds = _timed_pass(network, content)
            targets = criterion.content_targets(content)
            at_content = criterion(content, targets).total.item()
            at_network = criterion(stylized, targets).total.item()
        network_seconds.append(seconds)
        start = time.perf_counter()
        curve = _baseline_curve(criterion, content, initial, steps)
        step_seconds.append((time.perf_counter() - start) / len(curve))
        results.append(
            ImageResult(
                image=path.name,
                content=at_content,
                network=at_network,
                baseline=tuple(accumulate(curve, min)),
            )
        )
        on_image(results[-1])
    return Certificate(
        size=size,
        initial=initial,
        device=torch.cuda.get_device_name(on) if on.type == "cuda" else on.type,
        images=tuple(results),
        network_seconds=statistics.median(network_seconds),
        step_seconds=statistics.median(step_seconds),
    )


def _timed_pass(network: TransformerNet, content: Tensor) -> tuple[Tensor, float]:
    """Return the stylized image and the seconds of the fastest pass, after one to warm up."""
    seconds = []
    for _ in range(1 + _TIMED_PASSES):
        start = time.perf_counter()
        with torch.inference_mode():
            stylized = network(content).clamp(0, 1)
        stylized.sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return stylized, min(seconds[1:])


def _baseline_curve(
    criterion: PerceptualLoss, content: Tensor, initial: Initial, steps: int
) -> list[float]:
    """Return the totals at steps 0, the initial image, to `steps` of L-BFGS."""
    totals: list[float] = []

    def record(_step: int, losses: Losses, _image: Tensor) -> None:
        totals.append(losses.total.item())

    options = OptimizationConfig(method="lbfgs", steps=steps, clip=True)
    start = content
    if initial == "noise":
        generator = torch.Generator().manual_seed(options.seed)
        start = torch.rand(content.shape, generator=generator).to(content.device)
    optimize_image(criterion, content, initial=start, options=options, report=record)
    return totals


def step_text(steps: float, last: int) -> str:
    """Return a number of steps as text; one that was not reached by step `last` as ">last"."""
    return f"{steps:.0f}" if math.isfinite(steps) else f">{last}"
