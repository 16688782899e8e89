"""Differences of planes, and their means over blocks: arithmetic on many pixels at a time.

Bytes stay whole numbers: more of them go into one instruction, and their sums are exact in whatever
order. Where floats are summed, the order is that of PyTorch's pooling, which takes several times
as long.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

# (H, W), (N, H, W): planes, since neighbours in a row are what one instruction takes.
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_Plane = TypeVar("_Plane", bound=npt.NDArray[Any])

# What holds the sum of a few values.
_SUMS = {np.dtype(np.uint8): np.uint16, np.dtype(np.float32): np.float32}

# About how many pixels a strip has, and what the number of its rows is a multiple of.
_STRIP = 1 << 16
_STEP = 32


def apart(one: _Plane, other: _Plane) -> _Plane:
    """Return how much values differ, without leaving their type."""
    difference = np.maximum(one, other)
    difference -= np.minimum(one, other)
    return difference


def differences(light: Pixels | Floats, rows: slice) -> npt.NDArray[np.uint16] | Floats:
    """(H, W) -> those `rows`: how much each pixel differs from the next to its right and below."""
    width = light.shape[1]
    flat = light[rows.start : rows.stop + 1].ravel()
    total = np.zeros((rows.stop - rows.start) * width, _SUMS[light.dtype])
    total[:-1] = apart(flat[1 : len(total)], flat[: len(total) - 1])
    total[width - 1 :: width] = 0  # at the end of a row
    down = apart(flat[width:], flat[:-width])
    total[: len(down)] += down
    return total.reshape(-1, width)


def block_means(values: npt.NDArray[Any], size: int) -> Floats:
    """(N, H, W) -> (N, rows, columns): means over blocks of `size` a side, or what there is of one.

    Of floats, or of whole numbers whose sum over a block is below 65,536.
    """
    if values.dtype == np.float32:
        pooled: Floats = F.avg_pool2d(torch.from_numpy(values), size, ceil_mode=True).numpy()
        return pooled
    count, height, width = values.shape
    rows, columns = -(-height // size), -(-width // size)
    if height % size or width % size:
        whole = np.zeros((count, rows * size, columns * size), values.dtype)
        whole[:, :height, :width] = values
        values = whole
    lines = values.astype(np.uint16, copy=False).reshape(count, rows, size, columns * size)
    down = lines[:, :, 0] + lines[:, :, 1]
    for index in range(2, size):
        down += lines[:, :, index]
    sums = down[..., ::size] + down[..., 1::size]
    for index in range(2, size):
        sums += down[..., index::size]
    areas = np.outer(*(_lengths(edge, size) for edge in (height, width)))
    means: Floats = np.divide(sums, areas, dtype=np.float32)
    return means


def around_blocks(means: Floats) -> Floats:
    """(N, rows, columns): the mean of each and those around it, as far as there are any."""
    count, rows, columns = means.shape
    padded = np.zeros((count, rows + 2, columns + 2), np.float32)
    padded[:, 1:-1, 1:-1] = means
    total = np.zeros_like(means)
    for y in range(3):
        for x in range(3):
            total += padded[:, y : y + rows, x : x + columns]
    total /= np.outer(_neighbours(rows), _neighbours(columns))
    return total


def around_pixels(image: Floats, rows: slice) -> Floats:
    """(H, W) -> those rows of it: the mean of 3×3 pixels, edges repeated beyond themselves."""
    height, width = image.shape
    lines = image.take(np.arange(rows.start - 1, rows.stop + 1).clip(0, height - 1), 0)
    down = lines[:-2] + lines[1:-1]
    down += lines[2:]
    # As if all were one row, which is faster, but wrong at the edges: they are put right.
    flat, mean = down.ravel(), np.empty_like(down)
    inside = mean.ravel()[1:-1]
    np.add(flat[:-2], flat[1:-1], out=inside)
    inside += flat[2:]
    mean[:, 0] = down[:, 0] + down[:, 0] + down[:, min(1, width - 1)]
    mean[:, -1] = down[:, max(width - 2, 0)] + down[:, -1] + down[:, -1]
    mean /= 9
    return mean


def strips(height: int, width: int) -> list[slice]:
    """Return rows to work on at a time, so that a few planes of floats fit into a cache.

    They are whole blocks, and whole instructions of PyTorch's: what it rounds at the end of a plane
    is what it rounds at the end of the last strip.
    """
    step = max(1, _STRIP // (width * _STEP)) * _STEP
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def _lengths(edge: int, size: int) -> npt.NDArray[np.int64]:
    """Return how much of an edge each block of `size` has."""
    return np.minimum(edge - np.arange(0, edge, size), size)


def _neighbours(count: int) -> Floats:
    """Return for each of `count` in a row how many it and those beside it are."""
    near = np.full(count, 3, np.float32)
    near[0] -= 1
    near[-1] -= 1
    return near
