"""`scripts/evaluate.py --model wave --images DIR`: a network against the optimisation baseline.

`--card` judges its pictures instead, in seconds; `--against OTHER` puts another model's beside it.
"""

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
import yaml
from torch import Tensor

from fast_style.checkpoint import Model, find_model, load_model, save_model, stored_dtype
from fast_style.commands import check_writable, run
from fast_style.commands.card import add_card_options, asks_for_card, report
from fast_style.data import center_crops
from fast_style.devices import resolve_device
from fast_style.evaluation import (
    Certificate,
    Initial,
    certify,
    draw_plot,
    format_table,
    training_objective,
)
from fast_style.files import atomic_write
from fast_style.images import format_of, image_to_tensor, save_image, to_float
from fast_style.monitoring import TensorBoardMonitor
from fast_style.photos import choose, find_images, scan_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; exit 0 when all is done, 2 with one line on a mistake."""
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    parser.add_argument("--model", required=True, help="a model's name, or the path of its .pth")
    parser.add_argument("--images", required=True, type=Path, help="held-out photos")
    parser.add_argument("--n", type=_count, default=50, help="how many of them (default: 50)")
    parser.add_argument("--sizes", type=_sizes, default=(256,), help="as in 256,512,1024")
    parser.add_argument(
        "--initial",
        type=_initials,
        default=("content",),
        metavar="IMAGE",
        help="where L-BFGS starts: content (default), noise as in the paper, or content,noise",
    )
    parser.add_argument("--steps", type=_count, default=200, help="of L-BFGS (default: 200)")
    parser.add_argument(
        "--style", type=Path, help="the model's style image, if it moved, or its file names none"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves")
    parser.add_argument("--log-dir", type=Path, help="log to TensorBoard")
    parser.add_argument("--stamp", action="store_true", help="store it in the model's metadata")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add_card_options(parser)
    options = parser.parse_args(arguments)
    return run(lambda: report(options) if asks_for_card(options) else _evaluate(options))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_count(size) for size in text.split(","))


def _initials(text: str) -> tuple[str, ...]:
    initials = tuple(text.split(","))
    if unknown := set(initials) - set(get_args(Initial)):
        raise argparse.ArgumentTypeError(f"{unknown.pop()!r} is not content or noise")
    return initials


def _evaluate(options: argparse.Namespace) -> int:
    for output in filter(None, (options.json, options.plot)):
        check_writable(output)
    if options.plot:
        format_of(options.plot)
    path = find_model(options.model)
    if options.stamp:
        check_writable(path)
    model = load_model(path)
    found = scan_images(find_images([options.images])).usable
    paths = list(center_crops(choose(found, options.n), max(options.sizes)))
    criterion = training_objective(model, style_image=options.style, device=options.device)
    smallest = torch.zeros(1, 3, *[min(options.sizes)] * 2, device=resolve_device(options.device))
    criterion(smallest, criterion.content_targets(smallest))
    certificates = []
    for size, initial in itertools.product(options.sizes, options.initial):
        print(f"{size}×{size} from {initial}: {len(paths)} images", flush=True)
        certificates.append(
            certify(
                model.network,
                criterion,
                paths,
                size=size,
                initial=initial,
                steps=options.steps,
                device=options.device,
                on_image=lambda result: print(f"  {result}", flush=True),
            )
        )
    print(format_table(certificates))
    _write(options, path, model, certificates)
    return 0


def _write(
    options: argparse.Namespace, path: Path, model: Model, certificates: Sequence[Certificate]
) -> None:
    """Write what was asked for: JSON, plot, TensorBoard, and the stamp in the model file."""
    if options.json:
        data = {"model": path.name, "certificates": [c.to_dict() for c in certificates]}
        with atomic_write(options.json) as file:
            file.write(json.dumps(data, indent=1).encode())
    plot = to_float(image_to_tensor(draw_plot(certificates)))
    if options.plot:
        save_image(plot, options.plot)
    if options.log_dir:
        _log(options.log_dir, model, certificates, plot)
    if options.stamp:
        quality = [certificate.summary() for certificate in certificates]
        save_model(
            path,
            model.network.cpu(),
            metadata={**model.metadata, "quality": quality},
            dtype=stored_dtype(model.network),
        )
        print(f"stamped {path}")


def _log(folder: Path, model: Model, certificates: Sequence[Certificate], plot: Tensor) -> None:
    monitor = TensorBoardMonitor(folder)
    monitor.start(0, 0, yaml.safe_dump(model.metadata["config"], sort_keys=False))
    for certificate in certificates:
        tag = f"certificate/{certificate.size}/{certificate.initial}"
        for step, total in enumerate(certificate.baseline):
            monitor.scalars(step, {f"{tag}/baseline": total, f"{tag}/network": certificate.network})
        if math.isfinite(certificate.steps):
            monitor.scalars(0, {f"{tag}/steps": certificate.steps})
    monitor.image(0, "certificate", plot)
    monitor.message(0, f"```\n{format_table(certificates)}\n```")
    monitor.close()
