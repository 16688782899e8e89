"""A command that is watched while it runs: what it names, its memory, and who works for it.

Linux alone: processes are found in /proc.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.resident import resident

_PROC = Path("/proc")
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The bytes in memory of the command, of its actors and of all else it has started."""

    pictures: int
    command: int
    actors: int
    others: int


class Watched:
    """A command that names each picture on a line of its own, with all that it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        actor: bytes,
        mark: str,
    ) -> None:
        """Start it; a line with `mark` names a picture, `actor` begins an actor's command line."""
        self._actor = actor
        self._mark = mark.encode()
        self._errors = folder / "errors.txt"
        self.started = time.monotonic()
        self.times: list[float] = []
        self.samples: list[Sample] = []
        # What has been started from here, also what an end of its parent makes an orphan.
        self._family: dict[int, str] = {}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors
            )
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._sample)]
        for thread in self._threads:
            thread.start()

    @property
    def errors(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text(errors="replace")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        code = self._process.wait()
        for thread in self._threads:
            thread.join()
        return code

    def kill(self) -> None:
        """Kill the command, and nothing that it has started."""
        self._look()
        self._process.kill()
        self.wait()

    def kill_actor(self, choice: int) -> bool:
        """Kill one of its actors, by any number; return whether there was one."""
        actors = sorted(pid for pid in self._look() if _command_line(pid).startswith(self._actor))
        if actors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(actors[choice % len(actors)], signal.SIGKILL)
        return bool(actors)

    def left(self) -> list[int]:
        """Return the processes that it has started and that live."""
        return [pid for pid, born in self._family.items() if _born(pid) == born]

    def grown(self, who: str) -> tuple[int, int]:
        """Return bytes in memory in the second quarter of its pictures and in the last one."""
        total = len(self.times)
        quarters = (total // 4, total // 2), (total * 3 // 4, total)
        values = [
            [getattr(one, who) for one in self.samples if first <= one.pictures < last]
            for first, last in quarters
        ]
        return (int(median(values[0])), int(median(values[1]))) if all(values) else (0, 0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if self._mark in line:
                    self.times.append(time.monotonic() - self.started)

    def _sample(self) -> None:
        while self.is_running():
            family = self._look()
            actors = {pid for pid in family if _command_line(pid).startswith(self._actor)}
            self.samples.append(
                Sample(
                    pictures=len(self.times),
                    command=resident(self._process.pid),
                    actors=sum(map(resident, actors)),
                    others=sum(map(resident, family.difference(actors))),
                )
            )
            time.sleep(_SAMPLE_SECONDS)

    def _look(self) -> set[int]:
        """Return the processes below the command that live now."""
        children: dict[int, list[int]] = {}
        for pid, parent in _parents():
            children.setdefault(parent, []).append(pid)
        found: set[int] = set()
        waiting = [self._process.pid]
        while waiting:
            for child in children.get(waiting.pop(), ()):
                found.add(child)
                waiting.append(child)
        self._family.update({pid: born for pid in found if (born := _born(pid))})
        return found


def end(pids: Sequence[int]) -> None:
    """Kill processes that are left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _parents() -> Iterator[tuple[int, int]]:
    for folder in _PROC.iterdir():
        if folder.name.isdigit() and (fields := _status(int(folder.name))):
            yield int(folder.name), int(fields[1])


def _born(pid: int) -> str:
    """Return when a process began, in the kernel's ticks, and nothing for one that has ended."""
    fields = _status(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _status(pid: int) -> list[str]:
    """Return the fields of a process's status that follow its name."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes()
    return b""
