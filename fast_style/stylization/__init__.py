"""Stylizing: one forward pass over any photo."""

from fast_style.stylization.stylizer import (
    PreserveColor,
    Source,
    Stylizer,
    Tile,
    begin_picture,
    stylize_file,
    stylize_picture,
)

__all__ = [
    "PreserveColor",
    "Source",
    "Stylizer",
    "Tile",
    "begin_picture",
    "stylize_file",
    "stylize_picture",
]
