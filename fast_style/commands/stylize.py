"""`scripts/stylize.py --model wave in.jpg`: apply a trained network to photos.

IMAGE is a file, a folder, a quoted glob, or - for standard input. Finished outputs are skipped, so
the same command goes on where it was interrupted.
"""

import argparse
import contextlib
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from fast_style.batch import Result, Saving, run_jobs
from fast_style.checkpoint import CheckpointError, find_model
from fast_style.commands import run
from fast_style.formats import deep
from fast_style.formats.encoding import WITH_DEPTH
from fast_style.images import (
    ImageError,
    format_of,
    image_to_tensor,
    open_rgb,
    resize_long_edge,
    save_image,
    to_float,
)
from fast_style.jobs import STREAM, Job, plan_jobs
from fast_style.sheet import contact_sheet
from fast_style.stylization import Stylizer, Tile

_EXTENSIONS = ("jpg", "png", "webp", "tiff", "avif", "bmp")
_SHEET_EDGE = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Stylize; exit 0 when all is done, 1 when some images failed, 2 with one line on a mistake."""
    options = _parser().parse_args(arguments)
    # What Pillow warns of is either in an ImageError too, or of no consequence.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Strips of ordinary images are smaller; those of huge ones must leave no holes in the memory.
    return run(lambda: _sheet(options) if options.sheet else _stylize(options), keep_up_to=32 << 20)


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
    files.add_argument("--keep-metadata", action="store_true", help="keep EXIF, GPS, XMP")
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
    if len(options.model) != 1:
        found = "several --model need --sheet" if options.model else "--model is missing"
        raise CheckpointError(f"{found}; --model names one, as in --model wave")
    model = find_model(options.model[0])
    jobs = plan_jobs(
        options.images,
        model.stem,
        output=options.output,
        extension=options.format and f".{options.format}",
        recursive=options.recursive,
    )
    saving = _saving(options, jobs)
    stylizer = _load(model, options)
    finished = {
        job
        for job in jobs
        if not options.overwrite and job.output != STREAM and job.output.exists()
    }
    waiting = [job for job in jobs if job not in finished]
    with contextlib.ExitStack() as stack:
        report = _Report(options, len(waiting), stack)
        for job in (job for job in jobs if job in finished):
            report.skip(job)
        results = run_jobs(stylizer, waiting, saving)
        for result in stack.enter_context(contextlib.closing(results)):
            report.add(result)
        return report.finish()


def _load(model: Path, options: argparse.Namespace) -> Stylizer:
    return Stylizer.load(
        model,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        strength=options.strength,
        preserve_color=options.preserve_color,
        size=options.size,
        stroke_scale=options.stroke_scale,
    )


def _saving(options: argparse.Namespace, jobs: Sequence[Job]) -> Saving:
    """Check what can be checked before any work."""
    if not 1 <= options.quality <= 100:
        raise ValueError(f"--quality {options.quality} is impossible: it must be 1 to 100")
    wanted = format_of(Path(f"x.{options.format}")) if options.format else None
    for output in (job.output for job in jobs):
        if output == STREAM:
            if options.json:
                raise ValueError("--json and the picture cannot both go to standard output")
            continue
        file_format = format_of(output)
        if wanted and file_format != wanted:
            raise ValueError(f"--format {options.format}, but {output} is {file_format}")
        if options.depth == 16 and file_format not in WITH_DEPTH:
            raise ValueError(f"{output}: {file_format} holds no 16 bits: add --format png or tiff")
    if options.depth == 16 and not deep.available():
        raise ValueError("--depth 16 needs more packages: pip install 'fast-style[formats]'")
    return Saving(
        file_format=wanted,
        quality=options.quality,
        depth=options.depth,
        keep_metadata=options.keep_metadata,
    )


def _sheet(options: argparse.Namespace) -> int:
    """Write the contact sheet; an image that cannot be read is reported and left out."""
    format_of(options.sheet)
    models = [find_model(model) for model in options.model] or _shipped_models()
    jobs = plan_jobs(options.images, "sheet", recursive=options.recursive)
    paths = [job.input for job in jobs]
    if STREAM in paths:
        raise ImageError("--sheet reads files, not standard input")
    if options.sheet.exists():
        if any(options.sheet.samefile(path) for path in paths):
            raise ImageError(f"{options.sheet}: is an input, and inputs are never overwritten")
        if not options.overwrite:
            print(f"{options.sheet}: already there; --overwrite redoes it", file=sys.stderr)
            return 0
    edge = options.size or _SHEET_EDGE
    options.size = None  # The sheet makes its photos small before they are stylized.
    stylizers = [(model.stem, _load(model, options)) for model in models]
    photos, failed = [], 0
    for path in paths:
        try:
            photo = resize_long_edge(to_float(image_to_tensor(open_rgb(path, at_least=edge))), edge)
            photos.append((path.name, photo))
        except ImageError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    if photos:
        sheet = contact_sheet(photos, stylizers)
        print(save_image(sheet, options.sheet, quality=options.quality))
    return 1 if failed else 0


def _shipped_models() -> list[Path]:
    models = sorted(Path(__file__).parents[1].glob("models/*.pth"))
    if not models:
        raise CheckpointError("no models are shipped with this version: name one with --model")
    return models


class _Report:
    """Tells of results: to a person in lines and a bar, to machines in lines of JSON."""

    def __init__(
        self, options: argparse.Namespace, total: int, stack: contextlib.ExitStack
    ) -> None:
        self._json: bool = options.json
        self._counts = {"stylized": 0, "already there, skipped": 0, "failed": 0}
        self._manifest: TextIO | None = None
        self._bar: Any = None
        if options.manifest:
            try:
                file = options.manifest.open("w", encoding="utf-8")
            except OSError as error:
                raise ValueError(f"{options.manifest}: {error.strerror}") from None
            self._manifest = stack.enter_context(file)
        if total > 1 and not self._json and sys.stderr.isatty():
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

    def finish(self) -> int:
        """Sum up; give the exit code."""
        counts = [f"{count} {what}" for what, count in self._counts.items() if count]
        if self._counts["already there, skipped"]:
            counts.append("--overwrite redoes what is there")
        if sum(self._counts.values()) != self._counts["stylized"] or self._counts["stylized"] > 1:
            self._say(", ".join(counts), sys.stderr)
        return 1 if self._counts["failed"] else 0

    def _record(self, entry: Mapping[str, object]) -> None:
        line = json.dumps(entry, ensure_ascii=False)
        if self._json:
            print(line, flush=True)
        if self._manifest:
            print(line, file=self._manifest, flush=True)

    def _say(self, line: str, file: TextIO) -> None:
        if self._bar is None:
            print(line, file=file, flush=True)
        else:
            self._bar.write(line, file=file)


def _paths(job: Job) -> dict[str, str]:
    return {"input": str(job.input), "output": str(job.output)}
