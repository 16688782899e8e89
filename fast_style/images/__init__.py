"""Pictures: image files to float RGB in [0, 1] and back, at any depth."""

from fast_style.images.decoding import ImageError
from fast_style.images.encoding import format_of
from fast_style.images.pictures import (
    Picture,
    check_fits,
    load_image,
    nearest_format,
    open_rgb,
    read_picture,
    read_size,
    save_image,
    set_depth,
    style_doubts,
    write_picture,
)
from fast_style.images.table import EXTENSIONS
from fast_style.images.tensors import (
    from_float,
    from_linear_light,
    image_to_tensor,
    resize,
    resize_long_edge,
    scaled_size,
    to_float,
    to_linear_light,
    to_uint8,
)
from fast_style.images.transparency import fill_transparent

__all__ = [
    "EXTENSIONS",
    "ImageError",
    "Picture",
    "check_fits",
    "fill_transparent",
    "format_of",
    "from_float",
    "from_linear_light",
    "image_to_tensor",
    "load_image",
    "nearest_format",
    "open_rgb",
    "read_picture",
    "read_size",
    "resize",
    "resize_long_edge",
    "save_image",
    "scaled_size",
    "set_depth",
    "style_doubts",
    "to_float",
    "to_linear_light",
    "to_uint8",
    "write_picture",
]
