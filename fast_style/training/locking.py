"""One training at a time in a run's folder: a lock that is gone with the process that holds it."""

import contextlib
import errno
import logging
import os
import sys
from pathlib import Path
from typing import IO

from fast_style.checkpoints.files import CheckpointError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

# A byte after anything that the file holds: on Windows a locked one cannot be read.
_LOCKED_BYTE = 1 << 20


class RunLock:
    """The lock of a run's folder: a file in it that names the process, while that trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "training.lock"
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the lock, of a folder that is there; one that is held already stays held.

        Raises CheckpointError when another process holds it, and for a folder that is read-only.
        """
        while not self._is_held():
            self.close()
            try:
                file = self.path.open("a+", encoding="ascii")
            except OSError as error:
                reason = f"{self.folder}: cannot be written: {error.strerror}"
                raise CheckpointError(reason) from None
            self._lock(file)
            self._file = file  # if its holder has removed it meanwhile, it is not the one there
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def check(self) -> None:
        """Raise CheckpointError when another process holds the lock; leave everything as it is."""
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
                log.warning("%s: cannot be locked: %s", self.folder, error.strerror)
                return
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise CheckpointError(
                f"{self.folder}: another training (pid {holder}) is writing here: wait for it, "
                "stop it, or give another --run-dir"
            ) from None


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        # Not flock: the processes that load photos would inherit that, and outlive a killed run.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the open file is the one that lies at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
