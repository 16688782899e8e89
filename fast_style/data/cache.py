"""A cache of photos that are ready to be cut (`Preparation`): one file, memory-mapped.

    pixels of each, RGB, rows from the top, filled up to words | table of where they are | trailer

The trailer holds the hash of all that the pixels depend on: the files' names, sizes and times, the
preparation, `DECODING`, and the versions of the libraries that decode. A cache with another hash is
built anew.
"""

import contextlib
import hashlib
import importlib.metadata
import logging
import math
import os
import shutil
import struct
import sys
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features
from tqdm import tqdm

from fast_style.data.photos import DataError, below_common_folder, bytes_of
from fast_style.data.preparation import SCALES, Preparation
from fast_style.files import atomic_write, remove_unfinished
from fast_style.images import ImageError
from fast_style.remote import is_remote, shown
from fast_style.shards import shard_of

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

# Raise the number when `open_rgb` makes other pixels of a file than before (a test finds out), or
# makes some of a file that it refused, or when `Preparation` scales in another way.
DECODING = 2
# Raise the number when the layout changes.
_MAGIC = b"fast-style images 2\n"
# The hash, the number of entries, the CRC-32 of the table, the magic.
_TRAILER = struct.Struct(f"<32sQI{len(_MAGIC)}s")
# Width 0: the file could not be read. The sum is that of the words, modulo 2^64: it finds what a
# disk damages at the memory's speed, where a CRC would take longer than all the rest of loading.
_ENTRY = np.dtype([("offset", "<u8"), ("width", "<u4"), ("height", "<u4"), ("sum", "<u8")])
_WORD = np.dtype("<u8")
# The number of headers that are read to estimate a cache's size.
_SAMPLE = 500


class CacheError(DataError):
    """A cache cannot be written: the disk is at fault, and no photo (whose error it once was)."""


class ImageCache:
    """What a `Preparation` makes of each of `paths`, without decoding.

    `file` is complete already (see `open_cache`). Any number of processes may share one; a copy
    that is sent to another process maps the file anew. Raises OSError, and ValueError for a file
    that is not the cache of these paths, as its `key` shows.
    """

    def __init__(
        self, file: Path, paths: Sequence[Path], key: bytes, *, preparation: Preparation
    ) -> None:
        self.file = file
        self.preparation = preparation
        self._positions = {str(path): position for position, path in enumerate(paths)}
        self._bytes: npt.NDArray[np.uint8] | None = _map(file)
        self._table = _read_table(self._bytes, key, len(paths) * _of_each(preparation))
        self._sound = np.zeros(len(self._table), bool)  # those whose bytes were checked
        self._damaged = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}

    def photo(self, path: str, size: int, scale: int) -> npt.NDArray[np.uint8] | None:
        """Return a photo as `Preparation.photo` does, read-only.

        None for one that is missing, unreadable or damaged here. A cache with damage is removed, so
        that the next run builds it anew.
        """
        position = self._positions.get(path)
        if position is None or size not in self.preparation.sizes:
            return None
        entry = position * _of_each(self.preparation) + self.preparation.index(size, scale)
        offset, width, height, expected = self._table[entry].item()
        if not width:
            return None
        if self._bytes is None:
            self._bytes = _map(self.file)
        length = 3 * width * height
        words = self._bytes[offset : offset + _padded(length)]
        if self._sound[entry] or _sum(words) == expected:
            self._sound[entry] = True
            return words[:length].reshape(height, width, 3)
        if not self._damaged:
            self._damaged = True
            log.warning(
                "cache: %s is damaged: the photos themselves are read where it is, and the next "
                "run builds it anew",
                self.file,
            )
            with contextlib.suppress(OSError):
                self.file.unlink()
        return None


def open_cache(folder: Path, paths: Sequence[Path], *, preparation: Preparation) -> ImageCache:
    """Open the cache of these photos in a folder; build it first if there is none that fits.

    Processes that want the same cache wait for the first to build it. Raises CacheError when it
    cannot be written.
    """
    if is_remote(folder):
        raise CacheError(f"data.cache: {shown(folder)}: is mapped into memory: name a local folder")
    common, names = below_common_folder(paths)
    key = _key(paths, names, preparation)
    # One file for each folder of photos and each preparation: a folder that changes replaces its
    # own.
    place = hashlib.sha256(os.fsencode(common)).hexdigest()[:8]
    sizes = "-".join(map(str, preparation.sizes))
    file = folder / f"{common.name or 'photos'}-{place}-{sizes}-{preparation.min_crop:g}.images"
    try:
        if cache := _open_if_it_fits(file, paths, key, preparation):
            return cache
        folder.mkdir(parents=True, exist_ok=True)
        with _only_builder(folder):
            if cache := _open_if_it_fits(file, paths, key, preparation):
                return cache
            _check_space(folder, paths, preparation)
            _build(file, paths, key, preparation)
        return ImageCache(file, paths, key, preparation=preparation)
    except OSError as error:
        reason = error.strerror or error
        raise CacheError(f"data.cache: {folder}: cannot be written: {reason}") from None


def bytes_needed(paths: Sequence[Path], *, preparation: Preparation) -> int:
    """Estimate a cache's size from a sample of headers."""
    sizes = []
    for path in paths[:: math.ceil(len(paths) / _SAMPLE)]:
        with contextlib.suppress(ImageError):
            sizes.append(preparation.bytes_needed(path))
    return round(sum(sizes) / max(1, len(sizes)) * len(paths))


def _check_space(folder: Path, paths: Sequence[Path], preparation: Preparation) -> None:
    """Log the space that a cache needs; raise CacheError where less is free."""
    needed, free = (
        bytes_needed(paths, preparation=preparation) / 1e9,
        shutil.disk_usage(folder).free / 1e9,
    )
    log.info("cache: %s images, about %.2f GB in %s", f"{len(paths):,}", needed, folder)
    if needed > free:
        raise CacheError(
            f"data.cache: {folder}: about {needed:.2f} GB are needed and {free:.2f} GB are free"
        )


def _key(paths: Sequence[Path], names: Sequence[str], preparation: Preparation) -> bytes:
    """Hash everything that decides what the pixels are."""
    digest = hashlib.sha256(f"{preparation} {_decoders()}\n".encode())
    for path, name in zip(paths, names, strict=True):
        try:
            state = str(bytes_of(path))
            if not is_remote(path):
                inside = shard_of(path)
                state += f" {(inside[0] if inside else path).stat().st_mtime_ns}"
        except OSError:
            state = "gone"  # `ContentImages` finds out
        digest.update(os.fsencode(f"{name}\0{state}\n"))
    return digest.digest()


def _decoders() -> str:
    """Name the versions of whoever may decode a photo: our own code, Pillow, and the codecs."""
    versions = [f"decoding {DECODING}", f"Pillow {PIL.__version__}"]
    for name in ("jpg", "libjpeg_turbo", "webp", "avif", "libtiff", "littlecms2"):
        versions.append(f"{name} {features.version(name)}")
    for package in ("torch", "imagecodecs", "tifffile", "pillow-heif"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(versions)


def _map(file: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))  # without its slow slices


def _read_table(content: npt.NDArray[np.uint8], key: bytes, count: int) -> npt.NDArray[np.void]:
    """Read where the photos are. Raises ValueError for a cut, a damaged or another's cache."""
    trailer = content[-_TRAILER.size :].tobytes()
    if len(trailer) < _TRAILER.size or not trailer.endswith(_MAGIC):
        raise ValueError("it is cut short or damaged")
    found_key, found_count, crc, _ = _TRAILER.unpack(trailer)
    if (found_key, found_count) != (key, count):
        raise ValueError("the photos have changed, or what decodes them")
    end = len(content) - _TRAILER.size
    start = max(0, end - count * _ENTRY.itemsize)
    table = content[start:end].tobytes()
    if zlib.crc32(table) != crc:
        raise ValueError("it is cut short or damaged")
    return np.frombuffer(table, _ENTRY)


def _open_if_it_fits(
    file: Path, paths: Sequence[Path], key: bytes, preparation: Preparation
) -> ImageCache | None:
    try:
        cache = ImageCache(file, paths, key, preparation=preparation)
    except (OSError, ValueError) as error:
        if file.exists():
            log.info("cache: %s is built anew: %s", file, error)
        return None
    log.info("cache: %s images, %s", f"{len(paths):,}", file)
    return cache


def _build(file: Path, paths: Sequence[Path], key: bytes, preparation: Preparation) -> None:
    table = np.zeros((len(paths), _of_each(preparation)), _ENTRY)
    offset = 0
    with (
        atomic_write(file) as output,
        contextlib.closing(_prepared(paths, preparation)) as files,
        tqdm(total=len(paths), desc="cache", unit="image", dynamic_ncols=True, disable=None) as bar,
    ):
        for position, photos in enumerate(files):
            for index, pixels in enumerate(photos):
                height, width, _ = pixels.shape
                words = np.zeros(_padded(pixels.size), np.uint8)
                words[: pixels.size] = pixels.reshape(-1)
                table[position, index] = (offset, width, height, _sum(words))
                offset += output.write(words.data)
            bar.update()
        output.write(table.tobytes())
        output.write(_TRAILER.pack(key, table.size, zlib.crc32(table.tobytes()), _MAGIC))


def _of_each(preparation: Preparation) -> int:
    """Return how often each photo is in the cache of a preparation."""
    return len(preparation.sizes) * SCALES


def _padded(length: int) -> int:
    return -(-length // _WORD.itemsize) * _WORD.itemsize


def _sum(words: npt.NDArray[np.uint8]) -> int:
    return int(np.add.reduce(words.view(_WORD)))


def _prepared(
    paths: Sequence[Path], preparation: Preparation
) -> Generator[list[npt.NDArray[np.uint8]], None, None]:
    """Prepare in threads, in order and not far ahead; nothing for a file that cannot be read."""

    def prepare(path: Path) -> list[npt.NDArray[np.uint8]]:
        try:
            return [pixels.numpy() for pixels in preparation.photos(path)]
        except ImageError:
            return []  # `ContentImages` meets the same error, and reports it

    threads = os.cpu_count() or 1
    pending: deque[Future[list[npt.NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for path in paths:
            pending.append(pool.submit(prepare, path))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextlib.contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Keep other processes from building in a folder, and remove what killed ones have left.

    A folder that cannot be locked, as on some network disks, is for one process at a time.
    """
    if sys.platform == "win32":  # where folders cannot be locked
        with (folder / ".building").open("ab") as file:
            while True:
                with contextlib.suppress(OSError):  # it waits for ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                log.info("cache: another process is building in %s: waiting for it", folder)
            remove_unfinished(folder)
            yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("cache: another process is building in %s: waiting for it", folder)
                fcntl.flock(handle, fcntl.LOCK_EX)
            remove_unfinished(folder)
        yield
    finally:
        os.close(handle)
