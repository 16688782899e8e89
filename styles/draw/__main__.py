"""Writes style images: `python -m styles.draw wave ink`, or `--all` of them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from styles.draw import STYLES

QUALITY = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the styles that the command line names and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m styles.draw", description="Draw style images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(STYLES)}")
    parser.add_argument("--all", action="store_true", help="draw every style")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent.parent,
        metavar="DIR",
        help="folder to write NAME.jpg into (default: the styles folder)",
    )
    parser.add_argument("--seed", type=int, default=0, help="draw a variation (default: 0)")
    options = parser.parse_args(arguments)
    names = list(STYLES) if options.all else list(dict.fromkeys(options.names))
    unknown = [name for name in names if name not in STYLES]
    problem = None
    if unknown:
        problem = f"no style named {', '.join(unknown)}; there are {', '.join(STYLES)}"
    elif not names:
        problem = f"name a style or pass --all; there are {', '.join(STYLES)}"
    elif options.seed < 0:
        problem = f"the seed must not be negative, but is {options.seed}"
    if problem:
        print(f"styles.draw: {problem}", file=sys.stderr)
        return 2
    try:
        for name in names:
            print(_write(name, options.seed, options.output), flush=True)
    except OSError as error:
        print(f"styles.draw: cannot write to {options.output}: {error}", file=sys.stderr)
        return 1
    return 0


def _write(name: str, seed: int, folder: Path) -> str:
    """Draws one style and returns the line that reports it."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    image = STYLES[name](seed)
    target = folder / f"{name}.jpg"
    _save(image, target)
    taken = time.perf_counter() - started
    size = target.stat().st_size // 1000
    return f"{target}: {image.width}x{image.height}, {size} kB, drawn in {taken:.1f} s"


def _save(image: Image.Image, target: Path) -> None:
    """Saves beside the target and then replaces it, so that no reader meets half a file."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=".jpg")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            image.save(stream, "JPEG", quality=QUALITY, optimize=True)
        # A temporary file is private; a style image is for everyone that may read the folder.
        beside.chmod(0o644)
        beside.replace(target)
    except BaseException:
        beside.unlink()
        raise


if __name__ == "__main__":
    sys.exit(main())
