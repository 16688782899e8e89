"""Apply a trained network to photos, of any size and any number.

IMAGE is a file, a folder, a quoted glob, or - for standard input. Outputs that were made with the
same settings are skipped, so the same command goes on where it was interrupted. To share the images
among N processes: torchrun --nproc-per-node N -m fast_style stylize ...
"""

import contextlib
import io
import json
import sys
import warnings
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fast_style import distributed
from fast_style.batch import Saving, is_finished, run_jobs
from fast_style.batch_report import BatchReport
from fast_style.checkpoint import CheckpointError, find_model, shipped_models
from fast_style.commands import check_writable, run
from fast_style.commands.options import Parser, add_device, command_parser
from fast_style.errors import UserError
from fast_style.files import digest
from fast_style.formats import rowwise, table
from fast_style.images import EXTENSIONS, ImageError, format_of
from fast_style.jobs import STREAM, Job, find_inputs, plan_jobs
from fast_style.sheet import save_contact_sheet
from fast_style.stylization import Stylizer, Tile

_EXTENSIONS = tuple(row.extensions[0].removeprefix(".") for row in table.WRITTEN)
_SHEET_EDGE = 512
_NOT_FOR_SHEETS = ("output", "format", "depth", "keep_metadata", "manifest", "json")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Stylize; exit 0 when all is done, 1 when some images failed, 2 with one line on a mistake."""
    # Pillow's warnings add nothing: what matters is an ImageError too.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is no valid UTF-8 must not end the run; in JSON, \udcff is what it means.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = Namespace()

    def command() -> int:
        with distributed.joined():
            with distributed.only_main_speaks():
                parser().parse_args(arguments, options)
            return _sheet(options) if options.sheet else _stylize(options)

    # Strips of ordinary images are smaller; those of huge ones must leave no holes in the memory.
    return run(command, options=options, keep_up_to=32 << 20)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "stylize",
        __doc__,
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
        help="model to apply: its name, the path of its .pth, or its run's folder (required, but "
        "for --sheet, where it may be repeated)",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write one contact sheet instead: each photo, and what each --model makes of it "
        "(default: the shipped models), --size or 512 pixels long",
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
        "--depth", type=int, choices=(8, 16), help="bits a channel (default: the image's own)"
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
        help="keep the photo's colours: each pixel's, changing luma alone, or their mean and "
        "spread (default: off)",
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
        help="mirror the photo around itself, so that no frame is drawn, or leave the network's "
        "own edges (default: reflect)",
    )
    machine = parser.add_argument_group("machine")
    add_device(machine)
    machine.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16", "fp16"),
        default="float32",
        help="number format to compute in; auto is bf16 where that is fast (default: float32)",
    )
    machine.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        help="height in pixels of the strips that an image is stylized in, auto by its size, or "
        "off for the whole image at once; the picture is the same (default: auto)",
    )
    return parser


def _tile(text: str) -> Tile:
    if text in ("auto", "off"):
        return text  # type: ignore[return-value]
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not auto, off or a number") from None


def _stylize(options: Namespace) -> int:
    """Stylize this process's share of the images."""
    with distributed.together():
        # All processes see the folder as it is before any of them writes into it.
        stylizer, jobs, errors, saving = _prepare(options)
        if options.manifest and distributed.is_main():
            options.manifest.write_bytes(b"")  # then each process adds its lines
    jobs = jobs[distributed.rank() :: distributed.world_size()]
    finished = {job for job in jobs if not options.overwrite and is_finished(job, saving.made_with)}
    waiting = [job for job in jobs if job not in finished]
    redone = {job for job in waiting if not options.overwrite and _is_there(job)}
    # torchrun ends every process when one exits with an error: all wait here for the last.
    with contextlib.ExitStack() as stack, distributed.together():
        report = stack.enter_context(
            BatchReport(
                len(waiting), as_json=options.json, manifest=options.manifest, redone=redone
            )
        )
        for error in errors if distributed.is_main() else ():
            report.fail(error)
        for job in (job for job in jobs if job in finished):
            report.skip(job)
        results = run_jobs(stylizer, waiting, saving)
        for result in stack.enter_context(contextlib.closing(results)):
            report.add(result)
    return report.finish()


def _is_there(job: Job) -> bool:
    return job.output != STREAM and job.output.exists()


def _prepare(
    options: Namespace,
) -> tuple[Stylizer, list[Job], list[OSError], Saving]:
    """Check everything, and load the model; the errors are those of `plan_jobs`."""
    _check_numbers(options)
    if len(options.model) != 1:
        found = "several --model need --sheet" if options.model else "--model is missing"
        raise CheckpointError(f"{found}; --model names one, as in --model wave")
    model = find_model(options.model[0])
    jobs, errors = plan_jobs(
        options.images,
        model.stem,
        output=options.output,
        extension=options.format and f".{options.format}",
        recursive=options.recursive,
        overwrite=options.overwrite,
    )
    saving = _saving(options, jobs, made_with=_settings_digest(model, options))
    if options.manifest:
        _check_manifest(options.manifest, model, jobs)
    return _load(model, options, size=options.size), jobs, errors, saving


def _settings_digest(model: Path, options: Namespace) -> str:
    """Return a digest of the model and of the options that an output depends on."""
    settings = {name: getattr(options, name) for name in _SETTINGS}
    text = json.dumps({"model": digest(model), **settings}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _check_numbers(options: Namespace) -> None:
    if not 1 <= options.quality <= 100:
        raise UserError(f"--quality {options.quality} is impossible: it must be 1 to 100")
    if options.size is not None and not 1 <= options.size <= _LONGEST_EDGE:
        raise UserError(
            f"--size {options.size} is impossible: it must be at least 1, at most {_LONGEST_EDGE}"
        )


def _check_manifest(manifest: Path, model: Path, jobs: Sequence[Job]) -> None:
    """Refuse to empty a file that is no manifest, as where the manifest's name was forgotten."""
    if manifest.suffix.lower() in (*EXTENSIONS, ".pth"):
        kind = "a model" if manifest.suffix.lower() == ".pth" else "an image"
        raise UserError(f"--manifest {manifest}: is named like {kind}: name a .json file")
    if not manifest.exists():
        return
    used = {
        "the model": [model],
        "an input": [job.input for job in jobs],
        "an output": [job.output for job in jobs],
    }
    for what, paths in used.items():
        if any(path != STREAM and path.exists() and manifest.samefile(path) for path in paths):
            raise UserError(f"--manifest {manifest}: is {what}: name another file")


def _load(model: Path, options: Namespace, *, size: int | None) -> Stylizer:
    return Stylizer.load(
        model,
        device=distributed.local_device(options.device),
        precision=options.precision,
        tile=options.tile,
        strength=options.strength,
        preserve_color=options.preserve_color,
        size=size,
        stroke_scale=options.stroke_scale,
        edge=options.edge,
    )


def _saving(options: Namespace, jobs: Sequence[Job], *, made_with: str) -> Saving:
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


def _sheet(options: Namespace) -> int:
    """Write the contact sheet, in one process; an image that cannot be read is left out."""
    with distributed.together():
        return _write_sheet(options) if distributed.is_main() else 0


def _write_sheet(options: Namespace) -> int:
    _check_sheet(options)
    models = [find_model(model) for model in options.model] or shipped_models()
    if not models:
        raise CheckpointError("no models are shipped with this version: name one with --model")
    names = [model.stem for model in models]
    paths, errors = find_inputs(options.images, names, options.sheet, recursive=options.recursive)
    if STREAM in paths:
        raise ImageError("--sheet reads files, not standard input")
    if options.sheet.exists():
        if any(options.sheet.samefile(path) for path in paths):
            raise ImageError(
                f"{options.sheet}: is an input, and inputs are never overwritten: "
                "name another --sheet"
            )
        if not options.overwrite:
            print(
                f"{options.sheet}: already there, perhaps of other photos or settings; "
                "--overwrite redoes it",
                file=sys.stderr,
            )
            return 0
    for error in errors:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    # The photos are made small before they are stylized.
    stylizers = [(model.stem, _load(model, options, size=None)) for model in models]
    shown = save_contact_sheet(
        options.sheet,
        paths,
        stylizers,
        edge=options.size or _SHEET_EDGE,
        quality=options.quality,
        on_error=lambda error: print(f"error: {error}", file=sys.stderr),
    )
    if shown:
        print(options.sheet)
    return 1 if errors or shown < len(paths) else 0


def _check_sheet(options: Namespace) -> None:
    _check_numbers(options)
    for name in _NOT_FOR_SHEETS:
        if getattr(options, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} does nothing for a --sheet: leave one of them out")
    format_of(options.sheet)
    check_writable(options.sheet)
