"""`starry`: a night sky of thick short strokes that swirl around glowing stars."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from styles.draw.brush import Brush, Chooser, Flow, bristle_tile, lay_strokes
from styles.draw.fields import (
    Field,
    Generator,
    Picture,
    blur,
    fbm,
    grid,
    mix,
    normalized,
    palette,
    ramp,
    smear,
    smoothstep,
    to_image,
)
from styles.draw.strokes import Canvas, lit

HEIGHT, WIDTH = 1080, 1440
NIGHT = palette(
    "0a1638", "102a66", "1c4796", "2f6bb5", "4b93c4", "7fb9c6", "b9d6c6", "e9ecd2", "f6f1d8"
)
GLOW = palette(
    *("fffbe6", "fff0ad", "f9d64a", "f0a92b", "f3d873", "e9ecc4", "8fc0a8", "5aa0b4", "2f6bb5")
)
HILLS = palette("081026", "10284a", "1a4560", "2a6268", "4f8a66", "2f6f9a", "a3b87c", "e0c878")


class Star(NamedTuple):
    """One star: its place, the radius of its halo, and which way the sky turns around it."""

    x: float
    y: float
    radius: float
    spin: float


def draw(seed: int = 0) -> Image.Image:
    """Paint the night."""
    rng = np.random.default_rng(seed)
    x, y = grid(HEIGHT, WIDTH)
    stars = _place_stars(rng)
    u, v = _wind(rng, x, y, stars)
    ridge = _ridge(rng, x)
    land = smoothstep(-3.0, 3.0, y - ridge)
    plain_u, plain_v = np.ones_like(x), np.gradient(ridge, axis=1) + 0.4 * fbm(rng, x, y, 150.0, 2)
    u, v = u + (plain_u - u) * land, v + (plain_v - v) * land
    flow = Flow.of(u, v)
    target = mix(_sky(rng, x, y, flow, stars), _land(rng, x, y - ridge, flow), land)
    canvas = Canvas(blur(target, 6.0) * np.float32(0.6), np.zeros_like(x))
    tiles = [bristle_tile(rng) for _ in range(8)]
    passes = ((70.0, 15.0, 15.0, 0.05), (48.0, 10.0, 10.5, 0.08), (34.0, 7.0, 9.0, 0.11))
    for length, width, spacing, contrast in passes:
        brush = Brush(tiles, length, width, spacing)
        lay_strokes(rng, canvas, brush, flow, _loads(rng, target, contrast))
    return to_image(lit(canvas.color, canvas.relief, 2.2, 0.25))


def _place_stars(rng: Generator) -> list[Star]:
    """Spread stars of mixed sizes so that their halos barely touch."""
    stars = [Star(1190.0, 210.0, 175.0, 1.0)]
    for radius in np.geomspace(125.0, 30.0, 17):
        for _ in range(200):
            x, y = rng.uniform(40, WIDTH - 40), rng.uniform(40, 800)
            room = [np.hypot(x - s.x, y - s.y) - s.radius - radius for s in stars]
            if min(room) > 12.0 and np.hypot((x - 620) / 1.3, y - 430) > 190 + radius:
                stars.append(Star(x, y, float(radius), float(rng.choice([-1.0, 1.0]))))
                break
    return stars


def _wind(rng: Generator, x: Field, y: Field, stars: list[Star]) -> tuple[Field, Field]:
    """Add a drift from the left, two great interlocked vortices and a ring around every star."""
    u = np.full_like(x, 0.75)
    v = 0.55 * np.sin(x / 210.0 + 0.8 * np.sin(y / 160.0)) + 0.35 * fbm(rng, x, y, 260.0, 3)
    vortices = [Star(520.0, 400.0, 230.0, 1.0), Star(800.0, 490.0, 180.0, -1.0), *stars]
    for star in vortices:
        dx, dy = x - star.x, y - star.y
        distance = np.hypot(dx, dy) + 1.0
        hold = 4.0 * np.exp(-((distance / (0.8 * star.radius)) ** 4))
        u += star.spin * hold * (-dy - 0.18 * dx) / distance
        v += star.spin * hold * (dx - 0.18 * dy) / distance
    return u.astype(np.float32), v.astype(np.float32)


def _ridge(rng: Generator, x: Field) -> Field:
    """Return the height of the hills' outline at every column."""
    line = x[:1]
    rise = 60.0 * fbm(rng, line, np.zeros_like(line), 420.0, 3) - 50.0 * np.sin(line / 330.0)
    return np.broadcast_to(890.0 + rise, x.shape).astype(np.float32)


def _sky(rng: Generator, x: Field, y: Field, flow: Flow, stars: list[Star]) -> Picture:
    """Colour the sky in long bands that follow the wind, and the halos in rings."""
    u, v = np.cos(flow.angle), np.sin(flow.angle)
    bands = normalized(smear(fbm(rng, x, y, 70.0, 4), u, v, 70))
    broad = normalized(fbm(rng, x, y, 420.0, 2))
    sky = ramp(NIGHT, 0.36 + 0.15 * bands + 0.10 * broad - 0.06 * (y / HEIGHT))
    ripple = fbm(rng, x, y, 30.0, 2)
    for star in stars:
        distance = np.hypot(x - star.x, y - star.y) / star.radius
        rings = 0.05 * np.sin(distance * (8.0 + star.radius / 9.0)) + 0.05 * ripple
        sky = mix(sky, ramp(GLOW, distance + rings), smoothstep(1.3, 0.85, distance + rings))
    return sky


def _land(rng: Generator, x: Field, depth: Field, flow: Flow) -> Picture:
    """Colour the hills in folds, each light along its top and dark at its foot."""
    u, v = np.cos(flow.angle), np.sin(flow.angle)
    bands = normalized(smear(fbm(rng, x, depth * 1.6, 55.0, 4), u, v, 50))
    folds = np.mod(depth / 62.0 + 0.5 * fbm(rng, x, depth, 240.0, 2), 1.0)
    return ramp(HILLS, 0.62 - 0.42 * folds + 0.16 * bands)


def _loads(rng: Generator, target: Picture, contrast: float) -> Chooser:
    """Load the brush with the colour of the place, each stroke a little off it."""

    def choose(row: int, column: int) -> tuple[Picture, Picture]:
        color = target[row, column]
        shift = rng.normal(0.0, contrast) + rng.normal(0.0, 0.35 * contrast, 3)
        first = np.clip(color + shift, 0.0, 1.0).astype(np.float32)
        second = np.clip(first * 0.8 + rng.normal(0.06, 0.4 * contrast, 3), 0.0, 1.0)
        return first, second.astype(np.float32)

    return choose
