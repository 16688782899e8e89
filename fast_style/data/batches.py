"""The content images of training: shuffled without end, decoded, cropped, batched.

Which images a step sees, and where they are cropped, is a function of (seed, step) alone, and the
crops' size of these and the run's length. So a resumed run sees what an unbroken one would have
seen, whatever the number of workers.
"""

import copy
import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fast_style.data.cache import ImageCache
from fast_style.data.photos import MAXIMUM_UNREADABLE, DataError, Skipped, too_many_unreadable
from fast_style.data.preparation import SCALES, Preparation
from fast_style.data.workers import PREFETCHED, context, obey_the_main_process_only
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

    Crops are cut out of photos as `preparation` makes them ready. A cache, of these images or more,
    spares that and changes no pixel.
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
        sizes = [*(mixed_sizes or [image_size]), *([first_size] if first_steps else [])]
        self.preparation = Preparation(sizes=tuple(sorted(set(sizes))), min_crop=min_crop)
        if cache is not None:
            self._check_cache(cache)
        self.paths = [str(path) for path in paths]
        self.image_size = image_size
        self.mixed_sizes = mixed_sizes
        self.first_size = first_size
        self.first_steps = first_steps
        self.seed = seed
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
        if cache.preparation != self.preparation:
            raise ValueError(
                f"{cache.file}: is of photos made ready as {cache.preparation}; these crops need "
                f"{self.preparation}"
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
                return self._crop(path, draw), path, unreadable
            except ImageError as error:
                unreadable.append(str(error))
        raise DataError(too_many_unreadable(len(self.paths), unreadable))

    def _crop(self, path: str, draw: Draw) -> Tensor:
        """Cut the crop of a position in the endless order out of a photo. Raises ImageError."""
        random = np.random.default_rng((self.seed, draw.position))
        size, scale = draw.size or self.image_size, int(random.integers(SCALES))
        photo = self.cache.photo(path, size, scale) if self.cache else None
        if photo is None:
            photo = self.preparation.photo(path, size, scale).numpy()
        top, left = (int(random.integers(edge - size + 1)) for edge in photo.shape[:2])
        crop = torch.from_numpy(photo[top : top + size, left : left + size].copy())
        flip = self.flip and random.random() < 0.5
        return (crop.flip(1) if flip else crop).permute(2, 0, 1)


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
) -> Generator[ContentBatch, None, None]:
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
        prefetch_factor=PREFETCHED if workers else None,
        collate_fn=_collate,
        worker_init_fn=obey_the_main_process_only,
        multiprocessing_context=context() if workers else None,
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
    # In the order in which the pixels lie, channels last: the network wants them so, too.
    batch = torch.stack([crop.permute(1, 2, 0) for crop in pixels]).permute(0, 3, 1, 2)
    return ContentBatch(batch, list(paths), [r for rs in unreadable for r in rs])
