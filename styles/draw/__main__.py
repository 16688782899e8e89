"""Write style images: `python -m styles.draw wave ink`, or `--all` of them."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fast_style.files import atomic_write
from styles.draw import STYLES

QUALITY = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the styles that the command line names; return the exit status."""
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
    """Draw one style; return the line that reports it."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    image = STYLES[name](seed)
    target = folder / f"{name}.jpg"
    with atomic_write(target) as file:
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
    taken = time.perf_counter() - started
    size = target.stat().st_size // 1000
    return f"{target}: {image.width}x{image.height}, {size} kB, drawn in {taken:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
