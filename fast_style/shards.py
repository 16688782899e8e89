"""Photos in tar shards, as WebDataset has them, each opened by itself at its place in the tar.

A photo has the path of its shard and, below that, its name in it: `shards/0001.tar/a.jpg`; shards
may lie in a store. An index says where each begins, so that photos can be read in any order, and
training's order stays a function of (seed, position). It is made once, by reading through the
shards' headers, and kept beside them as `fast-style-index.json`; where that cannot be written, it
is made again by every process that begins.
"""

import contextlib
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypedDict

from fast_style import remote
from fast_style.errors import UserError
from fast_style.files import atomic_write

log = logging.getLogger(__name__)

INDEX = "fast-style-index.json"
_FORMAT = "fast-style-shards/2"
_ENDING = ".tar"


class ShardError(UserError):
    """Shards or their index cannot be used."""


class _Entry(TypedDict):
    """What the index holds of a shard: its bytes, its time, each photo's offset and bytes."""

    size: int
    modified: int
    photos: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a photo lies in its shard, in bytes."""

    offset: int
    size: int


def shard_of(path: str | Path) -> tuple[Path, str] | None:
    """Return the shard of a photo's path and its name in it, None for a file of its own."""
    parts = Path(path).parts
    for index, part in enumerate(parts[:-1]):
        if part.lower().endswith(_ENDING):
            shard = Path(*parts[: index + 1])
            if remote.is_remote(shard) or not shard.is_dir():  # a folder can be named so, too
                return shard, "/".join(parts[index + 1 :])
    return None


def photos_in_shards(shards: Sequence[Path], *, is_photo: Callable[[str], bool]) -> list[Path]:
    """List the photos in shards of one folder, and index those that the index does not know.

    Raises ShardError, and OSError.
    """
    if not shards:
        return []
    _kept_index.cache_clear()
    _places.cache_clear()
    folder = shards[0].parent
    kept, index = _kept_index(folder), {}
    for shard in sorted(shards):
        entry, stamp = kept.get(shard.name), _stamp(shard)
        index[shard.name] = entry if entry and _is_of(entry, stamp) else _scan(shard, stamp)
    if any(entry is not kept.get(name) for name, entry in index.items()):
        _write_index(folder, {**kept, **index})
        _kept_index.cache_clear()
    return [
        folder / shard / name
        for shard in sorted(index)
        for name in sorted(index[shard]["photos"])
        if is_photo(name)
    ]


def size_in_shard(path: Path) -> int | None:
    """Return a photo's bytes, None where it is in no shard. Raises OSError."""
    if (found := shard_of(path)) is None:
        return None
    return _place(*found).size


def read_from_shard(shard: Path, name: str) -> BinaryIO:
    """Return a photo's bytes as a stream. Raises OSError."""
    place = _place(shard, name)
    if remote.is_remote(shard):
        return io.BytesIO(remote.read_span(shard, place.offset, place.size))
    with shard.open("rb") as file:
        file.seek(place.offset)
        return io.BytesIO(file.read(place.size))


def _place(shard: Path, name: str) -> _Place:
    try:
        return _places(shard)[name]
    except KeyError:
        raise FileNotFoundError(2, "No such photo in the shard", f"{shard}/{name}") from None


@cache
def _places(shard: Path) -> dict[str, _Place]:
    """Return where a shard's photos are; one that the index does not know is read through."""
    entry = _kept_index(shard.parent).get(shard.name)
    # Whoever listed a store's shards has compared them: a request for each is spared here.
    if entry is None or not (remote.is_remote(shard) or _is_of(entry, _stamp(shard))):
        entry = _scan(shard, _stamp(shard))
    return {name: _Place(*place) for name, place in entry["photos"].items()}


def list_shards(folder: Path) -> list[Path]:
    """List the tar files in a folder. Raises OSError."""
    if remote.is_remote(folder):
        files = [*remote.listing(folder, recursive=False)]
    else:
        files = [path for path in folder.iterdir() if path.is_file()]
    return sorted(path for path in files if path.name.lower().endswith(_ENDING))


def _scan(shard: Path, stamp: tuple[int, int]) -> _Entry:
    """Read through a tar's headers."""
    log.info("indexing %s", remote.shown(shard))
    try:
        with _opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            photos = {_plain(m.name): (m.offset_data, m.size) for m in tar if m.isfile()}
    except tarfile.TarError as error:
        raise ShardError(f"{remote.shown(shard)}: a damaged or compressed tar: {error}") from None
    return {"size": stamp[0], "modified": stamp[1], "photos": photos}


def _plain(name: str) -> str:
    """Return a name in a tar as paths have it: of a whole folder, tar writes `./a.jpg`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


@contextlib.contextmanager
def _opened(shard: Path) -> Iterator[BinaryIO]:
    with remote.open_file(shard) if remote.is_remote(shard) else shard.open("rb") as file:
        yield file


def _stamp(shard: Path) -> tuple[int, int]:
    """Return what changes with a shard: its bytes, and here also its time, as tars are rounded up.

    A store's time is that of the upload, which says nothing of an index uploaded beside it.
    """
    if remote.is_remote(shard):
        return remote.size_of(shard), 0
    status = shard.stat()
    return status.st_size, status.st_mtime_ns


def _is_of(entry: _Entry, stamp: tuple[int, int]) -> bool:
    return (entry["size"], entry["modified"]) == stamp


@cache
def _kept_index(folder: Path) -> dict[str, _Entry]:
    """Return what a folder's index holds; nothing where there is none that can be read."""
    path = folder / INDEX
    try:
        content = remote.read_bytes(path) if remote.is_remote(path) else path.read_bytes()
    except OSError:
        return {}
    try:
        data = json.loads(content)
        if data["format"] != _FORMAT:
            return {}
        return {str(name): _entry(**about) for name, about in data["shards"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _entry(*, size: int, modified: int, photos: Mapping[str, Sequence[int]]) -> _Entry:
    """Read what the index holds of a shard; raises an error where that is something else."""
    places = {name: (int(first), int(length)) for name, (first, length) in photos.items()}
    return {"size": int(size), "modified": int(modified), "photos": places}


def _write_index(folder: Path, index: Mapping[str, object]) -> None:
    try:
        with atomic_write(folder / INDEX) as file:
            file.write(json.dumps({"format": _FORMAT, "shards": index}).encode())
    except OSError as error:
        log.warning(
            "%s: the shards' index cannot be kept there (%s): every process makes it again",
            remote.shown(folder),
            error.strerror,
        )
