"""The baseline's recipes: what their YAML may say, and every default."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fast_style.config.loading import apply_override, build, check_strength, load_yaml
from fast_style.config.schema import ConfigError, LossConfig, key, number

# The baseline's recipes travel with the package.
RECIPES = Path(__file__).parents[1] / "baseline" / "recipes"

_PAPER = "Johnson et al. 2016, section 4.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineContentConfig:
    """The size, in pixels, at which the content image is optimised.

    `width` and `height` win over `long_edge`, and that over `maximum`.
    """

    maximum: int = number(
        512, 0, doc="Long edge to which a larger image is reduced; 0 is no limit."
    )
    long_edge: int = number(0, 0, doc="Exact long edge; 0 leaves it to `maximum`.")
    width: int = number(
        0, 0, doc="Exact width; alone, it keeps the proportions. 0 does not prescribe it."
    )
    height: int = number(
        0, 0, doc="Exact height; alone, it keeps the proportions. 0 does not prescribe it."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineStyleConfig:
    """The size at which the style image's statistics are taken."""

    fit: Literal["long_edge", "content_edge", "content"] = key(
        "long_edge",
        doc="long_edge makes the style image's long edge `size` pixels, content_edge as long as "
        "the content image's; content gives it the content image's width and height.",
    )
    size: int = number(
        512, 0, doc="Long edge in pixels for `fit: long_edge`; 0 keeps the file's size."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineLossConfig(LossConfig):
    """The perceptual loss with the choices of other systems, named in `losses.py` and `vgg.py`.

    The defaults are those of Johnson et al. 2016, section 4.1, in raw weights.
    """

    padding: Literal["zeros", "replicate"] = key(
        "zeros",
        doc="What the loss network's first convolution sees beyond the border.",
        source="VGG's own; replicate is crowsonkb/style-transfer-pytorch's",
    )
    content_layers: Mapping[str, float] = key(
        factory=lambda: {"relu2_2": 1.0},
        doc="Layers of the content loss, as a list or with weights.",
        source=_PAPER,
    )
    style_layers: Mapping[str, float] = key(
        factory=lambda: dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0),
        doc="Layers of the style loss, as a list or with weights.",
        source=_PAPER,
    )
    strength: float | None = number(
        None,
        0,
        above=True,
        doc="As in training, and for training's objective alone; null uses the raw weights.",
    )
    tv_weight: float = number(0.0, 0, doc="Weight of the total variation.")
    stability_weight: float = number(
        0.0, 0, doc="Of training alone: 0, since one picture has no other to be steady with."
    )
    grid_weight: float = number(0.0, 0, doc="Weight of training's grid loss.")
    contrast_weight: float = number(0.0, 0, doc="Weight of training's contrast loss.")
    frame_weight: float = number(0.0, 0, doc="Weight of training's frame loss.")
    pooling: Literal["max", "average"] = key(
        "max",
        doc="How the loss network pools.",
        source="VGG's own; average is Gatys et al. 2016, section 2",
    )
    style_statistic: Literal["gram", "gram_positions", "gram_pixels", "gram_sum", "features"] = key(
        "gram",
        doc="What of the feature maps the style loss compares: Gram matrices divided by C H W, by "
        "the map's positions H W, by the image's pixels or by nothing, or the maps themselves.",
        source="Johnson et al. 2016, equation 3",
    )
    content_reduction: Literal["mean", "sum"] = key(
        "mean",
        doc="Mean or sum of the squared differences of feature maps.",
        source="Johnson et al. 2016, equation 2; sum is Gatys et al. 2016, equation 1",
    )
    style_reduction: Literal["mean", "sum"] = key(
        "mean",
        doc="Mean or sum of the squared differences of Gram matrices.",
        source="sum is the papers', which a mean differs from by a factor for each layer",
    )
    variation: Literal["squared", "absolute", "power"] = key(
        "squared",
        doc="Total variation: the mean square of neighbours' differences, the sum of their "
        "absolute values, or the sum of squares to the power of 1.25.",
        source="absolute is Pedersen's tutorial, power is Chollet's book",
    )
    recompute: bool = key(
        False,
        doc="Compute feature maps again in the backward pass: less memory, more time, same values.",
        source='docs/measurements.md, "Memory"',
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizationConfig:
    """How the image is found: from where, by which method, in how many steps.

    A step evaluates the objective and its gradient once.
    """

    method: Literal["lbfgs", "adam", "gradient"] = key(
        "lbfgs",
        doc="L-BFGS with a line search and clipping, Adam, or steps along the normalised gradient.",
        source=_PAPER,
    )
    initial: Literal["content", "noise", "style"] = key(
        "content",
        doc="Image to begin with.",
        source='the papers have noise, from which it takes far longer: docs/method.md, "Recipes"',
    )
    noise_mean: float = number(0.5, 0, 1, doc="Mean of the uniform initial noise.")
    noise_range: float = number(
        1.0, 0, 1, doc="Width of the uniform initial noise, half of it on each side of its mean."
    )
    steps: int = number(500, 1, doc="Steps, at each scale after the first one.", source=_PAPER)
    learning_rate: float = number(
        0.01,
        0,
        above=True,
        doc="In units of the image in [0, 1]: Adam's, the length of the gradient method's step, "
        "and the mean change in L-BFGS's first step.",
    )
    beta1: float = number(
        0.9, 0, 0.999999, doc="Adam's decay of the mean gradient.", source="Kingma & Ba 2015"
    )
    beta2: float = number(
        0.999, 0, 0.999999, doc="Adam's decay of the mean square.", source="Kingma & Ba 2015"
    )
    epsilon: float = number(
        1e-8,
        0,
        doc="Adam's epsilon, in TensorFlow's place: before the correction of the bias.",
        source="Kingma & Ba 2015",
    )
    history: int = number(100, 1, doc="Updates that L-BFGS remembers.", source="torch.optim.LBFGS")
    restart_every: int = number(
        0, 0, doc="Steps after which L-BFGS forgets what it remembers (0: never)."
    )
    clip: bool = key(True, doc="Keep the image in [0, 1] after each step.", source=_PAPER)
    balance: bool = key(
        False,
        doc="Divide each term by its own value before weighting, at each step.",
        source="Pedersen's tutorial has it",
    )
    average_decay: float = number(
        0.0,
        0,
        0.999999,
        doc="Decay of the moving average of the images, which is the result then (0: no average).",
        source="crowsonkb/style-transfer-pytorch has 0.99",
    )
    first_scale: int = number(
        0,
        0,
        doc="Long edge to begin with, in pixels; it grows by the square root of 2 up to the full "
        "size. 0 has the full size alone.",
        source="crowsonkb/style-transfer-pytorch has 128",
    )
    first_steps: int = number(
        1000,
        1,
        doc="Steps at `first_scale`.",
        source="crowsonkb/style-transfer-pytorch",
    )
    seed: int = number(0, 0, 2**63 - 1, doc="What fixes the initial noise.")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineConfig:
    """A recipe of the optimisation baseline."""

    name: str = key(doc="Name of the recipe; without it the YAML's file name.")
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
    if loss.stability_weight:
        raise ConfigError(
            f"{source}: loss.stability_weight: is of training alone, since one picture has no "
            "other to be steady with: leave it out"
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
