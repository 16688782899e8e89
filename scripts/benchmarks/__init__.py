"""Measure our speed beside the plain implementation's.

Ratios hold where absolute times do not: both run on the same machine in the same minutes, in turn,
each in a process of its own, and medians are compared.
"""

import importlib
from collections.abc import Sequence

from fast_style.commands import run
from fast_style.commands.options import command_parser

# Each is a module here, with add_arguments(parser) and run(options).
BENCHMARKS = {
    "stylize": "one forward pass, against the plain network",
    "data": "images a second from files to batches, against the usual Pillow pipeline",
    "gpu": "what a card must show: numbers, syncs, speed, memory, resuming; under ten minutes",
    "scale": "photos a second by the number of workers, simulated",
    "ray": "small photos in a store on Ray: bytes, kills, speed beside torchrun, memory",
    "train": "a training step, against the loop of PyTorch's own example",
    "exported": "an exported model in ONNX Runtime and OpenVINO, against Stylizer",
    "clip": "a clip from file to file: frames a second, and what is not the network",
    "page": "the page in Chromium: seconds by threads, blocks, pixels",
    "serve": "a crowd at the local server: what fails, and how its memory grows",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its table."""
    parser = command_parser(
        "benchmark", __doc__, examples=("stylize --sizes 512x512", "train --batch-size 4,16")
    )
    names = parser.add_subparsers(dest="benchmark", required=True)
    for name, what in BENCHMARKS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        module.add_arguments(names.add_parser(name, help=what))
    options = parser.parse_args(arguments)
    module = importlib.import_module(f"benchmarks.{options.benchmark}")
    return run(lambda: int(module.run(options)), options=options)
