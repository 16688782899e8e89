"""Masks: grey pictures that say where a photo is stylized, and how much."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fast_style.images import ImageError, from_linear_light, load_image, resize, to_linear_light

# A mask that was scaled is a pixel off at most; a larger difference is another picture's mask.
_MOST_STRETCH = 0.02
_ROUNDING = 1e-5


class MaskError(ImageError):
    """A mask that cannot be used for its photo."""


def load_mask(path: str | Path) -> Tensor:
    """Read a picture's brightness, upright, as (H, W) in [0, 1]. Raises ImageError."""
    red, green, blue = load_image(path)
    return (red + green + blue) / 3


def fitted(mask: Tensor, size: Sequence[int], new_size: Sequence[int]) -> Tensor:
    """(h, w) -> (H, W) of `new_size`: a mask for an image of `size`. Raises MaskError."""
    if mask.ndim != 2 or not mask.is_floating_point():
        raise TypeError(f"a mask is a tensor (H, W) of floats in [0, 1], not {tuple(mask.shape)}")
    (height, width), (rows, columns) = size, mask.shape
    stretch = (columns * height) / (rows * width)
    pixel = 1 / min(rows, columns, height, width)
    if not abs(stretch - 1) <= max(_MOST_STRETCH, pixel):
        raise MaskError(
            f"its mask is {columns}×{rows} and the photo {width}×{height}: a mask has the photo's "
            "proportions"
        )
    if tuple(mask.shape) == tuple(new_size):
        return mask.float().clamp(0, 1)
    scaled = resize(mask.float()[None], *new_size)[0]
    # What is black or white stays so, whatever the rounding of sums.
    return torch.where(scaled < _ROUNDING, 0, torch.where(scaled > 1 - _ROUNDING, 1, scaled))


def blended(content: Tensor, stylized: Tensor, mask: Tensor) -> Tensor:
    """(3, H, W), (3, H, W), (H, W) -> (3, H, W): blended in linear light, both ends to the bit."""
    weights = mask.to(content.device)
    mixed = from_linear_light(
        torch.lerp(to_linear_light(content), to_linear_light(stylized), weights)
    )
    mixed = torch.where(weights <= 0, content, mixed)
    return torch.where(weights >= 1, stylized, mixed)
