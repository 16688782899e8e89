"""Steadying a stylized clip: each frame is blended with the one before, moved along the motion.

A network redraws its strokes wherever the photo moves by anything but a multiple of its stride, or
carries noise. The file already says how its picture moves, block by block: the frame before is
moved along these vectors, and mixed in as much as the *photo* before, moved so, looks like the
photo now. So nothing is blended where something has come into view, the light has changed, or the
scene.

Everything is of one thread, and beside the network of the next frame: bytes stay bytes as long as
they can, since many of them go into one instruction.
"""

import numpy as np
import torch
from torch import Tensor

from fast_style.images import resize, to_float, to_uint8
from fast_style.video.blocks import (
    Floats,
    Pixels,
    apart,
    around_blocks,
    around_pixels,
    block_means,
    differences,
    strips,
)
from fast_style.video.clips import BLOCK, Motion
from fast_style.video.matching import matched
from fast_style.video.moving import GREEN, Field, best, candidates, moved, places_of

# The part of the frame before where the photo has not changed at all, and the difference of photos
# in 1/255 at which it is down to a third of that. More of it, 0.85, is steadier still, but where
# the network draws other strokes each time, on a flat wall, the mean of many is a grey wash.
_MOST = 0.65
_TOLERANCE = 8.0
# An encoder may refer to frames further back: then its vectors are multiples of the motion.
_FRAMES_BACK = (1, 2, 3)
# How much a blend that has lost contrast is sharpened for it, and the most.
_SHARPENING = 1.0
_MOST_SHARPENING = 0.5


class Steadier:
    """Steadies frames in order. Holds the last photo, in the result's size, and its steadied look.

    `state` is that of another one, from which this one goes on. With `matching`, motion is found
    by comparing photos: for clips that hold no vectors.
    """

    def __init__(self, state: Tensor | None = None, *, matching: bool = False) -> None:
        self._matching = matching
        self._photo: Pixels | None = None
        self._look: Pixels | None = None
        if state is not None:
            self._photo, self._look = (_planes(half) for half in state.chunk(2, -2))
        self._field: Field | None = None

    def forget_motion(self) -> None:
        """Do as one that goes on from a state does: it does not know how blocks moved before."""
        self._field = None

    @property
    def state(self) -> Tensor:
        """(3, 2 H, W) uint8: the last photo, and below it its steadied look."""
        assert self._photo is not None
        assert self._look is not None
        return torch.from_numpy(np.concatenate([self._photo, self._look], -2))

    @torch.inference_mode()
    def add(self, photo: Tensor, stylized: Tensor, motion: Motion | None) -> Tensor:
        """(3, h, w) photo and (3, H, W) stylized, uint8 -> (3, H, W) uint8: steady a frame."""
        sized, look = _planes(_sized(photo, stylized)), _planes(stylized)
        if self._look is None or self._photo is None or self._look.shape != look.shape:
            self._field = None
            self._photo, self._look = sized, look
            return stylized
        scale = stylized.shape[-1] / photo.shape[-1], stylized.shape[-2] / photo.shape[-2]
        frames_back: tuple[int, ...] = _FRAMES_BACK
        if self._matching:
            # Of photos in the result's size, one frame apart.
            motion = matched(torch.from_numpy(self._photo), torch.from_numpy(sized))
            scale, frames_back = (1.0, 1.0), (1,)
        height, width = look.shape[-2:]
        blocks = -(-height // BLOCK), -(-width // BLOCK)
        fields = candidates(motion, self._field, blocks, scale, frames_back)
        self._field = best(self._photo, sized, fields, blocks)
        before, weight = _before(self._photo, self._look, sized, self._field)
        self._photo = sized
        self._look, shown = _mixed(look, before, weight)
        return torch.from_numpy(shown).permute(2, 0, 1)


def _planes(image: Tensor) -> Pixels:
    return np.ascontiguousarray(image.numpy())


def _sized(photo: Tensor, like: Tensor) -> Tensor:
    if photo.shape[-2:] == like.shape[-2:]:
        return photo
    return to_uint8(resize(to_float(photo), *like.shape[-2:]))


def _before(photo: Pixels, look: Pixels, now: Pixels, field: Field) -> tuple[Pixels, Floats]:
    """(3, H, W) photo and look before, and photo now -> (3, H, W), (H / 2, W / 2 rounded up).

    Return the look before, moved, and how much of it is kept: of 2×2 pixels the same.
    """
    _, height, width = now.shape
    there = np.empty_like(look)
    small = np.empty((-(-height // 2), -(-width // 2)), np.float32)
    for rows in strips(height, width):
        places = places_of(field, (height, width), rows)
        old = moved(photo, places)
        most = apart(now[0, rows], old[0])
        for index in (1, 2):
            np.maximum(most, apart(now[index, rows], old[index]), out=most)
        small[rows.start // 2 : -(-rows.stop // 2)] = block_means(most[None], 2)[0]
        there[:, rows] = moved(look, places)
    difference = torch.from_numpy(around_pixels(small, slice(0, len(small))))
    weight = _MOST * torch.exp(-(difference * difference) / _TOLERANCE**2)
    return there, weight.numpy()


def _mixed(now: Pixels, before: Pixels, weight: Floats) -> tuple[Pixels, Pixels]:
    """(3, H, W) looks -> (3, H, W) what the next frame is blended with, (H, W, 3) what is shown.

    The one is the blend, the other is it, sharpened: pixel by pixel, as encoders want it.
    """
    _, height, width = now.shape
    kept, shown = np.empty_like(now), np.empty((height, width, 3), np.uint8)
    light = np.empty((height, width), np.float32)
    for rows in strips(height, width):
        light[rows] = _blended(now[GREEN, rows], before[GREEN, rows], _spread(weight, rows, width))
    amount = _amount(light, now[GREEN])
    for rows in strips(height, width):
        sharper = light[rows] - around_pixels(light, rows)
        part = amount[rows.start // BLOCK : -(-rows.stop // BLOCK)]
        sharper *= part.repeat(BLOCK, 1).repeat(BLOCK, 0)[: len(sharper), :width]
        spread, rounded = _spread(weight, rows, width), np.empty_like(sharper)
        for index in range(3):
            plane = light[rows]
            if index != GREEN:
                plane = _blended(now[index, rows], before[index, rows], spread)
            kept[index, rows] = np.rint(plane, out=rounded)
            plane = np.add(plane, sharper, out=rounded)
            torch.from_numpy(plane).clamp_(0, 255)
            # Bytes are made before they are scattered: at once takes twice as long.
            shown[rows, :, index] = np.rint(plane, out=plane).astype(np.uint8)
    return kept, shown


def _spread(weight: Floats, rows: slice, width: int) -> Floats:
    """(H / 2, W / 2) -> those `rows` of (H, W)."""
    part = weight[rows.start // 2 : -(-rows.stop // 2)]
    wide = np.empty((part.shape[0], 2 * part.shape[1]), np.float32)
    wide[:, ::2] = wide[:, 1::2] = part
    return wide.repeat(2, 0)[: rows.stop - rows.start, :width]


def _blended(now: Pixels, before: Pixels, weight: Floats) -> Floats:
    """(h, W) rows of looks, and weights -> (h, W): mix in so much of the one before."""
    start, end = (torch.from_numpy(look.astype(np.float32)) for look in (now, before))
    return torch.lerp(start, end, torch.from_numpy(weight), out=start).numpy()


def _amount(blended: Floats, stylized: Pixels) -> Floats:
    """(H, W) green planes -> (rows, columns): how much sharper each block is made.

    So much that it has the contrast that its strokes have alone.
    """
    alone, mixed = around_blocks(np.stack([_detail(stylized), _detail(blended)]))
    return _SHARPENING * (alone / np.maximum(mixed, 1) - 1).clip(0, _MOST_SHARPENING)


def _detail(light: Pixels | Floats) -> Floats:
    """(H, W) -> (rows, columns): how much neighbouring pixels differ, block by block."""
    return np.concatenate(
        [block_means(differences(light, rows)[None], BLOCK)[0] for rows in strips(*light.shape)]
    )
