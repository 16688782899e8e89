"""What a person may vary in a stylized image, beside its style: its colours, its strokes' size."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.images import from_float, to_float

# BT.601, in which JPEG separates luma from chroma.
_LUMA = (0.299, 0.587, 0.114)
_BAND_ROWS = 256


def with_luma_of(stylized: Tensor, content: Tensor) -> Tensor:
    """Give the content's chroma the stylized image's luma.

    Adding the same to R, G and B changes luma alone.
    """
    weights = stylized.new_tensor(_LUMA)[:, None, None]
    change = ((stylized - content) * weights).sum(-3, keepdim=True)
    return (content + change).clamp(0, 1)


def like(values: Tensor, image: Tensor) -> Tensor:
    """Give floats in [0, 1] the type of `image`."""
    return values if image.is_floating_point() else from_float(values, image.dtype)


class Recolor:
    """Linear colour transfer: gives an image the mean and covariance of another's pixels."""

    def __init__(self, content: Tensor) -> None:
        self._mean, self._covariance = _color_moments(content)

    def apply(
        self, output: Tensor, content: Tensor, blend: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """Change `output` in place, and give what `blend` makes of the photo and of that."""
        mean, covariance = _color_moments(output)
        transform = _square_root(self._covariance) @ _square_root(covariance, inverse=True)
        offset = self._mean - transform @ mean
        for first in range(0, output.shape[-2], _BAND_ROWS):
            span = slice(first, first + _BAND_ROWS)
            pixels, photo = to_float(output[:, span]), to_float(content[:, span])
            moved = torch.einsum("ij,jhw->ihw", transform.float(), pixels)
            moved = (moved + offset.float()[:, None, None]).clamp(0, 1)
            output[:, span] = like(blend(photo, moved), output)


def _color_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """(3, H, W) -> mean (3) and covariance (3, 3) of its pixels, float64."""
    total, products = torch.zeros(3).double(), torch.zeros(3, 3).double()
    for rows in image.split(_BAND_ROWS, dim=-2):
        pixels = to_float(rows).flatten(1).cpu().double()
        total += pixels.sum(1)
        products += pixels @ pixels.T
    count = image.shape[-1] * image.shape[-2]
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


def _square_root(covariance: Tensor, *, inverse: bool = False) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=1e-6).sqrt()
    return vectors @ torch.diag(1 / values if inverse else values) @ vectors.T


def upsample_along_edges(
    stylized: Tensor, content: Tensor, image: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Carry (3, h, w) up to the size of `image`, whose small version is `content`, in strips.

    A guided filter (He & Sun 2015, arXiv:1505.00996): where the small image is fitted, in each
    small window, as a linear function of the small photo's luma, the same function of the large
    photo's luma has its edges.
    """
    weights = content.new_tensor(_LUMA)[:, None, None]
    guide = (content * weights).sum(0, keepdim=True)
    slope, intercept = _fit_locally(guide, stylized)
    height, width = image.shape[-2:]
    small = stylized.shape[-2]
    for first in range(0, height, _BAND_ROWS):
        last = min(first + _BAND_ROWS, height)
        # Bilinear upsampling of these rows reads the small rows around their centres.
        ratio = small / height
        top = max(0, int((first + 0.5) * ratio - 0.5) - 1)
        bottom = min(small, int((last + 0.5) * ratio - 0.5) + 3)
        rows = torch.arange(first, last, device=stylized.device)
        y = ((rows + 0.5) * ratio - 0.5 - top).clamp(0, bottom - top - 1)
        luma = (to_float(image[:, first:last]) * weights).sum(0, keepdim=True)
        maps = torch.cat([slope, intercept])[:, top:bottom]
        across = F.interpolate(
            maps[None], (bottom - top, width), mode="bilinear", align_corners=False
        )[0]
        above = y.floor().long().clamp(max=bottom - top - 1)
        below = (above + 1).clamp(max=bottom - top - 1)
        maps = torch.lerp(across[:, above], across[:, below], (y - above)[None, :, None])
        yield first, maps[:3] * luma + maps[3:]


def _fit_locally(
    guide: Tensor, image: Tensor, *, radius: int = 4, eps: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Fit image = slope * guide + intercept by least squares in windows of 2 radius + 1 pixels."""

    def mean(x: Tensor) -> Tensor:
        window = 2 * radius + 1
        return F.avg_pool2d(x[None], window, stride=1, padding=radius, count_include_pad=False)[0]

    guide_mean, image_mean = mean(guide), mean(image)
    covariance = mean(guide * image) - guide_mean * image_mean
    variance = mean(guide * guide) - guide_mean.square()
    slope = covariance / (variance + eps)
    return mean(slope), mean(image_mean - slope * guide_mean)
