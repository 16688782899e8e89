"""`candy`: bold contoured sweets and swirls in rainbow colours, painted with a stiff brush."""

import numpy as np
from PIL import Image

from styles.draw.brush import Brush, Flow, bristle_tile, lay_strokes
from styles.draw.fields import (
    Field,
    Generator,
    Picture,
    blur,
    curl,
    fbm,
    grid,
    mix,
    noise,
    normalized,
    sample,
    smear,
    smoothstep,
    to_image,
    warp,
)
from styles.draw.shapes import Plate, blob
from styles.draw.strokes import Canvas, lit
from styles.draw.sweets import INK, MOTIFS, SWEETS

HEIGHT, WIDTH = 1080, 1440
LEVELS = 13


def draw(seed: int = 0) -> Image.Image:
    """Paint the sweets."""
    rng = np.random.default_rng(seed)
    plate = Plate(_ground(rng))
    taken = _pack(rng)
    for index, (x, y, radius) in enumerate(taken):
        motif = MOTIFS[index % (len(MOTIFS) if radius > 36.0 else 3)]
        motif(rng, plate, np.array([x, y]), radius)
    _sprinkle(rng, plate, taken)
    return to_image(_brushed(rng, plate.picture()))


def _ground(rng: Generator) -> Picture:
    """Cut the canvas into winding bands, each with a colour and a small pattern of its own."""
    x, y = grid(HEIGHT, WIDTH)
    wx, wy = warp(rng, x, y, scale=330.0, amount=95.0, octaves=2)
    height = (0.5 + 0.42 * fbm(rng, wx, wy, 330.0, 2)) * LEVELS
    band = np.clip(np.floor(height), 0, LEVELS - 1).astype(np.int32)
    order = np.stack([rng.permutation(len(SWEETS)) for _ in range(2)])
    color, other = SWEETS[order[0, band % 12]], SWEETS[order[0, (band + 5) % 12]]
    pattern = _patterns(wx, wy, height)[
        order[1, band % 12] % 4, np.arange(HEIGHT)[:, None], x.astype(int)
    ]
    slope = np.hypot(*np.gradient(height)) + 1e-3
    edge = np.abs(height - np.round(height)) / slope
    picture = mix(color, other, 0.55 * pattern * smoothstep(5.0, 7.0, edge))
    line = 3.2 + 1.8 * noise(rng, x, y, 70.0)
    return mix(picture, INK, smoothstep(1.0, -1.0, edge - line))


def _patterns(x: Field, y: Field, height: Field) -> Field:
    """Stack the four patterns of the ground as masks: dots, cross bars, contours and hatching."""
    spots = np.cos((x + y) * np.pi / 17.0) + np.cos((x - y) * np.pi / 17.0)
    slope_y, slope_x = np.gradient(blur(height, 25.0))
    across = np.arctan2(slope_y, slope_x)
    bars = np.sin(across * 13.0)
    contours = np.cos(height * 2 * np.pi * 4.0)
    hatching = np.sin((x + y) * 2 * np.pi / 20.0 + 2.0 * np.sin(height * 3.0))
    masks = (
        smoothstep(0.7, 1.0, spots),
        smoothstep(0.1, 0.4, bars),
        smoothstep(0.0, 0.3, contours),
        smoothstep(0.3, 0.6, hatching),
    )
    return np.stack(masks).astype(np.float32)


def _pack(rng: Generator) -> list[tuple[float, float, float]]:
    """Pack circles from large to small so that the ground still shows between them."""
    taken: list[tuple[float, float, float]] = []
    for radius in np.concatenate([np.geomspace(200.0, 48.0, 30), np.geomspace(46.0, 22.0, 40)]):
        for _ in range(60):
            x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
            if all(np.hypot(x - a, y - b) > r + radius + 9.0 for a, b, r in taken):
                taken.append((float(x), float(y), float(radius)))
                break
    return taken


def _sprinkle(rng: Generator, plate: Plate, taken: list[tuple[float, float, float]]) -> None:
    """Scatter contoured dots over the ground that the motifs leave free."""
    for _ in range(350):
        x, y, radius = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), 3.5 + rng.gamma(2.0, 2.0)
        if all(np.hypot(x - a, y - b) > r + radius + 5.0 for a, b, r in taken):
            plate.fill(blob(rng, (x, y), radius + 2.0), INK)
            plate.fill(blob(rng, (x, y), radius), SWEETS[int(rng.integers(len(SWEETS)))])


def _brushed(rng: Generator, picture: Picture) -> Picture:
    """Bend the shapes out of true, and go over them with a small stiff brush."""
    x, y = grid(HEIGHT, WIDTH)
    x, y = warp(rng, x, y, scale=190.0, amount=15.0, octaves=2)
    picture = sample(picture, *warp(rng, x, y, scale=26.0, amount=1.4, octaves=2))
    lightness = picture.mean(axis=2)
    u, v = curl(blur(lightness, 7.0) + 0.12 * fbm(rng, x, y, 260.0, 2))
    edge = np.hypot(*np.gradient(blur(picture, 1.2), axis=(0, 1))).max(axis=2)
    near_edge = blur((edge > 0.04).astype(np.float32), 3.0) > 0.06
    drift = 0.05 * np.stack([fbm(rng, x, y, 60.0, 3) for _ in range(3)], axis=-1)
    white = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    bristles = normalized(smear(blur(white, 0.9), u, v, 14))
    drift += 0.025 * bristles[..., None]
    canvas = Canvas(picture + drift, 0.8 - 1.2 * blur(lightness, 1.2) + 0.22 * bristles)

    def choose(row: int, column: int) -> tuple[Picture, Picture] | None:
        if near_edge[row, column]:
            return None
        first = picture[row, column] + drift[row, column] + rng.normal(0.0, 0.035)
        second = first + rng.normal(0.0, 0.05, 3)
        return first.astype(np.float32), second.astype(np.float32)

    brush = Brush([bristle_tile(rng) for _ in range(8)], length=20.0, width=6.5, spacing=5.0)
    lay_strokes(rng, canvas, brush, Flow.of(u, v), choose)
    return lit(canvas.color, canvas.relief, 1.3, 0.15)
