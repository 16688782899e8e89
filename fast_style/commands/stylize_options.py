"""The options of `stylize`, and what is checked of them before any work: all without torch."""

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.commands.clip_options import add_clip_options
from fast_style.commands.options import Parser, add_device, command_parser
from fast_style.errors import UserError
from fast_style.files import digest
from fast_style.images import rowwise, table
from fast_style.images.encoding import format_of
from fast_style.images.table import EXTENSIONS
from fast_style.remote import is_remote, shown
from fast_style.stylization.jobs import STREAM, Job, plan_jobs
from fast_style.stylization.mask_files import with_masks
from fast_style.stylization.outputs import Saving
from fast_style.stylization.remote_jobs import has_remote, plan_remote_jobs

if TYPE_CHECKING:
    from fast_style.stylization import Tile

_DESCRIPTION = """Apply a trained network to photos, of any size and any number.

IMAGE is a photo, a clip, numbered frames (frames/%04d.png), a folder, a quoted glob, or - for
standard input; clips need fast-style[video]. Outputs that were made with the
same settings are skipped, so the same command goes on where it was interrupted. To share the images
among N processes: torchrun --nproc-per-node N -m fast_style stylize ...
"""

_EXTENSIONS = tuple(row.extensions[0].removeprefix(".") for row in table.WRITTEN)
# The options that an output depends on, with its model and its photo.
_SETTINGS = (
    "strength",
    "preserve_color",
    "size",
    "stroke_scale",
    "edge",
    "precision",
    "quality",
    "depth",
    "keep_metadata",
)
# What PNG can hold.
_LONGEST_EDGE = 2**31 - 1


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "stylize",
        _DESCRIPTION,
        examples=(
            "--model wave in.jpg",
            "--model wave photos/ --recursive -o out/ --strength 0.6 --preserve-color luma",
        ),
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="photo, folder, quoted glob or - (see above)"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="model to apply: its name, the path of its .pth, .safetensors or .onnx, or its run's "
        "folder (required; with --sheet optional, and may be repeated)",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write one contact sheet to this file instead: each photo in the style of each "
        "--model, or of all shipped models, at a long edge of --size or 512 pixels (default: none)",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "-o",
        "--output",
        help="folder to write to, or one image's file, or - (default: beside each image)",
    )
    files.add_argument(
        "--recursive", action="store_true", help="look into subfolders (default: leave them out)"
    )
    files.add_argument(
        "--overwrite",
        action="store_true",
        help="redo all outputs (default: only those made with other settings)",
    )
    files.add_argument(
        "--format", choices=_EXTENSIONS, help="format to write (default: each image's own)"
    )
    files.add_argument(
        "--quality",
        type=int,
        default=95,
        help="quality of JPEG, WebP and AVIF files, 1 to 100 (default: 95)",
    )
    files.add_argument(
        "--depth", type=int, choices=(8, 16), help="bits per channel (default: the image's own)"
    )
    files.add_argument(
        "--keep-metadata",
        action="store_true",
        help="keep EXIF, GPS, XMP and IPTC (default: leave them out)",
    )
    files.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="write a line of JSON for each image to this file (default: none)",
    )
    files.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each image (default: its output's name)",
    )
    look = parser.add_argument_group("look")
    look.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="blend of photo and style, from 0, the photo, to 1, the style alone (default: 1)",
    )
    look.add_argument(
        "--preserve-color",
        choices=("off", "luma", "histogram"),
        default="off",
        help="luma: keep the photo's colours and take the brightness alone from the style; "
        "histogram: match the photo's mean colour and spread (default: off)",
    )
    look.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="long edge of the output, from 1 on (default: the image's own)",
    )
    look.add_argument(
        "--stroke-scale",
        type=float,
        default=1.0,
        metavar="SCALE",
        help="size of the strokes, 0.1 to 64; 2 makes them twice as large (default: 1)",
    )
    look.add_argument(
        "--edge",
        choices=("reflect", "none"),
        default="reflect",
        help="what lies beyond the photo's edges: reflect mirrors the photo there, so that no "
        "frame is drawn, none leaves the network's own padding (default: reflect)",
    )
    look.add_argument(
        "--wrap",
        choices=("x", "xy"),
        default="off",
        help="join the picture's left and right, as of a 360-degree photo (x), and its top and "
        "bottom too, as of a texture (xy): no seam is drawn there (default: off)",
    )
    look.add_argument(
        "--mask",
        type=Path,
        metavar="FILE|DIR",
        help="grey picture that is white where the style is wanted and black where the photo "
        "stays, of the photo's size or scaled to it; or a folder of masks with the photos' names "
        "(default: style everywhere)",
    )
    add_clip_options(parser)
    machine = parser.add_argument_group("machine")
    add_device(machine)
    machine.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16", "fp16"),
        default="float32",
        help="number format to compute in; auto is bf16 where that is fast (default: float32)",
    )
    machine.add_argument(
        "--backend",
        choices=("onnxruntime", "openvino"),
        help="program that runs a .onnx model (default: onnxruntime)",
    )
    machine.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="share the photos among a Ray cluster's cores or GPUs; auto is the one that runs "
        "here, or else all of this machine (default: this process alone)",
    )
    machine.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        help="height in pixels of the strips in which an image is stylized; auto chooses by its "
        "size, off takes the whole image at once; the picture is the same (default: auto)",
    )
    return parser


def _tile(text: str) -> "Tile":
    if text in ("auto", "off"):
        return text  # type: ignore[return-value]
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not auto, off or a number") from None


def settings_digest(model: Path, options: Namespace) -> str:
    """Return a digest of the model and of the options that an output depends on."""
    settings = {name: getattr(options, name) for name in _SETTINGS}
    if options.wrap != "off":  # what was made before there was such an option is the same picture
        settings["wrap"] = options.wrap
    text = json.dumps({"model": digest(model), **settings}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def check_numbers(options: Namespace) -> None:
    """Raise UserError for a number that is impossible."""
    if not 1 <= options.quality <= 100:
        raise UserError(f"--quality {options.quality} is impossible: it must be 1 to 100")
    if options.size is not None and not 1 <= options.size <= _LONGEST_EDGE:
        raise UserError(
            f"--size {options.size} is impossible: it must be at least 1, at most {_LONGEST_EDGE}"
        )


def check_manifest(manifest: Path, model: Path, jobs: Sequence[Job]) -> None:
    """Refuse to empty a file that is no manifest, as where the manifest's name was forgotten."""
    if is_remote(manifest):
        raise UserError(
            f"--manifest {shown(manifest)}: name a file on this machine: lines are added"
        )
    if manifest.suffix.lower() in (*EXTENSIONS, ".pth"):
        kind = "a model" if manifest.suffix.lower() == ".pth" else "an image"
        raise UserError(f"--manifest {manifest}: is named like {kind}: name a .json file")
    if not manifest.exists():
        return
    used = {
        "the model": [model],
        "an input": [job.input for job in jobs],
        "an output": [job.output for job in jobs],
        "a mask": [job.mask for job in jobs if job.mask],
    }
    for what, paths in used.items():
        if any(path != STREAM and path.exists() and manifest.samefile(path) for path in paths):
            raise UserError(f"--manifest {manifest}: is {what}: name another file")


def planned(options: Namespace, model: Path) -> tuple[list[Job], list[OSError], Saving]:
    """Plan a job for each image, and how outputs are saved; the errors are those of `plan_jobs`."""
    extension = options.format and f".{options.format}"
    if has_remote(options.images, options.output):
        jobs, errors = plan_remote_jobs(
            options.images,
            model.stem,
            output=options.output,
            extension=extension,
            recursive=options.recursive,
        )
    else:
        jobs, errors = plan_jobs(
            options.images,
            model.stem,
            output=options.output,
            extension=extension,
            recursive=options.recursive,
            overwrite=options.overwrite,
        )
    if options.mask:
        jobs = with_masks(jobs, options.mask)
        if not jobs:
            raise UserError(f"--mask {shown(options.mask)}: there are no photos beside the masks")
    saving = saving_of(options, jobs, made_with=settings_digest(model, options))
    if options.manifest:
        check_manifest(options.manifest, model, jobs)
    return jobs, errors, saving


def saving_of(options: Namespace, jobs: Sequence[Job], *, made_with: str) -> Saving:
    """Check what can be checked before any work."""
    wanted = format_of(Path(f"x.{options.format}")) if options.format else None
    for output in (job.output for job in jobs):
        if output == STREAM:
            if options.json:
                raise UserError("--json and the picture cannot both go to standard output")
            if wanted is None:
                continue  # its picture decides
        name = "standard output" if output == STREAM else output
        file_format = wanted if wanted and output == STREAM else format_of(output)
        if wanted and file_format != wanted:
            raise UserError(f"--format {options.format}, but {name} is {file_format}")
        if options.depth == 16 and not table.written_as(file_format).depth:
            raise UserError(f"{name}: {file_format} holds no 16 bits: add --format png or tiff")
        if options.depth == 16 and file_format not in rowwise.formats():
            raise UserError(f"{name}: 16 bits need pip install 'fast-style[formats]', or PNG")
    return Saving(
        file_format=wanted,
        quality=options.quality,
        depth=options.depth,
        keep_metadata=options.keep_metadata,
        made_with=made_with,
    )
