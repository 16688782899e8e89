"""Live: frames of a camera in, stylized frames out, and none of them old.

The newest frame wins: whoever is free takes the last one that came, and what came before is
dropped. So a picture is shown at most the time of two frames after its photo was taken, however
fast photos come, and at most three frames are held: the newest, and those in work.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fast_style.video.live_looks import Looks
from fast_style.video.live_sizes import Sizes

# Frames in work at once: with the one that waits, three are held.
MOST_WORKERS = 2
# Seconds after which whoever waits looks whether it should go on waiting.
_PATIENCE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """(3, H, W) uint8: a frame, its number, and the second on the monotonic clock it came at."""

    pixels: Tensor
    number: int
    taken: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A stylized frame: (3, H, W) uint8, the shot's number and time, the style, and its seconds."""

    pixels: Tensor
    number: int
    taken: float
    style: str
    work: float


@dataclass(slots=True)
class LiveReport:
    """What a live run did: frames that came, were shown, and how late they were, in seconds."""

    came: int = 0
    shown: int = 0
    seconds: float = 0.0
    late: list[float] = field(default_factory=list)
    most_held: int = 0


class LiveInput(Protocol):
    """Where frames come from, as they come."""

    def frames(self, edge: Callable[[], int]) -> Iterator[Tensor]:
        """Yield (3, H, W) uint8 frames with the long edge that `edge()` returns, at most."""


class LiveOutput(Protocol):
    """Where stylized frames go."""

    def show(self, shown: Shown, status: str) -> None:
        """Show a frame, and a line about it where there is room for one."""

    def wishes(self) -> list[str]:
        """Return what was asked for since the last call: the names of `KEYS`."""

    def close(self) -> None:
        """End, whole."""


class Newest:
    """A place for one shot: a newer one takes the place of one that nobody has taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._in_work = 0
        self.closed = False
        self.came = 0
        self.most_held = 0

    def put(self, pixels: Tensor) -> None:
        """Offer a frame that has just come."""
        with self._changed:
            self.came += 1
            self._shot = Shot(pixels=pixels, number=self.came, taken=time.monotonic())
            self.most_held = max(self.most_held, 1 + self._in_work)
            self._changed.notify()

    def take(self) -> Shot | None:
        """Wait for the newest shot; None when no more will come."""
        with self._changed:
            while self._shot is None and not self.closed:
                self._changed.wait(_PATIENCE)
            shot, self._shot = self._shot, None
            self._in_work += shot is not None
            return shot

    def done(self) -> None:
        """Say that a shot that was taken is held no more."""
        with self._changed:
            self._in_work -= 1

    def close(self) -> None:
        """Say that no more shots will come."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class _Ready:
    """The newest stylized frame, of several workers: one that is older than it is dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shown: Shown | None = None
        self._last = 0

    def put(self, shown: Shown) -> None:
        with self._changed:
            if shown.number > self._last:
                self._shown, self._last = shown, shown.number
                self._changed.notify()

    def take(self) -> Shown | None:
        """Wait a moment for a frame that is newer than the last one."""
        with self._changed:
            if self._shown is None:
                self._changed.wait(_PATIENCE)
            shown, self._shown = self._shown, None
            return shown


def run_live(
    source: LiveInput,
    output: LiveOutput,
    looks: Looks,
    *,
    sizes: Sizes,
    workers: int = MOST_WORKERS,
    on_picture: Callable[[Shown], None] = lambda shown: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> LiveReport:
    """Stylize what comes until the source ends, somebody quits, or `should_stop()`.

    The output is used by the calling thread alone, as windows want it. `on_picture` is given what
    is to be saved.
    """
    newest, ready, report = Newest(), _Ready(), LiveReport()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    problems: list[BaseException] = []
    reader = threading.Thread(target=_read, args=(source, newest, sizes, problems), daemon=True)
    crew = [
        threading.Thread(target=_work, args=(newest, ready, looks, problems), daemon=True)
        for _ in range(min(workers, MOST_WORKERS))
    ]
    start = time.monotonic()
    try:
        for thread in (reader, *crew):
            thread.start()
        _show_all(ready, output, looks, sizes, crew, report, on_picture, should_stop)
    finally:
        newest.close()
        for thread in crew:
            thread.join()
        reader.join(timeout=1)  # one that waits for a camera ends with the program
        torch.set_num_threads(threads)
    report.seconds = time.monotonic() - start
    report.came, report.most_held = newest.came, newest.most_held
    if problems:
        raise problems[0]
    return report


def _read(source: LiveInput, newest: Newest, sizes: Sizes, problems: list[BaseException]) -> None:
    try:
        for pixels in source.frames(lambda: sizes.edge):
            newest.put(pixels)
            if newest.closed:
                return
    except Exception as error:
        problems.append(error)
    finally:
        newest.close()


def _work(newest: Newest, ready: _Ready, looks: Looks, problems: list[BaseException]) -> None:
    torch.set_num_threads(1)
    try:
        while (shot := newest.take()) is not None:
            style, start = looks.name, time.monotonic()
            try:
                pixels = looks.stylize(shot.pixels)
            finally:
                newest.done()
            ready.put(
                Shown(
                    pixels=pixels,
                    number=shot.number,
                    taken=shot.taken,
                    style=style,
                    work=time.monotonic() - start,
                )
            )
    except Exception as error:
        problems.append(error)
        newest.close()


def _show_all(
    ready: _Ready,
    output: LiveOutput,
    looks: Looks,
    sizes: Sizes,
    crew: list[threading.Thread],
    report: LiveReport,
    on_picture: Callable[[Shown], None],
    should_stop: Callable[[], bool],
) -> None:
    last: Shown | None = None
    saving = False
    while not should_stop():
        working = any(thread.is_alive() for thread in crew)
        shown = ready.take()
        if shown is None and not working:
            return
        if shown is not None:
            sizes.add(shown.work, shown.pixels.shape[-2:])
            output.show(shown, f"{looks.status}   {sizes.status}")
            report.shown += 1
            report.late.append(time.monotonic() - shown.taken)
            del report.late[:-1000]
            last = shown
        for wish in output.wishes():
            if wish == "quit":
                return
            saving = saving or wish == "save"
            looks.change(wish)
        if saving and last is not None:  # asked for early, the first picture is saved
            on_picture(last)
            saving = False
