"""Teach a network of the fast family what a trained model does: twice as fast, for live pictures.

Training can go on with the result: train --set network.kind=patch --set training.init_from=FILE.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fast_style.checkpoints.files import Model, find_model, load_model, save_model
from fast_style.commands import check_writable, exit_code, run
from fast_style.commands.options import Parser, add_device, command_parser, count, pixels
from fast_style.data import ContentImages, Skipped
from fast_style.data.photos import find_images, scan_images
from fast_style.devices import resolve_device, resolve_precision
from fast_style.errors import UserError
from fast_style.networks.patch import PatchNet, check_can_teach
from fast_style.training.distillation import distill

_STEPS = 1000
_CROP = 128
# Smaller crops have no room for the loss of the edges.
_SMALLEST_CROP = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Distill; exit 0 when the file is written, 1 with broken photos left out, 2 on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _distill(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "distill",
        __doc__,
        examples=(
            "--model wave --images photos/ -o wave-fast.pth",
            "--model wave --images photos/ -o wave-fast.pth --steps 3000 --crop 192",
        ),
    )
    parser.add_argument(
        "--model", required=True, help="model that teaches: its name, its file, or a run's folder"
    )
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folder of photos to teach with, or one photo",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="model file to write"
    )
    parser.add_argument(
        "--steps", type=count, default=_STEPS, help=f"updates of the network (default: {_STEPS})"
    )
    parser.add_argument(
        "--crop",
        type=pixels,
        default=_CROP,
        metavar="PIXELS",
        help=f"side of the square crops of photos, from {_SMALLEST_CROP} on (default: {_CROP})",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16"),
        default="auto",
        help="of the networks; auto is bf16 where the device computes with it (default: auto)",
    )
    add_device(parser)
    return parser


def _distill(options: Namespace) -> int:
    output: Path = options.output
    check_writable(output)
    if options.crop < _SMALLEST_CROP:
        raise UserError(
            f"--crop {options.crop}: a crop has at least {_SMALLEST_CROP} pixels a side"
        )
    source = find_model(options.model)
    if output.exists() and output.samefile(source):
        raise UserError(f"{output}: is the teacher; name another file")
    model = load_model(source)
    try:
        check_can_teach(model.network)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    device = resolve_device(options.device)
    skipped = Skipped()
    listed = find_images(options.images, named="--images")
    images = ContentImages(scan_images(listed, skipped=skipped).usable, options.crop)
    with tqdm(total=options.steps, unit="step", dynamic_ncols=True, file=sys.stderr) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix({"difference": f"{loss:.4f}"}, refresh=False)
            bar.update(step - bar.n)

        network = distill(
            model.network,
            images,
            steps=options.steps,
            dtype=resolve_precision(options.precision, device),
            device=device,
            on_step=show,
            skipped=skipped,
        )
    metadata = _metadata(model, network, name=output.stem, teacher=source.stem, step=options.steps)
    save_model(output, network.cpu(), metadata=metadata)
    print(f"{output}: kind {network.kind}, width {network.width}, taught by {source.stem}")
    return exit_code(unreadable=len(skipped))


def _metadata(
    model: Model, network: PatchNet, *, name: str, teacher: str, step: int
) -> dict[str, Any]:
    """Return what the model file says of itself: the teacher's words, with its own network."""
    metadata = {key: value for key, value in model.metadata.items() if key != "quality"}
    config = metadata.get("config")
    if isinstance(config, Mapping):
        metadata["config"] = {**config, "name": name, "network": network.spec()}
    return {**metadata, "name": name, "step": step, "distilled_from": teacher}
