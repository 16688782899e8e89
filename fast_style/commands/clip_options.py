"""The options of `stylize` that only clips have; they load nothing of what clips need."""

import argparse
import contextlib
from fractions import Fraction

from fast_style.commands.options import count
from fast_style.errors import UserError

# None of these is set where it is not given.
_NAMES = ("codec", "pixel_format", "steady", "rate", "workers")


def refuse_clip_options(options: argparse.Namespace) -> None:
    """Raise UserError for an option that does nothing, since what is stylized is no clip."""
    for name in _NAMES:
        if getattr(options, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} is for clips, and here are none: leave it out (a GIF, "
                "WebP or PNG that moves is a clip where -o names a .gif, a .webp or a video)"
            )


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only clips have."""
    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--codec",
        metavar="NAME",
        help="h264, hevc, av1, vp9, prores or ffv1 (default: by the output's ending)",
    )
    clips.add_argument(
        "--pixel-format",
        metavar="NAME",
        help="FFmpeg's pixel format, for example yuv444p (default: the codec's usual)",
    )
    clips.add_argument(
        "--steady",
        action=argparse.BooleanOptionalAction,
        help="blend along the motion, against flicker (default: where the file has motion vectors)",
    )
    clips.add_argument(
        "--rate",
        type=_rate,
        metavar="FPS",
        help="frames a second of numbered pictures, as 25 or 30000/1001 (default: 25)",
    )
    clips.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="frames in work at once, each on one core; the result is the same (default: as many "
        "as there are cores)",
    )


def _rate(text: str) -> Fraction:
    with contextlib.suppress(ValueError, ZeroDivisionError):
        if (rate := Fraction(text)) > 0:
            return rate
    raise argparse.ArgumentTypeError(f"{text!r} is no number of frames a second")
