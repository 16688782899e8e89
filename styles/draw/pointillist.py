"""`pointillist`: an evening bay in dabs of unmixed colour that only the eye puts together."""

import numpy as np
from PIL import Image

from styles.draw.bay import HEIGHT, WIDTH, bay
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
    sample,
    smoothstep,
    to_image,
)
from styles.draw.strokes import Canvas, Mark, View, lit, scatter

PURE = palette(
    *("fff8dc", "ffe94a", "ffc21f", "ff8a1c", "f2502a", "d81e4a", "f27aa8", "c05ab8", "7a3fb0"),
    *("3f2f9a", "2346b0", "2f7fd8", "6fc0e8", "1f9fa0", "0f7f5f", "3fae4a", "a8d03f", "1a1a5a"),
)


def draw(seed: int = 0) -> Image.Image:
    """Paint the bay in five sizes of dab, the finest where there is most to see."""
    rng = np.random.default_rng(seed)
    x, y = grid(HEIGHT, WIDTH)
    view = bay(rng)
    linen = _weave(rng, x, y)
    canvas = Canvas(0.55 * view.color + 0.4, 0.12 * linen)
    tone = view.color.mean(axis=-1)
    busy = normalized(blur(np.abs(tone - blur(tone, 7.0)), 6.0)) + 0.5 * fbm(rng, x, y, 200.0, 3)
    for length, share, purity in (
        (44.0, 1.00, 0.25),
        (30.0, 0.90, 0.50),
        (21.0, 0.60, 0.65),
        (14.0, 0.36, 0.75),
        (9.0, 0.30, 0.80),
    ):
        chance = np.clip(share * (1.0 + 0.8 * busy), 0.1, 1.0)
        _dapple(rng, canvas, view, chance, length, purity)
    return to_image(lit(canvas.color, canvas.relief + 0.08 * linen, 1.0, 0.16))


def _weave(rng: Generator, x: Field, y: Field) -> Field:
    """Cross the warp and the weft of a linen canvas, threads a little uneven."""
    bend = 1.2 * fbm(rng, x, y, 70.0, 3)
    across, down = (x + bend) * (np.pi / 5.3), (y - bend) * (np.pi / 5.1)
    warp = np.sin(2.0 * across) * np.sin(down)
    weft = np.sin(2.0 * down) * np.cos(across)
    return normalized(np.maximum(warp, weft) + 0.3 * noise(rng, x, y, 4.0))


def _dapple(
    rng: Generator, canvas: Canvas, view: View, chance: Field, length: float, purity: float
) -> None:
    """Lay one size of dab along the view's forms, with the chance that each place has of it."""
    tiles = _dab_tiles(rng)
    places = np.array(list(scatter(rng, HEIGHT, WIDTH, 0.52 * length, 0.3 * length)))
    places = places[rng.random(len(places)) < sample(chance, places[:, 0], places[:, 1])]
    wanted = sample(blur(view.color, 0.12 * length), places[:, 0], places[:, 1])
    first, second = _loads(rng, wanted, purity)
    columns = np.clip(places[:, 0], 0, WIDTH - 1).astype(np.int32)
    rows = np.clip(places[:, 1], 0, HEIGHT - 1).astype(np.int32)
    angles = view.angle[rows, columns] + rng.normal(0.0, 0.2, len(places))
    sizes = length * rng.uniform(0.7, 1.2, len(places))
    for index, (x, y) in enumerate(places.tolist()):
        size = float(sizes[index])
        mark = Mark(x, y, float(angles[index]), size, size * rng.uniform(0.5, 0.75))
        tile = tiles[rng.integers(len(tiles))]
        canvas.stamp(tile, mark, first[index], second[index], lift=0.35 + 0.035 * length)


def _loads(rng: Generator, wanted: Picture, purity: float) -> tuple[Picture, Picture]:
    """Load every dab with a pure colour near the one wanted there, and a trace of another."""
    wanted = wanted * rng.uniform(0.9, 1.1, (len(wanted), 1))
    # Every seventh dab takes the complement, which makes its neighbours glow.
    opposed = rng.random((len(wanted), 1)) < 0.14
    aim = np.where(opposed, 0.65 - 0.3 * wanted, wanted)
    strength = np.where(opposed, 0.7 * purity, purity)
    first = wanted + (_unmixed(rng, aim, 0.07) - wanted) * strength
    return first, first + 0.4 * (_unmixed(rng, wanted, 0.05) - first)


def _unmixed(rng: Generator, wanted: Picture, spread: float) -> Picture:
    """Pick a pure colour for every dab, the nearer to the wanted colour the likelier."""
    weights = np.array([1.0, 1.25, 0.8])
    gap = np.square((wanted[:, None, :] - PURE[None, :, :]) * weights).sum(axis=-1)
    # The Gumbel trick draws from the softmax of all the gaps at once.
    picked = np.argmax(-gap / spread + rng.gumbel(size=gap.shape), axis=1)
    pure: Picture = PURE[picked]
    return pure


def _dab_tiles(rng: Generator) -> list[Picture]:
    """Make rounded touches of stiff paint, full in the middle and furrowed by the bristles."""
    rows, columns = 18, 30
    x, y = grid(rows, columns)
    along, across = 2.0 * x / (columns - 1) - 1.0, 2.0 * y / (rows - 1) - 1.0
    tiles = []
    for _ in range(16):
        radius = (np.abs(along) ** 2.6 + np.abs(across) ** 2.4) ** 0.4
        radius += 0.13 * noise(rng, along, across, 0.55)
        bristles = noise(rng, 0.2 * along, across, 0.3)
        cover = smoothstep(0.96, 0.78, radius + 0.08 * bristles)
        heap = np.clip(1.1 - radius**2, 0.0, 1.0) + 0.25 * bristles + 0.3 * along * rng.random()
        streak = np.clip(0.3 + 0.5 * bristles, 0.0, 1.0)
        tiles.append(np.stack([cover, streak, heap], axis=-1))
    return tiles
