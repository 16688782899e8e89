"""A lock that is a file, and gone with the process that holds it."""

import contextlib
import errno
import logging
import os
import sys
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

# A byte after anything that the file holds: on Windows a locked one cannot be read.
_LOCKED_BYTE = 1 << 20


class HeldError(Exception):
    """Another process, `holder`, has the lock."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path}: is held by pid {holder}")
        self.holder = holder


class FileLock:
    """A lock: a file that names the process which holds it, as long as it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the lock, in a folder that is there; one that is held already stays held.

        Raises HeldError when another process holds it, and OSError for a folder that is read-only.
        """
        while not self._is_held():
            self.close()
            file = self.path.open("a+", encoding="ascii")
            self._lock(file)
            self._file = file  # if its holder has removed it meanwhile, it is not the one there
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def check(self) -> None:
        """Raise HeldError when another process holds the lock; leave everything as it is."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            file = self.path.open("r+", encoding="ascii")
            self._lock(file)
            file.close()

    def close(self) -> None:
        """Remove the lock, if it is held."""
        file, self._file = self._file, None
        if file is None:
            return
        if _is_at(file, self.path):
            with contextlib.suppress(OSError):  # Windows removes no open file
                self.path.unlink()
        file.close()
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _is_held(self) -> bool:
        return self._file is not None and _is_at(self._file, self.path)

    def _lock(self, file: IO[str]) -> None:
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                log.warning("%s: cannot be locked: %s", self.path.parent, error.strerror)
                return
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise HeldError(self.path, holder) from None


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        # Not flock: processes that are forked would inherit that, and outlive a killed holder.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the open file is the one that lies at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
