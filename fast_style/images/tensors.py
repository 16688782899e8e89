"""Float images and integer pixels: conversion, light, size."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

_BAND_ROWS = 256


def image_to_tensor(image: Image.Image) -> Tensor:
    """8-bit RGB Pillow image -> (3, H, W) uint8, a view of channels-last memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_float(pixels: Tensor) -> Tensor:
    """Uint8 or uint16 -> float32 in [0, 1]; what is float already stays as it is."""
    if pixels.is_floating_point():
        return pixels
    return pixels.float() / torch.iinfo(pixels.dtype).max


def from_float(image: Tensor, dtype: torch.dtype) -> Tensor:
    """[0, 1] -> uint8 or uint16: clamped, then rounded."""
    return (image.clamp(0, 1) * torch.iinfo(dtype).max).round().to(dtype)


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] -> uint8 in [0, 255]: clamped, then rounded."""
    return from_float(image, torch.uint8)


def to_linear_light(image: Tensor) -> Tensor:
    """SRGB in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def from_linear_light(light: Tensor) -> Tensor:
    """Linear light in [0, 1] -> sRGB in [0, 1] (IEC 61966-2-1)."""
    curve = 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, curve)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """(..., 3, H, W) -> (..., 3, height, width): bicubic, antialiased, clamped to [0, 1]."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    if image.device.type == "mps":  # whose PyTorch has no such kernel before 2.8
        return resize(image.cpu(), height, width).to(image.device)
    batch = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1).reshape(*image.shape[:-2], height, width)


def resize_long_edge(image: Tensor, long_edge: int) -> Tensor:
    """Resize to a long edge of `long_edge` pixels, keeping the proportions (0: as it is)."""
    return resize(image, *scaled_size(*image.shape[-2:], long_edge=long_edge))


def scaled_size(height: int, width: int, *, long_edge: int) -> tuple[int, int]:
    """Return (height, width) scaled to a long edge of `long_edge` pixels (0: as they are)."""
    if not long_edge:
        return height, width
    scale = long_edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def bands(pixels: Tensor) -> Iterator[slice]:
    """Cut rows into spans, so that floats of the whole picture are never held."""
    for first in range(0, pixels.shape[-2], _BAND_ROWS):
        yield slice(first, first + _BAND_ROWS)
