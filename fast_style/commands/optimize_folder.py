"""What `optimize` does with a folder of photos: one after the other, each with its own error."""

import json
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fast_style.baseline.optimization import Baseline
from fast_style.commands import catch_signals, check_folder
from fast_style.config import BaselineConfig, to_dict
from fast_style.devices import resolve_device
from fast_style.errors import UserError
from fast_style.images import ImageError, Picture, load_image, table, to_uint8, write_picture
from fast_style.stylization.jobs import Job, count_left_out, plan_jobs
from fast_style.stylization.outputs import is_finished

_NOT_FOR_FOLDERS = ("report", "log_dir", "save_every")


def optimize_folder(
    options: Namespace, config: BaselineConfig, load_style: Callable[[Path], Tensor]
) -> int:
    """Optimise each photo of a folder; return 1 where one failed, 128 + N after signal N.

    What a signal interrupts is not saved: the same command begins it again.
    """
    if options.output.suffix or options.output.is_file():
        raise UserError(f"{options.output}: --content is a folder, so name a folder for its images")
    for name in _NOT_FOR_FOLDERS:
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is for one photo: leave it out")
    check_folder(options.output)
    device = resolve_device(options.device)
    images = [load_style(path) for path in options.style]
    styles = [image[None].to(device) for image in images]
    label = "+".join(path.stem for path in options.style)
    jobs, errors = plan_jobs([str(options.content)], label, output=f"{options.output}/")
    made_with = _identity(config, images, options.shares)
    caught, should_stop = catch_signals()
    failed = len(errors)
    for error in errors:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    if others := table.left_out(count_left_out([str(options.content)], output=options.output)):
        print(others, file=sys.stderr)
    for number, job in enumerate(jobs, 1):
        if is_finished(job, made_with):
            print(f"{job.output}: already there", file=sys.stderr)
            continue
        try:
            content = load_image(job.input)[None].to(device)
            baseline = Baseline(config, content, styles, shares=options.shares)
            outcome = baseline.run(should_stop=should_stop)
            if outcome.finished:
                _save(outcome.image[0], job, made_with)
                print(f"{job.output} ({number} of {len(jobs)})", flush=True)
        except Exception as error:  # of this photo: the others go on
            failed += 1
            kind = "" if isinstance(error, UserError | ValueError) else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error}".split())
            named = str(error) if isinstance(error, ImageError) else f"{job.input}: {reason}"
            print(f"error: {named}", file=sys.stderr)
        if should_stop():
            left = len(jobs) - number
            print(f"stopped: {left} photos are left; the same command goes on", file=sys.stderr)
            return 128 + (caught or [signal.SIGINT])[0]
    return 1 if failed else 0


def _identity(
    config: BaselineConfig, styles: Sequence[Tensor], shares: Sequence[float] | None
) -> str:
    """Return a digest of all that an image depends on, beside its photo."""
    text = json.dumps([to_dict(config), shares], sort_keys=True, default=str)
    digest = sha256(text.encode())
    for style in styles:
        digest.update(style.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def _save(image: Tensor, job: Job, made_with: str) -> None:
    job.output.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Picture(pixels=to_uint8(image).cpu()), job.output, made_with=made_with)
