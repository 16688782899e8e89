"""The content images: found in any layout, checked, shuffled without end, cropped.

What a step sees is a function of (seed, step) alone, so a resumed run sees what an unbroken one
would have seen, whatever the number of workers.
"""

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fast_style.images import EXTENSIONS, ImageError, image_to_tensor, open_rgb, read_size

log = logging.getLogger(__name__)

# More than this share of unreadable files means that something is wrong with the folder.
MAXIMUM_UNREADABLE = 0.05
# Smaller images have nothing to learn from.
MINIMUM_EDGE = 16
# Every header is read; this many files are decoded as a sample, small folders wholly.
DECODED_SAMPLE = 2000


class DataError(ValueError):
    """The folder of content images is missing, empty or damaged."""


@dataclass(slots=True)
class Scan:
    """What a scan found: the usable images, and the reason for each that is not."""

    usable: list[Path] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    too_small: list[Path] = field(default_factory=list)


class Draw(NamedTuple):
    """One draw from the shuffled images: which one, and the position in the endless order."""

    image: int
    position: int


class ContentBatch(NamedTuple):
    """(N, 3, S, S) uint8 crops, the files they are from, and the files that turned out broken."""

    pixels: Tensor
    paths: list[str]
    unreadable: list[str]


class ContentImages(Dataset[tuple[Tensor, str, list[str]]]):
    """Random square crops of the content images, (3, S, S) uint8, indexed by `Draw`."""

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: int,
        *,
        seed: int = 0,
        min_crop: float = 0.75,
        flip: bool = True,
    ) -> None:
        if not paths:
            raise DataError("no content images")
        self.paths = [str(path) for path in paths]
        self.image_size = image_size
        self.seed = seed
        self.min_crop = min_crop
        self.flip = flip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, str, list[str]]:
        """Crop the drawn image; a broken one is replaced by the next in the list and reported."""
        unreadable: list[str] = []
        at_least = math.ceil(self.image_size / self.min_crop)
        for offset in range(len(self.paths)):
            path = self.paths[(draw.image + offset) % len(self.paths)]
            try:
                image = open_rgb(path, at_least=at_least)
            except ImageError as error:
                unreadable.append(str(error))
                continue
            return self._crop(image, draw.position), path, unreadable
        raise DataError(_too_many_unreadable(len(self.paths), unreadable))

    def _crop(self, image: Image.Image, position: int) -> Tensor:
        random = np.random.default_rng((self.seed, position))
        side = max(1, round(min(image.size) * random.uniform(self.min_crop, 1)))
        left = int(random.integers(image.width - side + 1))
        top = int(random.integers(image.height - side + 1))
        flip = self.flip and random.random() < 0.5
        crop = _square(image, (left, top, left + side, top + side), self.image_size)
        return image_to_tensor(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop)


class EndlessShuffle(Sampler[list[Draw]]):
    """Batches of draws from step `first_step` on: each epoch a fresh permutation, without end."""

    def __init__(self, size: int, batch_size: int, *, seed: int = 0, first_step: int = 0) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.first_step = first_step

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self._draws(self.first_step * self.batch_size)
        while True:
            yield [next(draws) for _ in range(self.batch_size)]

    def _draws(self, position: int) -> Iterator[Draw]:
        epoch, place = divmod(position, self.size)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
            for offset in range(place, self.size):
                yield Draw(int(order[offset]), epoch * self.size + offset)
            epoch, place = epoch + 1, 0


def content_batches(
    images: ContentImages,
    batch_size: int,
    *,
    first_step: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[ContentBatch]:
    """Yield the batches of step `first_step`, `first_step + 1`, ... without end.

    A file that turns out broken is named once in the log; DataError ends it when the broken ones
    become more than one in twenty.
    """
    loader = DataLoader(
        images,
        batch_sampler=EndlessShuffle(
            len(images), batch_size, seed=images.seed, first_step=first_step
        ),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_obey_the_main_process_only,
        pin_memory=pin_memory,
    )
    seen: set[str] = set()
    try:
        for batch in loader:
            for reason in set(batch.unreadable) - seen:
                seen.add(reason)
                log.warning("skipped: %s", reason)
            if len(seen) > max(1, MAXIMUM_UNREADABLE * len(images)):
                raise DataError(_too_many_unreadable(len(images), sorted(seen)))
            yield batch
    except DataError as error:
        # One from a worker comes with the worker's traceback before it.
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None


def find_images(roots: Iterable[Path]) -> list[Path]:
    """List the image files below folders, in any layout, and files named themselves, sorted.

    Hidden files and folders are left out. Raises DataError for a path that is not there.
    """
    found: list[Path] = []
    for root in roots:
        if root.is_file():
            found.append(root)
        elif root.is_dir():
            found += _walk(root)
        else:
            raise DataError(f"{root}: no such folder of photos{_where_to_get(root)}")
    unique = sorted(dict.fromkeys(found))
    if not unique:
        where = ", ".join(str(root) for root in roots)
        raise DataError(f"{where}: holds no image files ({', '.join(sorted(EXTENSIONS))})")
    return unique


def scan_images(paths: Sequence[Path]) -> Scan:
    """Read every file's header and decode a sample, small folders wholly; log what is skipped.

    Raises DataError with the list when more than one file in twenty is unreadable.
    """
    stride = math.ceil(len(paths) / DECODED_SAMPLE)
    jobs = [(path, index % stride == 0) for index, path in enumerate(paths)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        verdicts = list(pool.map(_verdict, jobs))
    scan = Scan()
    for path, verdict in zip(paths, verdicts, strict=True):
        if verdict is None:
            scan.usable.append(path)
        elif verdict:
            scan.unreadable[path] = verdict
            log.warning("skipped: %s", verdict)
        else:
            scan.too_small.append(path)
            log.warning("skipped: %s: a side is under %d pixels", path, MINIMUM_EDGE)
    if len(scan.unreadable) > MAXIMUM_UNREADABLE * len(paths):
        raise DataError(_too_many_unreadable(len(paths), list(scan.unreadable.values())))
    if not scan.usable:
        raise DataError(f"none of the {len(paths)} content images can be used")
    return scan


def hold_out(paths: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split into images to train on and `count` evenly spaced others (at most a fifth) to hold out.

    A single image serves as both.
    """
    if len(paths) == 1:
        return list(paths), list(paths)
    count = max(1, min(count, len(paths) // 5))
    held = {paths[i * len(paths) // count] for i in range(count)}
    return [path for path in paths if path not in held], sorted(held)


def center_crop(path: Path, size: int) -> Tensor:
    """Read the central square of an image file as (3, size, size) uint8. Raises ImageError."""
    image = open_rgb(path, at_least=size)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image_to_tensor(_square(image, (left, top, left + side, top + side), size))


def _square(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _walk(root: Path) -> list[Path]:
    found = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        ]
    return found


def _verdict(job: tuple[Path, bool]) -> str | None:
    """Give None for a usable file, the reason for an unreadable one, "" for one too small."""
    path, decode = job
    try:
        size = open_rgb(path, at_least=MINIMUM_EDGE).size if decode else read_size(path)
    except ImageError as error:
        return str(error)
    return "" if min(size) < MINIMUM_EDGE else None


def _where_to_get(root: Path) -> str:
    if "coco" not in root.parts:
        return ""
    return (
        "; COCO's are at https://cocodataset.org/#download (train2017.zip, 18 GB), any others will "
        "do (data.train), and configs/quickstart.yaml needs none"
    )


def _too_many_unreadable(total: int, reasons: list[str]) -> str:
    shown = "\n  ".join(reasons[:50])
    more = f"\n  and {len(reasons) - 50} more" if len(reasons) > 50 else ""
    return (
        f"{len(reasons)} of {total} content images are unreadable, more than "
        f"{MAXIMUM_UNREADABLE:.0%}; remove or replace them:\n  {shown}{more}"
    )


def _collate(items: list[tuple[Tensor, str, list[str]]]) -> ContentBatch:
    pixels, paths, unreadable = zip(*items, strict=True)
    return ContentBatch(torch.stack(pixels), list(paths), [r for rs in unreadable for r in rs])


def _obey_the_main_process_only(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which may go to a group's every process, to the main process.

    It saves, and then tells its workers to end: the one SIGTERM that they obey.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # others cannot tell from whom a signal comes
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(main_process: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main_process:
        pass
    os._exit(0)
