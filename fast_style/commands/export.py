"""Write a model for other programs; the output's ending is the format.

.onnx runs in ONNX Runtime, OpenVINO, browsers and game engines, and with stylize without PyTorch.
It is compared with PyTorch first: a graph that gives another picture is not written. .pt2 is
PyTorch's own program, where Core ML and ExecuTorch begin. .safetensors is the layout of model hubs:
the weights, and beside them config.json and a model card, README.md.
"""

import contextlib
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from fast_style.checkpoints.files import find_model, load_model
from fast_style.commands import check_writable, run
from fast_style.commands.options import Parser, command_parser
from fast_style.errors import UserError
from fast_style.export.half import halved
from fast_style.export.hub import hub_files
from fast_style.export.origin import Origin, origin_of
from fast_style.export.portable import strips_files, strips_folder
from fast_style.export.program import program_bytes
from fast_style.files import atomic_write, remove_unfinished
from fast_style.networks.transformer import TransformerNet

_OPSET = 17
# Small enough for the gate's images to have several.
_SMALL_STRIPS = 3000
# What an option is when it is not given, and the formats that have it.
_OF_ONNX = {"io": "uint8", "size": None, "opset": _OPSET, "edge": "reflect", "strips": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; exit 0 when the file is written, 2 with one line on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _export(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "export",
        __doc__,
        examples=(
            "--model wave -o wave.onnx --io float --size 720x1280",
            "--model wave -o wave/model.safetensors",
        ),
    )
    parser.add_argument(
        "--model", required=True, help="model to export: its name, its file, or a run's folder"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write, a .onnx, .pt2 or .safetensors",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="licence text to store in the file (default: the model's)"
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store the weights as float16, half the size; not for .pt2 (default: float32)",
    )
    onnx = parser.add_argument_group("of .onnx")
    onnx.add_argument(
        "--io",
        choices=("uint8", "float"),
        default="uint8",
        help="images as N,H,W,3 bytes, or N,3,H,W floats in [0, 1] (default: uint8)",
    )
    onnx.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="the only input size, for runtimes without dynamic shapes (default: any)",
    )
    onnx.add_argument(
        "--opset",
        type=int,
        default=_OPSET,
        help=f"ONNX opset, 13 to 24 (default: {_OPSET})",
        metavar="N",
    )
    onnx.add_argument(
        "--edge",
        choices=("reflect", "none"),
        default="reflect",
        help="reflect: mirror the photo around itself, so that no frame is drawn; none: the "
        "network's own edges (default: reflect)",
    )
    onnx.add_argument(
        "--strips",
        action="store_true",
        help="write a second form of the network beside it, FILE.strips: stylize takes it for "
        "images of more than 4 megapixels, in bounded memory (default: no)",
    )
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ArgumentTypeError(f"{text!r} is no size: write the height, x and the width: 720x1280")
    return int(height), int(width)


def _export(options: Namespace) -> int:
    output: Path = options.output
    kind = output.suffix.lower()
    if kind not in (".onnx", ".pt2", ".safetensors"):
        raise UserError(f"{output}: name a .onnx, .pt2 or .safetensors file")
    _check_options(kind, options)
    check_writable(output)
    source = find_model(options.model)
    if output.exists() and output.samefile(source):
        raise UserError(f"{output}: is the input; name another file")
    model = load_model(source)
    if options.half:
        model = halved(model, name=str(source))
    origin = origin_of(source, model, licence=options.licence)
    parity = ""
    if kind == ".onnx":
        files, parity = _checked_onnx(model.network, origin, options)
    elif kind == ".pt2":
        files = {output: program_bytes(model.network)}
    else:
        dtype = torch.float16 if options.half else torch.float32
        files = hub_files(output, model, origin, dtype=dtype)
    if kind == ".onnx":
        _remove_strips(output)
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
    beside = [path.name for path in files if path.parent == output.parent and path != output]
    if options.strips:
        beside.append(strips_folder(output).name)
    others = "".join(f", {name}" for name in beside)
    print(f"{output}{others}: {origin.style}, {len(files[output]) / 1e6:.2f} MB{parity}")
    return 0


def _remove_strips(output: Path) -> None:
    """Remove the graphs for strips of the model that was there: they are not the new one's.

    They go before the new model comes, and its own come after it: killed in between, a model has
    no strips, and never another one's.
    """
    for path in strips_files(output).values():
        path.unlink(missing_ok=True)
    folder = strips_folder(output)
    remove_unfinished(folder)
    with contextlib.suppress(OSError):  # it holds other things, or is not there
        folder.rmdir()


def _check_options(kind: str, options: Namespace) -> None:
    """Refuse, by name, what another format has."""
    if kind == ".onnx":
        if options.strips and (options.io, options.size, options.edge) != (
            "uint8",
            None,
            "reflect",
        ):
            raise UserError("--strips is for --io uint8, any size, --edge reflect: leave it out")
        return
    given = [name for name, default in _OF_ONNX.items() if getattr(options, name) != default]
    if kind == ".pt2" and options.half:
        given.append("half")
    if given:
        raise UserError(f"--{given[0]} does nothing for a {kind} file: leave it out")


def _checked_onnx(
    network: TransformerNet, origin: Origin, options: Namespace
) -> tuple[dict[Path, bytes], str]:
    """Return graphs that passed the gate, and how near they are to PyTorch. Raises ParityError."""
    try:
        from fast_style.export.gate import check_parity, onnxruntime_session, strips_runtime
        from fast_style.export.onnx import GraphForm, onnx_bytes
        from fast_style.export.stages import stage_bytes
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise UserError("a .onnx file needs pip install 'fast-style[export]'") from None
    form = GraphForm(
        io=options.io,
        size=options.size,
        opset=options.opset,
        half=options.half,
        edge=options.edge,
    )
    about = {**origin.as_text(), "edge": form.edge, "width": str(network.width)}
    content = onnx_bytes(network, form, about)
    parity = check_parity(onnxruntime_session(content), network, form)
    near = f"at most {parity.difference:.2g}/255 from PyTorch in {parity.share:.2%} of pixels"
    output: Path = options.output
    files = {output: content}
    if options.strips:
        stages = stage_bytes(network, half=form.half, about=about)
        check_parity(strips_runtime(stages, strip_pixels=_SMALL_STRIPS), network, form)
        files |= {path: stages[stage] for stage, path in strips_files(output).items()}
    return files, f", opset {form.opset}; {near}"
