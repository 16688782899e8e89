"""Which mask belongs to which photo: one file for all, or a folder of masks with photos' names.

Both may lie in a store, whose listing tells what a folder there holds.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from fast_style.images import table
from fast_style.images.decoding import ImageError
from fast_style.remote import is_file, is_remote, listing, shown
from fast_style.stylization.jobs import STREAM, Job, identity, inside


def with_masks(jobs: Sequence[Job], mask: Path) -> list[Job]:
    """Return the jobs with their masks, without those whose input is a mask itself.

    In a folder a photo's mask has the photo's name, with any image's extension, in the same
    subfolder or in the folder itself. A job of a photo without a mask gets the path at which the
    mask was looked for. Raises ImageError.
    """
    finder = MaskFinder(mask)
    for job in jobs:
        finder.check_output(job.output, cure="name another place with --output")
    return [replace(job, mask=finder.find(job.input)) for job in jobs if not finder.has(job.input)]


class MaskFinder:
    """Finds the mask of a photo.

    Raises ImageError for a place that holds no masks, and OSError for one in a store.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._masks: dict[PurePath, Path] | None = None
        far = is_remote(place)
        if place.is_dir() or (far and not (place.suffix and is_file(place))):
            self._masks = _masks_in(place)
            if not self._masks:
                raise ImageError(f"{shown(place)}: holds no masks: a mask has its photo's name")
        elif not far and not place.is_file():
            raise ImageError(f"{place}: no such mask, or folder of masks")
        self._holds = inside(place)
        files = [] if far else [place] if self._masks is None else self._masks.values()
        self._identities = {identity(path.stat()) for path in files if path.exists()}

    def check_output(self, output: Path, *, cure: str) -> None:
        """Raise ImageError for an output that would be written over a mask."""
        if output != STREAM and output.exists() and identity(output.stat()) in self._identities:
            raise ImageError(f"{output}: is a mask, and inputs are never overwritten: {cure}")

    def has(self, photo: Path) -> bool:
        """Return whether a photo is a mask."""
        if photo == STREAM:
            return False
        if is_remote(photo) or is_remote(self._place):  # a store is not asked about each photo
            return self._place in (photo, *photo.parents)
        return self._holds(photo) or (photo.exists() and photo.samefile(self._place))

    def find(self, photo: Path) -> Path:
        """Return the mask of a photo, or the path at which there is none."""
        if self._masks is None:
            return self._place
        for name in _endings(photo.absolute().parts):
            for key in (name, name.with_suffix("")):
                if key in self._masks:
                    return self._masks[key]
        return self._place / f"{photo.stem}.png"


def _masks_in(place: Path) -> dict[PurePath, Path]:
    """Return masks by their paths below a folder, with and without extensions."""
    known = table.photo_extensions()
    found: dict[PurePath, Path] = {}
    for path in _files_in(place):
        if path.suffix.lower() in known and not path.name.startswith("."):
            below = path.relative_to(place)
            found[below] = path
            found.setdefault(below.with_suffix(""), path)
    return found


def _files_in(place: Path) -> Iterator[Path]:
    if is_remote(place):
        yield from listing(place)
        return
    for parent, _, names in os.walk(place):
        yield from sorted(Path(parent, name) for name in names)


def _endings(parts: Sequence[str]) -> Iterable[PurePath]:
    """Return the last parts of a path, the longest ones first."""
    return (PurePath(*parts[first:]) for first in range(1, len(parts)))
