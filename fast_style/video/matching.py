"""How blocks moved from one photo to the next, found by comparing them.

For clips whose codec exports no motion vectors (HEVC, VP9, AV1), pictures, and animations. At a
quarter of the size every motion by up to `_REACH` pixels is tried, then the best is refined at half
of the size and at the whole of it. What is compared is the mean over a block and those around it,
and a motion of its own must be better by a margin than what most blocks do.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.video.clips import BLOCK, Motion

# The channel that is taken for the light: most of it is green.
_GREEN = 1
_COARSE = 4
# The farthest motion, in pixels of the coarse image: 20 of the photo's.
_REACH = 5
# What a motion must be better by, in 1/255, for each pixel (of the coarse image) that it is long,
# and than the one that is tried first: noise must not scatter the blocks of a plain wall.
_COST = 0.15
_MARGIN = 0.3


def matched(before: Tensor, now: Tensor) -> Motion:
    """(3, H, W) uint8 photos -> where each block of `now` was in the one before (`Motion`)."""
    old, new = (photo[_GREEN].float() for photo in (before, now))
    field = _COARSE * _searched(*(_small(one) for one in (old, new)))
    for step in (2, 1):
        around = [(x, y) for y in (-step, 0, step) for x in (-step, 0, step) if x or y]
        field = _best(old, new, [field, *(field + torch.tensor(shift) for shift in around)])
    # What most blocks do, and what those beside it do, may suit a block better than what it found.
    overall = field.flatten(0, 1).median(0).values.expand_as(field)
    beside = [field.roll(shift, axis) for axis in (0, 1) for shift in (1, -1)]
    field = _best(old, new, [overall, torch.zeros_like(field), field, *beside])
    return field.numpy().astype(np.float32)


def _small(light: Tensor) -> Tensor:
    return F.avg_pool2d(light[None, None], _COARSE, ceil_mode=True)


def _searched(old: Tensor, new: Tensor) -> Tensor:
    """(1, 1, h, w) small photos -> (rows, columns, 2): the best of all motions, in their pixels."""
    span = range(-_REACH, _REACH + 1)
    shifts = sorted(((x, y) for y in span for x in span), key=lambda shift: max(map(abs, shift)))
    padded = F.pad(old, (_REACH,) * 4, mode="replicate")
    height, width = new.shape[-2:]
    errors = []
    for x, y in shifts:
        top, left = _REACH + y, _REACH + x
        difference = (new - padded[..., top : top + height, left : left + width]).abs()
        errors.append(_by_block(difference, BLOCK // _COARSE) + _COST * max(abs(x), abs(y)))
    return torch.tensor(shifts)[torch.cat(errors, 1).argmin(1)[0]]


def _best(old: Tensor, new: Tensor, fields: Sequence[Tensor]) -> Tensor:
    """Return, block by block, the motion that suits best: the first, unless others are better."""
    height, width = new.shape
    light = new[::2, ::2]
    rows, columns = torch.arange(0, height, 2)[:, None], torch.arange(0, width, 2)
    errors = []
    for field in fields:
        spread = field.repeat_interleave(BLOCK // 2, 0).repeat_interleave(BLOCK // 2, 1)
        spread = spread[: light.shape[0], : light.shape[1]]
        down = (rows + spread[..., 1]).clamp_(0, height - 1)
        across = (columns + spread[..., 0]).clamp_(0, width - 1)
        moved = old.flatten().index_select(0, (down * width + across).flatten()).view_as(light)
        errors.append(_by_block((light - moved).abs()[None, None], BLOCK // 2))
    errors[0] = errors[0] - _MARGIN
    best = torch.cat(errors, 1).argmin(1)[0]
    chosen = torch.stack(list(fields)).gather(0, best[None, ..., None].expand(1, -1, -1, 2))
    return chosen[0]


def _by_block(difference: Tensor, size: int) -> Tensor:
    """(1, 1, H, W) -> (1, 1, rows, columns): the mean over each block and those around it."""
    blocks = F.avg_pool2d(difference, size, ceil_mode=True)
    return F.avg_pool2d(blocks, 3, stride=1, padding=1, count_include_pad=False)
