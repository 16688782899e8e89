"""The contrast term: a picture's colours shall spread as far as the style image's do.

Gram matrices are sums over a map, in which edges weigh most. A network that draws lines of the
right contrast can leave the large shapes dull, though light and dark are half of a painting. With
the image averaged over blocks of b × b pixels, m_b and C_b the mean and the covariance of its
colours, m'_b and C'_b those of the style image, and v the Frobenius norm of C'_1:

* contrast loss: mean over b of |m_b - m'_b|^2 / v + |C_b - C'_b|^2 / v^2

Blocks of one pixel hold strokes and shapes, larger ones shapes alone. A flat picture of the right
colour has between 1/2 and 1. The term is the project's own; Reinhard et al. 2001 match
colours' moments, and Risser et al. 2017 match histograms beside Gram matrices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# The blocks' sides: pixels, and twice the networks' stride.
_BLOCKS = (1, 8)
# A style image that deviates by less than 16 levels, of 255, is taken to deviate by these: a photo
# on the way to a flat style would be lost in a large number.
_LEAST_VARIANCE = (16 / 255) ** 2


def color_moments(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 2, 4, 3) in float32: by block the mean, and the covariance."""
    images = images.float()
    moments = []
    for block in _BLOCKS:
        # An image that is smaller than a block is one block that way.
        sides = [min(block, side) for side in images.shape[-2:]]
        colors = F.avg_pool2d(images, sides).flatten(2)
        mean = colors.mean(2, keepdim=True)
        with torch.autocast(images.device.type, enabled=False):
            covariance = (colors - mean) @ (colors - mean).mT / colors.shape[2]
        moments.append(torch.cat((mean.mT, covariance), 1))
    return torch.stack(moments, 1)


def contrast_loss(pictures: Tensor, style: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1], (1, 2, 4, 3) moments of the style -> scalar in float32."""
    squares = (color_moments(pictures) - style).square().sum(3)
    variance = style[0, 0, 1:].square().sum().sqrt().clamp_min(_LEAST_VARIANCE)
    return (squares[:, :, 0] / variance + squares[:, :, 1:].sum(2) / variance**2).mean()
