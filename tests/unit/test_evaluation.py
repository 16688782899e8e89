import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fast_style.checkpoints.files import Model
from fast_style.config import ConfigError
from fast_style.evaluation import (
    Certificate,
    ImageResult,
    certify,
    draw_plot,
    format_table,
    training_objective,
)
from fast_style.images import load_image
from fast_style.networks.transformer import TransformerNet

TinyData = Callable[..., dict[str, Any]]


def result(network: float, *baseline: float) -> ImageResult:
    return ImageResult(image="a.png", content=10, network=network, baseline=baseline)


@pytest.fixture
def certificate() -> Certificate:
    return Certificate(
        size=256,
        initial="content",
        device="cpu",
        images=(result(5, 10, 6, 5, 1), result(1, 10, 6, 5, 3), result(20, 10, 6, 5, 2)),
        network_seconds=0.1,
        step_seconds=0.5,
    )


def test_the_network_is_worth_the_first_step_at_or_below_it(certificate: Certificate) -> None:
    assert [image.steps for image in certificate.images] == [2, math.inf, 0]
    assert certificate.steps == 2
    assert "the network = >3 steps" in str(certificate.images[1])


def test_means_are_over_the_images_and_speedups_over_the_networks_time(
    certificate: Certificate,
) -> None:
    assert certificate.baseline == [10, 6, 5, 2]
    assert certificate.network == pytest.approx(26 / 3)
    assert certificate.speedup(100) == pytest.approx(500)
    assert certificate.summary()["speedup"] == {"100": pytest.approx(500), "500": 2500}


def test_plain_data_has_no_infinity(certificate: Certificate) -> None:
    per_image = certificate.to_dict()["per_image"]
    assert [image["steps"] for image in per_image] == [2, None, 0]


def test_the_table_says_what_its_columns_are(certificate: Certificate) -> None:
    lines = format_table([certificate, certificate]).splitlines()
    assert lines[0].split("  ")[-1].strip() == "x500"
    assert lines[1] == lines[2]
    assert lines[1].split() == (
        "256 content 3 10 8.667 2 2 0 to >3 0.1000 0.5000 500 2500".split()  # noqa: SIM905
    )
    assert {len(line) for line in lines[:3]} == {len(lines[0])}


def test_the_plot_has_a_colour_for_each_size(certificate: Certificate) -> None:
    plots = [draw_plot([certificate] * count) for count in (1, 2)]
    colours = [
        {colour for _, colour in plot.getcolors(plot.width * plot.height) or ()} for plot in plots
    ]
    assert (31, 95, 168) in colours[0]
    assert (194, 71, 29) in colours[1] - colours[0]


@pytest.fixture
def model(tiny_data: TinyData, tiny_network: TransformerNet) -> Model:
    return Model(network=tiny_network, metadata={"config": tiny_data()})


def test_a_certificate_holds_the_training_objective(model: Model, photos: Path) -> None:
    criterion = training_objective(model, device="cpu")
    paths = sorted(photos.iterdir())[:2]
    heard: list[ImageResult] = []
    certificate = certify(
        model.network, criterion, paths, size=32, steps=6, device="cpu", on_image=heard.append
    )
    assert list(certificate.images) == heard
    assert [image.image for image in heard] == [path.name for path in paths]
    content = load_image(paths[0])[None, :, :, 4:44]  # the central square of 48 x 40
    content = torch.nn.functional.interpolate(content, (32, 32), mode="bicubic", antialias=True)
    targets = criterion.content_targets(content.clamp(0, 1))
    at_content = criterion(content.clamp(0, 1), targets).total.item()
    assert heard[0].baseline[0] == heard[0].content == pytest.approx(at_content, rel=1e-2)
    at_network = criterion(model.network(content).clamp(0, 1), targets).total.item()
    assert heard[0].network == pytest.approx(at_network, rel=1e-2)
    for image in heard:
        assert len(image.baseline) == 7
        assert list(image.baseline) == sorted(image.baseline, reverse=True)
        assert image.baseline[-1] < image.baseline[0]


def test_the_baseline_can_start_at_noise_as_the_papers_does(model: Model, photos: Path) -> None:
    criterion = training_objective(model, device="cpu")
    paths = sorted(photos.iterdir())[:1]
    from_content, from_noise = (
        certify(model.network, criterion, paths, size=32, initial=initial, steps=3, device="cpu")
        for initial in ("content", "noise")
    )
    assert from_noise.content == pytest.approx(from_content.content)
    assert from_noise.network == pytest.approx(from_content.network)
    assert from_noise.baseline[0] != pytest.approx(from_noise.content, rel=1e-2)
    again = certify(
        model.network, criterion, paths, size=32, initial="noise", steps=3, device="cpu"
    )
    assert again.baseline == pytest.approx(from_noise.baseline)
    assert from_noise.summary()["initial"] == "noise"


def test_a_style_image_that_moved_can_be_named(
    tiny_data: TinyData, tiny_network: TransformerNet, style_file: Path
) -> None:
    data = tiny_data({"style.image": "gone.png"})
    model = Model(network=tiny_network, metadata={"config": data})
    with pytest.raises(ValueError, match=r"gone\.png: no such image file"):
        training_objective(model, device="cpu")
    criterion = training_objective(model, style_image=style_file, device="cpu")
    assert set(criterion.style_targets) == {"relu1_2", "relu2_2"}


def test_a_model_without_its_config_cannot_be_certified(tiny_network: TransformerNet) -> None:
    with pytest.raises(ConfigError, match="holds no config"):
        training_objective(Model(network=tiny_network))
