"""One training at a time in a run's folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fast_style.checkpoints.files import CheckpointError
from fast_style.locking import FileLock, HeldError


class RunLock:
    """The lock of a run's folder: a file in it that names the process, while that trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "training.lock"
        self._lock = FileLock(self.path)

    def take(self) -> None:
        """Take the lock, of a folder that is there; one that is held already stays held.

        Raises CheckpointError when another process holds it, and for a folder that is read-only.
        """
        with self._refused():
            self._lock.take()

    def check(self) -> None:
        """Raise CheckpointError when another process holds the lock; leave everything as it is."""
        with self._refused():
            self._lock.check()

    def close(self) -> None:
        """Remove the lock, if it is held."""
        self._lock.close()

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except HeldError as error:
            raise CheckpointError(
                f"{self.folder}: another training (pid {error.holder}) is writing here: wait for "
                "it, stop it, or give another --run-dir"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be written: {error.strerror}") from None
