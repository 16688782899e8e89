"""Every recipe against its formula, stated in plain torch that shares no code with ours."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.vgg import cfgs

from fast_style.baseline.optimization import fit_style
from fast_style.config import ConfigError, StyleConfig, load_config, load_recipe
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.building import build_objective
from fast_style.objective.weights import WeightsError, load_vgg

RECIPES = {
    "johnson",
    "gatys",
    "tensorflow_tutorial",
    "tencent_article",
    "keras_book",
    "hvass_tutorial",
    "keras_adam",
    "best",
}
FORMULAS = sorted(RECIPES - {"johnson", "best"})
Maps = Callable[[Tensor], dict[str, Tensor]]
Terms = tuple[Tensor, Tensor, Tensor]


def keras_maps(
    network: str, state: dict[str, Tensor], *, average: bool = False
) -> Callable[[Tensor], dict[str, Tensor]]:
    """VGG by Keras names, written with functional layers, on RGB in [0, 1], in float64."""
    parameters = [value.double() for value in state.values()]

    def maps(image: Tensor) -> dict[str, Tensor]:
        mean = torch.tensor([123.68, 116.779, 103.939]).double().reshape(3, 1, 1)
        x = image.double() * 255 - mean
        named, block, position = {}, 1, 0
        weights = iter(parameters)
        for entry in cfgs["D" if network == "vgg16" else "E"]:
            if entry == "M":
                x = F.avg_pool2d(x, 2) if average else F.max_pool2d(x, 2)
                block, position = block + 1, 0
                continue
            weight, bias = next(weights, None), next(weights, None)
            if weight is None:
                break
            position += 1
            x = F.conv2d(x, weight, bias, padding=1).relu()
            named[f"block{block}_conv{position}"] = x[0]
        return named

    return maps


def gram(features: Tensor) -> Tensor:
    rows = features.reshape(len(features), -1)
    return rows @ rows.T


def neighbours(image: Tensor) -> tuple[Tensor, Tensor]:
    pixels = image[0].double() * 255
    return pixels[:, 1:, :] - pixels[:, :-1, :], pixels[:, :, 1:] - pixels[:, :, :-1]


def keras_variation(image: Tensor) -> Tensor:
    down, across = neighbours(image)
    return ((down[:, :, :-1] ** 2 + across[:, :-1, :] ** 2) ** 1.25).sum()


def none() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def gatys(maps: Maps, image: Tensor, content: Tensor, style: Tensor) -> Terms:
    x, p, a = maps(image), maps(content), maps(style)
    contents = 0.5 * ((x["block4_conv2"] - p["block4_conv2"]) ** 2).sum()
    styles = none()
    for block in range(1, 6):
        f, s = x[f"block{block}_conv1"], a[f"block{block}_conv1"]
        n, m = f.shape[0], f.shape[1] * f.shape[2]
        styles = styles + 0.2 * ((gram(f) - gram(s)) ** 2).sum() / (4 * n**2 * m**2)
    return contents, 1000 * styles, none()


def tensorflow_tutorial(maps: Maps, image: Tensor, content: Tensor, style: Tensor) -> Terms:
    x, p, a = maps(image), maps(content), maps(style)
    contents = 1e4 * ((x["block5_conv2"] - p["block5_conv2"]) ** 2).mean()
    styles = none()
    for block in range(1, 6):
        f, s = x[f"block{block}_conv1"], a[f"block{block}_conv1"]
        positions = f.shape[1] * f.shape[2]
        difference = gram(f) / positions - gram(s) / positions
        styles = styles + 1e-2 / 5 * (difference**2).mean()
    return contents, styles, none()


def keras_style(
    x: dict[str, Tensor], a: dict[str, Tensor], layers: list[str], size: int, weight: float
) -> Tensor:
    total = none()
    for layer in layers:
        difference = gram(x[layer]) - gram(a[layer])
        total = total + weight / len(layers) * (difference**2).sum() / (4 * 3**2 * size**2)
    return total


def tencent_article(maps: Maps, image: Tensor, content: Tensor, style: Tensor) -> Terms:
    x, p, a = maps(image), maps(content), maps(style)
    layers = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
    contents = 0.025 * ((x["block2_conv2"] - p["block2_conv2"]) ** 2).sum()
    return (
        contents,
        keras_style(x, a, layers, image[0, 0].numel(), 5.0),
        1.0 * keras_variation(image),
    )


def keras_book(maps: Maps, image: Tensor, content: Tensor, style: Tensor) -> Terms:
    x, p, a = maps(image), maps(content), maps(style)
    layers = [f"block{block}_conv1" for block in range(1, 6)]
    contents = 0.025 * ((x["block5_conv2"] - p["block5_conv2"]) ** 2).sum()
    return (
        contents,
        keras_style(x, a, layers, image[0, 0].numel(), 1.0),
        1e-4 * keras_variation(image),
    )


def hvass_tutorial(maps: Maps, image: Tensor, content: Tensor, style: Tensor) -> Terms:
    x, p, a = maps(image), maps(content), maps(style)
    contents = 1.5 * ((x["block3_conv1"] - p["block3_conv1"]) ** 2).mean()
    losses = [((gram(x[layer]) - gram(a[layer])) ** 2).mean() for layer in x]
    assert len(losses) == 13
    down, across = neighbours(image)
    variation = down.abs().sum() + across.abs().sum()
    return contents, 10.0 * torch.stack(losses).mean(), 0.3 * variation


def keras_adam(maps: Maps, image: Tensor, content: Tensor, style: Tensor) -> Terms:
    x, p, a = (maps(picture)["block4_conv2"] for picture in (image, content, style))
    return ((x - p) ** 2).mean(), ((x - a) ** 2).mean(), none()


STATEMENTS: dict[str, Callable[[Maps, Tensor, Tensor, Tensor], Terms]] = {
    "gatys": gatys,
    "tensorflow_tutorial": tensorflow_tutorial,
    "tencent_article": tencent_article,
    "keras_book": keras_book,
    "hvass_tutorial": hvass_tutorial,
    "keras_adam": keras_adam,
}


def compare(recipe: str, features: VGGFeatures, size: int) -> None:
    """Compare the terms at the content image, and at another, to a relative 1e-3."""
    generator = torch.Generator().manual_seed(5)
    # Smooth enough to look like photos to the network.
    coarse = torch.rand(3, 1, 3, size // 10, size // 10, generator=generator)
    content, style, other = (F.interpolate(c, (size, size), mode="bilinear") for c in coarse)
    config = load_recipe(recipe)
    criterion = build_objective(config.loss, features, [style], content=content).criterion
    maps = keras_maps(
        config.loss.network, features.state_dict(), average=config.loss.pooling == "average"
    )
    for image in (content, other):
        losses = criterion(image, criterion.content_targets(content))
        stated = STATEMENTS[recipe](maps, image, content, style)
        for found, expected in zip((losses.content, losses.style, losses.tv), stated, strict=True):
            assert found.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-12)
    assert losses.content > 0
    assert losses.style > 0


@pytest.mark.parametrize("recipe", FORMULAS)
def test_terms_are_those_of_the_formula(recipe: str) -> None:
    loss = load_recipe(recipe).loss
    layers = [*loss.content_layers, *loss.style_layers]
    features = VGGFeatures(loss.network, layers, pooling=loss.pooling, padding=loss.padding)
    compare(recipe, features, size=48)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("recipe", FORMULAS)
def test_terms_are_those_of_the_formula_with_real_weights(recipe: str) -> None:
    loss = load_recipe(recipe).loss
    layers = [*loss.content_layers, *loss.style_layers]
    try:
        features = load_vgg(loss.network, layers, pooling=loss.pooling, padding=loss.padding)
    except WeightsError as error:
        pytest.skip(str(error))
    compare(recipe, features, size=256)


def test_all_recipes_are_there_and_in_the_packages_folder(repository: Path) -> None:
    folder = repository / "fast_style" / "baseline" / "recipes"
    assert {path.stem for path in folder.glob("*.yaml")} == RECIPES
    for recipe in RECIPES:
        assert load_recipe(recipe).name == recipe


def test_johnson_is_the_canonical_training_objective(repository: Path) -> None:
    training = load_config(repository / "configs" / "autumn.yaml")
    recipe = load_recipe("johnson")
    for name in type(training.loss).__slots__:
        assert getattr(recipe.loss, name) == getattr(training.loss, name), name
    assert recipe.style.size == StyleConfig(image=Path("style.jpg")).size
    assert recipe.optimization.method == "lbfgs"
    assert recipe.optimization.steps == 500


def test_optimisers_are_those_of_the_table() -> None:
    tutorial = load_recipe("tensorflow_tutorial").optimization
    assert (tutorial.method, tutorial.learning_rate, tutorial.steps) == ("adam", 0.02, 1000)
    assert (tutorial.beta1, tutorial.epsilon, tutorial.clip) == (0.99, 0.1, True)
    for recipe, steps, initial in (
        ("tencent_article", 200, "noise"),
        ("keras_book", 400, "content"),
    ):
        options = load_recipe(recipe).optimization
        assert (options.method, options.restart_every) == ("lbfgs", 20)
        assert (options.steps, options.initial) == (steps, initial)
    hvass = load_recipe("hvass_tutorial").optimization
    assert (hvass.method, hvass.balance, hvass.steps, hvass.clip) == ("gradient", True, 120, True)
    assert hvass.learning_rate == pytest.approx(10 / 255)
    adam = load_recipe("keras_adam").optimization
    assert (adam.method, adam.learning_rate, adam.beta1, adam.epsilon) == ("adam", 0.01, 0.99, 0.1)
    assert adam.initial == "noise"


def test_style_images_come_at_the_recipes_size() -> None:
    style, content = torch.rand(1, 3, 30, 60), torch.rand(1, 3, 40, 20)
    sizes = {
        recipe: tuple(fit_style(style, content, load_recipe(recipe)).shape[-2:])
        for recipe in ("johnson", "gatys", "keras_book", "hvass_tutorial")
    }
    assert sizes == {
        "johnson": (256, 512),
        "gatys": (20, 40),
        "keras_book": (40, 20),
        "hvass_tutorial": (150, 300),
    }


MISTAKES = [
    ("jonson", [], "unknown recipe 'jonson'; did you mean 'johnson'?"),
    ("zzz", [], "known recipes: best, gatys, hvass_tutorial"),
    ("johnson", ["loss.pooling=averge"], "did you mean 'average'?"),
    ("johnson", ["optimization.stepps=3"], "optimization.stepps: unknown key; did you mean"),
    ("keras_adam", ["style.fit=long_edge"], "needs 'content'"),
    ("hvass_tutorial", ["optimization.method=lbfgs"], "'lbfgs' cannot use it"),
    ("gatys", ["loss.strength=1"], "loss.strength: is defined for training's objective alone"),
    ("missing.yaml", [], "missing.yaml: no such config file"),
]


@pytest.mark.parametrize(("recipe", "overrides", "message"), MISTAKES)
def test_a_mistake_is_named(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, overrides=overrides)
    assert message in str(caught.value)


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optimization: {steps: 7}\n", encoding="utf-8")
    config = load_recipe(str(path), overrides=["loss.tv_weight=1e-4"])
    assert (config.name, config.optimization.steps, config.loss.tv_weight) == ("mine", 7, 1e-4)
