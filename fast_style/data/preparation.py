"""Photos made ready for training: decoded and scaled so that crops are cut out of them unscaled.

Scaling each crop by itself would cost several times as much, and could not be cached.
"""

import functools
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.images import deep, read_size
from fast_style.images.decoding import is_plain, opened
from fast_style.images.pictures import flat_rgb

# Each photo is made ready at so many scales; a crop is out of one of them.
SCALES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """At which sizes photos are made ready, for square crops with sides of `sizes` pixels.

    A photo is scaled so that a crop's side is a share of its short one between `min_crop` and 1:
    one in each of `SCALES` equal parts of that range. The file's name decides where in them.
    """

    sizes: tuple[int, ...]
    min_crop: float

    def photo(self, path: str | Path, size: int, scale: int) -> Tensor:
        """Return a photo, (H, W, 3) uint8, for crops of `size`, at one of its scales.

        Raises ImageError.
        """
        pixels = read_rgb(path, at_least=decoded_edge(size, self.min_crop))
        return _scaled(pixels, self.short_side(path, size, scale))

    def photos(self, path: str | Path) -> Iterator[Tensor]:
        """Yield all that `photo` returns of one file: every size, and of each every scale."""
        for size in self.sizes:
            pixels = read_rgb(path, at_least=decoded_edge(size, self.min_crop))
            for scale in range(SCALES):
                yield _scaled(pixels, self.short_side(path, size, scale))

    def bytes_needed(self, path: str | Path) -> int:
        """Return the bytes of all `photos` of a file, by its header. Raises ImageError."""
        total = 0
        for size in self.sizes:
            stored = read_size(path, at_least=decoded_edge(size, self.min_crop))
            for scale in range(SCALES):
                total += 3 * math.prod(_scaled_size(stored, self.short_side(path, size, scale)))
        return total

    def index(self, size: int, scale: int) -> int:
        """Return where among `photos` one is. Raises ValueError for a size that is not there."""
        return self.sizes.index(size) * SCALES + scale

    def short_side(self, path: str | Path, size: int, scale: int) -> int:
        """Return the short side of a photo that is ready, in pixels."""
        of_name = zlib.crc32(os.fsencode(os.path.basename(path))) / 2**32  # noqa: PTH119
        share = self.min_crop + (1 - self.min_crop) * (scale + of_name) / SCALES
        return round(size / share)


def decoded_edge(image_size: int, min_crop: float) -> int:
    """Return the short side, in pixels, below which an image is not reduced when it is decoded."""
    return math.ceil(image_size / min_crop)


def read_rgb(path: str | Path, *, at_least: int) -> Tensor:
    """Return the pixels of `open_rgb`, (H, W, 3) uint8. Raises ImageError."""
    with opened(path) as (file, image):
        stored = image.size
        image.draft("RGB", (at_least, at_least))
        if not is_plain(file, image):
            return torch.from_numpy(flat_rgb(file, image))
        pixels = None
        if image.format == "JPEG" and image.size == stored and _has_codecs():
            file.seek(0)
            pixels = deep.read_jpeg(file.read())
        return torch.from_numpy(np.array(image) if pixels is None else pixels)


@functools.cache
def _has_codecs() -> bool:
    return deep.available()


def _scaled(pixels: Tensor, short_side: int) -> Tensor:
    """(H, W, 3) uint8 -> the same with this short side: bicubic, antialiased."""
    height, width, _ = pixels.shape
    width, height = _scaled_size((width, height), short_side)
    if (height, width) == pixels.shape[:2]:
        return pixels
    # The other way around, with the batch's dimension last, torch copies all to and fro.
    channels = pixels[None].permute(0, 3, 1, 2)
    scaled = F.interpolate(channels, (height, width), mode="bicubic", antialias=True)
    return scaled.permute(0, 2, 3, 1)[0].contiguous()


def _scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    width, height = (max(short_side, round(edge * short_side / min(size))) for edge in size)
    return width, height
