"""What a YAML may say: frozen dataclasses with every default, and the loader that checks them.

A YAML holds what differs from the defaults. Every mistake in it is a `ConfigError` that names the
file, the dotted key, the value, and what would be right.
"""

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from fast_style.config.places import style_image
from fast_style.devices import Precision
from fast_style.errors import UserError

LossT = TypeVar("LossT", bound="LossConfig")

# Of a network that nothing else gives a width.
_DEFAULT_WIDTH = 16


class ConfigError(UserError):
    """A config names something unknown, mistyped, impossible or missing."""


def number(default: Any, minimum: float, maximum: float = math.inf, *, above: bool = False) -> Any:
    """Give a field with a default and bounds; `above` excludes the minimum itself."""
    return field(default=default, metadata={"bounds": (minimum, maximum, above)})


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleConfig:
    """The style image and the size, in pixels of its long edge, at which its statistics are taken.

    `size` sets the size of the strokes: smaller images give finer ones. 0 keeps the file's size.
    """

    image: Path
    size: int = number(512, 0)

    def resolved(self) -> "StyleConfig":
        """Return the same with the path of the file itself (see `Config.resolved`)."""
        return dataclasses.replace(self, image=locate(self.image, key="style.image"))


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
    held_out: int = number(16, 1)
    min_crop: float = number(0.75, 0, 1, above=True)
    flip: bool = True
    workers: int = number(2, 0, 256)
    cache: Path | None = None

    def resolved(self) -> "DataConfig":
        """Return the same with the paths of the files themselves (see `Config.resolved`)."""
        return dataclasses.replace(
            self,
            train=tuple(locate(path, key="data.train") for path in self.train),
            validation=tuple(locate(path, key="data.validation") for path in self.validation),
            cache=self.cache and locate(self.cache, key="data.cache"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The perceptual loss: loss network, layers with their weights, and the terms' weights.

    The weights mean what `losses.py` defines. `strength`, a number around 1, takes the place of
    `content_weight` and `style_weight`: it means the same for every style, loss network and size
    (`strength.balanced_layers`). A YAML that gives one of these two weights has no strength.
    `weights` is a file with the loss network's weights; without it they are looked for (see
    `weights.py`). `padding` "replicate" lets the first convolution see no black frame.
    """

    network: Literal["vgg16", "vgg19"] = "vgg16"
    weights: Path | None = None
    content_layers: Mapping[str, float] = field(default_factory=lambda: {"relu3_3": 1.0})
    style_layers: Mapping[str, float] = field(
        default_factory=lambda: {"relu1_2": 1.0, "relu2_2": 2.0, "relu3_3": 2.0, "relu4_3": 0.5}
    )
    strength: float | None = number(1.0, 0, above=True)
    content_weight: float = number(1.0, 0)
    style_weight: float = number(5.0, 0)
    tv_weight: float = number(0.1, 0)
    padding: Literal["zeros", "replicate"] = "replicate"

    def resolved(self: LossT) -> LossT:
        """Return the same with the path of the file itself (see `Config.resolved`)."""
        return dataclasses.replace(
            self, weights=self.weights and locate(self.weights, key="loss.weights")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The transformer network: channels at full resolution and number of residual blocks.

    Without a `width` it is that of `training.init_from`'s network or, without that, 16.
    """

    width: int | None = number(None, 1, 1024)
    num_residual_blocks: int = number(5, 0, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One run: its length, its optimiser, and how often it reports.

    `schedule` "cosine" holds the learning rate for the first two thirds of the steps, then lowers
    it along a half cosine to a tenth. `ema_decay` 0 saves the last weights instead of an average.
    `init_from` begins with the weights of a model, by path or name, instead of random ones (null):
    another style's are a far better start. "auto" is the shipped `wave` where the network has its
    shape, and random weights where it has not. `batch_size` is that of all processes together. The
    first `first_share` of the steps see crops of `first_size` pixels, which teach a new network
    sooner, and the others `image_size`, or one of `mixed_sizes` each; validation is at
    `image_size`. `compile` "auto" compiles the networks on CUDA, for long runs.
    """

    steps: int = number(4000, 1)
    init_from: Path | None = Path("auto")
    batch_size: int = number(4, 1)
    image_size: int = number(256, 32)
    mixed_sizes: tuple[int, ...] = number((), 32)
    first_size: int = number(128, 32)
    first_share: float = number(0.5, 0, 1)
    learning_rate: float = number(1e-3, 0, above=True)
    schedule: Literal["constant", "cosine"] = "cosine"
    max_gradient_norm: float | None = number(None, 0, above=True)
    ema_decay: float = number(0.995, 0, 0.999999)
    precision: Precision = "auto"
    compile: Literal["auto", True, False] = "auto"
    seed: int = number(0, 0, 2**63 - 1)
    log_every: int = number(10, 1)
    validate_every: int = number(500, 1)
    preview_every: int = number(500, 1)
    checkpoint_every: int = number(1000, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that describes a run. `name` defaults to the YAML's file name."""

    name: str
    style: StyleConfig
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.network.width is None and self.training.init_from is None:
            network = dataclasses.replace(self.network, width=_DEFAULT_WIDTH)
            object.__setattr__(self, "network", network)

    def resolved(self) -> "Config":
        """Return the same with the paths of the files themselves, for what opens them.

        A config holds paths as they were written, and so do states and model files: "~" and
        "package:NAME/..." mean other places on another machine. Raises ConfigError.
        """
        return dataclasses.replace(
            self,
            style=self.style.resolved(),
            data=self.data.resolved(),
            loss=self.loss.resolved(),
        )


def locate(path: Path, *, key: str) -> Path:
    """Expand "~" and "package:NAME/..." (a file inside an installed package) in a config's path.

    A style image that is not in the working directory is the shipped one of that name, if any.
    `key` is the dotted key that is named when the package is not installed (ConfigError).
    """
    text = str(path)
    if not text.startswith("package:"):
        return style_image(path.expanduser())
    package, _, rest = text.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{key}: {text}: the Python package {package!r} is not installed; "
            "for the demo's own: pip install 'fast-style[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / rest
