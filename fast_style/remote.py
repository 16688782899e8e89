"""Files in object stores, named by addresses: `s3://bucket/photos/a.jpg`, `gs://bucket/run/`.

fsspec reads and writes them (`pip install 'fast-style[remote]'`), and takes credentials as each
store's own tools do; an address holds none. A `Path` carries an address: `Path("s3://b/a.jpg")` is
printed as `s3:/b/a.jpg`, and `shown` writes the second slash again. What goes wrong is an OSError.
"""

import contextlib
import errno
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fast_style.errors import UserError

# Two letters at least: one is a drive of Windows. A page of the web is no store.
_ADDRESS = re.compile(r"(?!https?:|file:)([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)
# Libraries that tell where they have found credentials, and more.
_TALKATIVE = ("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "fsspec")
_HOW = "credentials are taken as the store's own tools take them"


class RemoteError(UserError):
    """An address that cannot be used at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file in a listing: its bytes, and the store's time of its last change, in seconds."""

    size: int
    modified: float


def is_remote(path: object) -> bool:
    """Return whether a string or a path is an address in a store."""
    return isinstance(path, str | Path) and _ADDRESS.fullmatch(str(path)) is not None


def shown(path: str | Path) -> str:
    """Return how messages and manifests name a path: an address with both of its slashes."""
    found = _ADDRESS.fullmatch(str(path))
    return f"{found[1]}://{found[2]}" if found else str(path)


def listing(folder: Path, *, recursive: bool = True) -> dict[Path, Entry]:
    """List the files below an address, as the store has them now. Raises OSError."""
    system, key = _opened(folder)
    with _told(folder):
        system.invalidate_cache()
        found = system.find(key, detail=True, maxdepth=None if recursive else 1)
    scheme = shown(folder).partition("://")[0]
    return {
        Path(f"{scheme}://{name.lstrip('/')}"): Entry(
            size=int(about.get("size") or 0), modified=_modified(about)
        )
        for name, about in sorted(found.items())
        if about.get("type") == "file" and not name.endswith("/")
    }


def matching(pattern: Path) -> list[Path]:
    """List the files that a glob in an address matches. Raises OSError."""
    system, key = _opened(pattern)
    scheme = shown(pattern).partition("://")[0]
    with _told(pattern):
        system.invalidate_cache()
        found = system.glob(key, detail=True)
    return sorted(
        Path(f"{scheme}://{name.lstrip('/')}")
        for name, about in found.items()
        if about.get("type") == "file"
    )


def size_of(path: Path) -> int:
    """Return a file's bytes, by the last listing where there was one. Raises OSError."""
    system, key = _opened(path)
    with _told(path):
        return int(system.size(key) or 0)


def is_file(path: Path) -> bool:
    """Return whether a file is there. Raises OSError."""
    system, key = _opened(path)
    with _told(path):
        return bool(system.isfile(key))


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes. Raises OSError."""
    system, key = _opened(path)
    with _told(path):
        return bytes(system.cat_file(key))


def read_span(path: Path, offset: int, size: int) -> bytes:
    """Return some of a file's bytes. Raises OSError."""
    system, key = _opened(path)
    with _told(path):
        return bytes(system.cat_file(key, start=offset, end=offset + size))


def open_file(path: Path) -> BinaryIO:
    """Open a file to read here and there, of which no more is fetched than is needed."""
    system, key = _opened(path)
    with _told(path):
        return cast(BinaryIO, system.open(key, "rb"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file: stores show it whole or not at all. Raises OSError."""
    system, key = _opened(path)
    with _told(path):
        system.pipe_file(key, data)


def remove(path: Path) -> None:
    """Remove a file. Raises OSError."""
    system, key = _opened(path)
    with _told(path):
        system.rm_file(key)


def _opened(path: Path) -> tuple[Any, str]:
    """Return the file system of an address, and the file's key in it. Raises RemoteError."""
    import fsspec  # comes with PyTorch, and is not needed without addresses

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    address = shown(path)
    if "@" in address.partition("://")[2].partition("/")[0]:
        raise RemoteError(f"an address with credentials in it: leave them out; {_HOW}")
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError:
        raise RemoteError(
            f"{address}: needs pip install 'fast-style[remote]', or a copy on this machine"
        ) from None
    except ValueError as error:
        raise RemoteError(f"{address}: {error}") from None


def _modified(about: dict[str, Any]) -> float:
    for name in ("LastModified", "mtime", "updated", "created"):
        value = about.get(name)
        if isinstance(value, str):  # as Google's store has it
            from datetime import datetime

            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if value is not None:
            return float(value if isinstance(value, int | float) else value.timestamp())
    return 0.0


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Make an OSError that names the address of whatever a store's library raises."""
    address = shown(path)
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "No such file in the store", address) from None
    except PermissionError as error:
        reason = f"Access denied: {_line(error)}; {_HOW}"
        raise PermissionError(errno.EACCES, reason, address) from None
    except OSError as error:
        raise OSError(error.errno or errno.EIO, _line(error), address) from None
    except Exception as error:  # of the libraries below fsspec
        hint = f"; {_HOW}" if "redential" in type(error).__name__ else ""
        raise OSError(errno.EIO, f"{_line(error)}{hint}", address) from None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
