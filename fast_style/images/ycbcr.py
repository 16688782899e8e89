"""YCbCr of a TIFF whose colours are coarser than its light, outside JPEG: TIFF 6.0, section 21.

Its data units are blocks: the light of all pixels of a block by rows, then one Cb and one Cr.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

# Cb and Cr are for blocks of this many columns and rows; 2 and 2 where the file does not say.
SUBSAMPLING = 530
_COEFFICIENTS, REFERENCE = 529, 532
_BT_601 = (0.299, 0.587, 0.114)
FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
_JPEG = (6, 7)

Bytes = npt.NDArray[np.uint8]


def subsampling(page: Any) -> tuple[int, int]:
    """Return the columns and rows of a block; (1, 1) for what is stored pixel by pixel."""
    if int(page.compression) in _JPEG or int(page.planarconfig) != 1:
        return 1, 1
    across, down = page.tags.valueof(SUBSAMPLING, default=(2, 2))
    return int(across), int(down)


def read_blocks(tiff: Any, page: Any) -> Bytes:
    """Read (H, W, 3) of a page of tifffile's, 8 bits a channel. Raises ValueError."""
    import tifffile

    across, down = subsampling(page)
    if not {across, down} <= {1, 2, 4}:
        raise ValueError(f"has blocks of {across}×{down} pixels, which no TIFF has")
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (
        min(page.rowsperstrip, page.imagelength), page.imagewidth)  # fmt: skip
    tall, wide = -(-height // down) * down, -(-width // across) * across
    unpack = tifffile.TIFF.DECOMPRESSORS[page.compression]
    columns = -(-page.imagewidth // width)
    result = np.zeros((-(-page.imagelength // height) * height, columns * width, 3), np.uint8)
    places = itertools.zip_longest(page.dataoffsets, page.databytecounts)
    for index, (offset, count) in enumerate(places):
        tiff.filehandle.seek(offset)
        data = tiff.filehandle.read(count)
        top, left = index // columns * height, index % columns * width
        rows = tall if page.is_tiled else -(-min(height, page.imagelength - top) // down) * down
        needed = rows * wide * (across * down + 2) // (across * down)
        data = data if int(page.compression) == 1 else unpack(data, out=needed)
        values = np.frombuffer(data, np.uint8, count=min(needed, len(data)))
        if len(values) < needed:
            raise ValueError("is cut short")
        block = _spread(values, (rows, wide), (across, down))
        into = result[top : top + rows, left : left + width]
        into[:] = block[: into.shape[0], : into.shape[1]]
    return result[: page.imagelength, : page.imagewidth]


def _spread(values: Bytes, size: tuple[int, int], block: tuple[int, int]) -> Bytes:
    """Give every pixel of the blocks its three values."""
    (height, width), (across, down) = size, block
    units = values.reshape(height // down, width // across, across * down + 2)
    light = units[..., :-2].reshape(height // down, width // across, down, across)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = light.transpose(0, 2, 1, 3).reshape(height, width)
    colors = units[..., -2:]
    pixels[..., 1:] = colors.repeat(down, axis=0).repeat(across, axis=1)
    return pixels


def to_rgb(values: Bytes, page: Any) -> Bytes:
    """(H, W, 3) -> RGB, by the page's coefficients and its reference black and white."""
    red, green, blue = map(float, _numbers(page, _COEFFICIENTS, _BT_601))
    reference = _numbers(page, REFERENCE, FULL_RANGE)
    rgb = np.empty(values.shape, np.uint8)
    for first in range(0, len(values), 256):
        y, cb, cr = (
            _scaled(values[first : first + 256, :, i], reference[2 * i : 2 * i + 2], i > 0)
            for i in range(3)
        )
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        g = (y - red * r - blue * b) / green
        rgb[first : first + 256] = np.stack([r, g, b], axis=-1).round().clip(0, 255)
    return rgb


def _numbers(page: Any, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
    """Return a tag's rationals, which tifffile gives as numerators and denominators."""
    found = page.tags.valueof(tag, default=None)
    if found is None or len(found) < 2 * len(default):
        return default
    pairs = zip(found[::2], found[1::2], strict=False)
    numbers = tuple(a / b if b else 0.0 for a, b in pairs)
    return numbers if all(numbers[1::2]) and len(numbers) == len(default) else default


def _scaled(
    code: Bytes, reference: tuple[float, ...], is_color: bool
) -> npt.NDArray[np.floating[Any]]:
    black, white = reference
    return (code.astype(np.float64) - black) * ((127 if is_color else 255) / (white - black))
