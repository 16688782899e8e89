"""Steadying a stylized clip: each frame is blended with the one before, moved along the motion.

A network redraws its strokes wherever the photo moves by anything but a multiple of its stride, or
carries noise. The file already says how its picture moves, block by block: the frame before is
moved along these vectors, and mixed in as much as the *photo* before, moved so, looks like the
photo now. So nothing is blended where something has come into view, the light has changed, or the
scene.

Vectors are those of an encoder, which wants few bits, not the true motion; keyframes have none, and
in a stream with B-frames they may point elsewhere than to the frame before. So for each block the
best of a few candidates is taken: the stream's, what most blocks do, what the block did before, and
standing still. Motion is rounded to whole pixels: interpolating anew in every frame would blur.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.images import resize, to_float, to_uint8
from fast_style.video.clips import BLOCK, Motion

# The part of the frame before where the photo has not changed at all, and the difference of photos
# in 1/255 at which it is down to a third of that.
_MOST = 0.85
_TOLERANCE = 6.0
# The windows, in pixels, in which photos are compared: to choose a motion, and to blend.
_WINDOW = 5
# A candidate must be this much better, in 1/255, than those before it: motion that jumps between
# equal choices tears strokes.
_BIAS = 0.25

Field = npt.NDArray[np.int64]


class Steadier:
    """Steadies frames in order. Holds the last photo, in the result's size, and its steadied look.

    `state` is that of another one, from which this one goes on.
    """

    def __init__(self, state: Tensor | None = None) -> None:
        self._photo: Tensor | None = None
        self._look: Tensor | None = None
        if state is not None:
            self._photo, self._look = state.chunk(2, -2)
        self._field: Field | None = None

    def forget_motion(self) -> None:
        """Do as one that goes on from a state does: it does not know how blocks moved before."""
        self._field = None

    @property
    def state(self) -> Tensor:
        """(3, 2 H, W) uint8: the last photo, and below it its steadied look."""
        assert self._photo is not None
        assert self._look is not None
        return torch.cat([self._photo, self._look], -2)

    @torch.inference_mode()
    def add(self, photo: Tensor, stylized: Tensor, motion: Motion | None) -> Tensor:
        """(3, h, w) photo and (3, H, W) stylized, uint8 -> (3, H, W) uint8: steady a frame."""
        sized = _sized(photo, stylized)
        if self._look is None or self._photo is None or self._look.shape != stylized.shape:
            self._field, steadied = None, stylized
        else:
            scale = stylized.shape[-1] / photo.shape[-1], stylized.shape[-2] / photo.shape[-2]
            candidates = _candidates(motion, self._field, stylized, scale)
            moved, self._field = _best(self._photo, sized, candidates)
            weight = _weight(sized, self._photo.flatten(1)[:, moved])
            before = self._look.flatten(1)[:, moved].float()
            now = stylized.float()
            steadied = (now + weight * (before - now)).round().to(torch.uint8)
        self._photo, self._look = sized, steadied
        return steadied


def _sized(photo: Tensor, like: Tensor) -> Tensor:
    if photo.shape[-2:] == like.shape[-2:]:
        return photo
    return to_uint8(resize(to_float(photo), *like.shape[-2:]))


def _candidates(
    motion: Motion | None, before: Field | None, like: Tensor, scale: tuple[float, float]
) -> list[Field]:
    """Return fields of whole pixels, (rows, columns, 2), to choose from, the likeliest first."""
    rows, columns = -(-like.shape[-2] // BLOCK), -(-like.shape[-1] // BLOCK)
    still = np.zeros((rows, columns, 2), np.int64)
    candidates = []
    if motion is not None and not np.isnan(motion).all():
        overall = np.nanmedian(motion.reshape(-1, 2), 0)
        filled = np.where(np.isnan(motion), overall, motion) * np.array(scale, np.float32)
        candidates = [still + np.rint(overall * scale).astype(np.int64)]
        y = (np.arange(rows) * motion.shape[0] // rows)[:, None]
        x = np.arange(columns) * motion.shape[1] // columns
        candidates.append(np.rint(filled[y, x]).astype(np.int64))
    if before is not None:
        overall = np.median(before.reshape(-1, 2), 0)
        candidates += [still + np.rint(overall).astype(np.int64), before]
    return _distinct([*candidates, still])


def _distinct(fields: list[Field]) -> list[Field]:
    kept: list[Field] = []
    for one in fields:
        if not any(np.array_equal(one, other) for other in kept):
            kept.append(one)
    return kept


def _best(before: Tensor, now: Tensor, candidates: list[Field]) -> tuple[Tensor, Field]:
    """Return where each pixel was, as an index into the flat image, and the field it makes."""
    height, width = now.shape[-2:]
    light = now.float().mean(0)
    old = before.float().mean(0).flatten()
    lowest: Tensor | None = None
    chosen = torch.zeros(candidates[0].shape[:2], dtype=torch.long)
    for index, candidate in enumerate(candidates):
        places = _places(torch.from_numpy(candidate), height, width)
        error = _by_block((light - old[places]).abs()) + index * _BIAS
        if lowest is None:
            lowest = error
            continue
        better = error < lowest
        chosen[better] = index
        lowest = torch.where(better, error, lowest)
    stacked = torch.from_numpy(np.stack(candidates))
    field = stacked.gather(0, chosen[None, ..., None].expand(1, -1, -1, 2))[0]
    return _places(field, height, width), field.numpy()


def _places(field: Tensor, height: int, width: int) -> Tensor:
    """(rows, columns, 2) of blocks -> (height, width): where each pixel was."""
    dense = field.repeat_interleave(BLOCK, 0)[:height].repeat_interleave(BLOCK, 1)[:, :width]
    y = (torch.arange(height)[:, None] + dense[..., 1]).clamp_(0, height - 1)
    x = (torch.arange(width) + dense[..., 0]).clamp_(0, width - 1)
    return y * width + x


def _by_block(difference: Tensor) -> Tensor:
    """(H, W) -> (rows, columns): the mean over each block and those around it."""
    blocks = F.avg_pool2d(difference[None, None], BLOCK, ceil_mode=True)
    return F.avg_pool2d(blocks, 3, stride=1, padding=1, count_include_pad=False)[0, 0]


def _weight(now: Tensor, moved: Tensor) -> Tensor:
    """(3, H, W) photo, (3, H, W) photo before, moved -> (H, W): how much of the look is kept."""
    difference = (now.float() - moved.float()).abs().amax(0)
    around = F.avg_pool2d(
        difference[None, None], _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False
    )[0, 0]
    return _MOST * torch.exp(-((around / _TOLERANCE) ** 2))
