"""`loss.strength`: the weights with which one number looks the same for every style."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fast_style.config import LossConfig
from fast_style.errors import UserError
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import PerceptualLoss, gram_matrix, layers_of

LossT = TypeVar("LossT", bound=LossConfig)

# The ratio of the style term to the content term at strength 1, both as shares of what they can be:
# about there a photo is rebuilt in the style's strokes and still recognised (docs/measurements.md).
_BALANCE = 20.0


@torch.no_grad()
def balanced_layers(
    features: VGGFeatures,
    style_image: Tensor | Sequence[Tensor],
    content: Tensor,
    *,
    content_layers: Mapping[str, float],
    style_layers: Mapping[str, float],
    strength: float,
    style_shares: Sequence[float] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Weigh layers so that one `strength` looks the same for every style, loss network and size.

    `content` is (N, 3, H, W), typical photos; style images and shares are as `PerceptualLoss` takes
    them. The content loss of a layer is divided by the variance of its feature maps (its value for
    a blank picture), the style loss of a layer by its value at the unstylized photos; the weights
    in `content_layers` and `style_layers` then divide each term among its layers. The layers that
    are returned are for a `PerceptualLoss` with content_weight and style_weight 1.
    Raises ValueError where a divisor is 0.
    """
    content_layers = layers_of(features, content_layers)
    style_layers = layers_of(features, style_layers)
    for kind, layers in (("content", content_layers), ("style", style_layers)):
        if not sum(layers.values()):
            raise UserError(
                f"strength cannot be measured: the weights of {kind}_layers are all 0; give "
                "content_weight and style_weight instead"
            )
    targets = PerceptualLoss(
        features,
        style_image,
        content_layers={},
        style_layers=style_layers,
        style_shares=style_shares,
    ).style_targets
    values = dict.fromkeys([*content_layers, *style_layers], 0.0)
    spreads = dict(values)
    for image in content.split(1):
        maps = features(image, values)
        for name in content_layers:
            deviation = maps[name] - maps[name].mean((2, 3), keepdim=True)
            spreads[name] += deviation.square().mean().item() / len(content)
        for name in style_layers:
            error = (gram_matrix(maps[name]) - targets[name]).square().mean().item()
            values[name] += error / len(content)
    empty = [name for name in content_layers if not spreads[name]]
    empty += [name for name in style_layers if not values[name]]
    if empty:
        raise UserError(
            f"strength cannot be measured at {', '.join(empty)}: the content image is flat, or has "
            "the very style of the style image; give content_weight and style_weight instead"
        )
    return (
        {
            name: weight / sum(content_layers.values()) / spreads[name]
            for name, weight in content_layers.items()
        },
        {
            name: strength * _BALANCE * weight / sum(style_layers.values()) / values[name]
            for name, weight in style_layers.items()
        },
    )


def with_raw_weights(
    loss: LossT,
    features: VGGFeatures,
    style_image: Tensor | Sequence[Tensor],
    content: Tensor | None,
    *,
    style_shares: Sequence[float] | None = None,
) -> LossT:
    """Return the loss's config with the raw weights that its `strength` comes to, if it has one.

    `balanced_layers` measures them at `content`, (N, 3, H, W) typical photos; the contrast loss,
    which needs no measuring, follows the strength. Raises ValueError.
    """
    if loss.strength is None:
        return loss
    if content is None:
        raise UserError("loss.strength needs content images to be measured at")
    content_layers, style_layers = balanced_layers(
        features,
        style_image,
        content,
        content_layers=loss.content_layers,
        style_layers=loss.style_layers,
        strength=loss.strength,
        style_shares=style_shares,
    )
    return dataclasses.replace(
        loss,
        strength=None,
        content_layers=content_layers,
        style_layers=style_layers,
        content_weight=1.0,
        style_weight=1.0,
        contrast_weight=loss.strength * loss.contrast_weight,
    )
