"""Colors for invisible pixels, from the visible ones around them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.images.tensors import bands, from_float, to_float


def fill_transparent(pixels: Tensor, alpha: Tensor) -> None:
    """(3, H, W), in place: fill invisible pixels with the colours of visible ones around them.

    What a file holds where alpha (H, W) is 0 is arbitrary; a network would let it bleed into the
    visible part, and count it in its statistics. Push-pull (Gortler et al. 1996, section 3.4).
    """
    if not (alpha == 0).any():
        return
    halves = [_halved(pixels[:, rows], alpha[rows]) for rows in bands(pixels)]
    around = _pull(torch.cat(halves, dim=-2))
    height = pixels.shape[-2]
    for rows in bands(pixels):
        # The band's own rows of the half-size image; its last band may have one that is shared.
        part = around[:, rows.start // 2 : (min(rows.stop, height) + 1) // 2]
        filled = part.repeat_interleave(2, -1).repeat_interleave(2, -2)
        band = pixels[:, rows]
        filled = from_float(filled[:, : band.shape[-2], : band.shape[-1]], pixels.dtype)
        band.copy_(torch.where(alpha[rows] == 0, filled, band))


def _halved(pixels: Tensor, alpha: Tensor) -> Tensor:
    """(3, h, w), (h, w) -> (4, h / 2, w / 2): colors times weight, and weight, summed by fours."""
    weight = to_float(alpha)[None]
    return _pooled(torch.cat([to_float(pixels) * weight, weight]))


def _pooled(weighted: Tensor) -> Tensor:
    return F.avg_pool2d(weighted[None], 2, ceil_mode=True)[0]


def _pull(weighted: Tensor) -> Tensor:
    """(4, h, w) -> (3, h, w): colors everywhere, from coarser sizes where the weight is 0."""
    colors, weight = weighted[:3], weighted[3:]
    own = colors / weight.clamp(min=1e-12)
    if (weight > 0).all() or weight.numel() == 1:
        return own
    coarse = _pull(_pooled(weighted))
    around = F.interpolate(coarse[None], weight.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, own, around[0])
