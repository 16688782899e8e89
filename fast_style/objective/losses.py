"""The objective: content loss, style loss and total variation at an image.

`F_l` is the feature map of layer `l` after its ReLU, (N, C, H, W), of the loss network with its
original weights (RGB in [0, 255] minus the mean inside it). With images y (stylized), c (content)
and s (style) in [0, 1]:

* content loss: sum over layers of w_l mean((F_l(y) - F_l(c))^2)    (Johnson et al. 2016, eq. 2)
* style loss: sum over layers of w_l mean((G_l(y) - G_l(s))^2)      (eq. 4, as a mean)
  with the Gram matrix G = F F^T / (C H W)                          (eq. 3)
* total variation: mean squared difference of neighbouring pixels, down plus across
* grid, contrast and frame loss: what `grid`, `contrast` and `frame` define
* stability loss, of training alone: what `stability` defines

The total is the terms' weights, content_weight and so on, times these. A weight
means nothing without these choices: scaling the loss network's input by a scales the content loss
by a^2 and the style loss by a^4. They are fixed; a change of one is a change of *Numerics* in the
CHANGELOG.

Other systems chose otherwise: sums instead of means, Gram matrices divided by something else or by
nothing, other total variations. The optimisation baseline's recipes name these; training does not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fast_style.errors import UserError
from fast_style.networks.vgg import INPUT_RANGE, VGGFeatures, canonical_layers
from fast_style.objective.contrast import ContrastLoss
from fast_style.objective.frame import frame_loss
from fast_style.objective.grid import grid_loss

Reduction = Literal["mean", "sum"]
# The Gram matrix divided by C H W; by the map's positions H W; by the image's pixels; by nothing;
# or, instead of it, the feature map itself.
StyleStatistic = Literal["gram", "gram_positions", "gram_pixels", "gram_sum", "features"]
Variation = Literal["squared", "absolute", "power"]


@dataclass(frozen=True, slots=True)
class Losses:
    """The weighted terms of the objective, scalars, as averages over the batch.

    `stability` is None where pictures were not compared with those of a disturbed photo, `grid`,
    `contrast` and `frame` where they have no weight.
    """

    content: Tensor
    style: Tensor
    tv: Tensor
    stability: Tensor | None = None
    grid: Tensor | None = None
    contrast: Tensor | None = None
    frame: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The sum of the terms: of the first three, the perceptual loss."""
        total = self.content + self.style + self.tv
        for term in (getattr(self, name) for name in OPTIONAL_TERMS):
            total = total if term is None else total + term
        return total

    @classmethod
    def mean(cls, several: Sequence["Losses"]) -> "Losses":
        """Return the terms' means over several batches of one size, detached."""
        terms = several[0].items().keys() - {"total"}
        return cls(
            **{term: torch.stack([one.items()[term] for one in several]).mean() for term in terms}
        )

    def items(self) -> dict[str, Tensor]:
        """Return every term that there is, detached, by the name under which it is reported."""
        terms = {name: getattr(self, name) for name in (*TERMS, *OPTIONAL_TERMS)}
        return {name: term.detach() for name, term in terms.items() if term is not None}


# The terms that only some runs have, of which stability is that of two pictures, and the names of
# the others and of the sum, as reports and files have them.
OPTIONAL_PICTURE_TERMS = ("grid", "contrast", "frame")
OPTIONAL_TERMS = ("stability", *OPTIONAL_PICTURE_TERMS)
TERMS = (*(term.name for term in fields(Losses) if term.name not in OPTIONAL_TERMS), "total")
# The photo's own name among the targets, which no layer has.
_PHOTO = "photo"
# Since 2.8 PyTorch's CUDA can return the sums of half-precision products, which are exact, in
# float32, so that no float32 copy of the feature maps is needed.
_SUMS_IN_FLOAT32 = hasattr(torch.ops.aten.bmm, "dtype")


def gram_matrix(features: Tensor, *, divisor: float | None = None) -> Tensor:
    """(N, C, H, W) -> (N, C, C): F F^T / (C H W) in float32 (Johnson et al. 2016, eq. 3).

    `divisor` replaces C H W. The matrix is never in half precision; its gradient is, in bf16.
    """
    n, channels, height, width = features.shape
    # Rows of pixels are the free view of a channels-last feature map.
    pixels = features.permute(0, 2, 3, 1).reshape(n, height * width, channels)
    divisor = channels * height * width if divisor is None else divisor
    with torch.autocast(features.device.type, enabled=False):
        gram: Tensor = _Gram.apply(pixels, divisor)
    return gram


class _Gram(torch.autograd.Function):
    """(N, P, C) pixels X -> (N, C, C): X^T X / divisor, float32.

    Autograd takes the two factors for different ones. The gradient X (D + D^T) / divisor needs one
    product where it makes two, and no float32 copy of X in between.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, divisor: float) -> Tensor:
        ctx.save_for_backward(pixels)
        ctx.divisor = divisor
        is_half_on_cuda = pixels.is_cuda and pixels.dtype != torch.float32
        if is_half_on_cuda and _SUMS_IN_FLOAT32 and not torch.compiler.is_compiling():
            return torch.bmm(pixels.mT, pixels, out_dtype=torch.float32) / divisor
        pixels = pixels.float()
        return pixels.transpose(1, 2) @ pixels / divisor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (pixels,) = ctx.saved_tensors
        both = (gradient + gradient.transpose(1, 2)) / ctx.divisor
        if pixels.dtype == torch.bfloat16:  # has float32's range, and the result is rounded anyway
            return pixels @ both.bfloat16(), None
        return (pixels.float() @ both).to(pixels.dtype), None


def total_variation(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> scalar: mean squared difference of neighbours, down plus across, float32.

    A checkerboard of 0 and 1 has 2. An image one pixel wide or high has no neighbours that way.
    """
    images = images.float()
    down = images[..., 1:, :] - images[..., :-1, :]
    across = images[..., 1:] - images[..., :-1]
    return sum(
        (difference.square().mean() for difference in (down, across) if difference.numel()),
        start=images.new_zeros(()),
    )


def absolute_variation(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> scalar: sum of absolute differences of neighbours, down plus across.

    Differences are of the loss network's input, in [0, 255]; the sum is an average over the batch.
    """
    images = images.float() * INPUT_RANGE
    down = images[..., 1:, :] - images[..., :-1, :]
    across = images[..., 1:] - images[..., :-1]
    return (down.abs().sum() + across.abs().sum()) / len(images)


def power_variation(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> scalar: sum of (down^2 + across^2)^1.25 over the (H-1)x(W-1) grid.

    Each channel for itself, with differences of the loss network's input, in [0, 255] (Chollet,
    Deep Learning with Python, 2017, section 8.3); the sum is an average over the batch.
    """
    images = images.float() * INPUT_RANGE
    corner = images[..., :-1, :-1]
    down = images[..., 1:, :-1] - corner
    across = images[..., :-1, 1:] - corner
    return (down.square() + across.square()).pow(1.25).sum() / len(images)


VARIATIONS: Mapping[Variation, Callable[[Tensor], Tensor]] = {
    "squared": total_variation,
    "absolute": absolute_variation,
    "power": power_variation,
}


class PerceptualLoss:
    """The objective at stylized images, for one style; complete when constructed.

    `style_image` is (1, 3, H, W) in [0, 1], at the size whose strokes are wanted, or several such
    images, of which `style_shares` are the weights (default: equal ones). Layers map names to
    weights; `features` must hold them all. Raises ValueError where it does not.

    The keywords after `style_shares` are other systems' choices, for the baseline's recipes.
    """

    def __init__(
        self,
        features: VGGFeatures,
        style_image: Tensor | Sequence[Tensor],
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float = 1.0,
        style_weight: float = 5.0,
        tv_weight: float = 0.0,
        stability_weight: float = 0.0,
        grid_weight: float = 0.0,
        contrast_weight: float = 0.0,
        frame_weight: float = 0.0,
        style_shares: Sequence[float] | None = None,
        style_statistic: StyleStatistic = "gram",
        content_reduction: Reduction = "mean",
        style_reduction: Reduction = "mean",
        variation: Variation = "squared",
    ) -> None:
        self.features = features
        self.content_layers = layers_of(features, content_layers)
        self.style_layers = layers_of(features, style_layers)
        self.content_weight = content_weight
        self.style_weight = style_weight
        self.tv_weight = tv_weight
        self.stability_weight = stability_weight
        self.grid_weight = grid_weight
        self.contrast_weight = contrast_weight
        self.frame_weight = frame_weight
        self.style_statistic = style_statistic
        self.content_reduction = content_reduction
        self.style_reduction = style_reduction
        self.variation = VARIATIONS[variation]
        styles = weighed_styles(style_image, style_shares)
        self.style_targets = self._style_targets(styles)
        self._contrast_loss = ContrastLoss(styles)

    @property
    def optional_terms(self) -> tuple[str, ...]:
        """Which of `OPTIONAL_PICTURE_TERMS` the losses have."""
        return tuple(name for name in OPTIONAL_PICTURE_TERMS if getattr(self, f"{name}_weight"))

    @torch.no_grad()
    def content_targets(self, content: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) in [0, 1] -> what pictures of these photos are compared with, each (N, ...).

        That is the feature maps of the content layers, and the photos themselves.
        """
        return {**self.features(content, self.content_layers), _PHOTO: content}

    def __call__(
        self,
        stylized: Tensor,
        content_targets: Mapping[str, Tensor],
        *,
        instability: Tensor | None = None,
    ) -> Losses:
        """Evaluate the weighted terms at (N, 3, H, W) stylized images.

        `instability` is the stability loss, a scalar, where it is known (`Disturbance`).
        """
        maps = self.features(stylized, {**self.content_layers, **self.style_layers})
        content = sum(
            (
                weight * _squared_error(maps[name], content_targets[name], self.content_reduction)
                for name, weight in self.content_layers.items()
            ),
            start=stylized.new_zeros((), dtype=torch.float32),
        )
        style = sum(
            (
                weight
                * _squared_error(
                    self._statistic(maps[name], stylized),
                    self.style_targets[name],
                    self.style_reduction,
                )
                for name, weight in self.style_layers.items()
            ),
            start=stylized.new_zeros((), dtype=torch.float32),
        )
        tv = self.variation(stylized)
        return Losses(
            content=self.content_weight * content,
            style=self.style_weight * style,
            tv=self.tv_weight * tv,
            stability=None if instability is None else self.stability_weight * instability,
            grid=self.grid_weight * grid_loss(stylized) if self.grid_weight else None,
            contrast=self.contrast_weight * self._contrast_loss(stylized)
            if self.contrast_weight
            else None,
            frame=self.frame_weight * frame_loss(stylized, content_targets[_PHOTO])
            if self.frame_weight
            else None,
        )

    @torch.no_grad()
    def _style_targets(self, images: Sequence[tuple[Tensor, float]]) -> dict[str, Tensor]:
        """Average the style images' statistics in the proportion of their shares."""
        targets: dict[str, Tensor] = {}
        for image, share in images:
            for name, features in self.features(image, self.style_layers).items():
                statistic = self._statistic(features, image) * share
                targets[name] = targets[name] + statistic if name in targets else statistic
        return targets

    def _statistic(self, features: Tensor, image: Tensor) -> Tensor:
        """(N, C, H, W) -> what the style loss compares: a Gram matrix, or the map itself."""
        if self.style_statistic == "features":
            return features
        divisors = {
            "gram": None,  # C H W
            "gram_positions": features.shape[-2] * features.shape[-1],
            "gram_pixels": image.shape[-2] * image.shape[-1],
            "gram_sum": 1,
        }
        return gram_matrix(features, divisor=divisors[self.style_statistic])


def weighed_styles(
    images: Tensor | Sequence[Tensor], shares: Sequence[float] | None
) -> list[tuple[Tensor, float]]:
    """Pair every style image with its part of the whole, an equal one without shares."""
    images = [images] if isinstance(images, Tensor) else images
    shares = shares or [1.0] * len(images)
    if len(shares) != len(images) or min(shares) < 0 or sum(shares) == 0:
        raise UserError(f"{len(images)} style images, but the shares are {list(shares)}")
    return [(image, share / sum(shares)) for image, share in zip(images, shares, strict=True)]


def layers_of(features: VGGFeatures, layers: Mapping[str, float]) -> dict[str, float]:
    """Return the layers' weights by canonical name. Raises ValueError for one not in `features`."""
    canonical = canonical_layers(features.network, layers)
    if missing := set(canonical) - set(features.layers):
        raise ValueError(f"the loss network was built without {', '.join(sorted(missing))}")
    return canonical


def _squared_error(a: Tensor, b: Tensor, reduction: Reduction) -> Tensor:
    """(N, ...) and (N or 1, ...) -> scalar: mean, or the average over the batch of the sum."""
    if a.is_cuda and reduction == "mean":  # the same in three launches less, and more backward
        return F.mse_loss(a.float(), b.float().expand_as(a))
    squared = (a.float() - b.float()).square()
    return squared.mean() if reduction == "mean" else squared.sum() / len(squared)
