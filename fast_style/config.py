"""What a YAML may say: frozen dataclasses with every default, and the loader that checks them.

A YAML holds what differs from the defaults. Every mistake in it is a `ConfigError` that names the
file, the dotted key, the value, and what would be right.
"""

import dataclasses
import difflib
import importlib.util
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from fast_style.devices import Precision
from fast_style.errors import UserError

T = TypeVar("T")

# The baseline's recipes travel with the package; configs/baseline in the repository is this folder.
RECIPES = Path(__file__).parent / "recipes"


class ConfigError(UserError):
    """A config names something unknown, mistyped, impossible or missing."""


def _number(default: Any, minimum: float, maximum: float = math.inf, *, above: bool = False) -> Any:
    """Give a field with a default and bounds; `above` excludes the minimum itself."""
    return field(default=default, metadata={"bounds": (minimum, maximum, above)})


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleConfig:
    """The style image and the size, in pixels of its long edge, at which its statistics are taken.

    `size` sets the size of the strokes: smaller images give finer ones. 0 keeps the file's size.
    """

    image: Path
    size: int = _number(512, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The content images: folders or files, in any layout, and how crops are taken from them.

    A crop is a random square whose side is between `min_crop` and 1 times the image's short side.
    Without `validation`, `held_out` images of `train` are kept for it (at most a fifth of them).
    `cache` is a folder for the decoded images (`cache.py`): loading is faster, no pixel differs.
    `description` is what a model card says of them, and of their licence: whose photos, how many.
    """

    train: tuple[Path, ...]
    description: str = ""
    validation: tuple[Path, ...] = ()
    held_out: int = _number(16, 1)
    min_crop: float = _number(0.75, 0, 1, above=True)
    flip: bool = True
    workers: int = _number(2, 0, 256)
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The perceptual loss: loss network, layers with their weights, and the terms' weights.

    The weights mean what `losses.py` defines. `strength`, a number around 1, takes the place of
    `content_weight` and `style_weight`: it means the same for every style, loss network and size
    (`losses.balanced_layers`). `weights` is a file with the loss network's weights; without it they
    are looked for (see `weights.py`).
    """

    network: Literal["vgg16", "vgg19"] = "vgg16"
    weights: Path | None = None
    content_layers: Mapping[str, float] = field(default_factory=lambda: {"relu2_2": 1.0})
    style_layers: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0)
    )
    strength: float | None = _number(None, 0, above=True)
    content_weight: float = _number(1.0, 0)
    style_weight: float = _number(5.0, 0)
    tv_weight: float = _number(0.0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The transformer network: channels at full resolution and number of residual blocks."""

    width: int = _number(32, 1, 1024)
    num_residual_blocks: int = _number(5, 0, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One run: its length, its optimiser, and how often it reports.

    `schedule` "cosine" holds the learning rate for the first two thirds of the steps, then lowers
    it along a half cosine to a tenth. `ema_decay` 0 saves the last weights instead of an average.
    `init_from` begins with the weights of a model, by path or name, instead of random ones: another
    style's are many times closer to this one's than those are. `batch_size` is that of all
    processes together. The first `first_share` of the steps see crops of `first_size` pixels, which
    teach a new network sooner, and the others `image_size`, or one of `mixed_sizes` each;
    validation is at `image_size`. `compile` "auto" compiles the networks on CUDA, for long runs.
    """

    steps: int = _number(40_000, 1)
    init_from: Path | None = None
    batch_size: int = _number(4, 1)
    image_size: int = _number(256, 32)
    mixed_sizes: tuple[int, ...] = _number((), 32)
    first_size: int = _number(128, 32)
    first_share: float = _number(0.0, 0, 1)
    learning_rate: float = _number(1e-3, 0, above=True)
    schedule: Literal["constant", "cosine"] = "cosine"
    max_gradient_norm: float | None = _number(None, 0, above=True)
    ema_decay: float = _number(0.999, 0, 0.999999)
    precision: Precision = "auto"
    compile: Literal["auto", True, False] = "auto"
    seed: int = _number(0, 0, 2**63 - 1)
    log_every: int = _number(10, 1)
    validate_every: int = _number(500, 1)
    preview_every: int = _number(500, 1)
    checkpoint_every: int = _number(1000, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that describes a run. `name` defaults to the YAML's file name."""

    name: str
    style: StyleConfig
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineContentConfig:
    """The size, in pixels, at which the content image is optimised; 0 leaves a side open.

    `width` and `height` are exact, and one alone keeps the proportions. Without them `long_edge` is
    exact; without that, an image whose long edge is above `maximum` is reduced to it.
    """

    maximum: int = _number(512, 0)
    long_edge: int = _number(0, 0)
    width: int = _number(0, 0)
    height: int = _number(0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineStyleConfig:
    """The size at which the style image's statistics are taken.

    `fit` "long_edge" makes its long edge `size` pixels (0 keeps the file's size), "content_edge"
    as long as the content image's; "content" gives it the content image's width and height.
    """

    fit: Literal["long_edge", "content_edge", "content"] = "long_edge"
    size: int = _number(512, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineLossConfig(LossConfig):
    """The perceptual loss with the choices of other systems, named in `losses.py` and `vgg.py`.

    The defaults are training's. `recompute` trades time for memory and changes no value.
    """

    pooling: Literal["max", "average"] = "max"
    padding: Literal["zeros", "replicate"] = "zeros"
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
    noise_mean: float = _number(0.5, 0, 1)
    noise_range: float = _number(1.0, 0, 1)
    steps: int = _number(500, 1)
    learning_rate: float = _number(0.01, 0, above=True)
    beta1: float = _number(0.9, 0, 0.999999)
    beta2: float = _number(0.999, 0, 0.999999)
    epsilon: float = _number(1e-8, 0)
    history: int = _number(100, 1)
    restart_every: int = _number(0, 0)
    clip: bool = True
    balance: bool = False
    average_decay: float = _number(0.0, 0, 0.999999)
    first_scale: int = _number(0, 0)
    first_steps: int = _number(1000, 1)
    seed: int = _number(0, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineConfig:
    """A recipe of the optimisation baseline. `name` defaults to the YAML's file name."""

    name: str
    content: BaselineContentConfig = field(default_factory=BaselineContentConfig)
    style: BaselineStyleConfig = field(default_factory=BaselineStyleConfig)
    loss: BaselineLossConfig = field(default_factory=BaselineLossConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file into a `Config`; overrides are "dotted.key=value" and win.

    Relative paths in it are relative to the working directory. Raises ConfigError.
    """
    path = Path(path)
    data = load_yaml(path)
    for override in overrides:
        _override(data, override)
    data.setdefault("name", path.stem)
    return config_from_dict(data, source=str(path))


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
        _override(data, override)
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
    _check_strength(loss, source)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping. Raises ConfigError."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {_describe(data)}, not 'key: value' lines")
    return data


def config_from_dict(data: Mapping[str, Any], *, source: str = "config") -> Config:
    """Build a `Config` from plain data; `source` is named in errors. Raises ConfigError."""
    config = build(Config, data, source)
    if not config.name or Path(config.name).name != config.name or config.name.startswith("."):
        raise ConfigError(
            f"{source}: name: {config.name!r} names the run's folder and model file, "
            "so it must be a plain file name"
        )
    _check_strength(config.loss, source)
    if not config.data.train:
        raise ConfigError(f"{source}: data.train: names no folder of photos")
    return config


def _check_strength(loss: LossConfig, source: str) -> None:
    """Raise ConfigError for weights that the strength would replace in silence."""
    default = LossConfig()
    raw = (loss.content_weight, loss.style_weight)
    if loss.strength is not None and raw != (default.content_weight, default.style_weight):
        raise ConfigError(
            f"{source}: loss.strength: takes the place of loss.content_weight and "
            "loss.style_weight: remove these, or set it to null"
        )


def build(cls: type[T], data: Any, source: str, key: str = "") -> T:
    """Build the dataclass `cls` from plain data, checking every key, type and bound."""
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{source}: {key or 'config'}: is {_describe(data)}, expected 'key: value' lines"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values = {}
    for name, value in data.items():
        dotted = f"{key}.{name}" if key else str(name)
        if name not in fields:
            near = (not key and _keys_named(cls, str(name))) or difflib.get_close_matches(
                str(name), fields, n=1
            )
            cure = f"known keys: {', '.join(fields)}"
            if near:
                cure = f"did you mean {' or '.join(repr(one) for one in near)}?"
            raise ConfigError(f"{source}: {dotted}: unknown key; {cure}")
        values[name] = _convert(value, hints[name], source, dotted)
        if bounds := fields[name].metadata.get("bounds"):
            numbers = values[name] if isinstance(values[name], tuple) else (values[name],)
            for number in (number for number in numbers if number is not None):
                _check_bounds(number, bounds, f"{source}: {dotted}")
    for name, f in fields.items():
        no_default = dataclasses.MISSING
        if name not in values and f.default is no_default and f.default_factory is no_default:
            raise ConfigError(f"{source}: {f'{key}.' if key else ''}{name}: is missing")
    return cls(**values)


def _keys_named(cls: type, name: str) -> list[str]:
    """List the dotted keys of a config's sections that have this name."""
    hints = get_type_hints(cls)
    return [
        f"{section}.{name}"
        for section, hint in hints.items()
        if dataclasses.is_dataclass(hint) and name in (f.name for f in dataclasses.fields(hint))
    ]


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config into plain data that YAML and `torch.load(weights_only=True)` can hold."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else None
        flat.update(nested or {f"{prefix}{key}": value})
    return flat


def locate(path: Path, *, key: str) -> Path:
    """Expand "~" and "package:NAME/..." (a file inside an installed package) in a config's path.

    `key` is the dotted key that is named when the package is not installed (ConfigError).
    """
    text = str(path)
    if not text.startswith("package:"):
        return path.expanduser()
    package, _, rest = text.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{key}: {text}: the Python package {package!r} is not installed; "
            "for the demo's own: pip install 'fast-style[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / rest


def _convert(value: Any, hint: Any, source: str, key: str) -> Any:
    """Convert plain data to a field's type; PyYAML reads 1e-4 and 1e5 as strings."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, source, key)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        return None if value is None else _convert(value, inner, source, key)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(item, arguments[0], source, key) for item in items)
    if origin is not None and issubclass(_runtime(origin), Mapping):
        return _convert_layers(value, source, key)
    if origin is Literal:
        for choice in arguments:
            if value == choice and type(value) is type(choice):  # 1 is not True
                return value
        known = [str(c).lower() if isinstance(c, bool) else str(c) for c in arguments]
        near = difflib.get_close_matches(str(value), known, n=1)
        hint_text = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{source}: {key}: {value!r} is not one of {', '.join(known)}{hint_text}")
    return _convert_scalar(value, hint, source, key)


def _convert_scalar(value: Any, hint: type, source: str, key: str) -> Any:
    wrong = ConfigError(f"{source}: {key}: is {_describe(value)}, expected {_NOUNS[hint]}")
    if hint is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if hint in (str, Path):
        if not isinstance(value, str | Path) or (hint is Path and not str(value)):
            raise wrong
        return hint(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    try:
        if hint is int and isinstance(value, int):
            return value  # a float would round it
        number = float(value)
        whole = int(number)
    except (ValueError, OverflowError):  # of NaN and infinity, too
        raise wrong from None
    if hint is int and whole != number:
        raise wrong
    return whole if hint is int else number


def _convert_layers(value: Any, source: str, key: str) -> dict[str, float]:
    """Read layers as a mapping of name to weight, or as a list of names with weight 1."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | Mapping) or not all(isinstance(n, str) for n in names):
        names = ()
    if not names:
        raise ConfigError(
            f"{source}: {key}: is {_describe(value)}, expected layer names, as in [relu2_2] "
            "or {relu1_2: 1, relu2_2: 0.5}"
        )
    weights = names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    layers = {}
    for name, weight in weights.items():
        layers[name] = _convert_scalar(weight, float, source, f"{key}.{name}")
        _check_bounds(layers[name], (0, math.inf, False), f"{source}: {key}.{name}")
    return layers


def _check_bounds(value: float, bounds: tuple[float, float, bool], where: str) -> None:
    minimum, maximum, above = bounds
    if value < minimum or value > maximum or (above and value == minimum):
        wanted = f"above {minimum:g}" if above else f"at least {minimum:g}"
        if maximum < math.inf:
            wanted += f" and at most {maximum:g}"
        raise ConfigError(f"{where}: {value!r} is impossible: it must be {wanted}")


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected key=value, as in training.steps=300")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: {parent!r} has no keys below it")
    try:
        data[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _runtime(origin: Any) -> type:
    return origin if isinstance(origin, type) else object


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    return f"{value!r} (a {_TYPE_WORDS.get(type(value), type(value).__name__)})"


_NOUNS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}
_TYPE_WORDS: dict[type, str] = {
    bool: "yes/no value",
    dict: "mapping",
    float: "number",
    int: "whole number",
    list: "list",
    str: "text",
}
