"""The content images of training: shuffled without end, decoded, cropped, batched.

Which images a step sees, and where they are cropped, is a function of (seed, step) alone, and the
crops' size of these and the run's length. So a resumed run sees what an unbroken one would have
seen, whatever the number of workers.
"""

import copy
import itertools
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fast_style.data.cache import ImageCache
from fast_style.data.photos import MAXIMUM_UNREADABLE, DataError, Skipped, too_many_unreadable
from fast_style.images import ImageError, image_to_tensor, open_rgb

log = logging.getLogger(__name__)

# Keeps the draws of sizes apart from those of the order and the crops, which have shorter seeds.
_SIZES = 1


class Draw(NamedTuple):
    """One draw from the shuffled images: which one, and the position in the endless order.

    `size` is that of the crop, 0 the images' own `image_size`.
    """

    image: int
    position: int
    size: int = 0


class ContentBatch(NamedTuple):
    """(N, 3, S, S) uint8 crops, the files they are from, and the files that turned out broken."""

    pixels: Tensor
    paths: list[str]
    unreadable: list[str]


class ContentImages(Dataset[tuple[Tensor, str, list[str]]]):
    """Random square crops of the content images, (3, S, S) uint8, indexed by `Draw`.

    A cache, of these images or more at `decoded_edge`, spares the decoding and changes no pixel.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: int,
        *,
        seed: int = 0,
        mixed_sizes: Sequence[int] = (),
        first_size: int = 0,
        first_steps: int = 0,
        min_crop: float = 0.75,
        flip: bool = True,
        cache: ImageCache | None = None,
    ) -> None:
        if not paths:
            raise DataError("no content images")
        early = [first_size] if first_steps else []
        self.at_least = decoded_edge(max([image_size, *mixed_sizes, *early]), min_crop)
        if cache is not None:
            self._check_cache(cache)
        self.paths = [str(path) for path in paths]
        self.image_size = image_size
        self.mixed_sizes = mixed_sizes
        self.first_size = first_size
        self.first_steps = first_steps
        self.seed = seed
        self.min_crop = min_crop
        self.flip = flip
        self.cache = cache

    def __len__(self) -> int:
        return len(self.paths)

    def cached(self, cache: ImageCache) -> "ContentImages":
        """Return the same images, read from `cache`. Raises ValueError for one of another size."""
        self._check_cache(cache)
        images = copy.copy(self)
        images.cache = cache
        return images

    def _check_cache(self, cache: ImageCache) -> None:
        if cache.at_least != self.at_least:
            raise ValueError(
                f"{cache.file}: is of images decoded for {cache.at_least} pixels; these crops "
                f"need {self.at_least}"
            )

    def size_at(self, step: int, *, first_steps: int | None = None) -> int:
        """Return the size of a step's crops, where `first_steps` (default: its own) are early."""
        if step < (self.first_steps if first_steps is None else first_steps):
            return self.first_size
        if self.mixed_sizes:
            random = np.random.default_rng((self.seed, step, _SIZES))
            return int(random.choice(self.mixed_sizes))
        return self.image_size

    def __getitem__(self, draw: Draw) -> tuple[Tensor, str, list[str]]:
        """Crop the drawn image; a broken one is replaced by the next in the list and reported."""
        unreadable: list[str] = []
        for offset in range(len(self.paths)):
            path = self.paths[(draw.image + offset) % len(self.paths)]
            try:
                image = self._open(path)
            except ImageError as error:
                unreadable.append(str(error))
                continue
            return self.crop(image, draw.position, size=draw.size), path, unreadable
        raise DataError(too_many_unreadable(len(self.paths), unreadable))

    def _open(self, path: str) -> Image.Image:
        cached = self.cache.image(path) if self.cache else None
        return open_rgb(path, at_least=self.at_least) if cached is None else cached

    def crop(self, image: Image.Image, position: int, *, size: int = 0) -> Tensor:
        """Cut the crop of a position in the endless order out of a decoded image.

        `size` 0 is `image_size`.
        """
        random = np.random.default_rng((self.seed, position))
        side = max(1, round(min(image.size) * random.uniform(self.min_crop, 1)))
        left = int(random.integers(image.width - side + 1))
        top = int(random.integers(image.height - side + 1))
        flip = self.flip and random.random() < 0.5
        crop = _square(image, (left, top, left + side, top + side), size or self.image_size)
        return image_to_tensor(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop)


class EndlessShuffle(Sampler[list[Draw]]):
    """Batches of draws from step `first_step` on: each epoch a fresh permutation, without end.

    `size_at` returns a step's size of crops. `share` (k, n) is the k-th of n equal parts of every
    batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        size_at: Callable[[int], int] = lambda step: 0,
        seed: int = 0,
        first_step: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.size_at = size_at
        self.seed = seed
        self.first_step = first_step
        self.share = share

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self._draws(self.first_step * self.batch_size)
        number, count = self.share
        part = slice(*(self.batch_size // count * k for k in (number, number + 1)))
        for step in itertools.count(self.first_step):
            size, batch = self.size_at(step), [next(draws) for _ in range(self.batch_size)]
            yield [draw._replace(size=size) for draw in batch[part]]

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
    size_at: Callable[[int], int] | None = None,
    share: tuple[int, int] = (0, 1),
    skipped: Skipped | None = None,
) -> Iterator[ContentBatch]:
    """Yield the batches of step `first_step`, `first_step + 1`, ... without end.

    `size_at` returns a step's size of crops (default: `images.size_at`); `share` (k, n) yields the
    k-th of n equal parts of each.
    A file that turns out broken is named once in the log, and is `skipped`. Raises DataError when
    more than half are broken.
    """
    loader = DataLoader(
        images,
        batch_sampler=EndlessShuffle(
            len(images),
            batch_size,
            size_at=size_at or images.size_at,
            seed=images.seed,
            first_step=first_step,
            share=share,
        ),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_obey_the_main_process_only,
        multiprocessing_context=_context() if workers else None,
        pin_memory=pin_memory,
    )
    skipped = Skipped() if skipped is None else skipped
    seen: set[str] = set()
    try:
        for batch in loader:
            for reason in batch.unreadable:
                seen.add(reason)
                skipped.add(reason)
            if len(seen) > max(1, MAXIMUM_UNREADABLE * len(images)):
                raise DataError(too_many_unreadable(len(images), sorted(seen)))
            yield batch
    except DataError as error:
        # One from a worker comes with the worker's traceback before it.
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None


def decoded_edge(image_size: int, min_crop: float) -> int:
    """Return the short side, in pixels, below which an image is not reduced when it is decoded."""
    return math.ceil(image_size / min_crop)


def center_crop(path: Path, size: int) -> Tensor:
    """Read the central square of an image file as (3, size, size) uint8. Raises ImageError."""
    image = open_rgb(path, at_least=size)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image_to_tensor(_square(image, (left, top, left + side, top + side), size))


def center_crops(
    paths: Iterable[Path], size: int, *, skipped: Skipped | None = None
) -> dict[Path, Tensor]:
    """Return the central squares of the files that can be read: see `read_each`."""
    return read_each(paths, partial(center_crop, size=size), skipped=skipped)


def read_each(
    paths: Iterable[Path], read: Callable[[Path], Tensor], *, skipped: Skipped | None = None
) -> dict[Path, Tensor]:
    """Read the files that can be read; the others are logged, and are `skipped`.

    There may be others: a scan decodes only a sample of a large folder. Raises DataError where
    none can be read.
    """
    found: dict[Path, Tensor] = {}
    skipped = Skipped() if skipped is None else skipped
    reasons = []
    for path in paths:
        try:
            found[path] = read(path)
        except ImageError as error:
            reasons.append(str(error))
            skipped.add(str(error))
    if not found:
        raise DataError(too_many_unreadable(len(reasons), reasons))
    return found


def _square(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _collate(items: list[tuple[Tensor, str, list[str]]]) -> ContentBatch:
    pixels, paths, unreadable = zip(*items, strict=True)
    return ContentBatch(torch.stack(pixels), list(paths), [r for rs in unreadable for r in rs])


class _Flag:
    """The part of multiprocessing's Event that a DataLoader uses, without its lock.

    Setting the flag ends the workers. A worker that is killed while it reads an Event keeps the
    lock for ever, and then nobody ends: not the other workers, and not the main process.
    """

    def __init__(self) -> None:
        self._value = multiprocessing.RawValue("b", 0)

    def set(self) -> None:
        self._value.value = 1

    def is_set(self) -> bool:
        return bool(self._value.value)


def _context() -> BaseContext:
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    vars(context)["Event"] = _Flag
    return context


def _obey_the_main_process_only(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which may go to a group's every process, to the main process.

    The main process saves first and then sends SIGTERM; workers ignore SIGTERM from anyone else.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # other systems do not name a signal's sender
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(main_process: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main_process:
        pass
    os._exit(0)
