"""The drawings of the project's own style images, all free to use and to change.

Each style is a module with `draw(seed) -> Image`; `python -m styles.draw` writes them to disk.
"""

from collections.abc import Callable

from PIL import Image

from styles.draw import autumn, candy, etching, ink, mosaic, pointillist, starry, wave

STYLES: dict[str, Callable[[int], Image.Image]] = {
    "wave": wave.draw,
    "starry": starry.draw,
    "mosaic": mosaic.draw,
    "candy": candy.draw,
    "ink": ink.draw,
    "pointillist": pointillist.draw,
    "etching": etching.draw,
    "autumn": autumn.draw,
}
