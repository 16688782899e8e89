"""The content photos as files: found in any layout, inspected, held out, fingerprinted."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fast_style.config.places import RUNS
from fast_style.errors import UserError
from fast_style.images import EXTENSIONS, ImageError, open_rgb, read_size, table
from fast_style.remote import is_remote, listing, read_bytes, shown, size_of
from fast_style.shards import (
    INDEX,
    list_shards,
    photos_in_shards,
    read_from_shard,
    shard_of,
    size_in_shard,
)

log = logging.getLogger(__name__)

# A folder with a larger share of unreadable files is hardly the one that was meant.
MAXIMUM_UNREADABLE = 0.5
# Smaller images have nothing to learn from.
MINIMUM_EDGE = 16
# Every header is read; this many files are decoded as a sample, small folders wholly.
DECODED_SAMPLE = 2000
# A grey photo's channels differ by no more than this, of 255.
GREY_TOLERANCE = 8
# The band along an edge of a framed photo is a sixteenth of it or more, and varies no more.
_BAND_SHARE = 16
_BAND_TOLERANCE = 3
# From this share on a folder's summary mentions framed photos.
_FRAMED_TOLD = 0.01


class DataError(UserError):
    """The folder of content images is missing, empty or damaged."""


class Skipped:
    """The photos that a run has left out because they are broken, each named once in the log."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, reason: str) -> None:
        """Leave out a photo for a reason, which begins with its path."""
        if reason not in self.reasons:
            self.reasons.append(reason)
            log.warning("skipped: %s", reason)


@dataclass(slots=True)
class Scan:
    """What a scan found: the usable images with their sizes, and the reason for each that is not.

    Of `decoded` ones, `grey` turned out to have no colours, and `framed_photos` to have a plain
    band along an edge: a frame or padding, which styles would be trained on too.
    """

    usable: list[Path] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    too_small: list[Path] = field(default_factory=list)
    decoded: int = 0
    grey: int = 0
    framed_photos: list[Path] = field(default_factory=list)

    @property
    def grey_share(self) -> float:
        """The share of photos without colours, by the decoded ones."""
        return self.grey / max(1, self.decoded)

    @property
    def framed(self) -> int:
        """The number of photos with a plain band along an edge."""
        return len(self.framed_photos)

    @property
    def framed_share(self) -> float:
        """The share of photos with a plain band along an edge, by the decoded ones."""
        return self.framed / max(1, self.decoded)

    def summary(self) -> str:
        """Return the line `3,298 photos, 320×240 to 640×640, 2 unusable, 4% grey`."""
        unusable = len(self.unreadable) + len(self.too_small)
        smallest, largest = min(self.sizes, key=math.prod), max(self.sizes, key=math.prod)
        framed = f", {self.framed_share:.0%} with a plain band along an edge"
        return (
            f"{len(self.usable):,} photos, {smallest[0]}×{smallest[1]} to {largest[0]}×{largest[1]}"
            f", {unusable:,} unusable, {self.grey_share:.0%} grey"
            f"{framed if self.framed_share >= _FRAMED_TOLD else ''}"
        )


def find_images(roots: Iterable[Path], *, named: str = "") -> list[Path]:
    """List the image files below folders, in any layout, and files named themselves, sorted.

    Hidden files and folders are left out. Raises DataError for a path that is not there; `named` is
    the key or the option that holds these paths.
    """
    where = f"{named}: " if named else ""
    roots = list(roots)
    found: list[Path] = []
    others: Counter[str] = Counter()
    for root in roots:
        if is_remote(root) or (root.suffix.lower() == ".tar" and root.is_file()):
            found += _far_or_packed(root, where)
        elif root.is_file():
            found.append(root)
        elif root.is_dir():
            # Shards beside photos are left out, as any file that is no photo.
            left_out: Counter[str] = Counter()
            photos = _walk(root, left_out)
            if not photos and (photos := _far_or_packed(root, where)):
                del left_out[".tar"]
            found += photos
            others += left_out
        else:
            raise DataError(f"{where}{root}: no such folder of photos{_where_to_get(root, named)}")
    unique = sorted(dict.fromkeys(found))
    if others:
        log.info("%s: %s", ", ".join(map(str, roots)), table.left_out(others))
    if not unique:
        where += ", ".join(str(root) for root in roots)
        raise DataError(f"{where}: holds no image files ({', '.join(sorted(EXTENSIONS))})")
    return unique


def below_common_folder(paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return the deepest folder that holds all `paths`, and their names below it, with "/".

    Of paths on several of Windows' drives it is none, and the names are whole.
    """
    try:
        folder = Path(os.path.commonpath({path.parent.absolute() for path in paths}))
    except ValueError:
        return Path(), [str(path.absolute()).replace(os.sep, "/") for path in paths]
    start = len(str(folder))
    names = [str(path.absolute())[start:].replace(os.sep, "/").lstrip("/") for path in paths]
    return folder, names


def fingerprint(paths: Sequence[Path]) -> str:
    """Hash the files' names below their common folder, in their order, and their sizes.

    Photos that are added, removed or exchanged change it, and what the steps see with it; a folder
    that moves does not. A file that is gone counts as one of no size.
    """
    digest = sha256()
    for path, name in zip(paths, below_common_folder(paths)[1], strict=True):
        try:
            size = str(bytes_of(path))
        except OSError:
            size = ""
        digest.update(os.fsencode(f"{name}\0{size}\n"))
    return digest.hexdigest()


def bytes_of(path: Path) -> int:
    """Return a photo's bytes: of a file here, in a store, or in a shard. Raises OSError."""
    if (size := size_in_shard(path)) is not None:
        return size
    return size_of(path) if is_remote(path) else path.stat().st_size


def content_of(path: Path) -> bytes:
    """Return what a photo's file holds: here, in a store, or in a shard. Raises OSError."""
    if inside := shard_of(path):
        return read_from_shard(*inside).read()
    return read_bytes(path) if is_remote(path) else path.read_bytes()


def scan_images(paths: Sequence[Path], *, skipped: Skipped | None = None) -> Scan:
    """Inspect the files, and log which are skipped; `skipped` gets the broken ones.

    Raises DataError with the list when more than half of the files are unreadable.
    """
    scan = inspect_images(paths)
    skipped = Skipped() if skipped is None else skipped
    for reason in scan.unreadable.values():
        skipped.add(reason)
    for path in scan.too_small:
        log.warning("skipped: %s: a side is under %d pixels", path, MINIMUM_EDGE)
    if len(scan.unreadable) > MAXIMUM_UNREADABLE * len(paths):
        raise DataError(too_many_unreadable(len(paths), list(scan.unreadable.values())))
    if not scan.usable:
        raise DataError(f"none of the {len(paths)} content images can be used")
    return scan


def inspect_images(paths: Sequence[Path], *, decoded: int = DECODED_SAMPLE) -> Scan:
    """Read every file's header, and decode about `decoded` of the files, evenly spaced."""
    stride = math.ceil(len(paths) / max(1, decoded))
    jobs = [(path, index % stride == 0) for index, path in enumerate(paths)]
    scan = Scan()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        verdicts = tqdm(
            pool.map(_inspect, jobs), "photos", len(jobs), leave=False, delay=1, disable=None
        )
        for path, (size, looks, reason) in zip(paths, verdicts, strict=True):
            if reason:
                scan.unreadable[path] = reason
                continue
            if min(size) < MINIMUM_EDGE:
                scan.too_small.append(path)
                continue
            scan.usable.append(path)
            scan.sizes.append(size)
            if looks:
                scan.decoded += 1
                scan.grey += looks.grey
                if looks.framed:
                    scan.framed_photos.append(path)
    return scan


def choose(paths: Sequence[Path], count: int) -> tuple[Path, ...]:
    """Return `count` of `paths`, evenly spaced."""
    count = min(count, len(paths))
    return tuple(paths[index * len(paths) // count] for index in range(count))


def hold_out(paths: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split into images to train on and `count` evenly spaced others (at most a fifth) to hold out.

    A single image serves as both.
    """
    if len(paths) == 1:
        return list(paths), list(paths)
    held = set(choose(paths, max(1, min(count, len(paths) // 5))))
    return [path for path in paths if path not in held], sorted(held)


def too_many_unreadable(total: int, reasons: list[str]) -> str:
    """Return the message that names the unreadable images, with the reasons."""
    shown = "\n  ".join(reasons[:50])
    more = f"\n  and {len(reasons) - 50} more" if len(reasons) > 50 else ""
    return (
        f"{len(reasons)} of {total} content images are unreadable, more than "
        f"{MAXIMUM_UNREADABLE:.0%}; remove or replace them:\n  {shown}{more}"
    )


def _far_or_packed(root: Path, where: str) -> list[Path]:
    """List the photos of a folder in a store, or of tar shards, here or in a store."""
    known = table.photo_extensions()

    def is_photo(name: str) -> bool:
        path = Path(name)
        return path.suffix.lower() in known and not path.name.startswith(".")

    try:
        if root.suffix.lower() == ".tar" and not root.is_dir():
            return photos_in_shards([root], is_photo=is_photo)
        files = listing(root) if is_remote(root) else ()
        if photos := [path for path in files if is_photo(path.name)]:
            return photos
        return photos_in_shards(list_shards(root), is_photo=is_photo)
    except OSError as error:
        raise DataError(f"{where}{shown(root)}: {error.strerror}") from None


def _walk(root: Path, others: Counter[str]) -> list[Path]:
    """List the images below a folder; count the other visible files by their extensions.

    The folder of runs, which may lie among the photos, holds sheets and no photos.
    """
    known = table.photo_extensions()
    found, visited = [], {os.path.realpath(root), os.path.realpath(RUNS)}
    for folder, subfolders, files in os.walk(root, followlinks=True):
        visible = [name for name in sorted(subfolders) if not name.startswith(".")]
        subfolders.clear()
        for name in visible:  # a link to a folder that was seen, or is around it, is not followed
            if (real := os.path.realpath(Path(folder, name))) not in visited:
                visited.add(real)
                subfolders.append(name)
        for name in (name for name in files if not name.startswith(".") and name != INDEX):
            extension = Path(name).suffix.lower()
            if extension in known:
                found.append(Path(folder, name))
            else:
                others[extension] += 1
    return found


class _Looks(NamedTuple):
    """What a decoded photo looks like."""

    grey: bool
    framed: bool


def _inspect(job: tuple[Path, bool]) -> tuple[tuple[int, int], _Looks | None, str]:
    """Return a file's size, its looks (None: not decoded), and why it cannot be read."""
    path, decode = job
    try:
        size = read_size(path)
        if not decode:
            return size, None, ""
        pixels = np.asarray(open_rgb(path, at_least=MINIMUM_EDGE))
        return size, _Looks(grey=_is_grey(pixels), framed=_is_framed(pixels)), ""
    except ImageError as error:
        return (0, 0), None, str(error)
    except Exception as error:  # of this photo: the others are looked at all the same
        return (0, 0), None, f"{path}: cannot be looked at: {type(error).__name__}: {error}"


def _is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    return int((pixels.max(axis=-1) - pixels.min(axis=-1)).max()) <= GREY_TOLERANCE


def _is_framed(pixels: npt.NDArray[np.uint8]) -> bool:
    """Return whether a band along an edge is of one colour, though not all of the photo is."""
    rows, columns = (max(1, edge // _BAND_SHARE) for edge in pixels.shape[:2])
    bands = pixels[:rows], pixels[-rows:], pixels[:, :columns], pixels[:, -columns:]
    return any(map(_is_plain, bands)) and not _is_plain(pixels)


def _is_plain(pixels: npt.NDArray[np.uint8]) -> bool:
    return int(np.ptp(pixels, axis=(0, 1)).max()) <= _BAND_TOLERANCE


def _where_to_get(root: Path, named: str) -> str:
    if "coco" not in root.parts:
        return ""
    cure = "; COCO's are at https://cocodataset.org/#download (train2017.zip, 18 GB), any others do"
    if named != "data.train":
        return cure
    return f"{cure}: --set data.train=photos/, and --config quickstart.yaml needs none"
