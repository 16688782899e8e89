"""Steadying in few lines of PyTorch: what `fast_style.video` must give, but faster."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.video.clips import BLOCK, Motion

GREEN = 1


class PlainSteadier:
    """Steadies frames of one size, in order."""

    def __init__(self) -> None:
        self.photo: Tensor | None = None
        self.look: Tensor | None = None
        self.field: np.ndarray | None = None

    def add(self, photo: Tensor, stylized: Tensor, motion: Motion | None) -> Tensor:
        photo, stylized = photo.contiguous(), stylized.contiguous()
        if self.photo is None or self.look is None:
            self.photo, self.look = photo, stylized
            return stylized
        fields = _candidates(motion, self.field, *photo.shape[-2:])
        places, self.field = _best(self.photo, photo, fields)
        weight = _weight(photo, _moved(self.photo, places))
        blended = stylized.float().lerp(_moved(self.look, places).float(), weight)
        self.photo, self.look = photo, blended.round().to(torch.uint8)
        return _sharpened(blended, stylized.float())


def _candidates(
    motion: Motion | None, before: np.ndarray | None, height: int, width: int
) -> list[np.ndarray]:
    still = np.zeros((-(-height // BLOCK), -(-width // BLOCK), 2), np.int32)
    uniform, other = [], []
    if motion is not None and not np.isnan(motion).all():
        overall = np.nanmedian(motion.reshape(-1, 2), 0)
        filled = np.where(np.isnan(motion), overall, motion)
        for frames in (1, 2, 3):
            uniform.append(still + np.rint(overall / frames).astype(np.int32))
            other.append(np.rint(filled / frames).astype(np.int32))
    if before is not None:
        uniform.append(still + np.rint(np.median(before.reshape(-1, 2), 0)).astype(np.int32))
        other.append(before)
    kept: list[np.ndarray] = []
    for one in [*uniform, still, *other]:
        if not any(np.array_equal(one, another) for another in kept):
            kept.append(one)
    return kept


def _best(before: Tensor, now: Tensor, fields: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    errors = []
    for field in fields:
        places = _places(field, *now.shape[-2:])[::2, ::2]
        difference = (now[GREEN, ::2, ::2].float() - before[GREEN].float().take(places)).abs()
        is_own = bool((field != field[0, 0]).any())
        errors.append(_by_block(difference, BLOCK // 2) + is_own)
    stacked = torch.stack(errors)
    stacked[int(stacked.mean((1, 2)).argmin())] -= 1
    chosen = stacked.argmin(0).numpy()
    field = np.take_along_axis(np.stack(fields), chosen[None, ..., None], 0)[0]
    return _places(field, *now.shape[-2:]), field


def _places(field: np.ndarray, height: int, width: int) -> Tensor:
    y, x = np.mgrid[:height, :width]
    shift = field[y // BLOCK, x // BLOCK]
    y = (y + shift[..., 1]).clip(0, height - 1)
    return torch.from_numpy(y * width + (x + shift[..., 0]).clip(0, width - 1))


def _moved(image: Tensor, places: Tensor) -> Tensor:
    return torch.stack([plane.take(places) for plane in image])


def _by_block(difference: Tensor, size: int) -> Tensor:
    blocks = F.avg_pool2d(difference[None, None], size, ceil_mode=True)
    return F.avg_pool2d(blocks, 3, stride=1, padding=1, count_include_pad=False)[0, 0]


def _around(image: Tensor) -> Tensor:
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _spread(image: Tensor, size: int) -> Tensor:
    return image.repeat_interleave(size, 0).repeat_interleave(size, 1)


def _weight(now: Tensor, before: Tensor) -> Tensor:
    difference = (now.int() - before.int()).abs().amax(0).float()
    small = _around(F.avg_pool2d(difference[None, None], 2, ceil_mode=True)[0, 0])
    weight = 0.65 * torch.exp(-(small * small) / 64.0)
    return _spread(weight, 2)[: now.shape[-2], : now.shape[-1]]


def _sharpened(blended: Tensor, stylized: Tensor) -> Tensor:
    light = blended[GREEN]
    lost = _detail(stylized[GREEN]) / _detail(light).clamp(min=1)
    amount = _spread((lost - 1).clamp(0, 0.5), BLOCK)[: light.shape[0], : light.shape[1]]
    return (blended + amount * (light - _around(light))).clamp(0, 255).round().to(torch.uint8)


def _detail(light: Tensor) -> Tensor:
    across = F.pad((light[:, 1:] - light[:, :-1]).abs(), (0, 1))
    down = F.pad((light[1:] - light[:-1]).abs(), (0, 0, 0, 1))
    return _by_block(across + down, BLOCK)
