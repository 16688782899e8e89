"""Compare a network with the baseline: how many optimisation steps one forward pass is worth.

Both minimise the objective that the network was trained with, at the same photos. --card judges the
network's pictures instead, in seconds, and --against puts another model's beside them.
"""

import argparse
import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
import yaml
from torch import Tensor

from fast_style.checkpoints.files import Model, find_model, load_model, save_model, stored_dtype
from fast_style.commands import check_writable, exit_code, run
from fast_style.commands.card import add_card_options, asks_for_card, check_stamped, report
from fast_style.commands.options import (
    Parser,
    add_device,
    add_log_dir,
    command_parser,
    count,
    counts,
)
from fast_style.config import ConfigError, locate
from fast_style.config.places import source_of
from fast_style.config.style_names import named_styles
from fast_style.data import Skipped, center_crops, read_each
from fast_style.data.photos import choose, find_images, scan_images
from fast_style.devices import resolve_device
from fast_style.errors import UserError
from fast_style.evaluation import (
    Certificate,
    Initial,
    certify,
    draw_plot,
    format_table,
    training_objective,
)
from fast_style.files import atomic_write
from fast_style.images import format_of, image_to_tensor, load_image, save_image, to_float
from fast_style.stylization import Stylizer
from fast_style.training.monitors import TensorBoardMonitor
from fast_style.video import format_stability, measure_stability

_NOT_FOR_STABILITY = ("style", "plot", "stamp", "log_dir")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; exit 0 when all is done, 1 with broken photos left out, 2 on a mistake."""
    options = parser().parse_args(arguments)
    return run(
        lambda: report(options) if asks_for_card(options) else _evaluate(options),
        options=options,
        less_memory="lower --sizes",
    )


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "evaluate",
        __doc__,
        examples=(
            "--model wave --images photos/",
            "--model my.pth --style my_painting.jpg --images photos/ --n 8 --sizes 256,512",
        ),
    )
    parser.add_argument(
        "--model", required=True, help="model to compare: its name, or the path of its .pth"
    )
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="folder of held-out photos"
    )
    parser.add_argument(
        "--n",
        type=count,
        default=50,
        help="number of photos to use, from 1 on (default: 50, or all if fewer)",
    )
    parser.add_argument(
        "--sizes",
        type=counts,
        default=(256,),
        metavar="PIXELS",
        help="sides of the square photos in pixels, as in 256,512 (default: 256)",
    )
    parser.add_argument(
        "--initial",
        type=_initials,
        default=("content",),
        metavar="IMAGE",
        help="image that L-BFGS starts from: content (the photo), noise (as in the paper), or "
        "both, as content,noise (default: content)",
    )
    parser.add_argument(
        "--steps",
        type=count,
        default=200,
        help="number of L-BFGS steps for each photo, from 1 on (default: 200)",
    )
    parser.add_argument(
        "--style",
        type=Path,
        metavar="PATH",
        help="path of the model's style image, or folder of several (default: those of its "
        "training)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every number to this file (default: none)"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the curves into this image (default: none)"
    )
    parser.add_argument(
        "--stamp",
        action="store_true",
        help="store the result in the model file (default: leave the file as it is)",
    )
    parser.add_argument(
        "--video-stability",
        action="store_true",
        help="measure instead how much the pictures flicker under known motions (default: off)",
    )
    add_log_dir(parser)
    add_device(parser)
    add_card_options(parser)
    return parser


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
    if options.video_stability:
        return _measure_stability(options, path)
    if options.stamp:
        check_stamped(options.model, path)
    model = load_model(path)
    skipped = Skipped()
    listed = find_images([options.images], named="--images")
    found = choose(scan_images(listed, skipped=skipped).usable, options.n)
    paths = list(center_crops(found, max(options.sizes), skipped=skipped))
    _check_style(model, options.style)
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
    return exit_code(unreadable=len(skipped))


def _measure_stability(options: argparse.Namespace, path: Path) -> int:
    for name in _NOT_FOR_STABILITY:
        if getattr(options, name):
            option = name.replace("_", "-")
            raise UserError(f"--{option}: has no part in --video-stability: leave one of them out")
    stylizer = Stylizer(path, device=options.device)
    skipped = Skipped()
    listed = find_images([options.images], named="--images")
    found = choose(scan_images(listed, skipped=skipped).usable, options.n)
    photos = list(read_each(found, load_image, skipped=skipped).values())
    results = measure_stability(stylizer, photos)
    print(format_stability(results))
    if options.json:
        scores = [dataclasses.asdict(result) for result in results]
        data = {"model": path.name, "photos": len(photos), "stability": scores}
        with atomic_write(options.json) as file:
            file.write(json.dumps(data, indent=1).encode())
    return exit_code(unreadable=len(skipped))


def _check_style(model: Model, named: Path | None) -> None:
    """Raise UserError, with the cure, where one of the model's style images is not in its place."""
    images = named_styles(model.metadata.get("config"))
    for image in images if named is None else ():
        try:
            is_there = locate(Path(image), key="style.image").exists()
        except ConfigError:  # a package that is not installed
            is_there = False
        if not is_there:
            page = source_of(Path(image))
            cure = "name it with --style"
            if len(images) > 1:
                cure = f"name the folder of all {len(images)} with --style"
            raise UserError(
                f"the model's style image, {image}, is not here ({Path.cwd()}): {cure}"
                + (f"; {page} says where to get it" if page else "")
            )


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
