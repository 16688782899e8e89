"""What a picture is worth beside its photo and the style image: the numbers of a report card.

With the stylized picture y, its photo x and the style image s, a feature map F and its Gram matrix
G as `losses` defines them:

* content lost, by layer: mean((F(y) - F(x))^2) over the variance of F(x). 0 is the photo, 1 a
  picture without content, whose features are everywhere the mean of the photo's; more is worse than
  none. `loss.strength` weighs content in this unit.
* style left, by layer: the distance of G(y) from G(s) over that of G(x), as mean squares. 1 is the
  photo, 0 the style. `mean` is over the layers. A style that is close to photos leaves more of its
  small distance, so models of one style image are compared, and no others.
* contrast: the standard deviation of luma and of chroma over the style image's, or over the mean
  of several in their shares.
* ring: how much brighter than the photo's the luma is in the outermost ring of pixels, less the
  same in rings 8 to 15; of 255.
* mesh: a fine pattern in flat areas (`artefacts.mesh`); of 255.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fast_style.objective.losses import PerceptualLoss, gram_matrix, weighed_styles
from fast_style.training.artefacts import mesh

# The sides that an image needs for its rings.
SMALLEST = 32

# BT.601: luma, and the differences from it that are its chroma.
_LUMA = (0.299, 0.587, 0.114)
_BLUE, _RED = 0.564, 0.713
_LEVELS = 255
_INSIDE = (8, 16)
# A style image that deviates by less than a level has no contrast to compare with.
_LEAST_DEVIATION = 1 / _LEVELS
# What a share is taken of is never 0: a photo of one colour has no content to lose.
_TINY = 1e-12


@torch.no_grad()
def measure(
    content: Tensor,
    stylized: Tensor,
    criterion: PerceptualLoss,
    style_image: Tensor | Sequence[Tensor],
    *,
    style_shares: Sequence[float] | None = None,
) -> dict[str, float]:
    """(3, H, W) photo, (3, H, W) its picture, objective, (1, 3, h, w) style image -> the measures.

    All images are in [0, 1], as is the picture once it is clamped; both sides of the photo are at
    least `SMALLEST`. The layers are the objective's, and its style statistic is the Gram matrix.
    Several style images have shares, as `PerceptualLoss` takes them.
    A contrast is left out where the style image has none.
    """
    stylized = stylized.float().clamp(0, 1)
    return {
        **_feature_measures(content[None], stylized[None], criterion),
        **_contrasts(stylized, weighed_styles(style_image, style_shares)),
        "ring": _ring(content, stylized),
        "mesh": _LEVELS * mesh(content, stylized),
    }


def card_scalars(
    content: Tensor,
    stylized: Tensor,
    criterion: PerceptualLoss,
    style_image: Tensor | Sequence[Tensor],
    *,
    style_shares: Sequence[float] | None = None,
) -> dict[str, float]:
    """(N, 3, S, S) photos and their pictures -> what a training reports of them, by tag.

    The values are medians over the photos.
    """
    each = [
        measure(photo, picture, criterion, style_image, style_shares=style_shares)
        for photo, picture in zip(content, stylized, strict=True)
    ]
    return {f"report_card/{name}": median([values[name] for values in each]) for name in each[0]}


def median(values: list[float]) -> float:
    """Return the middle value, or the mean of the two middle ones."""
    return statistics.median(values)


def worst_tenth(name: str, values: list[float]) -> float:
    """Return the value which a tenth of all, at least one, are as far off as or farther."""
    ordered = sorted(values, key=lambda value: _badness(name, value))
    return ordered[-math.ceil(len(ordered) / 10)]


def _badness(name: str, value: float) -> float:
    """Return what grows with how bad a measure's value is."""
    if name.startswith("contrast/"):
        return abs(math.log(max(value, _TINY)))
    return abs(value)


def _feature_measures(
    content: Tensor, stylized: Tensor, criterion: PerceptualLoss
) -> dict[str, float]:
    """(1, 3, H, W), (1, 3, H, W) -> content lost and style left, by layer."""
    layers = {**criterion.content_layers, **criterion.style_layers}
    before, after = (criterion.features(image, layers) for image in (content, stylized))
    lost = {
        name: _share(_distance(after[name], before[name]), _variance(before[name]))
        for name in criterion.content_layers
    }
    left = {
        name: _share(
            _distance(gram_matrix(after[name]), criterion.style_targets[name]),
            _distance(gram_matrix(before[name]), criterion.style_targets[name]),
        )
        for name in criterion.style_layers
    }
    left["mean"] = statistics.fmean(left.values())
    return _named("content_lost", lost) | _named("style_left", left)


def _contrasts(picture: Tensor, styles: Sequence[tuple[Tensor, float]]) -> dict[str, float]:
    """(3, H, W), (1, 3, h, w) and part, ... -> the picture's deviations over the styles' mean."""
    parts = [part for _, part in styles]
    each = zip(*(_deviations(style[0]) for style, _ in styles), strict=True)
    mean = [sum(p * one for p, one in zip(parts, values, strict=True)) for values in each]
    pairs = zip(("luma", "chroma"), _deviations(picture), mean, strict=True)
    return {
        f"contrast/{name}": of_picture / of_style
        for name, of_picture, of_style in pairs
        if of_style > _LEAST_DEVIATION
    }


def _deviations(image: Tensor) -> tuple[float, float]:
    """(3, H, W) -> the standard deviations of luma and, of both differences together, chroma."""
    luma = _luma(image)
    blue, red = _BLUE * (image[2] - luma), _RED * (image[0] - luma)
    chroma = blue.var(correction=0) + red.var(correction=0)
    return luma.std(correction=0).item(), chroma.sqrt().item()


def _ring(content: Tensor, stylized: Tensor) -> float:
    """(3, H, W), (3, H, W) -> the excess of luma in the outermost ring, of 255."""
    height, width = content.shape[-2:]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"an image of {width}×{height} is too small for a ring: both sides must be at least "
            f"{SMALLEST} pixels"
        )
    excess = _LEVELS * (_luma(stylized) - _luma(content))
    y, x = (torch.arange(side, device=excess.device) for side in (height, width))
    down, across = torch.minimum(y, height - 1 - y), torch.minimum(x, width - 1 - x)
    ring = torch.minimum(down[:, None], across)
    first, end = _INSIDE
    inside = excess[(ring >= first) & (ring < end)].mean()
    return (excess[ring == 0].mean() - inside).item()


def _luma(image: Tensor) -> Tensor:
    return (image * image.new_tensor(_LUMA)[:, None, None]).sum(0)


def _distance(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().item()


def _variance(maps: Tensor) -> float:
    """(1, C, H, W) -> the channels' mean variance over the positions."""
    return maps.var((2, 3), correction=0).mean().item()


def _share(part: float, whole: float) -> float:
    return part / max(whole, _TINY)


def _named(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
