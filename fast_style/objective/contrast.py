"""The contrast term: a picture's colours shall spread as the style image's do.

Gram matrices are sums over a map, in which edges weigh most. A network that draws lines of the
right contrast can leave the large shapes dull, though light and dark are half of a painting. With
the image averaged over blocks of b × b pixels, m_b and C_b the mean and the covariance of its
colours, m'_b and C'_b those of the style image, and W about the inverse square root of C'_1:

* d_b = (|W (m_b - m'_b)|^2 + |W (C_b - C'_b) W|^2) / 3
* contrast loss: mean over b of 2 (sqrt(1 + d_b) - 1)

Blocks of one pixel hold strokes and shapes, larger ones shapes alone. W makes the style image's
deviation 1 in every direction, so that hues count as light and dark do, but for directions in which
it deviates by less than a quarter of its most: a trace of colour in a drawing in ink is no measure
for what a picture may have. d_b is at most 1 for a flat picture of the right colour, and may be a
hundred for a bright photo beside a dull style: the root, which leaves small values as they are,
keeps these from outvoting the rest.

The term is the project's own; Reinhard et al. 2001 match colours' moments, and Risser et al. 2017
match histograms beside Gram matrices.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# The blocks' sides: pixels, and twice the networks' stride.
_BLOCKS = (1, 8)
# What a variance counts for at least: of the largest, and for a nearly flat style image.
_LEAST_PART, _LEAST_VARIANCE = (1 / 4) ** 2, (16 / 255) ** 2


class ContrastLoss:
    """The contrast loss for one style, of one image or several with their parts of the whole.

    `styles` are (1, 3, H, W) in [0, 1]; of several the moments are averaged.
    """

    @torch.no_grad()
    def __init__(self, styles: Sequence[tuple[Tensor, float]]) -> None:
        with torch.autocast(styles[0][0].device.type, enabled=False):
            parts = [part * _color_moments(image) for image, part in styles]
            self._moments = torch.stack(parts).sum(0)
            # On the CPU: not every device has this one.
            variances, directions = torch.linalg.eigh(self._moments[0, 0, 1:].cpu())
            variances = torch.maximum(variances, _LEAST_PART * variances[-1])
            scale = variances.clamp_min(_LEAST_VARIANCE).rsqrt()
            self._whitening = ((directions * scale) @ directions.mT).to(self._moments.device)

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W), about in [0, 1] -> scalar in float32."""
        with torch.autocast(pictures.device.type, enabled=False):
            differences = (_color_moments(pictures) - self._moments) @ self._whitening
            means, covariances = differences[:, :, 0], self._whitening @ differences[:, :, 1:]
        squares = means.square().sum(2) + covariances.square().sum((2, 3))
        return 2 * ((1 + squares / pictures.shape[1]).sqrt() - 1).mean()


def _color_moments(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 2, 4, 3) in float32: by block the mean, and the covariance."""
    images = images.float()
    moments = []
    for block in _BLOCKS:
        # An image that is smaller than a block is one block that way.
        sides = [min(block, side) for side in images.shape[-2:]]
        colors = (F.avg_pool2d(images, sides) if block > 1 else images).flatten(2)
        mean = colors.mean(2, keepdim=True)
        deviations = colors - mean.detach()  # their sum is 0, and so is the mean's part in it
        covariance = deviations @ deviations.mT / colors.shape[2]
        moments.append(torch.cat((mean.mT, covariance), 1))
    return torch.stack(moments, 1)
