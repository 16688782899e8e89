"""`scripts/convert.py candy.pth candy-converted.pth`: another project's model as one of ours."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fast_style.checkpoint import MODEL_FORMAT, load_model, save_model
from fast_style.commands import check_writable, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; exit 0 when the file is written, 2 with one line on a mistake."""
    parser = argparse.ArgumentParser(prog="convert.py", description=__doc__)
    parser.add_argument("input", type=Path, metavar="IN", help="another project's checkpoint")
    parser.add_argument("output", type=Path, metavar="OUT", help=f"the {MODEL_FORMAT} file")
    options = parser.parse_args(arguments)
    return run(lambda: _convert(options.input, options.output))


def _convert(source: Path, output: Path) -> int:
    check_writable(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"{output}: is the input; name another file")
    model = load_model(source)
    save_model(output, model.network, metadata=model.metadata)
    origin = model.metadata.get("imported_from", MODEL_FORMAT)
    print(f"{output}: from {origin}, width {model.network.width}")
    return 0
