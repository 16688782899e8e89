"""Rewrite another project's model as one of this program, or a model at half its size."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fast_style.checkpoints.files import MODEL_FORMAT, load_model, save_model
from fast_style.commands import check_writable, run
from fast_style.commands.options import Parser, command_parser
from fast_style.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; exit 0 when the file is written, 2 with one line on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _convert(options.input, options.output, half=options.half), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "convert", __doc__, examples=("theirs.pth ours.pth", "ours.pth small.pth --half")
    )
    parser.add_argument(
        "input", type=Path, metavar="IN", help="model file to read, also another project's"
    )
    parser.add_argument(
        "output", type=Path, metavar="OUT", help=f"model file to write, a .pth ({MODEL_FORMAT})"
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store the weights as float16, in half the bytes (default: float32)",
    )
    return parser


def _convert(source: Path, output: Path, *, half: bool) -> int:
    check_writable(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"{output}: is the input; name another file")
    model = load_model(source)
    if half and any(_overflows(weight) for weight in model.network.state_dict().values()):
        raise UserError(f"{source}: its weights are too large for float16: leave out --half")
    dtype = torch.float16 if half else torch.float32
    save_model(output, model.network, metadata=model.metadata, dtype=dtype)
    origin = model.metadata.get("imported_from", MODEL_FORMAT)
    stored = ", float16" if half else ""
    print(f"{output}: from {origin}, width {model.network.width}{stored}")
    return 0


def _overflows(weight: Tensor) -> bool:
    return bool((weight.isfinite() & weight.half().isinf()).any())
