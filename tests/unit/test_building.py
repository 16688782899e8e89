"""The objective, built in one place."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fast_style.config import BaselineLossConfig, ConfigError, LossConfig
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective import losses
from fast_style.objective.building import build_features, build_objective

LAYERS = {"content_layers": {"block2_conv2": 1.0}, "style_layers": {"relu1_2": 1.0}}


def test_a_strength_becomes_raw_weights_that_give_the_very_same_objective() -> None:
    features = VGGFeatures("vgg16", ["relu1_2", "relu2_2"])
    style, content = torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss = LossConfig(**LAYERS, strength=2.0, tv_weight=0.5)
    measured = build_objective(loss, features, style, content=content)
    assert measured.raw.strength is None
    assert list(measured.raw.content_layers) == ["relu2_2"]
    again = build_objective(measured.raw, features, style)
    assert again.raw == measured.raw
    targets = measured.criterion.content_targets(content)
    one, two = (o.criterion(content.flip(0), targets).items() for o in (measured, again))
    assert one == two


def test_a_baselines_choices_reach_the_loss() -> None:
    features = VGGFeatures("vgg16", ["relu1_2", "relu2_2"])
    images = torch.rand(1, 3, 32, 32)
    loss = BaselineLossConfig(**LAYERS, style_statistic="gram_sum", content_reduction="sum")
    criterion = build_objective(loss, features, [images]).criterion
    assert criterion.style_statistic == "gram_sum"
    assert criterion.content_reduction == "sum"


@pytest.mark.weights
def test_a_baselines_loss_network_has_its_padding_and_pooling() -> None:
    loss = BaselineLossConfig(**LAYERS, padding="replicate", pooling="average")
    features = build_features(loss, torch.device("cpu"))
    assert features.features[0].padding_mode == "replicate"
    assert any(isinstance(module, torch.nn.AvgPool2d) for module in features.features)


@pytest.mark.parametrize("kind", [LossConfig, BaselineLossConfig])
def test_a_layer_that_is_not_there_is_told_before_weights_are_looked_for(
    kind: type[LossConfig], tmp_path: Path
) -> None:
    loss = dataclasses.replace(kind(weights=tmp_path / "gone.pth"), style_layers={"relu9_9": 1.0})
    with pytest.raises(ConfigError, match="loss: vgg16 has no layer 'relu9_9'"):
        build_features(loss, torch.device("cpu"))


def test_the_terms_are_named_as_the_fields_of_the_losses() -> None:
    assert losses.TERMS == ("content", "style", "tv", "total")
