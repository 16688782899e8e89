"""Apply a trained network to photos: models of PyTorch. (stylize_exported.py has the others.)"""

import contextlib
import io
import sys
from argparse import Namespace
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from fast_style import distributed
from fast_style.checkpoints.files import CheckpointError, find_model, shipped_models
from fast_style.commands import check_writable, run
from fast_style.commands.clip_options import refuse_clip_options
from fast_style.commands.clips import has_clips, stylize_clips
from fast_style.commands.stylize_options import (
    check_numbers,
    parser,
    planned,
)
from fast_style.errors import UserError
from fast_style.images import ImageError, format_of, table
from fast_style.remote import is_remote
from fast_style.stylization import Stylizer
from fast_style.stylization.batch import run_jobs
from fast_style.stylization.batch_report import BatchReport
from fast_style.stylization.jobs import STREAM, Job, count_left_out, find_inputs
from fast_style.stylization.mask_files import MaskFinder
from fast_style.stylization.outputs import Result, Saving, finished_jobs
from fast_style.stylization.remote_jobs import declare, has_remote
from fast_style.stylization.sheets import save_contact_sheet
from fast_style.stylization.stylizer import KEYWORDS

_SHEET_EDGE = 512
_NOT_FOR_SHEETS = ("output", "format", "depth", "keep_metadata", "manifest", "json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Stylize; exit 0 when all is done, 1 when some images failed, 2 with one line on a mistake."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is no valid UTF-8 must not end the run; in JSON, \udcff is what it means.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = Namespace()

    def command() -> int:
        with distributed.joined():
            with distributed.only_main_speaks():
                parser().parse_args(arguments, options)
                if options.backend:
                    raise UserError(
                        "--backend runs .onnx models: fast-style export makes one of any model"
                    )
            if options.ray:
                _check_ray(options)
            if has_clips(options):
                if options.ray:
                    raise UserError("--ray is for photos: a clip uses all cores of one machine")
                return stylize_clips(options, lambda path: _load(path, options, size=options.size))
            refuse_clip_options(options)
            if options.sheet and has_remote(options.images, str(options.sheet)):
                raise UserError("--sheet draws photos of this machine, on this machine")
            return _sheet(options) if options.sheet else _stylize(options)

    # Strips of ordinary images are smaller; those of huge ones must leave no holes in the memory.
    return run(command, options=options, keep_up_to=32 << 20)


def _stylize(options: Namespace) -> int:
    """Stylize this process's share of the images."""
    with distributed.together():
        # All processes see the folder as it is before any of them writes into it.
        stylizer, jobs, errors, saving = _prepare(options)
        if options.manifest and distributed.is_main():
            options.manifest.write_bytes(b"")  # then each process adds its lines
        if distributed.is_main():
            declare(jobs, Path(options.model[0]).stem, saving.made_with)
    jobs = jobs[distributed.rank() :: distributed.world_size()]
    finished, existing = (
        (set(), set())
        if options.overwrite
        else finished_jobs(jobs, Path(options.model[0]).stem, saving.made_with)
    )
    waiting = [job for job in jobs if job not in finished]
    redone = existing.difference(finished)
    # torchrun ends every process when one exits with an error: all wait here for the last.
    with contextlib.ExitStack() as stack, distributed.together():
        report = stack.enter_context(
            BatchReport(
                len(waiting),
                as_json=options.json,
                manifest=options.manifest,
                redone=redone,
                processes=distributed.world_size(),
            )
        )
        for error in errors if distributed.is_main() else ():
            report.fail(error)
        if distributed.is_main():
            here = [image for image in options.images if not is_remote(image)]
            report.leave_out(
                count_left_out(here, output=options.output, recursive=options.recursive)
            )
        for job in (job for job in jobs if job in finished):
            report.skip(job)
        results = _results(options, stylizer, waiting, saving, stack)
        for result in stack.enter_context(contextlib.closing(results)):
            report.add(result)
    return report.finish(
        add_up=lambda counts: distributed.total(torch.tensor(counts)).tolist(),
        speaks=distributed.is_main(),
    )


def _results(
    options: Namespace,
    stylizer: Stylizer,
    jobs: Sequence[Job],
    saving: Saving,
    stack: contextlib.ExitStack,
) -> Generator[Result, None, None]:
    """Stylize here, or on the cluster that `--ray` names."""
    if not options.ray or not jobs:
        return run_jobs(stylizer, jobs, saving)
    from fast_style.integrations.ray import cluster, run_jobs_on_cluster

    stack.enter_context(cluster(options.ray))
    return run_jobs_on_cluster(jobs, saving, model=options.model[0], settings=_settings(options))


def _check_ray(options: Namespace) -> None:
    """Name what a cluster does not go together with."""
    if distributed.world_size() > 1:
        raise UserError("--ray and torchrun both share photos out: use one of them")
    if options.sheet:
        raise UserError("--ray does nothing for a --sheet: leave one of them out")
    if "-" in (*options.images, options.output):
        raise UserError("--ray reads and writes files, not standard input and output")


def _prepare(
    options: Namespace,
) -> tuple[Stylizer, list[Job], list[OSError], Saving]:
    """Check everything, and load the model; the errors are those of `plan_jobs`."""
    check_numbers(options)
    if len(options.model) != 1:
        found = "several --model need --sheet" if options.model else "--model is missing"
        raise CheckpointError(f"{found}; --model names one, as in --model wave")
    model = find_model(options.model[0])
    jobs, errors, saving = planned(options, model)
    return _load(model, options, size=options.size), jobs, errors, saving


def _load(model: Path, options: Namespace, *, size: int | None) -> Stylizer:
    # On a cluster the driver checks all settings, and its machine may have no GPU.
    device = "cpu" if options.ray else distributed.local_device(options.device)
    precision = "float32" if options.ray else options.precision
    own = {"size": size, "device": device, "precision": precision}
    return Stylizer.load(model, **{**_settings(options), **own})


def _settings(options: Namespace) -> dict[str, Any]:
    """Return the keywords of `Stylizer`: each is an option of that name."""
    return {name: getattr(options, name) for name in KEYWORDS}


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
    masks = MaskFinder(options.mask) if options.mask else None
    paths, errors = find_inputs(options.images, names, options.sheet, recursive=options.recursive)
    if masks:
        masks.check_output(options.sheet, cure="name another --sheet")
        paths = [path for path in paths if not masks.has(path)]
        if not paths:
            raise UserError(f"--mask {options.mask}: there are no photos beside the masks")
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
    others = count_left_out(options.images, output=options.sheet, recursive=options.recursive)
    if others:
        print(table.left_out(others), file=sys.stderr)
    # The photos are made small before they are stylized.
    stylizers = [(model.stem, _load(model, options, size=None)) for model in models]
    shown = save_contact_sheet(
        options.sheet,
        paths,
        stylizers,
        edge=options.size or _SHEET_EDGE,
        quality=options.quality,
        mask_of=masks.find if masks else None,
        on_error=lambda error: print(f"error: {error}", file=sys.stderr),
    )
    if shown:
        print(options.sheet)
    return 1 if errors or shown < len(paths) else 0


def _check_sheet(options: Namespace) -> None:
    check_numbers(options)
    for name in _NOT_FOR_SHEETS:
        if getattr(options, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} does nothing for a --sheet: leave one of them out")
    format_of(options.sheet)
    check_writable(options.sheet)
