"""Where the objective is built: for training, the baseline, evaluation and sweep alike.

Weights travel one way: from a config to the raw ones that its `strength` comes to, to the loss.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor

from fast_style.config import ConfigError, LossConfig
from fast_style.networks.vgg import VGGFeatures, canonical_layers
from fast_style.objective.losses import PerceptualLoss
from fast_style.objective.strength import LossT, with_raw_weights
from fast_style.objective.weights import load_vgg

# Other systems' choices: a key here is passed on from every loss config that has it.
_FEATURES_VARIANTS = ("pooling", "padding", "recompute")
_LOSS_VARIANTS = ("style_statistic", "content_reduction", "style_reduction", "variation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective(Generic[LossT]):
    """The objective for one style, and the same objective as a config with raw weights."""

    criterion: PerceptualLoss
    raw: LossT


def build_features(loss: LossConfig, device: torch.device) -> VGGFeatures:
    """Build the loss network with the layers that `loss` names and real weights, on `device`.

    Raises ConfigError for layers that do not exist, and WeightsError.
    """
    try:
        layers = [
            name
            for weights in (loss.content_layers, loss.style_layers)
            for name in canonical_layers(loss.network, weights)
        ]
    except ValueError as error:
        raise ConfigError(f"loss: {error}") from None
    variants = _present(loss, _FEATURES_VARIANTS)
    return load_vgg(loss.network, layers, path=loss.weights, **variants).to(device)


def build_objective(
    loss: LossT,
    features: VGGFeatures,
    styles: Tensor | Sequence[Tensor],
    *,
    content: Tensor | None = None,
    shares: Sequence[float] | None = None,
) -> Objective[LossT]:
    """Build the objective that `loss` describes, on the device of `features` and `styles`.

    `content`, (N, 3, H, W) typical photos, is what `loss.strength` is measured at; style images
    and shares are as `PerceptualLoss` takes them. Raises ValueError for images that are too small.
    """
    raw = with_raw_weights(loss, features, styles, content, style_shares=shares)
    criterion = PerceptualLoss(
        features,
        styles,
        content_layers=raw.content_layers,
        style_layers=raw.style_layers,
        content_weight=raw.content_weight,
        style_weight=raw.style_weight,
        tv_weight=raw.tv_weight,
        stability_weight=raw.stability_weight,
        grid_weight=raw.grid_weight,
        contrast_weight=raw.contrast_weight,
        frame_weight=raw.frame_weight,
        style_shares=shares,
        **_present(raw, _LOSS_VARIANTS),
    )
    raw = dataclasses.replace(
        raw,
        content_layers=canonical_layers(raw.network, raw.content_layers),
        style_layers=canonical_layers(raw.network, raw.style_layers),
    )
    return Objective(criterion=criterion, raw=raw)


def _present(loss: LossConfig, names: Sequence[str]) -> Mapping[str, Any]:
    return {name: getattr(loss, name) for name in names if hasattr(loss, name)}
