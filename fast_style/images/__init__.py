"""Pictures: image files to float RGB in [0, 1] and back, at any depth."""

# The names are imported when first used: what runs without torch needs this room's other modules.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast_style.images.decoding import ImageError as ImageError
    from fast_style.images.encoding import format_of as format_of
    from fast_style.images.pictures import Picture as Picture
    from fast_style.images.pictures import check_fits as check_fits
    from fast_style.images.pictures import load_image as load_image
    from fast_style.images.pictures import nearest_format as nearest_format
    from fast_style.images.pictures import open_rgb as open_rgb
    from fast_style.images.pictures import read_picture as read_picture
    from fast_style.images.pictures import read_size as read_size
    from fast_style.images.pictures import save_image as save_image
    from fast_style.images.pictures import set_depth as set_depth
    from fast_style.images.pictures import style_doubts as style_doubts
    from fast_style.images.pictures import write_picture as write_picture
    from fast_style.images.table import EXTENSIONS as EXTENSIONS
    from fast_style.images.tensors import from_float as from_float
    from fast_style.images.tensors import from_linear_light as from_linear_light
    from fast_style.images.tensors import image_to_tensor as image_to_tensor
    from fast_style.images.tensors import resize as resize
    from fast_style.images.tensors import resize_long_edge as resize_long_edge
    from fast_style.images.tensors import scaled_size as scaled_size
    from fast_style.images.tensors import to_float as to_float
    from fast_style.images.tensors import to_linear_light as to_linear_light
    from fast_style.images.tensors import to_uint8 as to_uint8
    from fast_style.images.transparency import fill_transparent as fill_transparent

_MODULES = {
    "decoding": ("ImageError",),
    "encoding": ("format_of",),
    "pictures": (
        "Picture",
        "check_fits",
        "load_image",
        "nearest_format",
        "open_rgb",
        "read_picture",
        "read_size",
        "save_image",
        "set_depth",
        "style_doubts",
        "write_picture",
    ),
    "table": ("EXTENSIONS",),
    "tensors": (
        "from_float",
        "from_linear_light",
        "image_to_tensor",
        "resize",
        "resize_long_edge",
        "scaled_size",
        "to_float",
        "to_linear_light",
        "to_uint8",
    ),
    "transparency": ("fill_transparent",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # which reads no list that is computed
    __all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
