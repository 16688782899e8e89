"""Stylizing with Ray Data: on the cores and the GPUs of one machine or of a cluster.

Each actor holds a `Stylizer` and one core with one thread, or one GPU. Ray streams: as many photos
are on their way as actors can take, whatever the number of photos. What an actor that is killed was
doing is done again by another; its files are written whole or not at all, and are the same.
"""

import contextlib
import io
import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fast_style.checkpoints.files import CheckpointError, find_model
from fast_style.devices import Precision
from fast_style.errors import UserError
from fast_style.files import digest
from fast_style.images import ImageError, nearest_format, read_picture, write_picture
from fast_style.networks.streaming import Edge, Wrap
from fast_style.remote import is_remote, shown, size_of
from fast_style.stylization import PreserveColor, Stylizer, stylize_picture
from fast_style.stylization.batch import run_jobs
from fast_style.stylization.jobs import Job
from fast_style.stylization.outputs import Result, Saving

if TYPE_CHECKING:
    from ray.data import Dataset

log = logging.getLogger(__name__)

# What an actor takes at once, and does again when it is killed: many small photos, since it waits
# for the first to be read and for the last to be written, and few large ones.
_BYTES_AT_ONCE = 16 << 20
_MOST_AT_ONCE = 64
# Shares of an actor, so that all end at about the same time.
_SHARES = 8
# Photos and pictures never pass through Ray's store of objects here: names do.
_STORE_BYTES = 200 << 20
# Ray waits half a minute for itself, which on a busy machine is not always enough.
_STARTS = 4
# Of actors that end while they begin, one after the other: by default Ray gives up at the first.
_DEATHS_AT_BIRTH = 10


def stylize(
    dataset: "Dataset",
    *,
    model: str | Path,
    column: str = "image",
    into: str = "stylized",
    actors: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    strength: float = 1.0,
    preserve_color: PreserveColor = "off",
    size: int | None = None,
    stroke_scale: float = 1.0,
    edge: Edge = "reflect",
    wrap: Wrap = "off",
) -> "Dataset":
    """Return the dataset with a column more, `into`: what `Stylizer` makes of `column`.

    A row holds an array (H, W, 3), as of `ray.data.read_images`, or an image file's bytes, as of
    `ray.data.read_binary_files`; bytes become bytes in the same format, where that can be written,
    else PNG. A row of bytes that are no image gets none, and the reason in the column `error`.
    Nothing is computed before the dataset is consumed. `actors` defaults to one for each GPU of the
    cluster, or else for each core. Raises CheckpointError, and UserError for an impossible value.
    """
    settings: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "strength": strength,
        "preserve_color": preserve_color,
        "size": size,
        "stroke_scale": stroke_scale,
        "edge": edge,
        "wrap": wrap,
    }
    Stylizer(find_model(model), **{**settings, "device": "cpu", "precision": "float32"})
    return dataset.map(
        _RowWorker,
        fn_constructor_kwargs={
            "model": _named(model),
            "settings": settings,
            "column": column,
            "into": into,
        },
        **_resources(actors, device=device),
    )


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Join the cluster at an address; "auto" is one that runs here, or else starts one here.

    A program that has joined one already stays in it.

    Raises UserError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--ray needs pip install 'fast-style[ray]'") from None
    if ray.is_initialized():
        _make_quiet()
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        if address != "auto":
            reason = (str(error).splitlines() or ["it does not answer"])[0]
            raise UserError(f"--ray {address}: no cluster is there: {reason}") from None
        _start_here(ray, **quiet)
    _make_quiet()
    try:
        yield
    finally:
        ray.shutdown()


def _start_here(ray: Any, **quiet: Any) -> None:
    """Start a cluster of this machine. Raises UserError."""
    for left in reversed(range(_STARTS)):
        try:
            ray.init(include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
            return
        except Exception as error:  # Ray raises that class itself, where a machine is too busy
            ray.shutdown()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if not left or "timed out" not in reason:
                raise UserError(
                    f"--ray auto: Ray did not start on this machine: {reason}"
                ) from None
            log.warning("Ray did not start in time; trying again")


def _make_quiet() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = _DEATHS_AT_BIRTH
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def run_jobs_on_cluster(
    jobs: Sequence[Job],
    saving: Saving,
    *,
    model: str | Path,
    settings: Mapping[str, Any],
    actors: int | None = None,
) -> Generator[Result, None, None]:
    """Yield a result for each job, in any order, as `run_jobs` does in its own; see `cluster`.

    Paths mean on every machine what they mean here: a folder that is shared, or a store.
    """
    import ray

    if not jobs:
        return
    rows = [{"number": number, **_as_row(job)} for number, job in enumerate(jobs)]
    resources = _resources(actors, device=str(settings["device"]))
    count = resources["compute"].max_size
    at_once = _photos_at_once(jobs, actors=count)
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(jobs) // at_once)).map_batches(
        _JobWorker,
        batch_size=None,  # a block: of some photos more, a number would join blocks that have less
        fn_constructor_kwargs={
            "model": _named(model),
            "settings": dict(settings),
            "saving": asdict(saving),
        },
        **resources,
    )
    for row in dataset.iter_rows():
        size = None if row["width"] == 0 else (int(row["width"]), int(row["height"]))
        yield Result(
            job=jobs[int(row["number"])],
            size=size,
            seconds=float(row["seconds"]),
            notes=tuple(str(row["notes"]).splitlines()),
            error=str(row["error"]) or None,
        )


def _photos_at_once(jobs: Sequence[Job], *, actors: int) -> int:
    """Return how many photos an actor takes at once, by the size of some of them."""
    sizes = []
    for job in jobs[:: -(-len(jobs) // 9)]:
        with contextlib.suppress(OSError):  # which stylizing will report
            far = is_remote(job.input)
            sizes.append(size_of(job.input) if far else job.input.stat().st_size)
    by_bytes = _BYTES_AT_ONCE // max(1, int(median(sizes))) if sizes else 1
    return max(1, min(_MOST_AT_ONCE, by_bytes, len(jobs) // (_SHARES * actors)))


def _resources(actors: int | None, *, device: str) -> dict[str, Any]:
    """Return the actors that a cluster has room for, and what each of them takes."""
    import ray
    from ray.data import ActorPoolStrategy

    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if device != "cpu" else 0
    count = actors or gpus or max(1, int(there.get("CPU", 1)))
    takes = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    return {"compute": ActorPoolStrategy(size=count), **takes}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """A model as it was named in a working directory, and its digest.

    Not its bytes: Ray lets go of large arguments, and then starts no actor again.
    """

    model: str
    folder: str
    digest: str

    def load(self, settings: Mapping[str, Any]) -> Stylizer:
        """Load the model in an actor, in the same working directory. Raises CheckpointError."""
        torch.set_num_threads(1)
        # Paths are as they were written, in results and in errors too.
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        found = find_model(self.model)
        if digest(found) != self.digest:
            raise CheckpointError(f"{found}: is another model here than where the run was started")
        return Stylizer(found, **settings)


def _named(model: str | Path) -> _Named:
    return _Named(model=shown(model), folder=str(Path.cwd()), digest=digest(find_model(model)))


def _as_row(job: Job) -> dict[str, str]:
    return {"input": str(job.input), "output": str(job.output), "mask": str(job.mask or "")}


class _RowWorker:
    """An actor that stylizes what rows hold."""

    def __init__(
        self, *, model: _Named, settings: Mapping[str, Any], column: str, into: str
    ) -> None:
        self._stylizer = model.load(settings)
        self._column = column
        self._into = into

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        given = row[self._column]
        if not isinstance(given, bytes):
            return {**row, self._into: self._stylizer(np.asarray(given))}
        try:
            picture = stylize_picture(self._stylizer, read_picture(io.BytesIO(given)))
            written = io.BytesIO()
            write_picture(picture, written, file_format=nearest_format(picture))
        except ImageError as error:
            return {**row, self._into: b"", "error": str(error)}
        return {**row, self._into: written.getvalue(), "error": ""}


class _JobWorker:
    """An actor that stylizes files into files."""

    def __init__(
        self, *, model: _Named, settings: Mapping[str, Any], saving: Mapping[str, Any]
    ) -> None:
        self._stylizer = model.load(settings)
        self._saving = Saving(**saving)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        jobs = [
            Job(Path(i), Path(o), Path(m) if m else None)
            for i, o, m in zip(batch["input"], batch["output"], batch["mask"], strict=True)
        ]
        results = list(run_jobs(self._stylizer, jobs, self._saving))
        sizes = [result.size or (0, 0) for result in results]
        return {
            "number": batch["number"],
            "width": np.array([width for width, _ in sizes]),
            "height": np.array([height for _, height in sizes]),
            "seconds": np.array([result.seconds for result in results]),
            "notes": np.array(["\n".join(result.notes) for result in results]),
            "error": np.array([result.error or "" for result in results]),
        }
