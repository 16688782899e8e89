"""Writing files so that each appears whole or not at all."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from fast_style import remote

_SUFFIX = ".tmp"
# Windows replaces no file that is open, and virus scanners and indexers open new ones for a moment:
# so many seconds are waited before it is tried again.
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0) if sys.platform == "win32" else ()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the name `path` only when it is complete and on the disk.

    It is written beside its place, flushed to the disk, then renamed. When anything is raised it is
    removed; what a killed process leaves is overwritten by the next write to the same path. Raises
    OSError. An address in a store (see remote.py) is written at once, at the end.
    """
    if remote.is_remote(path):
        held = io.BytesIO()
        yield held
        remote.write_bytes(path, held.getvalue())
        return
    temporary = path.with_name(f".{path.name}{_SUFFIX}")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _flush_folder(path.parent)


def digest(path: Path) -> str:
    """Hash a file's bytes. Raises OSError."""
    content = remote.read_bytes(path) if remote.is_remote(path) else path.read_bytes()
    return sha256(content).hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Remove what writes that were killed have left in a folder."""
    for path in folder.glob(f".*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path) -> None:
    for pause in _PAUSES:
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    temporary.replace(path)


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be flushed at all."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
