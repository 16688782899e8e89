"""`scripts/stylize.py --model wave in.jpg`: apply a trained network to photos.

IMAGE is a file, a folder, a quoted glob, or - for standard input. Finished outputs are skipped, so
the same command goes on where it was interrupted. `torchrun --nproc-per-node N scripts/stylize.py`
shares the images among N processes.
"""

import argparse
import contextlib
import io
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import torch

from fast_style import distributed
from fast_style.batch import Result, Saving, is_memory_error, run_jobs
from fast_style.checkpoint import CheckpointError, find_model, shipped_models
from fast_style.commands import check_writable, run
from fast_style.formats import rowwise, table
from fast_style.images import (
    EXTENSIONS,
    ImageError,
    format_of,
    image_to_tensor,
    open_rgb,
    resize_long_edge,
    save_image,
    to_float,
)
from fast_style.jobs import STREAM, Job, count_left_out, find_inputs, plan_jobs
from fast_style.sheet import contact_sheet
from fast_style.stylization import Stylizer, Tile

_EXTENSIONS = tuple(row.extensions[0].removeprefix(".") for row in table.WRITTEN)
_SHEET_EDGE = 512
_NOT_FOR_SHEETS = ("output", "format", "depth", "keep_metadata", "manifest", "json")
# What PNG can hold.
_LONGEST_EDGE = 2**31 - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Stylize; exit 0 when all is done, 1 when some images failed, 2 with one line on a mistake."""
    # What Pillow warns of is either in an ImageError too, or of no consequence.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is no valid UTF-8 must not end the run; in JSON, \udcff is what it means.
        sys.stdout.reconfigure(errors="backslashreplace")

    def command() -> int:
        with distributed.joined():
            with distributed.only_main_speaks():
                options = _parser().parse_args(arguments)
            return _sheet(options) if options.sheet else _stylize(options)

    # Strips of ordinary images are smaller; those of huge ones must leave no holes in the memory.
    return run(command, keep_up_to=32 << 20)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stylize.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument(
        "--model", action="append", default=[], help="a model's name, or the path of its .pth"
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="write one contact sheet: each photo, then what each --model makes of it "
        "(default: the shipped models), --size or 512 pixels long",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "-o", "--output", help="a folder, or one image's file, or - (default: beside each image)"
    )
    files.add_argument("--recursive", action="store_true", help="look into subfolders")
    files.add_argument("--overwrite", action="store_true", help="redo outputs that are there")
    files.add_argument("--format", choices=_EXTENSIONS, help="default: each image's own")
    files.add_argument("--quality", type=int, default=95, help="of JPEG, WebP, AVIF: 1 to 100")
    files.add_argument(
        "--depth", type=int, choices=(8, 16), help="bits a channel (default: the image's own)"
    )
    files.add_argument("--keep-metadata", action="store_true", help="keep EXIF, GPS, XMP, IPTC")
    files.add_argument("--manifest", type=Path, help="write a line of JSON for each image")
    files.add_argument("--json", action="store_true", help="print the same lines instead")
    look = parser.add_argument_group("look")
    look.add_argument("--strength", type=float, default=1.0, help="0 to 1, the photo to the style")
    look.add_argument("--preserve-color", choices=("off", "luma", "histogram"), default="off")
    look.add_argument("--size", type=int, metavar="LONG_EDGE", help="of the output")
    look.add_argument("--stroke-scale", type=float, default=1.0, help="2: strokes twice as large")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    machine.add_argument(
        "--precision", choices=("auto", "float32", "bf16", "fp16"), default="float32"
    )
    machine.add_argument(
        "--tile", type=_tile, default="auto", help="auto, off, or a strip's height in pixels"
    )
    return parser


def _tile(text: str) -> Tile:
    if text in ("auto", "off"):
        return text  # type: ignore[return-value]
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, off or a number") from None


def _stylize(options: argparse.Namespace) -> int:
    """Stylize this process's share of the images."""
    with distributed.together():
        # All processes see the folder as it is before any of them writes into it.
        stylizer, jobs, errors, saving = _prepare(options)
        if options.manifest and distributed.is_main():
            options.manifest.write_bytes(b"")  # then each process adds its lines
    jobs = jobs[distributed.rank() :: distributed.world_size()]
    finished = {
        job
        for job in jobs
        if not options.overwrite and job.output != STREAM and job.output.exists()
    }
    waiting = [job for job in jobs if job not in finished]
    # Torchrun ends all processes when one has failed: the last one to finish lets the others go.
    with contextlib.ExitStack() as stack, distributed.together():
        report = _Report(options, len(waiting), stack)
        for error in errors if distributed.is_main() else ():
            report.fail(error)
        if distributed.is_main():
            report.leave_out(
                count_left_out(options.images, output=options.output, recursive=options.recursive)
            )
        for job in (job for job in jobs if job in finished):
            report.skip(job)
        results = run_jobs(stylizer, waiting, saving)
        for result in stack.enter_context(contextlib.closing(results)):
            report.add(result)
    return report.finish()


def _prepare(
    options: argparse.Namespace,
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
    saving = _saving(options, jobs)
    if options.manifest:
        _check_manifest(options.manifest, model, jobs)
    return _load(model, options), jobs, errors, saving


def _check_numbers(options: argparse.Namespace) -> None:
    if not 1 <= options.quality <= 100:
        raise ValueError(f"--quality {options.quality} is impossible: it must be 1 to 100")
    if options.size is not None and not 1 <= options.size <= _LONGEST_EDGE:
        raise ValueError(
            f"--size {options.size} is impossible: it must be at least 1, at most {_LONGEST_EDGE}"
        )


def _check_manifest(manifest: Path, model: Path, jobs: Sequence[Job]) -> None:
    """Refuse to empty a file that is no manifest, as where the manifest's name was forgotten."""
    if manifest.suffix.lower() in (*EXTENSIONS, ".pth"):
        kind = "a model" if manifest.suffix.lower() == ".pth" else "an image"
        raise ValueError(f"--manifest {manifest}: is named like {kind}: name a .json file")
    if not manifest.exists():
        return
    used = {
        "the model": [model],
        "an input": [job.input for job in jobs],
        "an output": [job.output for job in jobs],
    }
    for what, paths in used.items():
        if any(path != STREAM and path.exists() and manifest.samefile(path) for path in paths):
            raise ValueError(f"--manifest {manifest}: is {what}: name another file")


def _load(model: Path, options: argparse.Namespace) -> Stylizer:
    return Stylizer.load(
        model,
        device=distributed.local_device(options.device),
        precision=options.precision,
        tile=options.tile,
        strength=options.strength,
        preserve_color=options.preserve_color,
        size=options.size,
        stroke_scale=options.stroke_scale,
    )


def _saving(options: argparse.Namespace, jobs: Sequence[Job]) -> Saving:
    """Check what can be checked before any work."""
    wanted = format_of(Path(f"x.{options.format}")) if options.format else None
    for output in (job.output for job in jobs):
        if output == STREAM:
            if options.json:
                raise ValueError("--json and the picture cannot both go to standard output")
            if wanted is None:
                continue  # its picture decides
        name = "standard output" if output == STREAM else output
        file_format = wanted if wanted and output == STREAM else format_of(output)
        if wanted and file_format != wanted:
            raise ValueError(f"--format {options.format}, but {name} is {file_format}")
        if options.depth == 16 and not table.written_as(file_format).depth:
            raise ValueError(f"{name}: {file_format} holds no 16 bits: add --format png or tiff")
        if options.depth == 16 and file_format not in rowwise.formats():
            raise ValueError(f"{name}: 16 bits need pip install 'fast-style[formats]', or PNG")
    return Saving(
        file_format=wanted,
        quality=options.quality,
        depth=options.depth,
        keep_metadata=options.keep_metadata,
    )


def _sheet(options: argparse.Namespace) -> int:
    """Write the contact sheet, in one process; an image that cannot be read is left out."""
    with distributed.together():
        return _write_sheet(options) if distributed.is_main() else 0


def _write_sheet(options: argparse.Namespace) -> int:
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
            print(f"{options.sheet}: already there; --overwrite redoes it", file=sys.stderr)
            return 0
    edge = options.size or _SHEET_EDGE
    options.size = None  # The sheet makes its photos small before they are stylized.
    stylizers = [(model.stem, _load(model, options)) for model in models]
    for error in errors:
        print(f"error: {_line(error)}", file=sys.stderr)
    others = count_left_out(options.images, output=options.sheet, recursive=options.recursive)
    if others:
        print(table.left_out(others), file=sys.stderr)
    try:
        photos = _small_photos(paths, edge)
        sheet = contact_sheet(photos, stylizers) if photos else None
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise ImageError(
            f"{options.sheet}: too large for the memory there is: try a --size below {edge}"
        ) from None
    if sheet is not None:
        print(save_image(sheet, options.sheet, quality=options.quality))
    return 1 if errors or len(photos) < len(paths) else 0


def _check_sheet(options: argparse.Namespace) -> None:
    _check_numbers(options)
    for name in _NOT_FOR_SHEETS:
        if getattr(options, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} does nothing for a --sheet: leave one of them out")
    format_of(options.sheet)
    check_writable(options.sheet)


def _small_photos(paths: Sequence[Path], edge: int) -> list[tuple[str, torch.Tensor]]:
    """Read photos at this long edge, with their names; tell of those that cannot be read."""
    photos = []
    for path in paths:
        try:
            photo = to_float(image_to_tensor(open_rgb(path, at_least=edge)))
            photos.append((path.name, resize_long_edge(photo, edge)))
        except ImageError as error:
            print(f"error: {error}", file=sys.stderr)
    return photos


class _Report:
    """Tells of results: to a person in lines and a bar, to machines in lines of JSON."""

    def __init__(
        self, options: argparse.Namespace, total: int, stack: contextlib.ExitStack
    ) -> None:
        self._json: bool = options.json
        self._counts = {"stylized": 0, "already there, skipped": 0, "failed": 0}
        self._manifest: BinaryIO | None = None
        self._bar: Any = None
        if options.manifest:
            # Unbuffered, and each write goes to the end: lines of several processes stay whole.
            self._manifest = stack.enter_context(options.manifest.open("ab", buffering=0))
        alone = distributed.world_size() == 1
        if alone and total > 1 and not self._json and sys.stderr.isatty():
            # Only here, since importing it takes its time.
            from tqdm import tqdm

            self._bar = stack.enter_context(tqdm(total=total, unit="image", dynamic_ncols=True))

    def skip(self, job: Job) -> None:
        """Tell of an output that was there."""
        self._counts["already there, skipped"] += 1
        self._record({**_paths(job), "skipped": True})

    def add(self, result: Result) -> None:
        """Tell of a job that has ended."""
        self._counts["failed" if result.error else "stylized"] += 1
        self._record(
            {
                **_paths(result.job),
                "size": result.size,
                "seconds": round(result.seconds, 3),
                "notes": result.notes,
                "error": result.error,
            }
        )
        for note in result.notes:
            self._say(f"{result.job.input}: {note}", sys.stderr)
        if result.error:
            self._say(f"error: {result.error}", sys.stderr)
        elif not self._json and result.job.output != STREAM:
            self._say(f"{result.job.output} ({result.seconds:.1f} s)", sys.stdout)
        if self._bar is not None:
            self._bar.update()

    def fail(self, error: OSError) -> None:
        """Tell of what was found but cannot be looked at."""
        self._counts["failed"] += 1
        self._record({"input": error.filename, "output": None, "error": _line(error)})
        self._say(f"error: {_line(error)}", sys.stderr)

    def leave_out(self, extensions: Mapping[str, int]) -> None:
        """Tell of files in folders that are no images."""
        if line := table.left_out(extensions):
            self._say(line, sys.stderr)

    def finish(self) -> int:
        """Sum up over all processes; give the exit code of this one."""
        totals = distributed.total(torch.tensor(list(self._counts.values()))).tolist()
        counts = dict(zip(self._counts, totals, strict=True))
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if counts["already there, skipped"]:
            parts.append("--overwrite redoes what is there")
        some_left = sum(totals) != counts["stylized"]
        if distributed.is_main() and (some_left or counts["stylized"] > 1):
            _print_whole(", ".join(parts), sys.stderr)
        return 1 if self._counts["failed"] else 0

    def _record(self, entry: Mapping[str, object]) -> None:
        line = json.dumps(entry, ensure_ascii=False)
        if self._json:
            _print_whole(line, sys.stdout)
        if self._manifest:
            self._manifest.write(f"{line}\n".encode(errors="backslashreplace"))

    def _say(self, line: str, file: TextIO) -> None:
        if self._bar is None:
            _print_whole(line, file)
        else:
            self._bar.write(line, file=file)


def _print_whole(line: str, file: TextIO) -> None:
    """Print a line in one write, so that those of several processes do not mix."""
    print(f"{line}\n", end="", file=file, flush=True)


def _line(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}"


def _paths(job: Job) -> dict[str, str]:
    return {"input": str(job.input), "output": str(job.output)}
