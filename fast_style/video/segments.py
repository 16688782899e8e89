"""The shelf on which the encoded segments of a clip wait to be joined.

A clip is encoded in segments, each by an encoder of its own: what was finished when a run was
killed need not be done again, and a run that was killed gives the bits of one that was not.
"""

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from fast_style.files import atomic_write
from fast_style.images import ImageError, Picture, read_picture, write_picture
from fast_style.locking import FileLock

_LOCK = "run.lock"
_HEADER = struct.Struct("<qqqBI")


@dataclass(frozen=True, slots=True)
class Record:
    """One encoded packet: its bytes, its times in the time base of the stream."""

    data: bytes
    pts: int
    dts: int
    duration: int
    is_key: bool


class Segments:
    """The finished segments of a run, in a folder of their own, which one process works in.

    `key` is all that they depend on: those of another run are thrown away. With `states` the next
    one needs what the one before it left: where that is lost, the run begins again. Raises
    HeldError where another process is at work.
    """

    def __init__(self, folder: Path, key: Mapping[str, object], *, states: bool = False) -> None:
        self._folder = folder
        self._stored = folder / "run.json"
        text = json.dumps(key, sort_keys=True, default=str)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / _LOCK)
        self._lock.take()
        if not (self._stored.exists() and self._stored.read_text(encoding="utf-8") == text):
            self._clear()
            with atomic_write(self._stored) as file:
                file.write(text.encode())
        self.count = 0
        while self._path(self.count).exists():
            self.count += 1
        if states and self.state() is None:
            self.count = 0

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[Record], None]]:
        """Give what appends to the next segment, which is there only when it is whole."""
        with atomic_write(self._path(self.count)) as file:
            yield lambda record: _write(file, record)
        self.count += 1
        # What the finished segment began with is not needed any more.
        self._state(self.count - 1).unlink(missing_ok=True)

    def read(self, *, data: bool = True) -> Iterator[Record]:
        """Yield the packets of all segments, decoding times in order; without `data` only times."""
        last: int | None = None
        for index in range(self.count):
            with self._path(index).open("rb") as file:
                while header := file.read(_HEADER.size):
                    pts, dts, duration, is_key, size = _HEADER.unpack(header)
                    # Where frame times are uneven, a segment's first packets may be due before
                    # the end of the one before: there is room in between.
                    last = dts if last is None else max(dts, last + 1)
                    content = file.read(size) if data else b""
                    if not data:
                        file.seek(size, os.SEEK_CUR)
                    yield Record(content, pts, last, duration, bool(is_key))

    def save_state(self, state: Tensor) -> None:
        """Keep (3, H, W) uint8 for whoever begins the segment after the one being written."""
        write_picture(Picture(pixels=state), self._state(self.count + 1))

    def state(self) -> Tensor | None:
        """Return what the segment before the next one left, if it did."""
        try:
            return read_picture(self._state(self.count)).pixels.clone()
        except ImageError:
            return None

    def scratch(self, suffix: str) -> Path:
        """Return where the result is put together."""
        return self._folder / f"joined{suffix}"

    def close(self) -> None:
        """Let others go on with it."""
        self._lock.close()

    def remove(self) -> None:
        """Remove all of it."""
        with contextlib.suppress(OSError):  # the result is there, whatever stays beside it
            self._clear()
        self.close()
        with contextlib.suppress(OSError):  # another process has begun here
            self._folder.rmdir()

    def _clear(self) -> None:
        # What is left of it, if this is killed on the way, must not be gone on with.
        self._stored.unlink(missing_ok=True)
        for path in self._folder.iterdir():
            if path != self._lock.path:
                path.unlink()

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:05d}.packets"

    def _state(self, index: int) -> Path:
        return self._folder / f"{index:05d}.png"


def _write(file: BinaryIO, record: Record) -> None:
    size = len(record.data)
    file.write(_HEADER.pack(record.pts, record.dts, record.duration, record.is_key, size))
    file.write(record.data)
