"""How an output is written, what became of it, and whether it is there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from fast_style.files import digest
from fast_style.images import metadata
from fast_style.images.decoding import ImageError, opened
from fast_style.remote import is_remote
from fast_style.stylization.jobs import STREAM, Job
from fast_style.stylization.remote_jobs import finished_there


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """How pictures are written: see `write_picture` and, for `depth`, `stylize_file`.

    `file_format` (Pillow's name) is that of streams; a file's extension is its own. By default a
    stream has the picture's own format, or PNG where that does not hold `depth`. `made_with` is a
    digest of all settings, by which `is_finished` knows an output again.
    """

    file_format: str | None = None
    quality: int = 95
    depth: int | None = None
    keep_metadata: bool = False
    made_with: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of a job: the output's width and height, seconds of work, notes, the error."""

    job: Job
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None


def finished_jobs(jobs: Sequence[Job], model: str, made_with: str) -> tuple[set[Job], set[Job]]:
    """Return which jobs are finished (see `is_finished`), and whose outputs are there at all.

    Of outputs in a store one listing tells (see `remote_jobs.declare`). Raises OSError.
    """
    listed = [job for job in jobs if is_remote(job.output)]
    finished, existing = finished_there(listed, model) if listed else (set(), set())
    for job in (job for job in jobs if not is_remote(job.output)):
        if job.output != STREAM and job.output.exists():
            existing.add(job)
        if is_finished(job, made_with):
            finished.add(job)
    return finished, existing


def is_finished(job: Job, made_with: str) -> bool:
    """Return whether a job's output is there, and was not made with other settings.

    An output that records no settings, as a BMP or another program's file, counts as finished.
    """
    if job.output == STREAM or not job.output.exists():
        return False
    try:
        made_with = made_of(job, made_with)
    except OSError:  # which stylizing will report
        return False
    try:
        with opened(job.output) as (_, image):
            return metadata.made_with(image) in ("", made_with)
    except ImageError:
        return True


def made_of(job: Job, made_with: str) -> str:
    """Return the digest of the settings and of the job's mask. Raises OSError."""
    if job.mask is None or not made_with:
        return made_with
    return sha256(f"{made_with} {digest(job.mask)}".encode()).hexdigest()[: len(made_with)]
