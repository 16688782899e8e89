"""Stylize a camera live, in a window, a file or a virtual camera; the newest frame wins.

Keys in the window: n and p, or right and left, take the next and the previous style; 1 to 9 one by
its number; up and down change the strength; s saves the picture; q or Esc quits. The size of frames
follows the speed, and the window says both.
"""

import contextlib
import math
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from fast_style.checkpoints.files import CheckpointError, find_model, shipped_models
from fast_style.commands import catch_signals, check_writable, run
from fast_style.commands.options import Parser, add_device, command_parser, pixels
from fast_style.errors import UserError
from fast_style.images import Picture, write_picture
from fast_style.video.live import MOST_WORKERS, LiveOutput, LiveReport, Shown, run_live
from fast_style.video.live_input import CAMERA, open_live
from fast_style.video.live_looks import Looks
from fast_style.video.live_output import DeviceOutput, FileOutput
from fast_style.video.live_sizes import Sizes
from fast_style.video.live_window import KEYS, WindowOutput

WINDOW = "window"
_FPS = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until somebody quits or the input ends; exit 0, or 2 with one line on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _live(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "live",
        __doc__,
        examples=("--model wave ink --fps 20", "--input test --output out.mp4 --seconds 5"),
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        help="models to choose from, by name, file or run's folder (default: all shipped ones)",
    )
    parser.add_argument(
        "--input",
        default=CAMERA,
        metavar="WHAT",
        help="camera, a camera's device, test (a test pattern) or a video file (default: camera)",
    )
    parser.add_argument(
        "-o",
        "--output",
        default=WINDOW,
        metavar="WHERE",
        help="window, a video file, or a virtual camera's device as /dev/video10 (default: window)",
    )
    parser.add_argument(
        "--fps",
        type=_positive,
        default=_FPS,
        metavar="N",
        help=f"frames a second that the size is chosen for (default: {_FPS:g})",
    )
    parser.add_argument(
        "--size",
        type=pixels,
        metavar="PIXELS",
        help="long edge of the frames, whatever the speed (default: as the speed allows)",
    )
    parser.add_argument(
        "--strength",
        type=_share,
        default=1.0,
        metavar="S",
        help="0 is the photo, 1 the stylized picture alone (default: 1)",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        metavar="N",
        help="end after so many seconds (default: when somebody quits, or the input ends)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16", "fp16"),
        default="auto",
        help="of the network; auto is bf16 where the device computes with it (default: auto)",
    )
    add_device(parser)
    return parser


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise ArgumentTypeError(f"{text!r} is not a number above 0")


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise ArgumentTypeError(f"{text!r} is not a number between 0 and 1")


def _live(options: Namespace) -> int:
    if any(name.lower().endswith(".onnx") for name in options.model):
        raise UserError("live runs models of PyTorch: name the .pth that the .onnx was made of")
    models = [find_model(name) for name in options.model] or shipped_models()
    if not models:
        raise CheckpointError("no models are shipped with this version: name one with --model")
    source = open_live(options.input)
    output = _opened_output(options.output)
    try:
        looks = Looks(
            models,
            strength=options.strength,
            precision=options.precision,
            device=options.device,
        )
        # A GPU takes a frame after the other; cores take a frame each.
        workers = min(MOST_WORKERS, torch.get_num_threads()) if looks.is_on_cpu else 1
        sizes = Sizes(goal=options.fps, workers=workers, fixed=options.size)
        _, stopped = catch_signals()
        end = time.monotonic() + (options.seconds or float("inf"))
        report = run_live(
            source,
            output,
            looks,
            sizes=sizes,
            workers=workers,
            on_picture=_save,
            should_stop=lambda: stopped() or time.monotonic() > end,
        )
    finally:
        output.close()
    print(_summary(report, looks, sizes), file=sys.stderr)
    return 0


def _opened_output(name: str) -> LiveOutput:
    if name == WINDOW:
        window = WindowOutput("fast-style")
        print("; ".join([*KEYS.values(), "1 to 9: a style by its number"]), file=sys.stderr)
        return window
    if name.startswith("/dev/"):
        return DeviceOutput(name)
    check_writable(Path(name))
    if Path(name).exists():
        raise UserError(f"{name}: is there already, and is not overwritten: name another --output")
    return FileOutput(Path(name))


def _save(shown: Shown) -> None:
    """Write a picture into the working directory, under a name that is free."""
    number = 1
    while (path := Path(f"live-{shown.style}-{number}.png")).exists():
        number += 1
    write_picture(Picture(pixels=shown.pixels), path)
    print(path)


def _summary(report: LiveReport, looks: Looks, sizes: Sizes) -> str:
    late = sorted(report.late)
    middle = f", {1000 * late[len(late) // 2]:.0f} ms late in the middle" if late else ""
    rate = report.shown / report.seconds if report.seconds else 0.0
    return (
        f"{report.shown} of {report.came} frames in {report.seconds:.1f} s, {rate:.1f} frames/s"
        f"{middle}; {looks.status}; {sizes.status}"
    )
