"""`autumn`: an avenue of burning leaves, laid on in slabs with a palette knife."""

import numpy as np
from PIL import Image

from styles.draw.avenue import HEIGHT, HORIZON, SUN_X, SUN_Y, WIDTH, avenue
from styles.draw.fields import (
    Field,
    Generator,
    Picture,
    blur,
    fbm,
    grid,
    noise,
    normalized,
    palette,
    smoothstep,
    to_image,
)
from styles.draw.strokes import Canvas, Mark, lit, scatter

ACCENTS = palette("1f8a93", "43b3ae", "3a2a86", "6c3f9e", "d11f3c", "ffd24a")


def draw(seed: int = 0) -> Image.Image:
    """Paint the avenue from broad slabs down to flecks, then light the ridges of the paint."""
    rng = np.random.default_rng(seed)
    view = avenue(rng)
    angles = _directions(rng, view)
    tone = view.mean(axis=-1)
    busy = normalized(blur(np.abs(tone - blur(tone, 8.0)), 6.0))
    canvas = Canvas(0.7 * view, np.zeros_like(tone))
    # Slabs go everywhere; finer strokes gather where the view has something to say.
    for length in (170.0, 110.0):
        _lay(rng, canvas, view, angles, np.ones_like(tone), length)
    for length, share in ((70.0, 0.40), (44.0, 0.26), (26.0, 0.28), (15.0, 0.30)):
        chance = np.clip(share * (1.0 + 1.1 * busy), 0.05, 0.95)
        _lay(rng, canvas, view, angles, chance, length)
    return to_image(lit(canvas.color, canvas.relief, 1.1, 0.3))


def _directions(rng: Generator, view: Picture) -> Field:
    """Turn the knife along edges where the view has them and along a drifting flow elsewhere."""
    x, y = grid(HEIGHT, WIDTH)
    slope_y, slope_x = np.gradient(blur(view.mean(axis=-1), 3.0))
    # Doubled angles make opposite gradients of one edge agree instead of cancelling.
    edge_cos = blur(slope_y**2 - slope_x**2, 7.0)
    edge_sin = blur(-2.0 * slope_x * slope_y, 7.0)
    around = np.arctan2(y - SUN_Y, x - SUN_X) + 0.5 * np.pi + 0.9 * fbm(rng, x, y, 260.0, 3)
    flow = np.where(y > HORIZON, 0.25 * fbm(rng, x, y, 120.0, 2), around)
    weak = 0.25 * np.hypot(edge_cos, edge_sin).mean()
    angle: Field = 0.5 * np.arctan2(
        edge_sin + weak * np.sin(2.0 * flow), edge_cos + weak * np.cos(2.0 * flow)
    )
    return angle


def _lay(
    rng: Generator, canvas: Canvas, view: Picture, angles: Field, chance: Field, length: float
) -> None:
    """Lay one size of stroke over the canvas, with the chance that each place has of it."""
    width = 0.36 * length
    tiles = _knife_tiles(rng, round(1.2 * length))
    seen = blur(view, 0.085 * length)
    for x, y in scatter(rng, HEIGHT, WIDTH, 0.37 * length, 0.2 * length):
        row, column = _pixel(x, y)
        if rng.random() > chance[row, column]:
            continue
        size = length * rng.uniform(0.6, 1.25)
        angle = float(angles[row, column]) + rng.normal(0.0, 0.2) + np.pi * rng.integers(2)
        bow = rng.normal(0.0, 0.05) * size
        mark = Mark(x, y, angle, size, width * rng.uniform(0.5, 1.2), bow)
        near = seen[_pixel(*rng.normal((x, y), 0.25 * length))]
        first = seen[row, column] * rng.uniform(0.84, 1.16) + rng.normal(0.0, 0.03, 3)
        second = near * rng.uniform(0.65, 1.4) + rng.normal(0.0, 0.03, 3)
        stray = rng.random()
        if stray < 0.1:
            second = ACCENTS[rng.integers(len(ACCENTS))]
        if stray < 0.03 and length < 60.0:
            first = ACCENTS[rng.integers(len(ACCENTS))]
        tile = tiles[rng.integers(len(tiles))]
        canvas.stamp(tile, mark, first, second, lift=0.5 + 0.02 * length)


def _pixel(x: float, y: float) -> tuple[int, int]:
    """Return the row and column of the pixel closest to a place."""
    return int(min(max(y, 0), HEIGHT - 1)), int(min(max(x, 0), WIDTH - 1))


def _knife_tiles(rng: Generator, columns: int) -> list[Picture]:
    """Make slabs of paint with crisp sides, scraped streaks, raised rims and a ragged end."""
    rows = max(8, round(0.375 * columns))
    x, y = grid(rows, columns)
    along, across, still = x / (columns - 1), y / (rows - 1), np.zeros_like(x)
    tiles = []
    for _ in range(16):
        side = 0.45 - np.abs(across - 0.5 - 0.035 * noise(rng, along, still, 0.26))
        streaks = fbm(rng, 0.12 * along, across, 0.24, 4, 0.75)
        start = along - 0.05 - 0.04 * noise(rng, still, across, 0.4)
        finish = 0.93 - along - rng.uniform(0.05, 0.3) * np.clip(0.35 + streaks, 0.0, 1.0)
        inside = np.minimum(side, 2.0 * np.minimum(start, finish))
        worn = streaks + 2.2 - 2.4 * along**3 + 0.4 * noise(rng, 2.6 * along, across, 0.12)
        cover = smoothstep(0.0, 1.2 / rows, inside) * smoothstep(-0.1, 0.25, worn)
        rim = np.exp(-((inside / 0.06) ** 2)) * rng.uniform(0.35, 1.0)
        thick = 0.55 + 0.2 * streaks + 0.75 * rim + 0.35 * smoothstep(0.12, 0.0, finish)
        mingled = 0.42 + 0.45 * streaks + 0.35 * noise(rng, 0.3 * along, across, 0.5)
        tiles.append(np.stack([cover, np.clip(mingled, 0.0, 1.0), thick], axis=-1))
    return tiles
