"""What a person may vary in a stylized image, beside its style: its colours, its strokes' size."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.devices import exact_device
from fast_style.images import from_float, to_float
from fast_style.networks.streaming import Wrap

# Of rows of the photo, rows of the stylized image, and rows of the mask, if there is one.
Blend = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# BT.601, in which JPEG separates luma from chroma.
_LUMA = (0.299, 0.587, 0.114)
_BAND_ROWS = 256
# The most times that the photo's fine detail is added to strokes.
_MOST_DETAIL = 1.5


def with_luma_of(stylized: Tensor, content: Tensor) -> Tensor:
    """Return the content's colours with the luma of the stylized image.

    Adding the same to R, G and B changes luma alone.
    """
    change = ((stylized - content) * _luma_weights(stylized)).sum(-3, keepdim=True)
    return (content + change).clamp(0, 1)


def like(values: Tensor, image: Tensor) -> Tensor:
    """Return `values` in [0, 1], converted to the type of `image`."""
    return values if image.is_floating_point() else from_float(values, image.dtype)


class Recolor:
    """Linear colour transfer: an image takes the mean and covariance of `content`'s pixels."""

    def __init__(self, content: Tensor) -> None:
        self._mean, self._covariance = _color_moments(content)

    def apply(
        self, output: Tensor, content: Tensor, blend: Blend, mask: Tensor | None = None
    ) -> None:
        """Recolour `output` in place, then blend it: `blend(content, recoloured, mask)`."""
        mean, covariance = _color_moments(output)
        transform = _square_root(self._covariance) @ _square_root(covariance, inverse=True)
        offset = self._mean - transform @ mean
        transform, offset = (x.float().to(output.device) for x in (transform, offset))
        for first in range(0, output.shape[-2], _BAND_ROWS):
            span = slice(first, first + _BAND_ROWS)
            pixels, photo = to_float(output[:, span]), to_float(content[:, span])
            moved = torch.einsum("ij,jhw->ihw", transform, pixels)
            moved = (moved + offset[:, None, None]).clamp(0, 1)
            weights = None if mask is None else mask[span]
            output[:, span] = like(blend(photo, moved, weights), output)


def _luma_weights(image: Tensor) -> Tensor:
    """Return (3, 1, 1): the shares of R, G and B in luma, where `image` is."""
    # Made there it would be a constant from the host too, but one that a GPU is waited for.
    weights = torch.tensor(_LUMA, dtype=image.dtype)[:, None, None]
    return weights.to(image.device, non_blocking=True)


def _color_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """(3, H, W) -> mean (3) and covariance (3, 3) of its pixels, float64, on the CPU."""
    exact = exact_device(image.device)
    total = torch.zeros(3, device=exact, dtype=torch.float64)
    products = torch.zeros(3, 3, device=exact, dtype=torch.float64)
    for rows in image.split(_BAND_ROWS, dim=-2):
        pixels = to_float(rows).flatten(1).to(exact).double()
        total += pixels.sum(1)
        products += pixels @ pixels.T
    count = image.shape[-1] * image.shape[-2]
    mean = total.cpu() / count
    return mean, products.cpu() / count - torch.outer(mean, mean)


def _square_root(covariance: Tensor, *, inverse: bool = False) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=1e-6).sqrt()
    return vectors @ torch.diag(1 / values if inverse else values) @ vectors.T


def in_bands(image: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cut (C, H, W) into strips: the first row of each, and the strip."""
    for first in range(0, image.shape[-2], _BAND_ROWS):
        yield first, image[:, first : first + _BAND_ROWS]


def upsample_along_edges(
    stylized: Tensor, content: Tensor, image: Tensor, *, wrap: Wrap = "off"
) -> Iterator[tuple[int, Tensor]]:
    """Carry (3, h, w) up to the size of `image`, whose small version is `content`, in strips.

    Strokes are enlarged; what the small photo lacks of the large one's luma is added to them, times
    the slope with which the stylized image follows luma there. So the photo's edges are sharp, as
    in a guided filter (He & Sun 2015, arXiv:1505.00996), which alone would smooth strokes away.
    """
    around_rows, around_columns = "y" in wrap, "x" in wrap
    weights = _luma_weights(content)
    guide = (content * weights).sum(0, keepdim=True)
    slope = _slope_locally(guide, stylized, wrap=wrap).clamp(-_MOST_DETAIL, _MOST_DETAIL)
    maps = torch.cat([stylized, guide, slope])
    height, width = image.shape[-2:]
    index, column_shares = _taps(maps.shape[-1], width, range(width))
    columns = _inside(index, maps.shape[-1], around=around_columns)
    for first in range(0, height, _BAND_ROWS):
        last = min(first + _BAND_ROWS, height)
        index, shares = _taps(maps.shape[-2], height, range(first, last))
        reach = _reach(maps.shape[-2], height, range(first, last))
        rows = _inside(reach, maps.shape[-2], around=around_rows).to(maps.device, non_blocking=True)
        band = _weighted(maps.index_select(1, rows), 2, columns, column_shares)
        band = _weighted(band, 1, index - reach[0], shares)
        luma = (to_float(image[:, first:last]) * weights).sum(0, keepdim=True)
        yield first, band[:3] + band[4:] * (luma - band[3:4])


def _taps(size: int, new_size: int, lines: range) -> tuple[Tensor, Tensor]:
    """Return the four lines of an edge that each of `lines` is made of when it grows, and shares.

    There may be lines beyond the edge's ends (see `_inside`). The kernel is that of Mitchell &
    Netravali (1988), B = C = 1/3: sharper ones leave stairs on strokes of one pixel.
    """
    center = (torch.arange(lines.start, lines.stop).double() + 0.5) * (size / new_size) - 0.5
    index = center.floor()[:, None] + torch.arange(-1, 3)
    t = (center[:, None] - index).abs()
    near = (7 * t**3 - 12 * t**2 + 16 / 3) / 6
    far = (-7 / 3 * t**3 + 12 * t**2 - 20 * t + 32 / 3) / 6
    return index.long(), torch.where(t < 1, near, far)


def _reach(size: int, new_size: int, lines: range) -> Tensor:
    """Return all lines that `_taps` names, in order."""
    # In numbers of Python: those of a tensor would have to be read.
    before, after = (
        math.floor((line + 0.5) * (size / new_size) - 0.5) for line in (lines[0], lines[-1])
    )
    return torch.arange(before - 1, after + 3)


def _inside(index: Tensor, size: int, *, around: bool) -> Tensor:
    """Return lines of an edge for those beyond its ends: the outermost, or from the other end."""
    return index.remainder(size) if around else index.clamp(0, size - 1)


def _weighted(maps: Tensor, dim: int, index: Tensor, shares: Tensor) -> Tensor:
    """Sum lines of (C, h, w) along `dim`: `index` and `shares` are (new lines, taps)."""
    index = index.to(maps.device, non_blocking=True)
    shares = shares.float().to(maps.device, non_blocking=True)
    shape = (-1, 1) if dim == 1 else (-1,)
    total = maps.index_select(dim, index[:, 0]) * shares[:, 0].view(shape)
    for k in range(1, index.shape[1]):
        total.addcmul_(maps.index_select(dim, index[:, k]), shares[:, k].view(shape))
    return total


def _slope_locally(
    guide: Tensor, image: Tensor, *, wrap: Wrap, radius: int = 4, eps: float = 1e-3
) -> Tensor:
    """Fit image = slope * guide + intercept by least squares in windows of 2 radius + 1 pixels."""
    padding = 0 if "y" in wrap else radius, 0 if "x" in wrap else radius

    def mean(x: Tensor) -> Tensor:
        for dim in (dim for dim, own in zip((-2, -1), padding, strict=True) if not own):
            size = x.shape[dim]
            lines = torch.arange(-radius, size + radius, device=x.device).remainder(size)
            x = x.index_select(dim, lines)
        window = 2 * radius + 1
        return F.avg_pool2d(x[None], window, stride=1, padding=padding, count_include_pad=False)[0]

    guide_mean, image_mean = mean(guide), mean(image)
    covariance = mean(guide * image) - guide_mean * image_mean
    variance = mean(guide * guide) - guide_mean.square()
    return mean(covariance / (variance + eps))
