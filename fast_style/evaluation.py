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
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fast_style.building import build_features
from fast_style.checkpoint import Model
from fast_style.config import ConfigError, OptimizationConfig, config_from_stored
from fast_style.data import center_crop
from fast_style.devices import resolve_device
from fast_style.images import to_float
from fast_style.losses import Losses, PerceptualLoss
from fast_style.networks.transformer import TransformerNet
from fast_style.optimization import optimize_image
from fast_style.preparation import load_style_image, style_objective

# The paper's table 1 compares with so many steps.
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
            f"{_step_text(self.steps, last)} steps"
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
        """Give how often the network runs in the time of so many optimisation steps."""
        return steps * self.step_seconds / self.network_seconds

    def summary(self) -> dict[str, Any]:
        """Give what a model's metadata keeps, as plain data; `steps` is None if not reached."""
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
        """Give everything as plain data."""
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

    `style_image` is where that style image lies now, if it moved. Raises ConfigError and
    WeightsError.
    """
    data = model.metadata.get("config")
    if not data:
        raise ConfigError("the model's metadata holds no config, so its objective is unknown")
    config = config_from_stored(data, source="the model's config")
    if style_image:
        config = replace(config, style=replace(config.style, image=style_image))
    # The photos that it was trained on are another machine's.
    config = replace(config, style=config.style.resolved(), loss=config.loss.resolved())
    on = resolve_device(device)
    style = load_style_image(config.style).to(on)
    return style_objective(config, build_features(config.loss, on), style).criterion


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
        stylized, seconds = _timed_pass(network, content)
        network_seconds.append(seconds)
        with torch.inference_mode():
            targets = criterion.content_targets(content)
            at_content = criterion(content, targets).total.item()
            at_network = criterion(stylized, targets).total.item()
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
    """Stylize, and give the seconds of the fastest of a few passes after one to warm up."""
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
    """Give the total at step 0, the initial image, to `steps` of L-BFGS."""
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


def format_table(certificates: Sequence[Certificate]) -> str:
    """Give the comparison as lines of text."""
    last = len(certificates[0].baseline) - 1
    head = ["size", "from", "images", "content", "network", f"L-BFGS {last}", "= steps", "range"]
    head += ["network s", "step s", *(f"x{steps}" for steps in TABLE_STEPS)]
    rows = [head, *(_row(certificate, last) for certificate in certificates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
    lines += [
        "content, network, L-BFGS: the mean objective at the content image, at the network's",
        f"output and after {last} steps from the content image or from noise;",
        "= steps: the first step at or below the network, the images' median, and their range;",
        f"x{TABLE_STEPS[0]}, x{TABLE_STEPS[1]}: that many steps' time over the network's.",
    ]
    return "\n".join(lines)


def _row(certificate: Certificate, last: int) -> list[str]:
    steps = sorted(result.steps for result in certificate.images)
    return [
        str(certificate.size),
        certificate.initial,
        str(len(certificate.images)),
        f"{certificate.content:.4g}",
        f"{certificate.network:.4g}",
        f"{certificate.baseline[-1]:.4g}",
        _step_text(certificate.steps, last),
        f"{_step_text(steps[0], last)} to {_step_text(steps[-1], last)}",
        f"{certificate.network_seconds:.4f}",
        f"{certificate.step_seconds:.4f}",
        *(f"{certificate.speedup(steps):.0f}" for steps in TABLE_STEPS),
    ]


def _step_text(steps: float, last: int) -> str:
    return f"{steps:.0f}" if math.isfinite(steps) else f">{last}"


def draw_plot(certificates: Sequence[Certificate]) -> Image.Image:
    """Draw the objective, on a log scale, over the steps; the network's as a dashed line."""
    width, height, left, top, right, bottom = 960, 600, 90, 50, 930, 530
    colors = ("#1f5fa8", "#c2471d", "#2f7d3b", "#7b3f99", "#7a6a00")
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=15)
    values = [v for c in certificates for v in (*c.baseline, c.network) if v > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(len(certificate.baseline) for certificate in certificates) - 1

    def place(step: float, value: float) -> tuple[float, float]:
        share = (math.log10(max(value, 10.0**low)) - low) / max(high - low, 1)
        return left + (right - left) * step / max(last, 1), bottom - (bottom - top) * share

    for exponent in range(low, high + 1):
        y = place(0, 10.0**exponent)[1]
        draw.line((left, y, right, y), fill="#dddddd")
        draw.text((left - 10, y), f"1e{exponent}", fill="black", font=font, anchor="rm")
    for step in sorted({round(last * i / 5) for i in range(6)}):
        x = place(step, 10.0**low)[0]
        draw.text((x, bottom + 8), str(step), fill="black", font=font, anchor="mt")
    draw.rectangle((left, top, right, bottom), outline="black")
    draw.text((left, 18), "objective, mean over the images", fill="black", font=font)
    draw.text((right, bottom + 34), "steps of L-BFGS", fill="black", font=font, anchor="rt")
    for index, certificate in enumerate(certificates):
        color = colors[index % len(colors)]
        curve = [place(step, value) for step, value in enumerate(certificate.baseline)]
        draw.line(curve, fill=color, width=2)
        y = place(0, certificate.network)[1]
        for x in range(left, right, 14):
            draw.line((x, y, min(x + 8, right), y), fill=color, width=2)
        steps = _step_text(certificate.steps, len(certificate.baseline) - 1)
        size = f"{certificate.size}x{certificate.size} from {certificate.initial}"
        text = f"{size}: the network (dashed) = {steps} steps"
        draw.text((right - 10, top + 12 + 22 * index), text, fill=color, font=font, anchor="rt")
    return image
