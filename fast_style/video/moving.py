"""How the blocks of a frame moved: for each the best of a few candidates.

Vectors are those of an encoder, which wants few bits, not the true motion; keyframes have none, and
others may point to frames further back. So for each block the best of these is taken: the stream's
vector, as if over one frame or several, what most blocks do, what the block did before, and
standing still. Motion is rounded to whole pixels: interpolating anew in every frame would blur.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fast_style.video.blocks import Pixels, apart, around_blocks, block_means
from fast_style.video.clips import BLOCK, Motion

# The channel that is taken for the light: most of it is green.
GREEN = 1
# A motion of its own must suit a block so much better, in 1/255, than what all blocks do: noise
# must not scatter the blocks of a flat wall.
_BIAS = 1.0
# Photos are compared at every second pixel a side.
_SAMPLE = 2

# (rows, columns, 2): for each block where it was, as (x, y) from where it is.
Field = npt.NDArray[np.int32]


def candidates(
    motion: Motion | None,
    before: Field | None,
    blocks: tuple[int, int],
    scale: tuple[float, float],
    frames_back: Sequence[int],
) -> list[Field]:
    """Return fields of (rows, columns) `blocks` to choose from: uniform ones first, none twice.

    Those that are uniform have one block, (1, 1, 2). A vector of the stream may be over any of
    `frames_back`; `scale` is the result's size in that of the photo; `before` is the field that was
    chosen last.
    """
    rows, columns = blocks
    uniform, other = [], []
    if motion is not None and not np.isnan(motion).all():
        overall = _median(motion)
        filled = np.where(np.isnan(motion), overall, motion) * np.array(scale, np.float32)
        if motion.shape[:2] != blocks:
            y = (np.arange(rows) * motion.shape[0] // rows)[:, None]
            filled = filled[y, np.arange(columns) * motion.shape[1] // columns]
        for frames in frames_back:
            uniform.append(np.rint(overall * scale / frames).astype(np.int32))
            other.append(np.rint(filled / frames).astype(np.int32))
    if before is not None:
        uniform.append(np.rint(_median(before)).astype(np.int32))
        other.append(before)
    uniform.append(np.zeros(2, np.int32))
    return _distinct([*(one[None, None] for one in uniform), *map(_reduced, other)])


def _median(vectors: Motion | Field) -> npt.NDArray[np.floating]:
    """(rows, columns, 2) -> (2,): the median of what is no NaN. `nanmedian` is slow."""
    ordered = np.sort(vectors.reshape(-1, 2).T)  # NaN last
    known = ordered.shape[1] - np.isnan(ordered).sum(1)
    axes = np.arange(2)
    return (ordered[axes, (known - 1) // 2] + ordered[axes, known // 2]) / 2


def _reduced(field: Field) -> Field:
    return field[:1, :1] if (field == field[0, 0]).all() else field


def _distinct(fields: list[Field]) -> list[Field]:
    kept: list[Field] = []
    for one in fields:
        if not any(np.array_equal(one, other) for other in kept):
            kept.append(one)
    return kept


def best(before: Pixels, now: Pixels, fields: list[Field], blocks: tuple[int, int]) -> Field:
    """(3, H, W) photos: return what has for each block the motion, of `fields`, that suits it."""
    light = np.ascontiguousarray(now[GREEN, ::_SAMPLE, ::_SAMPLE])
    old = np.empty((len(fields), *light.shape), np.uint8)
    for field, sampled in zip(fields, old, strict=True):
        sampled[...] = _sampled(before[GREEN], field)
    errors = around_blocks(block_means(apart(light, old), BLOCK // _SAMPLE))
    for field, error in zip(fields, errors, strict=True):
        if field.size > 2:
            error += _BIAS
    # What suits most blocks is taken where nothing suits better. NumPy would sum in another order.
    errors[int(torch.from_numpy(errors).mean((1, 2)).argmin())] -= _BIAS
    chosen = errors.argmin(0).ravel()
    # A motion's two numbers are copied as one.
    pairs = np.empty((len(fields), *blocks), np.int64)
    for field, pair in zip(fields, pairs, strict=True):
        pair[...] = field.view(np.int64)[..., 0]
    places = chosen * len(chosen) + np.arange(len(chosen))
    return pairs.take(places).view(np.int32).reshape(*blocks, 2)


def _sampled(plane: Pixels, field: Field) -> Pixels:
    """(H, W): fetch every `_SAMPLE`th pixel a side from where it was."""
    height, width = plane.shape
    if field.size == 2:
        x, y = (
            (np.arange(0, edge, _SAMPLE) + by).clip(0, edge - 1)
            for edge, by in zip((width, height), field[0, 0], strict=True)
        )
        return plane[y].take(x, 1)
    places = places_of(field, (height, width), slice(0, height), sample=_SAMPLE)
    flat = torch.from_numpy(plane).flatten()
    sampled: Pixels = flat.index_select(0, torch.from_numpy(places).flatten()).numpy()
    return sampled.reshape(places.shape)


def places_of(
    field: Field, size: tuple[int, int], rows: slice, *, sample: int = 1
) -> npt.NDArray[np.int32]:
    """Return where pixels of those `rows` were in a flat plane of (H, W) `size`.

    With `sample`, where each `sample`th pixel a side was. `rows` are whole blocks.
    """
    height, width = size
    step = BLOCK // sample
    field = field[rows.start // BLOCK : -(-rows.stop // BLOCK)]
    blocks = len(field), field.shape[1]
    y, x = (np.arange(0, BLOCK * count, sample, dtype=np.int32) for count in blocks)
    # Of a block, all rows move alike, and all columns: that is a fraction of all pixels.
    down = field[..., 1].repeat(step, 0) + (y + np.int32(rows.start))[:, None]
    across = field[..., 0].repeat(step, 1) + x
    down = down.clip(0, height - 1) * np.int32(width)
    places = down.repeat(step, 1).reshape(len(field), step, len(x))
    places += across.clip(0, width - 1)[:, None]
    count = -(-(rows.stop - rows.start) // sample)
    return np.ascontiguousarray(places.reshape(-1, len(x))[:count, : -(-width // sample)])


def moved(image: Pixels, places: npt.NDArray[np.int32]) -> Pixels:
    """(3, H, W) -> (3, h, W): fetch pixels from their places. Plane by plane is the fastest."""
    flat, index = torch.from_numpy(image).flatten(1), torch.from_numpy(places).flatten()
    result = np.empty((len(image), *places.shape), np.uint8)
    for plane, goal in zip(flat, torch.from_numpy(result).flatten(1), strict=True):
        torch.index_select(plane, 0, index, out=goal)
    return result
