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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypedDict, cast

from fast_style import remote
from fast_style.errors import UserError
from fast_style.files import atomic_write

log = logging.getLogger(__name__)

INDEX = "fast-style-index.json"
_FORMAT = "fast-style-shards/1"
_ENDING = ".tar"


class ShardError(UserError):
    """Shards or their index cannot be used."""


class _Entry(TypedDict):
    """What the index holds of a shard: its bytes, and each photo's offset and bytes."""

    size: int
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
            return Path(*parts[: index + 1]), "/".join(parts[index + 1 :])
    return None


def photos_in_shards(folder: Path, *, is_photo: Callable[[str], bool]) -> list[Path]:
    """List the photos in a folder's shards, and make their index where there is none that fits.

    Raises ShardError, and OSError.
    """
    shards = list_shards(folder)
    sizes = {shard.name: _size(shard) for shard in shards}
    if not shards:
        return []
    index = _read_index(folder)
    if index is None or {name: entry["size"] for name, entry in index.items()} != sizes:
        index = {shard.name: _scan(shard, sizes[shard.name]) for shard in sorted(shards)}
        _write_index(folder, index)
        _places.cache_clear()
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
        return _places(shard.parent)[shard.name][name]
    except KeyError:
        raise FileNotFoundError(2, "No such photo in the shard", f"{shard}/{name}") from None


@cache
def _places(folder: Path) -> dict[str, dict[str, _Place]]:
    """Return a folder's index; without one its shards are read through, once in a process."""
    index = _read_index(folder)
    if index is None:
        index = {shard.name: _scan(shard, _size(shard)) for shard in list_shards(folder)}
    return {
        shard: {name: _Place(*place) for name, place in entry["photos"].items()}
        for shard, entry in index.items()
    }


def list_shards(folder: Path) -> list[Path]:
    """List the tar files in a folder. Raises OSError."""
    files = (
        remote.listing(folder, recursive=False) if remote.is_remote(folder) else folder.iterdir()
    )
    return sorted(path for path in files if path.name.lower().endswith(_ENDING))


def _scan(shard: Path, size: int) -> _Entry:
    """Read through a tar's headers."""
    log.info("indexing %s", remote.shown(shard))
    try:
        with _opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            photos = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
    except tarfile.TarError as error:
        raise ShardError(f"{remote.shown(shard)}: a damaged or compressed tar: {error}") from None
    return {"size": size, "photos": photos}


@contextlib.contextmanager
def _opened(shard: Path) -> Iterator[BinaryIO]:
    with remote.open_file(shard) if remote.is_remote(shard) else shard.open("rb") as file:
        yield file


def _size(shard: Path) -> int:
    return remote.size_of(shard) if remote.is_remote(shard) else shard.stat().st_size


def _read_index(folder: Path) -> dict[str, _Entry] | None:
    path = folder / INDEX
    try:
        content = remote.read_bytes(path) if remote.is_remote(path) else path.read_bytes()
    except OSError:
        return None
    try:
        data = json.loads(content)
        return cast(dict[str, _Entry], data["shards"]) if data["format"] == _FORMAT else None
    except (ValueError, KeyError, TypeError):
        return None


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
