"""The baseline's recipes: what their YAML may say, and every default."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fast_style.config.loading import apply_override, build, check_strength, load_yaml
from fast_style.config.schema import ConfigError, LossConfig, number

# The baseline's recipes travel with the package.
RECIPES = Path(__file__).parents[1] / "baseline" / "recipes"


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineContentConfig:
    """The size, in pixels, at which the content image is optimised; 0 leaves a side open.

    `width` and `height` are exact, and one alone keeps the proportions. Without them `long_edge` is
    exact; without that, an image whose long edge is above `maximum` is reduced to it.
    """

    maximum: int = number(512, 0)
    long_edge: int = number(0, 0)
    width: int = number(0, 0)
    height: int = number(0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineStyleConfig:
    """The size at which the style image's statistics are taken.

    `fit` "long_edge" makes its long edge `size` pixels (0 keeps the file's size), "content_edge"
    as long as the content image's; "content" gives it the content image's width and height.
    """

    fit: Literal["long_edge", "content_edge", "content"] = "long_edge"
    size: int = number(512, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineLossConfig(LossConfig):
    """The perceptual loss with the choices of other systems, named in `losses.py` and `vgg.py`.

    The defaults are those of Johnson et al. 2016, section 4.1, in raw weights. `recompute` trades
    time for memory and changes no value.
    """

    padding: Literal["zeros", "replicate"] = "zeros"
    content_layers: Mapping[str, float] = field(default_factory=lambda: {"relu2_2": 1.0})
    style_layers: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0)
    )
    strength: float | None = number(None, 0, above=True)
    tv_weight: float = number(0.0, 0)
    pooling: Literal["max", "average"] = "max"
    style_statistic: Literal["gram", "gram_positions", "gram_pixels", "gram_sum", "features"] = (
        "gram"
    )
    content_reduction: Literal["mean", "sum"] = "mean"
    style_reduction: Literal["mean", "sum"] = "mean"
    variation: Literal["squared", "absolute", "power"] = "squared"
    recompute: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizationConfig:
    """How the image is found: from where, by which method, in how many steps.

    A step evaluates the objective and its gradient once. `learning_rate` is in units of the image
    in [0, 1]: Adam's, the gradient method's step, and the mean change in L-BFGS's first step.
    Initial noise is uniform, within half of `noise_range` of `noise_mean`.
    `restart_every` makes L-BFGS forget what it knows (0: never). `clip` keeps the image in [0, 1]
    after each step. `balance` divides each term by its own value before weighting, at each step.
    `average_decay` above 0 gives the moving average of the images. `first_scale` above 0 begins
    with `first_steps` steps at that long edge, which then grows by the square root of 2 to the full
    size with `steps` steps at each.
    """

    method: Literal["lbfgs", "adam", "gradient"] = "lbfgs"
    initial: Literal["content", "noise", "style"] = "content"
    noise_mean: float = number(0.5, 0, 1)
    noise_range: float = number(1.0, 0, 1)
    steps: int = number(500, 1)
    learning_rate: float = number(0.01, 0, above=True)
    beta1: float = number(0.9, 0, 0.999999)
    beta2: float = number(0.999, 0, 0.999999)
    epsilon: float = number(1e-8, 0)
    history: int = number(100, 1)
    restart_every: int = number(0, 0)
    clip: bool = True
    balance: bool = False
    average_decay: float = number(0.0, 0, 0.999999)
    first_scale: int = number(0, 0)
    first_steps: int = number(1000, 1)
    seed: int = number(0, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineConfig:
    """A recipe of the optimisation baseline. `name` defaults to the YAML's file name."""

    name: str
    content: BaselineContentConfig = field(default_factory=BaselineContentConfig)
    style: BaselineStyleConfig = field(default_factory=BaselineStyleConfig)
    loss: BaselineLossConfig = field(default_factory=BaselineLossConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)


def load_recipe(recipe: str, *, overrides: Sequence[str] = ()) -> BaselineConfig:
    """Read a shipped recipe by name, or a YAML file's path, into a `BaselineConfig`.

    Overrides are "dotted.key=value" and win. Raises ConfigError.
    """
    path = RECIPES / f"{recipe}.yaml"
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe)
    elif not path.is_file():
        known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
        near = difflib.get_close_matches(recipe, known, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"known recipes: {', '.join(known)}"
        raise ConfigError(f"unknown recipe {recipe!r}; {cure}")
    data = load_yaml(path)
    for override in overrides:
        apply_override(data, override)
    data.setdefault("name", path.stem)
    config = build(BaselineConfig, data, str(path))
    _check_recipe(config, str(path))
    return config


def _check_recipe(config: BaselineConfig, source: str) -> None:
    """Raise ConfigError for choices that exclude each other."""
    loss = config.loss
    if loss.style_statistic == "features" and config.style.fit != "content":
        raise ConfigError(
            f"{source}: style.fit: is {config.style.fit!r}, but feature maps can be compared at "
            "one size only: loss.style_statistic 'features' needs 'content'"
        )
    if config.optimization.balance and config.optimization.method == "lbfgs":
        raise ConfigError(
            f"{source}: optimization.balance: the balanced objective has a gradient but no value "
            "to search along: 'lbfgs' cannot use it; set optimization.method to adam or gradient"
        )
    as_in_training = ("gram", "mean", "mean")
    if loss.strength and as_in_training != (
        loss.style_statistic,
        loss.content_reduction,
        loss.style_reduction,
    ):
        raise ConfigError(
            f"{source}: loss.strength: is defined for training's objective alone; give "
            "content_weight and style_weight with another style_statistic or reduction"
        )
    check_strength(loss, source)
