"""What may be done with an image's pixels without PyTorch: in NumPy and Pillow.

The counterpart of images.py and looks.py, whose pictures these are to rounding.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# (H, W, 3), uint8 or uint16.
Pixels = npt.NDArray[Any]
# (H, W, 3) in [0, 1].
Floats = npt.NDArray[np.floating[Any]]

# BT.601, in which JPEG separates luma from chroma.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_float(pixels: Pixels) -> Floats:
    """Integers -> [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def like(values: Floats, pixels: Pixels) -> Pixels:
    """Return floats in [0, 1] in the type of `pixels`: clamped, then rounded."""
    top = np.iinfo(pixels.dtype).max
    return np.rint(values.clip(0, 1) * np.float32(top)).astype(pixels.dtype)


def resized(image: Floats, height: int, width: int) -> Floats:
    """(h, w, C) -> (height, width, C): bicubic, antialiased, clamped to [0, 1]."""
    return _resampled(image, height, width, Image.Resampling.BICUBIC).clip(0, 1)


def _resampled(image: Floats, height: int, width: int, kernel: Image.Resampling) -> Floats:
    # Band by band as floats: Pillow would round bytes after each axis.
    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(band.resize((width, height), kernel)) for band in bands], -1)


def to_linear_light(image: Floats) -> Floats:
    """SRGB in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def from_linear_light(light: Floats) -> Floats:
    """Linear light in [0, 1] -> sRGB in [0, 1] (IEC 61966-2-1)."""
    curve = 1.055 * light.clip(0.0031308) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, curve)


def recolored(stylized: Floats, content: Floats) -> Floats:
    """Give an image the mean and covariance of another's pixels: see `Recolor` in looks.py."""
    moments = []
    for image in (content, stylized):
        values = image.reshape(-1, 3).astype(np.float64)
        mean = values.mean(0)
        moments.append((mean, values.T @ values / len(values) - np.outer(mean, mean)))
    (target, covariance), (mean, own) = moments
    transform: npt.NDArray[Any] = _square_root(covariance) @ _square_root(own, inverse=True)
    offset = target - transform @ mean
    return stylized @ transform.T.astype(np.float32) + offset.astype(np.float32)


def _square_root(covariance: npt.NDArray[np.float64], *, inverse: bool = False) -> Any:
    values, vectors = np.linalg.eigh(covariance)
    roots = np.sqrt(values.clip(1e-6))
    return vectors @ np.diag(1 / roots if inverse else roots) @ vectors.T


def with_luma_of(stylized: Floats, content: Floats) -> Floats:
    """Return the content's colours with the luma of the stylized image."""
    return content + ((stylized - content) @ _LUMA)[..., None]


def resized_alpha(alpha: Pixels, height: int, width: int) -> Pixels:
    """(H, W) -> (height, width), as `resized`."""
    return like(resized(to_float(alpha)[..., None], height, width)[..., 0], alpha)


def filled(colors: Pixels, alpha: Pixels) -> Pixels:
    """Return colors (H, W, 3) whose invisible pixels have colors of the visible ones around them.

    See `fill_transparent` in images.py.
    """
    if (alpha > 0).all():
        return colors
    weight = to_float(alpha)[..., None]
    around = _pulled(_halved(np.concatenate([to_float(colors) * weight, weight], -1)))
    around = around.repeat(2, 0).repeat(2, 1)[: alpha.shape[0], : alpha.shape[1]]
    return np.where(alpha[..., None] == 0, like(around, colors), colors)


def _halved(weighted: Floats) -> Floats:
    """(h, w, C) -> (h / 2, w / 2, C): the means of fours, at odd edges of twos."""
    height, width, channels = weighted.shape
    even = np.pad(weighted, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    fours = even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels)
    return fours.mean((1, 3), dtype=np.float32)


def _pulled(weighted: Floats) -> Floats:
    """(h, w, 4) -> (h, w, 3): colors everywhere, from coarser sizes where the weight is 0."""
    colors, weight = weighted[..., :3], weighted[..., 3:]
    own = colors / weight.clip(1e-12)
    if (weight > 0).all() or weight.size == 1:
        return own
    coarse = _pulled(_halved(weighted))
    height, width = weight.shape[:2]
    around = _resampled(coarse, height, width, Image.Resampling.BILINEAR)
    return np.where(weight > 0, own, around)
