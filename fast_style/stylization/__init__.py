"""Stylizing: one forward pass over any photo."""

# The names are imported when first used: what runs without torch needs this room's other modules.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast_style.stylization.masks import load_mask as load_mask
    from fast_style.stylization.stylizer import PreserveColor as PreserveColor
    from fast_style.stylization.stylizer import Source as Source
    from fast_style.stylization.stylizer import Stylizer as Stylizer
    from fast_style.stylization.stylizer import Tile as Tile
    from fast_style.stylization.stylizer import begin_picture as begin_picture
    from fast_style.stylization.stylizer import stylize_file as stylize_file
    from fast_style.stylization.stylizer import stylize_picture as stylize_picture

_MODULES = {
    "masks": ("load_mask",),
    "stylizer": (
        "PreserveColor",
        "Source",
        "Stylizer",
        "Tile",
        "begin_picture",
        "stylize_file",
        "stylize_picture",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # which reads no list that is computed
    __all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
