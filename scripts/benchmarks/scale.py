"""`scripts/benchmark.py scale`: where sharing photos out stops scaling, by simulation.

Workers are threads that wait instead of computing and instead of a store answering; what the
driver does is real: a listing, names, what is finished, a line of the manifest for each photo. So
the table shows what the driver costs, and what latency costs where reading and writing are not
done while the network runs, as `run_jobs` does.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

import fsspec

from fast_style.stylization.batch_report import BatchReport
from fast_style.stylization.jobs import Job
from fast_style.stylization.outputs import Result
from fast_style.stylization.remote_jobs import declare, finished_there, plan_remote_jobs

_AT_ONCE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--workers", default="1,10,100", help="numbers of workers, with commas (default: 1,10,100)"
    )
    parser.add_argument(
        "--photos", type=int, default=20, help="photos a worker (default: 20), in simulated time"
    )
    parser.add_argument(
        "--compute", type=float, default=0.16, help="seconds a photo of the network (default: 0.16)"
    )
    parser.add_argument(
        "--latency",
        type=float,
        default=0.05,
        help="seconds until a store has answered (default: 0.05)",
    )
    parser.add_argument(
        "--listed", type=int, default=100_000, help="photos of the listing (default: 100000)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the driver's own costs, and photos a second by the number of workers."""
    for line in _driver_costs(options.listed):
        print(line)
    print(f"\n{'workers':>8}  {'in turn':>10}  {'overlapped':>10}  photos/s (of linear)")
    first: dict[bool, float] = {}
    for workers in (int(text) for text in options.workers.split(",")):
        cells = []
        for overlapped in (False, True):
            rate = _simulated(workers, overlapped=overlapped, options=options)
            alone = first.setdefault(overlapped, rate / workers)
            cells.append(f"{rate:7.1f} ({rate / workers / alone:.2f})")
        print(f"{workers:8}  {'  '.join(cells)}", flush=True)
    return 0


def _driver_costs(photos: int) -> Iterator[str]:
    """Measure what is done once, in the driver, for a folder of so many photos in a store."""
    store = fsspec.filesystem("memory")
    for number in range(photos):
        store.pipe_file(f"/scale-in/{number:08}.jpg", b"")
    start = time.perf_counter()
    jobs, _ = plan_remote_jobs(["memory://scale-in"], "wave", output="memory://scale-out")
    planned = time.perf_counter()
    declare(jobs[:1], "wave", "digest")
    for job in jobs[: photos // 2]:
        store.pipe_file(str(job.output).removeprefix("memory:"), b"")
    listed = time.perf_counter()
    finished, _ = finished_there(jobs, "wave")
    ended = time.perf_counter()
    assert len(finished) == photos // 2
    with _report(len(jobs)) as report:
        reported = time.perf_counter()
        for job in jobs:
            report.add(Result(job=job, size=(1, 1)))
        seconds = time.perf_counter() - reported
    store.rm("/scale-in", recursive=True)
    store.rm("/scale-out", recursive=True)
    for what, spent in (
        ("listing and names", planned - start),
        ("what is finished", ended - listed),
        ("report and manifest", seconds),
    ):
        yield f"{what:20}  {1e6 * spent / photos:7.1f} us a photo, {photos:,} photos"


def _simulated(workers: int, *, overlapped: bool, options: argparse.Namespace) -> float:
    """Return photos a second of workers that take some at once and wait."""
    jobs = [Job(Path(f"{n}.jpg"), Path(f"{n}.png")) for n in range(workers * options.photos)]
    parts: SimpleQueue[list[Job]] = SimpleQueue()
    for first in range(0, len(jobs), _AT_ONCE):
        parts.put(jobs[first : first + _AT_ONCE])
    done: SimpleQueue[list[Result]] = SimpleQueue()

    def work() -> None:
        with contextlib.suppress(Empty):
            while True:
                part = parts.get_nowait()
                waits = (options.latency, options.compute, options.latency)
                # The first is read before, and the last written after, the network runs.
                whole = sum(waits) + (len(part) - 1) * max(waits)
                time.sleep(whole if overlapped else len(part) * sum(waits))
                done.put([Result(job=job, size=(1, 1)) for job in part])

    start = time.perf_counter()
    left = len(jobs)
    with ThreadPoolExecutor(workers) as pool, _report(left) as report:
        for _ in range(workers):
            pool.submit(work)
        while left:
            for result in done.get():
                report.add(result)
                left -= 1
    return len(jobs) / (time.perf_counter() - start)


@contextlib.contextmanager
def _report(total: int) -> Iterator[BatchReport]:
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        BatchReport(total, manifest=Path(folder, "m.json")) as report,
    ):
        yield report
