"""Steadying a stylized clip: each frame is blended with the one before, moved along the motion.

A network redraws its strokes wherever the photo moves by anything but a multiple of its stride, or
carries noise. The file already says how its picture moves, block by block: the frame before is
moved along these vectors, and mixed in as much as the *photo* before, moved so, looks like the
photo now. So nothing is blended where something has come into view, the light has changed, or the
scene.

Vectors are those of an encoder, which wants few bits, not the true motion; keyframes have none, and
others may point to frames further back. So for each block the best of a few candidates is taken:
the stream's, as if over one frame or several, what most blocks do, what the block did before, and
standing still. Motion is rounded to whole pixels: interpolating anew in every frame would blur.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.images import resize, to_float, to_uint8
from fast_style.video.clips import BLOCK, Motion
from fast_style.video.matching import matched

# The part of the frame before where the photo has not changed at all, and the difference of photos
# in 1/255 at which it is down to a third of that. More of it, 0.85, is steadier still, but where
# the network draws other strokes each time, on a flat wall, the mean of many is a grey wash.
_MOST = 0.65
_TOLERANCE = 6.0
# A motion of its own must suit a block so much better, in 1/255, than what all blocks do: noise
# must not scatter the blocks of a flat wall.
_BIAS = 1.0
# An encoder may refer to frames further back: then its vectors are multiples of the motion.
_FRAMES_BACK = (1, 2, 3)
# Photos are compared at every second pixel a side.
_SAMPLE = 2
# The channel that is taken for the light: most of it is green.
_GREEN = 1
# How much a blend that has lost contrast is sharpened for it, and the most.
_SHARPENING = 1.0
_MOST_SHARPENING = 0.5

Field = npt.NDArray[np.int32]


class Steadier:
    """Steadies frames in order. Holds the last photo, in the result's size, and its steadied look.

    `state` is that of another one, from which this one goes on. With `matching`, motion is found
    by comparing photos: for clips that hold no vectors.
    """

    def __init__(self, state: Tensor | None = None, *, matching: bool = False) -> None:
        self._matching = matching
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
        sized, stylized = _sized(photo, stylized), stylized.contiguous()
        if self._look is None or self._photo is None or self._look.shape != stylized.shape:
            self._field = None
        else:
            scale = stylized.shape[-1] / photo.shape[-1], stylized.shape[-2] / photo.shape[-2]
            frames_back: tuple[int, ...] = _FRAMES_BACK
            if self._matching:
                # Of photos in the result's size, one frame apart.
                motion, scale, frames_back = matched(self._photo, sized), (1.0, 1.0), (1,)
            candidates = _candidates(motion, self._field, stylized, scale, frames_back)
            places, self._field = _best(self._photo, sized, candidates)
            weight = _weight(sized, _moved(self._photo, places))
            now = stylized.float()
            blended = now.lerp(_moved(self._look, places).float(), weight)
            # What is shown is sharpened; what the next frame is blended with is not.
            self._photo, self._look = sized, blended.round().to(torch.uint8)
            return _sharpened(blended, now)
        self._photo, self._look = sized, stylized
        return stylized


def _sized(photo: Tensor, like: Tensor) -> Tensor:
    if photo.shape[-2:] == like.shape[-2:]:
        return photo.contiguous()
    return to_uint8(resize(to_float(photo), *like.shape[-2:]))


def _candidates(
    motion: Motion | None,
    before: Field | None,
    like: Tensor,
    scale: tuple[float, float],
    frames_back: tuple[int, ...],
) -> list[Field]:
    """Return fields of whole pixels, (rows, columns, 2), to choose from: uniform ones first."""
    rows, columns = -(-like.shape[-2] // BLOCK), -(-like.shape[-1] // BLOCK)
    still = np.zeros((rows, columns, 2), np.int32)
    uniform, other = [], []
    if motion is not None and not np.isnan(motion).all():
        overall = np.nanmedian(motion.reshape(-1, 2), 0)
        filled = np.where(np.isnan(motion), overall, motion) * np.array(scale, np.float32)
        y = (np.arange(rows) * motion.shape[0] // rows)[:, None]
        x = np.arange(columns) * motion.shape[1] // columns
        for frames in frames_back:
            uniform.append(still + np.rint(overall * scale / frames).astype(np.int32))
            other.append(np.rint(filled[y, x] / frames).astype(np.int32))
    if before is not None:
        uniform.append(still + np.rint(np.median(before.reshape(-1, 2), 0)).astype(np.int32))
        other.append(before)
    return _distinct([*uniform, still, *other])


def _distinct(fields: list[Field]) -> list[Field]:
    kept: list[Field] = []
    for one in fields:
        if not any(np.array_equal(one, other) for other in kept):
            kept.append(one)
    return kept


def _best(before: Tensor, now: Tensor, candidates: list[Field]) -> tuple[Tensor, Field]:
    """Return where each pixel was, as an index into the flat image, and the field it makes."""
    height, width = now.shape[-2:]
    light = now[_GREEN, ::_SAMPLE, ::_SAMPLE].float()
    old = before[_GREEN].flatten().float()
    errors = []
    for candidate in candidates:
        places = _places(torch.from_numpy(candidate), height, width, sample=_SAMPLE)
        moved = old.index_select(0, places.flatten()).view_as(light)
        error = _by_block((light - moved).abs(), BLOCK // _SAMPLE)
        is_uniform = bool((candidate == candidate[0, 0]).all())
        errors.append(error if is_uniform else error + _BIAS)
    stacked_errors = torch.stack(errors)
    # What suits most blocks is taken where nothing suits better.
    most = int(stacked_errors.mean((1, 2)).argmin())
    stacked_errors[most] -= _BIAS
    chosen = stacked_errors.argmin(0)
    stacked = torch.from_numpy(np.stack(candidates))
    field = stacked.gather(0, chosen[None, ..., None].expand(1, -1, -1, 2))[0]
    return _places(field, height, width), field.numpy()


def _places(field: Tensor, height: int, width: int, *, sample: int = 1) -> Tensor:
    """(rows, columns, 2) of blocks -> where each pixel was, or each `sample`th one a side."""
    rows = torch.arange(0, height, sample, dtype=torch.int32)
    columns = torch.arange(0, width, sample, dtype=torch.int32)
    shifts = [_spread(field[..., i], BLOCK // sample) for i in (0, 1)]
    across, down = (shift[: len(rows), : len(columns)] for shift in shifts)
    y = (rows[:, None] + down).clamp_(0, height - 1)
    return y.mul_(width).add_((columns + across).clamp_(0, width - 1))


def _spread(blocks: Tensor, size: int) -> Tensor:
    """(rows, columns) -> (rows * size, columns * size)."""
    rows, columns = blocks.shape
    spread = blocks[:, None, :, None].expand(rows, size, columns, size)
    return spread.reshape(rows * size, columns * size)


def _moved(image: Tensor, places: Tensor) -> Tensor:
    """(3, H, W) -> (3, H, W): fetch each pixel from its place. Plane by plane is the fastest."""
    planes = [plane.flatten().index_select(0, places.flatten()) for plane in image]
    return torch.stack(planes).view_as(image)


def _by_block(difference: Tensor, size: int = BLOCK) -> Tensor:
    """(H, W) -> (rows, columns): the mean over each block and those around it."""
    blocks = F.avg_pool2d(difference[None, None], size, ceil_mode=True)
    return F.avg_pool2d(blocks, 3, stride=1, padding=1, count_include_pad=False)[0, 0]


def _around(image: Tensor) -> Tensor:
    """(H, W): the mean of 3×3 pixels. By sums of shifted images: pooling takes five times that."""
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _weight(now: Tensor, moved: Tensor) -> Tensor:
    """(3, H, W) photo, (3, H, W) photo before, moved -> (H, W): how much of the look is kept."""
    height, width = now.shape[-2:]
    difference = (now.to(torch.int16) - moved).abs_().amax(0).float()
    small = _around(F.avg_pool2d(difference[None, None], _SAMPLE, ceil_mode=True)[0, 0])
    weight = _MOST * torch.exp(-(small * small) / _TOLERANCE**2)
    return _spread(weight, _SAMPLE)[:height, :width]


def _sharpened(blended: Tensor, stylized: Tensor) -> Tensor:
    """(3, H, W) -> uint8: give each block of a blend the contrast that its strokes have alone."""
    light = blended[_GREEN]
    lost = _detail(stylized[_GREEN]) / _detail(light).clamp(min=1)
    amount = _spread(_SHARPENING * (lost - 1).clamp(0, _MOST_SHARPENING), BLOCK)
    height, width = light.shape
    sharper = amount[:height, :width] * (light - _around(light))
    return (blended + sharper).clamp_(0, 255).round_().to(torch.uint8)


def _detail(light: Tensor) -> Tensor:
    """(H, W) -> (rows, columns): how much neighbouring pixels differ, block by block."""
    across = F.pad((light[:, 1:] - light[:, :-1]).abs(), (0, 1))
    down = F.pad((light[1:] - light[:-1]).abs(), (0, 0, 0, 1))
    return _by_block(across + down)
