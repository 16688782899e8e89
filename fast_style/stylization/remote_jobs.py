"""Jobs whose photos or pictures lie in an object store: what is there is listed, never asked for.

A store's listing tells names and times, and not the settings with which a picture was made. So the
outputs' folder holds a marker for each model and settings: `.fast-style/wave-<digest>`. Pictures
that are newer than the newest marker of their model were made with its settings.
"""

import os
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fast_style import remote
from fast_style.files import digest
from fast_style.images import table
from fast_style.images.decoding import ImageError
from fast_style.stylization.jobs import Found, Job, found_images, named_jobs

_MARKERS = ".fast-style"
# The clock of a store's listing steps by a second: what is written after this is seen as newer.
_CLOCK_STEP = 1.1


def has_remote(arguments: Sequence[str], output: str | None) -> bool:
    """Return whether photos or pictures lie in a store."""
    return any(map(remote.is_remote, (*arguments, output)))


def plan_remote_jobs(
    arguments: Sequence[str],
    model: str,
    *,
    output: str | None,
    extension: str | None = None,
    recursive: bool = False,
) -> tuple[list[Job], list[OSError]]:
    """Plan jobs as `plan_jobs` does, with the same names, where a side of them is in a store.

    The output is always named. Raises ImageError, and OSError for an address.
    """
    if output is None or "-" in (*arguments, output):
        raise ImageError("photos in a store need --output: a folder, here or in a store")
    whole = output.endswith(("/", os.sep)) or not Path(output).suffix
    if not whole and (len(arguments) > 1 or not Path(arguments[0]).suffix):
        raise ImageError(f"{output}: is one file, but there may be several images: name a folder")
    place = Path(output)
    far = [argument for argument in arguments if remote.is_remote(argument)]
    near = [argument for argument in arguments if not remote.is_remote(argument)]
    errors: list[OSError] = []
    items: list[Found] = []
    if near:
        outside = None if remote.is_remote(place) else place
        items, errors = found_images(near, [model], recursive, outside)
    for argument in far:
        items += _far_images(argument, recursive, place)
    items = list({item.path: item for item in items}.values())
    folder, file = (place, None) if whole else (None, place)
    if any(remote.shown(item.path) == remote.shown(place) for item in items):
        raise ImageError(
            f"{remote.shown(place)}: is an input, and inputs are never overwritten: name another "
            "place with --output"
        )
    jobs = named_jobs(items, model, folder, file, extension)
    outputs = {job.output for job in jobs}
    kept = [item for item in items if item.path not in outputs]
    if len(kept) < len(items):
        jobs = named_jobs(kept, model, folder, file, extension)
    return jobs, errors


def declare(jobs: Sequence[Job], model: str, made_with: str) -> None:
    """Mark that from now on the jobs' pictures are made with these settings and with their masks.

    Raises OSError.
    """
    if not any(remote.is_remote(job.output) for job in jobs):
        return
    made_with = _with_masks(jobs, made_with)
    for folder, there in _listings(jobs).items():
        if (newest := _newest_marker(there, model)) and newest[0].name.endswith(f"-{made_with}"):
            continue
        remote.write_bytes(folder / _MARKERS / f"{model}-{made_with}", b"")
        time.sleep(_CLOCK_STEP)


def finished_there(jobs: Sequence[Job], model: str) -> tuple[set[Job], set[Job]]:
    """Return which jobs' pictures were made with the settings that were declared, and are there.

    One listing for each folder that jobs write below. Raises OSError.
    """
    finished, existing = set(), set()
    for folder, there in _listings(jobs).items():
        newest = _newest_marker(there, model)
        for job in jobs:
            if folder in job.output.parents and (entry := there.get(job.output)):
                existing.add(job)
                if newest and entry.modified > newest[1]:
                    finished.add(job)
    return finished, existing


def _with_masks(jobs: Sequence[Job], made_with: str) -> str:
    """Return a digest of the settings and of all masks, of which a store's are only listed.

    So a mask that has changed redoes all pictures: a marker holds for all of a folder's.
    """
    masks = sorted({job.mask for job in jobs if job.mask is not None})
    if not masks:
        return made_with
    far = [mask for mask in masks if remote.is_remote(mask)]
    there = remote.listing(_common_folder(far)) if far else {}
    text = "".join(
        f"{remote.shown(mask)} {there.get(mask) if remote.is_remote(mask) else _digest(mask)}\n"
        for mask in masks
    )
    return sha256(f"{made_with} {text}".encode()).hexdigest()[: len(made_with)]


def _digest(mask: Path) -> str:
    """Return a file's digest, and nothing for one that is not there: stylizing will report it."""
    return digest(mask) if mask.is_file() else ""


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def _listings(jobs: Sequence[Job]) -> dict[Path, dict[Path, remote.Entry]]:
    outputs = [job.output for job in jobs if remote.is_remote(job.output)]
    if not outputs:
        return {}
    folder = _common_folder(outputs)
    return {folder: remote.listing(folder)}


def _newest_marker(there: dict[Path, remote.Entry], model: str) -> tuple[Path, float] | None:
    markers = [
        (path, entry.modified)
        for path, entry in there.items()
        if path.parent.name == _MARKERS and path.name.rpartition("-")[0] == model
    ]
    return max(markers, key=lambda marker: marker[1], default=None)


def _far_images(argument: str, recursive: bool, output: Path) -> list[Found]:
    """Find the images that an address names: a file, a folder, or a glob."""
    path = Path(argument)
    if any(letter in argument for letter in "*?["):
        found, root = remote.matching(path), path.parent
    elif path.suffix and remote.is_file(path):
        return [Found(path, named=True)]
    else:
        found, root = list(remote.listing(path, recursive=recursive)), path
    known = table.photo_extensions()
    images = [
        Found(image, image.parent.relative_to(root) if root in image.parents else Path())
        for image in found
        if image.suffix.lower() in known
        and not image.name.startswith(".")
        and (output == root or output not in image.parents)
    ]
    if not images:
        hint = "" if recursive else "; --recursive looks into its subfolders"
        raise ImageError(f"{remote.shown(path)}: holds no images{hint}")
    return images
