"""Reports on many images while they are stylized: lines, a bar, JSON, a manifest, totals."""

import contextlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from fast_style.images import table
from fast_style.remote import shown
from fast_style.stylization.jobs import STREAM, Job
from fast_style.stylization.outputs import Result


class BatchReport:
    """Reports results: to a person in lines and a bar, to machines in lines of JSON.

    A context manager. `total` images are to be stylized; of these `redone` replace outputs that
    were made with other settings. `manifest` is a file that gets the lines of JSON too.
    Where several `processes` share the images, none draws a bar.
    """

    def __init__(
        self,
        total: int,
        *,
        as_json: bool = False,
        manifest: Path | None = None,
        redone: Collection[Job] = (),
        processes: int = 1,
    ) -> None:
        self._json = as_json
        self._redone = redone
        self._counts = {
            "stylized": 0,
            "redone with these settings": 0,
            "already there, skipped": 0,
            "failed": 0,
        }
        self._stack = contextlib.ExitStack()
        self._manifest: BinaryIO | None = None
        self._bar: Any = None
        if manifest:
            # Unbuffered, and each write goes to the end: lines of several processes stay whole.
            self._manifest = self._stack.enter_context(manifest.open("ab", buffering=0))
        if processes == 1 and total > 1 and not as_json and sys.stderr.isatty():
            # Only here, since importing it takes its time.
            from tqdm import tqdm

            self._bar = self._stack.enter_context(
                tqdm(total=total, unit="image", dynamic_ncols=True)
            )

    def __enter__(self) -> "BatchReport":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def skip(self, job: Job) -> None:
        """Report an output that was there."""
        self._counts["already there, skipped"] += 1
        self._record({**_paths(job), "skipped": True})

    def add(self, result: Result) -> None:
        """Report a job that has ended."""
        done = "redone with these settings" if result.job in self._redone else "stylized"
        self._counts["failed" if result.error else done] += 1
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
            self._say(f"{shown(result.job.input)}: {note}", sys.stderr)
        if result.error:
            self._say(f"error: {result.error}", sys.stderr)
        elif not self._json and result.job.output != STREAM:
            self._say(f"{shown(result.job.output)} ({result.seconds:.1f} s)", sys.stdout)
        if self._bar is not None:
            self._bar.update()

    def fail(self, error: OSError) -> None:
        """Report an image that was found but cannot be examined."""
        reason = f"{error.filename}: {error.strerror}"
        self._counts["failed"] += 1
        self._record({"input": error.filename, "output": None, "error": reason})
        self._say(f"error: {reason}", sys.stderr)

    def leave_out(self, extensions: Mapping[str, int]) -> None:
        """Report the files in folders that are no images, counted by extension."""
        if line := table.left_out(extensions):
            self._say(line, sys.stderr)

    def finish(
        self, *, add_up: Callable[[list[int]], list[int]] = list, speaks: bool = True
    ) -> int:
        """Print the totals of all processes; return the exit code of this one.

        `add_up` sums counts over all processes; only one of them `speaks`.
        """
        totals = add_up(list(self._counts.values()))
        counts = dict(zip(self._counts, totals, strict=True))
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if counts["already there, skipped"]:
            parts.append("--overwrite redoes what is there")
        some_left = sum(totals) != counts["stylized"]
        if speaks and (some_left or counts["stylized"] > 1):
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


def _paths(job: Job) -> dict[str, str]:
    paths = {"input": shown(job.input), "output": shown(job.output)}
    return paths if job.mask is None else {**paths, "mask": shown(job.mask)}
