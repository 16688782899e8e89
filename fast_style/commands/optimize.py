"""Optimise one image, the slow baseline (Gatys et al. 2016): any style, without training.

A recipe says what is minimised, and how; Ctrl-C saves what there is.
"""

import json
import math
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fast_style.baseline.optimization import Baseline
from fast_style.commands import catch_signals, check_writable, run
from fast_style.commands.optimize_folder import optimize_folder
from fast_style.commands.options import (
    Parser,
    add_device,
    add_keys,
    add_log_dir,
    add_set,
    command_parser,
)
from fast_style.config import BaselineConfig, load_recipe, locate, to_dict
from fast_style.config.places import source_of
from fast_style.devices import resolve_device
from fast_style.errors import UserError
from fast_style.files import atomic_write
from fast_style.images import (
    ImageError,
    format_of,
    load_image,
    resize_long_edge,
    save_image,
    style_doubts,
)
from fast_style.networks.vgg import layer_indices
from fast_style.objective.losses import Losses
from fast_style.objective.weights import classify, load_vgg
from fast_style.training.monitors import Monitor, ProgressMonitor, TensorBoardMonitor

# The number of steps between the images that are logged to TensorBoard.
_LOGGED_IMAGES_EVERY = 50
_DESCRIBED_EDGE = 512
_LESS_MEMORY = (
    "lower --size, or compute maps twice instead of holding them: --set loss.recompute=true"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Optimise; exit 0 when finished, 128 + N after signal N, 2 with one line on a mistake."""
    options_parser = parser()
    options = options_parser.parse_args(arguments)
    if options.describe:
        return run(lambda: _describe(options), options=options)
    missing = [f"--{name}" for name in ("content", "style", "output") if not getattr(options, name)]
    if missing:
        options_parser.error(f"{', '.join(missing)} must be given")
    return run(lambda: _optimize(options), options=options, less_memory=_LESS_MEMORY)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "optimize",
        __doc__,
        examples=(
            "--content in.jpg --style painting.jpg -o out.png",
            "--content in.jpg --style a.jpg --style b.jpg --shares 2 1 --recipe gatys -o out.png",
        ),
    )
    parser.add_argument(
        "--content",
        type=Path,
        metavar="IMAGE",
        help="content image, the photo, or a folder of photos (required)",
    )
    parser.add_argument(
        "--style",
        type=Path,
        action="append",
        metavar="IMAGE",
        help="style image; may be repeated (required)",
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        metavar="SHARE",
        help="weight of each style image, a number from 0 on for each --style (default: equal)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="image file to write, or a folder for a folder of photos, in which what is done with "
        "the same settings is skipped (required)",
    )
    parser.add_argument(
        "--recipe",
        default="johnson",
        help="objective and method: a shipped recipe's name, or a YAML file (default: johnson)",
    )
    parser.add_argument(
        "--size",
        help="size of the output in pixels: the maximum of its long edge, as in 512, or its width "
        "and height, as in 512x384 (default: the recipe's)",
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=0,
        metavar="STEPS",
        help="number of steps between images that are saved on the way, 0 for none (default: 0)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write each step's terms to this JSON file (default: none)",
    )
    parser.add_argument(
        "--describe",
        type=Path,
        metavar="IMAGE",
        help="print size and range of the feature maps of this image, and stop (default: optimise)",
    )
    add_set(parser, of="recipe", example="optimization.steps=100")
    add_keys(parser, recipe=True)
    add_log_dir(parser)
    add_device(parser)
    return parser


def _optimize(options: Namespace) -> int:
    config = load_recipe(options.recipe, overrides=[*_size_overrides(options.size), *options.set])
    _check_shares(options)
    if options.content.is_dir():
        return optimize_folder(options, config, _load_style)
    format_of(options.output)
    for output in filter(None, (options.output, options.report)):
        check_writable(output, makes_folder=True)
    device = resolve_device(options.device)
    content = load_image(options.content)[None].to(device)
    styles = [_load_style(path)[None].to(device) for path in options.style]
    baseline = Baseline(config, content, styles, shares=options.shares)
    monitors: list[Monitor] = [ProgressMonitor("optimization")]
    if options.log_dir:
        monitors.append(TensorBoardMonitor(options.log_dir))
    watch = _Watch(options.output, options.save_every, monitors)
    for monitor in monitors:
        monitor.start(0, baseline.steps, yaml.safe_dump(to_dict(config), sort_keys=False))
    stopped_by, should_stop = catch_signals()
    for output in filter(None, (options.output, options.report)):
        output.parent.mkdir(parents=True, exist_ok=True)
    try:
        outcome = baseline.run(report=watch, should_stop=should_stop)
        save_image(outcome.image[0], options.output)
    finally:
        for monitor in monitors:
            monitor.close()
        if options.report and watch.steps:
            _write_report(options, config, watch.steps)
    if outcome.finished:
        print(options.output)
        return 0
    print(
        f"stopped after step {outcome.steps} of {baseline.steps}; saved as {options.output}",
        file=sys.stderr,
    )
    return 128 + (stopped_by or [signal.SIGINT])[0]


def _check_shares(options: Namespace) -> None:
    shares, styles_given = options.shares, len(options.style)
    if shares and len(shares) != styles_given:
        raise UserError(
            f"{styles_given} style images, but the shares are {shares}: give a number of --shares "
            "for each --style"
        )
    if shares and not (all(0 <= share < math.inf for share in shares) and any(shares)):
        raise UserError(
            f"--shares {' '.join(map(str, shares))}: must be numbers from 0 on, and one above 0"
        )


def _load_style(path: Path) -> Tensor:
    """Load a style image, (3, H, W). Raises UserError: of a painting, with where to get it."""
    try:
        located = locate(path, key="--style")
        image = load_image(located)
        for doubt in style_doubts(located):
            print(f"--style: {path}: {doubt}", file=sys.stderr)
        return image
    except ImageError as error:
        page = "" if path.exists() else source_of(path)
        raise UserError(f"{error}; {page} says where to get it" if page else str(error)) from None


def _size_overrides(size: str | None) -> list[str]:
    """Turn `--size` into overrides of the recipe's own size."""
    if size is None:
        return []
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", size)
    if not match:
        raise UserError(f"--size {size}: expected a number, as 512, or a size, as 512x384")
    if not all(int(edge) for edge in match.groups(default="1")):
        raise UserError(f"--size {size} is impossible: it must be at least 1")
    if match[2]:
        return [f"content.width={match[1]}", f"content.height={match[2]}"]
    open_sides = [f"content.{side}=0" for side in ("long_edge", "width", "height")]
    return [*open_sides, f"content.maximum={match[1]}"]


class _Watch:
    """Collects each step's terms, reports them to the monitors, and saves images on the way."""

    def __init__(self, output: Path, save_every: int, monitors: Sequence[Monitor]) -> None:
        self.steps: list[dict[str, Any]] = []
        self._output = output
        self._save_every = save_every
        self._monitors = monitors

    def __call__(self, step: int, losses: Losses, image: Tensor) -> None:
        terms = {name: value.item() for name, value in losses.items().items()}
        height, width = image.shape[-2:]
        # JSON has no infinity, which a step that L-BFGS takes back may have.
        finite = {name: v if math.isfinite(v) else None for name, v in terms.items()}
        self.steps.append({"step": step, "width": width, "height": height, **finite})
        for monitor in self._monitors:
            monitor.scalars(step, {f"optimization/{name}": v for name, v in terms.items()})
            if step % _LOGGED_IMAGES_EVERY == 0:
                monitor.image(step, "optimization/image", image[0])
            monitor.advance(step)
        if self._save_every > 0 and step % self._save_every == 0:
            name = f"{self._output.stem}-{step:05d}{self._output.suffix}"
            save_image(image[0], self._output.with_name(name))


def _write_report(options: Namespace, config: BaselineConfig, steps: list[dict[str, Any]]) -> None:
    report = {
        "content": str(options.content),
        "style": [str(path) for path in options.style],
        "recipe": to_dict(config),
        "steps": steps,
    }
    with atomic_write(options.report) as file:
        file.write(json.dumps(report, indent=1).encode())


@torch.inference_mode()
def _describe(options: Namespace) -> int:
    """Print the size and range of every layer's map, and the image's classes, as a check."""
    network = load_recipe(options.recipe, overrides=options.set).loss
    image = load_image(options.describe)[None]
    if max(image.shape[-2:]) > _DESCRIBED_EDGE:
        image = resize_long_edge(image, _DESCRIBED_EDGE)
    layers = layer_indices(network.network)
    features = load_vgg(
        network.network,
        layers,
        path=network.weights,
        pooling=network.pooling,
        padding=network.padding,
    )
    print(f"{network.network}, {options.describe} at {image.shape[-1]}×{image.shape[-2]}")
    print(f"{'layer':8}  {'channels x height x width':>25}  {'min':>9}  {'max':>9}  {'mean':>9}")
    for name, maps in features(image).items():
        shape = " x ".join(map(str, maps.shape[1:]))
        numbers = "  ".join(f"{value:9.2f}" for value in (maps.min(), maps.max(), maps.mean()))
        print(f"{name:8}  {shape:>25}  {numbers}")
    classes = classify(network.network, image)
    for category, probability in classes:
        print(f"{probability:6.1%}  {category}")
    if not classes:
        print("(classes: torchvision's full weights are not in torch's cache)")
    return 0
