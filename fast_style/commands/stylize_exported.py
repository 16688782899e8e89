"""Apply an exported model, a .onnx, to photos: `stylize` without importing torch."""

import contextlib
import io
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fast_style.commands import run
from fast_style.commands.clip_options import refuse_clip_options
from fast_style.commands.stylize_options import (
    check_numbers,
    parser,
    planned,
)
from fast_style.errors import UserError
from fast_style.export.pixels import filled, resized_alpha
from fast_style.export.portable import PortableStylizer
from fast_style.images import rowwise, table
from fast_style.images.decoding import ImageError, decode, opened, with_bits
from fast_style.images.encoding import check_size, format_of
from fast_style.images.metadata import Metadata, read_metadata
from fast_style.images.writing import unwritable, write_arrays
from fast_style.memory import is_memory_error
from fast_style.stylization.batch_report import BatchReport
from fast_style.stylization.jobs import STREAM, Job, count_left_out
from fast_style.stylization.outputs import Result, Saving, finished_jobs
from fast_style.stylization.remote_jobs import has_remote


def main(arguments: Sequence[str] | None = None) -> int:
    """Stylize; exit 0 when all is done, 1 when some images failed, 2 with one line on a mistake."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is no valid UTF-8 must not end the run; in JSON, \udcff is what it means.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    return run(lambda: _stylize(options), options=options, keep_up_to=32 << 20)


def _stylize(options: Namespace) -> int:
    stylizer, jobs, errors, saving = _prepare(options)
    if options.manifest:
        options.manifest.write_bytes(b"")
    finished, existing = (
        (set(), set())
        if options.overwrite
        else finished_jobs(jobs, Path(options.model[0]).stem, saving.made_with)
    )
    waiting = [job for job in jobs if job not in finished]
    redone = existing.difference(finished)
    with BatchReport(
        len(waiting), as_json=options.json, manifest=options.manifest, redone=redone
    ) as report:
        for error in errors:
            report.fail(error)
        report.leave_out(
            count_left_out(options.images, output=options.output, recursive=options.recursive)
        )
        for job in (job for job in jobs if job in finished):
            report.skip(job)
        for job in waiting:
            report.add(_finish(stylizer, job, saving))
    return report.finish()


def _prepare(
    options: Namespace,
) -> tuple[PortableStylizer, list[Job], list[OSError], Saving]:
    """Check everything, and load the model; the errors are those of `plan_jobs`."""
    _refuse(options)
    check_numbers(options)
    model = Path(options.model[0]).expanduser()
    stylizer = PortableStylizer(
        model,
        backend=options.backend or "onnxruntime",
        precision=options.precision,
        strength=options.strength,
        preserve_color=options.preserve_color,
        size=options.size,
    )
    edge = stylizer.about.get("edge", options.edge)
    if options.edge != edge and options.edge != parser().get_default("edge"):
        raise UserError(f"--edge {options.edge}: {model} was exported with --edge {edge}")
    if options.depth == 16 and not stylizer.takes_floats:
        raise UserError(f"--depth 16: {model} takes 8 bits: export it with --io float")
    jobs, errors, saving = planned(options, model)
    return stylizer, jobs, errors, saving


def _refuse(options: Namespace) -> None:
    """Name what an exported model cannot do."""
    refuse_clip_options(options)
    for image in options.images:
        if Path(image).suffix.lower() in table.CLIPS:
            raise UserError(f"{image}: a clip needs the model's .pth: a .onnx stylizes photos")
    if options.sheet:
        raise UserError("--sheet draws models of PyTorch: name .pth files or models by name")
    if len(options.model) != 1 or not options.model[0].lower().endswith(".onnx"):
        raise UserError("--model names one .onnx file here, and no others beside it")
    if options.stroke_scale != 1:
        raise UserError("--stroke-scale needs the model's .pth: a .onnx has one size of strokes")
    if options.ray:
        raise UserError("--ray needs the model's .pth: one process runs a .onnx on all cores")
    if options.wrap != "off":
        raise UserError("--wrap needs the model's .pth: a .onnx has its own padding")
    if options.mask:
        raise UserError("--mask needs the model's .pth: a .onnx stylizes the whole photo")
    if has_remote((*options.model, *options.images), options.output):
        raise UserError("a .onnx model runs on files of this machine: use the .pth for a store's")
    if options.device not in ("auto", "cpu"):
        raise UserError(f"--device {options.device}: a .onnx model runs on the CPU here")
    if options.precision == "fp16":
        raise UserError("--precision fp16 needs a GPU: use bf16 with --backend openvino")
    if options.tile not in ("auto", "off"):
        raise UserError("--tile needs the model's .pth: a .onnx runs over the whole image at once")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("torchrun is for .pth models: one process runs a .onnx on all cores")


def _finish(stylizer: PortableStylizer, job: Job, saving: Saving) -> Result:
    """Read, stylize and write; what fails is the result's error, and the others go on."""
    start = time.perf_counter()
    result = Result(job=job)
    try:
        result = _write(stylizer, job, saving)
    except UserError as error:
        named = str(error) if isinstance(error, ImageError) else f"{job.input}: {error}"
        result = replace(result, error=named)
    except Exception as error:  # of this photo
        kind = "too large for the memory there is: try a smaller --size"
        if not is_memory_error(error):
            kind = f"cannot be stylized: {type(error).__name__}: {error}".splitlines()[0]
        result = replace(result, error=f"{job.input}: {kind}")
    return replace(result, seconds=time.perf_counter() - start)


def _write(stylizer: PortableStylizer, job: Job, saving: Saving) -> Result:
    source = io.BytesIO(sys.stdin.buffer.read()) if job.input == STREAM else job.input
    with opened(source) as (file, image):
        metadata = read_metadata(image)
        tagged = bool(image.info.get("icc_profile"))
        # MPO is a JPEG with more views of the scene behind it.
        own = "JPEG" if image.format == "MPO" else image.format or ""
        decoded = decode(file, image)
    colors, alpha, notes = decoded.colors, decoded.alpha, list(decoded.notes)
    output: Path | BinaryIO = sys.stdout.buffer if job.output == STREAM else job.output
    file_format = _format(own, job, saving)
    height, width = stylizer.output_size(*colors.shape[:2])
    try:
        check_size(file_format, width, height)
    except ImageError as error:
        raise unwritable(output, error) from None
    if alpha is not None:
        colors = filled(colors, alpha)
    if colors.dtype != np.uint8 and not stylizer.takes_floats:
        notes.append("8 of its 16 bits: this model takes 8; --io float exports one for 16")
        colors, alpha = with_bits(colors, 8), None if alpha is None else with_bits(alpha, 8)
    elif saving.depth:
        colors = with_bits(colors, saving.depth)
        alpha = None if alpha is None else with_bits(alpha, saving.depth)
    stylized = stylizer(colors)
    if alpha is not None and alpha.shape != stylized.shape[:2]:
        alpha = resized_alpha(alpha, *stylized.shape[:2])
    if isinstance(output, Path):
        with contextlib.suppress(FileExistsError):
            output.parent.mkdir(parents=True, exist_ok=True)
    lost = write_arrays(
        stylized,
        alpha,
        output,
        file_format=file_format,
        quality=saving.quality,
        tagged=tagged,
        metadata=metadata if saving.keep_metadata else Metadata(),
        ready=None,
        made_with=saving.made_with,
    )
    return Result(job=job, size=(width, height), notes=(*notes, *lost))


def _format(own: str, job: Job, saving: Saving) -> str:
    """Return the format to write: an output's extension, what is wished, or the picture's own."""
    if job.output != STREAM:
        return format_of(job.output)
    if saving.file_format:
        return saving.file_format
    row = table.by_name(own)
    nearest = own if row and row.written else "PNG"
    return "PNG" if saving.depth == 16 and nearest not in rowwise.formats() else nearest
