"""Fast style transfer: train a style once, apply it to any photo in one forward pass.

The names below are the public API. They are imported when first used, so that stylizing a photo
does not pay for what only training needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast_style.checkpoint import CheckpointError, load_model, save_model, shipped_models
    from fast_style.config import Config, ConfigError, OptimizationConfig, load_config
    from fast_style.data import ContentImages, DataError
    from fast_style.errors import UserError
    from fast_style.faults import TrainingError
    from fast_style.images import (
        ImageError,
        Picture,
        load_image,
        read_picture,
        save_image,
        write_picture,
    )
    from fast_style.losses import Losses, PerceptualLoss, gram_matrix, total_variation
    from fast_style.networks.transformer import TransformerNet
    from fast_style.networks.vgg import VGGFeatures
    from fast_style.optimization import OptimizationError, optimize_image
    from fast_style.stylization import Stylizer, stylize_file, stylize_picture
    from fast_style.training import train
    from fast_style.weights import WeightsError, load_vgg

__version__ = "0.1.0"

_ROOMS = {
    "checkpoint": ("CheckpointError", "load_model", "save_model", "shipped_models"),
    "config": ("Config", "ConfigError", "OptimizationConfig", "load_config"),
    "data": ("ContentImages", "DataError"),
    "errors": ("UserError",),
    "faults": ("TrainingError",),
    "images": (
        "ImageError",
        "Picture",
        "load_image",
        "read_picture",
        "save_image",
        "write_picture",
    ),
    "losses": ("Losses", "PerceptualLoss", "gram_matrix", "total_variation"),
    "networks.transformer": ("TransformerNet",),
    "networks.vgg": ("VGGFeatures",),
    "optimization": ("OptimizationError", "optimize_image"),
    "stylization": ("Stylizer", "stylize_file", "stylize_picture"),
    "training": ("train",),
    "weights": ("WeightsError", "load_vgg"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "ContentImages",
    "DataError",
    "ImageError",
    "Losses",
    "OptimizationConfig",
    "OptimizationError",
    "PerceptualLoss",
    "Picture",
    "Stylizer",
    "TrainingError",
    "TransformerNet",
    "UserError",
    "VGGFeatures",
    "WeightsError",
    "__version__",
    "gram_matrix",
    "load_config",
    "load_image",
    "load_model",
    "load_vgg",
    "optimize_image",
    "read_picture",
    "save_image",
    "save_model",
    "shipped_models",
    "stylize_file",
    "stylize_picture",
    "total_variation",
    "train",
    "write_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'fast_style' has no attribute {name!r}")
    return getattr(import_module(f"fast_style.{_ROOM_OF[name]}"), name)
