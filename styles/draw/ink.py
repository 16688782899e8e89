"""`ink`: peaks in mist, bamboo and flowering plum, brushed in black on fibrous paper."""

import numpy as np
from PIL import Image

from styles.draw.fields import (
    Field,
    Generator,
    Picture,
    blur,
    fbm,
    grid,
    mix,
    noise,
    palette,
    sample,
    smoothstep,
    to_image,
    warp,
)
from styles.draw.peaks import drag_mist, raise_peaks
from styles.draw.strokes import scatter
from styles.draw.sumi import Dip, Sheet
from styles.draw.thicket import grow_bamboo, grow_plum, lay_shore

HEIGHT, WIDTH = 1080, 1440

BARE, AGED = palette("f8edd4", "dfc398")
# How strongly each pigment swallows red, green and blue.
BLACK = np.array([0.96, 1.0, 1.01])
VERMILION = np.array([0.10, 1.15, 1.45])


def draw(seed: int = 0) -> Image.Image:
    """Brush the landscape from the far mist to the near leaves."""
    rng = np.random.default_rng(seed)
    x, y = grid(HEIGHT, WIDTH)
    sheet = Sheet(rng, HEIGHT, WIDTH)
    sheet.wash(rng, 0.05 * np.clip(fbm(rng, x, y, 300.0, 4) + 0.1, 0.0, 1.0), edge=1.0)
    drag_mist(rng, sheet, 0.0, 0.36, 60)
    _stain_sun(rng, sheet, x, y)
    raise_peaks(rng, sheet)
    lay_shore(rng, sheet)
    grow_bamboo(rng, sheet)
    grow_plum(rng, sheet)
    _splatter(rng, sheet, x, y)
    return to_image(_developed(rng, sheet, x, y))


def _stain_sun(rng: Generator, sheet: Sheet, x: Field, y: Field) -> None:
    """Stain a low red sun whose pigment has run to its rim."""
    px, py = warp(rng, x, y, 60.0, 5.0)
    radius = np.hypot(px - 0.62 * WIDTH, py - 0.2 * HEIGHT) / (0.075 * HEIGHT)
    pool = 0.65 + 0.35 * radius + 0.3 * fbm(rng, x, y, 60.0, 5, 0.6) + 0.12 * sheet.grain
    disc = smoothstep(1.03, 0.97, radius) * smoothstep(0.33, 0.1, y / HEIGHT)
    sheet.red = sheet.red + disc * np.clip(pool, 0.1, 1.5)


def _splatter(rng: Generator, sheet: Sheet, x: Field, y: Field) -> None:
    """Shake drops from the brush in flurries: many fine, a few fat."""
    flurries = smoothstep(0.1, 0.8, fbm(rng, x, y, 170.0, 4, 0.7))
    near = blur(sheet.black, 40.0)
    chance = 0.04 + 0.5 * flurries + 0.2 * near / near.max()
    for px, py in scatter(rng, HEIGHT, WIDTH, 11.0):
        if rng.random() > chance[min(int(py), HEIGHT - 1), min(int(px), WIDTH - 1)]:
            continue
        size = float(np.clip(0.7 * rng.pareto(1.9) + 0.7, 0.7, 9.0))
        path = np.array([(px - 0.3 * size, py), (px, py), (px + 0.3 * size, py)], np.float32)
        dip = Dip(rng.uniform(0.3, 1.2), 0.0)
        sheet.stroke(rng, path, size * np.array([0.8, 1.0, 0.8]), dip)


def _fibres(rng: Generator, x: Field, y: Field) -> Field:
    """Tangle long pale and dark fibres through the paper."""
    tangle = np.zeros_like(x)
    for shade in (1.0, -1.0, 1.0, -1.0, 1.0):
        thread = noise(rng, *warp(rng, x, y, 90.0, 46.0), 42.0)
        broken = smoothstep(0.25, 0.6, noise(rng, x, y, 30.0))
        tangle += shade * np.exp(-((thread / 0.022) ** 2)) * broken
    return tangle


def _developed(rng: Generator, sheet: Sheet, x: Field, y: Field) -> Picture:
    """Let the ink creep along the grain, then show both pigments over the aged paper."""
    crept = sample(sheet.black, x + 0.8 * sheet.grain, y + 0.8 * sheet.grain[::-1])
    black = 0.55 * crept + 0.45 * sheet.black + 0.10 * blur(sheet.black, 4.0)
    tangle = _fibres(rng, x, y)
    stain = 0.30 + 0.22 * fbm(rng, x, y, 330.0, 4) + 0.05 * sheet.grain + 0.16 * tangle
    base = mix(np.broadcast_to(BARE, (HEIGHT, WIDTH, 3)), AGED, np.clip(stain, 0.0, 1.0))
    base = base * (1.0 + 0.018 * sheet.grain)[..., None]
    # However much ink is laid, the paper only takes so much.
    deep = 2.5 * (1.0 - np.exp(-1.25 * black)) * (1.0 - 0.12 * np.clip(tangle, 0.0, 1.0))
    red = 1.6 * (1.0 - np.exp(-1.3 * sheet.red))
    shown: Picture = base * np.exp(-deep[..., None] * BLACK - red[..., None] * VERMILION)
    return shown
