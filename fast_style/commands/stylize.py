"""`scripts/stylize.py --model wave in.jpg`: apply a trained network to photos."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from fast_style.commands import run
from fast_style.stylization import Stylizer, find_model, stylize_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Stylize; exit 0 when all is done, 2 with one line on a mistake."""
    parser = argparse.ArgumentParser(prog="stylize.py", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--model", required=True, help="a model's name, or the path of its .pth")
    parser.add_argument("-o", "--output", type=Path, help="default: IMAGE's name with the model's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    options = parser.parse_args(arguments)
    if options.output and len(options.images) > 1:
        parser.error("-o names one output, but there are several images")
    return run(lambda: _stylize(options))


def _stylize(options: argparse.Namespace) -> int:
    model = find_model(options.model)
    stylizer = Stylizer.load(model, device=options.device)
    for path in options.images:
        start = time.perf_counter()
        output = options.output or path.with_suffix(f".{model.stem}{path.suffix}")
        stylize_file(stylizer, path, output)
        print(f"{output} ({time.perf_counter() - start:.1f} s)")
    return 0
