"""`etching`: hills under a heavy sky, bitten in crossing layers of needle lines."""

import numpy as np
from PIL import Image

from styles.draw.farmland import HEIGHT, WIDTH, farmland
from styles.draw.fields import (
    Field,
    Generator,
    Picture,
    blur,
    fbm,
    grid,
    mix,
    palette,
    paper,
    smoothstep,
    to_image,
)
from styles.draw.needle import Needle

INK, SEPIA, CREAM, TONED = palette("17110f", "4a2d1b", "f3e6c8", "cdb287")

# Layers of hatching: the turn from the lie of the land, the spacing in pixels and the darkness
# from which a layer is called for.
LAYERS = (
    (0.0, 5.0, 0.06),
    (0.62, 5.4, 0.30),
    (-0.75, 5.0, 0.50),
    (1.45, 4.6, 0.68),
    (0.3, 4.0, 0.82),
)


def draw(seed: int = 0) -> Image.Image:
    """Etch the farmland in five layers of hatching, then print the plate."""
    rng = np.random.default_rng(seed)
    x, y = grid(HEIGHT, WIDTH)
    view, skylines = farmland(rng)
    needle = Needle(HEIGHT, WIDTH)
    drift = 0.2 * fbm(rng, x, y, 140.0, 2)
    for turn, spacing, least in LAYERS:
        needle.hatch(rng, view, drift + turn, spacing, least)
    needle.outline(rng, view, skylines)
    needle.scribble(rng, view)
    needle.grass(rng, 0.62 * HEIGHT)
    return to_image(_printed(rng, x, y, needle.lines()))


def _printed(rng: Generator, x: Field, y: Field, lines: Field) -> Picture:
    """Pull the plate on cream paper, unevenly wiped, with grain that breaks the lines."""
    grain = paper(rng, HEIGHT, WIDTH)
    film = 0.14 + 0.10 * fbm(rng, x, y, 300.0, 4) + 0.02 * grain
    film += 0.05 * fbm(rng, x + 0.6 * y, 0.1 * y, 26.0, 3)
    film += 0.30 * blur(lines, 16.0) + 0.10 * blur(lines, 1.2)
    sheet = mix(np.broadcast_to(CREAM, (HEIGHT, WIDTH, 3)), TONED, np.clip(film, 0.0, 1.0))
    dust = rng.standard_normal(grain.shape, dtype=np.float32)
    sheet = sheet * (1.0 + 0.022 * grain + 0.012 * dust)[..., None]
    # Crowded lines hold more ink, so they print blacker than single ones.
    color = mix(np.broadcast_to(SEPIA, sheet.shape), INK, smoothstep(0.15, 0.6, blur(lines, 8.0)))
    held = blur(lines, 0.45) * (1.04 + 0.10 * grain) + 0.03 * (grain > 2.6)
    return mix(sheet, color, np.clip(held, 0.0, 1.0))
