"""Fast style transfer: train a style once, apply it to any photo in one forward pass.

The names below are the public API. They are imported when first used, so that stylizing a photo
does not pay for what only training needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fast_style.version import __version__ as __version__

if TYPE_CHECKING:
    # "as" makes them public to a type checker; _ROOMS, below, to Python.
    from fast_style.baseline.methods import OptimizationError as OptimizationError
    from fast_style.baseline.optimization import optimize_image as optimize_image
    from fast_style.checkpoints.files import CheckpointError as CheckpointError
    from fast_style.checkpoints.files import load_model as load_model
    from fast_style.checkpoints.files import save_model as save_model
    from fast_style.checkpoints.files import shipped_models as shipped_models
    from fast_style.config import Config as Config
    from fast_style.config import ConfigError as ConfigError
    from fast_style.config import OptimizationConfig as OptimizationConfig
    from fast_style.config import load_config as load_config
    from fast_style.data import ContentImages as ContentImages
    from fast_style.data import DataError as DataError
    from fast_style.errors import UserError as UserError
    from fast_style.images import ImageError as ImageError
    from fast_style.images import Picture as Picture
    from fast_style.images import load_image as load_image
    from fast_style.images import read_picture as read_picture
    from fast_style.images import save_image as save_image
    from fast_style.images import write_picture as write_picture
    from fast_style.networks.transformer import TransformerNet as TransformerNet
    from fast_style.networks.vgg import VGGFeatures as VGGFeatures
    from fast_style.objective.losses import Losses as Losses
    from fast_style.objective.losses import PerceptualLoss as PerceptualLoss
    from fast_style.objective.losses import gram_matrix as gram_matrix
    from fast_style.objective.losses import total_variation as total_variation
    from fast_style.objective.weights import WeightsError as WeightsError
    from fast_style.objective.weights import load_vgg as load_vgg
    from fast_style.stylization import Stylizer as Stylizer
    from fast_style.stylization import stylize_file as stylize_file
    from fast_style.stylization import stylize_picture as stylize_picture
    from fast_style.training import train as train
    from fast_style.training.faults import TrainingError as TrainingError

_ROOMS = {
    "baseline.methods": ("OptimizationError",),
    "baseline.optimization": ("optimize_image",),
    "checkpoints.files": ("CheckpointError", "load_model", "save_model", "shipped_models"),
    "config": ("Config", "ConfigError", "OptimizationConfig", "load_config"),
    "data": ("ContentImages", "DataError"),
    "errors": ("UserError",),
    "images": (
        "ImageError",
        "Picture",
        "load_image",
        "read_picture",
        "save_image",
        "write_picture",
    ),
    "networks.transformer": ("TransformerNet",),
    "networks.vgg": ("VGGFeatures",),
    "objective.losses": ("Losses", "PerceptualLoss", "gram_matrix", "total_variation"),
    "objective.weights": ("WeightsError", "load_vgg"),
    "stylization": ("Stylizer", "stylize_file", "stylize_picture"),
    "training": ("train",),
    "training.faults": ("TrainingError",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

if not TYPE_CHECKING:  # which reads no list that is computed
    __all__ = sorted([*_ROOM_OF, "__version__"])


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOM_OF})


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'fast_style' has no attribute {name!r}")
    return getattr(import_module(f"fast_style.{_ROOM_OF[name]}"), name)
