"""`wave`: a woodblock print of breaking waves in Prussian blue on cream paper."""

import numpy as np
from PIL import Image

from styles.draw.breakers import (
    CREAM,
    DEEP,
    FOAM,
    INK,
    MID,
    MIST,
    PALE,
    PRUSSIAN,
    breaker,
    paint_body,
    paint_foam,
    paint_spray,
)
from styles.draw.fields import (
    Field,
    Generator,
    Picture,
    blur,
    fbm,
    grid,
    mix,
    noise,
    normalized,
    palette,
    paper,
    ramp,
    sample,
    smoothstep,
    to_image,
    warp,
)
from styles.draw.shapes import Plate

HEIGHT, WIDTH = 1080, 1440
OCHRE, SAND = palette("d9bd8a", "e3cfa4")

# From the horizon to the front: the water line, the size of its waves and their number.
ROWS = ((215, 95, 6), (400, 145, 5), (620, 215, 4), (830, 150, 5), (1030, 185, 4))


def draw(seed: int = 0) -> Image.Image:
    """Draw the print."""
    rng = np.random.default_rng(seed)
    plate = Plate(_sky(rng))
    for index, (level, size, count) in enumerate(ROWS):
        _paint_swell(rng, plate, level, size, index)
        places = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count * (WIDTH + size) - size
        for place in rng.permutation(places):
            side = 1.0 if rng.random() < 0.75 else -1.0
            height = level - rng.uniform(-0.25, 0.35) * size
            wave = breaker(rng, float(place), height, size * rng.uniform(0.8, 1.2), side)
            paint_body(rng, plate, wave)
            paint_foam(rng, plate, wave)
            paint_spray(rng, plate, wave)
    return to_image(_print(rng, plate.picture()))


def _seigaiha(x: Field, y: Field, radius: float) -> tuple[Field, Field]:
    """Return for overlapping fish scales the distance from the scale's centre and its row."""
    distance, owner = np.ones_like(x), np.zeros_like(x)
    row = np.floor(y / (radius / 2))
    for ahead in (0, 1, 2, 3):
        center_row = row + ahead
        shift = np.mod(center_row, 2.0) * radius
        across = np.mod(x - shift + radius, 2 * radius) - radius
        reach = np.hypot(across, y - center_row * radius / 2) / radius
        distance = np.where(reach < 1.0, reach, distance)
        owner = np.where(reach < 1.0, center_row, owner)
    return distance, owner


def _scales(rng: Generator, radius: float, tones: Picture, line: Picture, rim: Picture) -> Picture:
    """Fill the canvas with seigaiha scales, bent by a slow swell."""
    x, y = warp(rng, *grid(HEIGHT, WIDTH), scale=340.0, amount=55.0, octaves=2)
    distance, row = _seigaiha(x, y, radius)
    tone = ramp(tones, 0.5 + 0.6 * noise(rng, x, row * 40.0, 170.0))
    rings = np.cos(distance * 2 * np.pi * 2.5)
    threshold = 0.25 + 0.5 * noise(rng, x, y, 60.0)
    picture = mix(tone, line, smoothstep(-0.3, 0.3, rings - threshold))
    return mix(picture, rim, smoothstep(0.88, 0.95, distance))


def _sky(rng: Generator) -> Picture:
    tones = np.stack([MIST, SAND, OCHRE, CREAM])
    return _scales(rng, 62.0, tones, CREAM, MID)


def _paint_swell(rng: Generator, plate: Plate, level: float, size: float, index: int) -> None:
    """Cover everything below a rolling water line with patterned sea."""
    x = np.linspace(-10.0, WIDTH + 10.0, 200)
    roll = np.sin(x / size * 1.1 + rng.uniform(0, 6.3)) + 0.6 * np.sin(x / size * 2.3)
    top = np.stack([x, level + size * 0.22 * roll], axis=1)
    floor = np.array([[WIDTH + 10.0, HEIGHT + 10.0], [-10.0, HEIGHT + 10.0]])
    dark = (np.stack([DEEP, PRUSSIAN, INK, PRUSSIAN]), PALE, INK)
    light = (np.stack([MID, PALE, PRUSSIAN, MIST]), FOAM, DEEP)
    sea = _scales(rng, 34.0 + size * 0.1, *(light if index % 2 else dark))
    plate.lay(sea, np.concatenate([top, floor]))
    plate.stroke(top, 3.0 + np.abs(np.sin(x / 37.0)) * 2.5, INK)


def _print(rng: Generator, picture: Picture) -> Picture:
    """Wobble the cut lines like a carver's knife and print the inks on grained paper."""
    x, y = grid(HEIGHT, WIDTH)
    knife_x, knife_y = warp(rng, x, y, scale=14.0, amount=0.9, octaves=2)
    picture = sample(picture, knife_x, knife_y)
    bent_y = y + 30.0 * fbm(rng, x, y, 420.0, octaves=2)
    grain = normalized(noise(rng, x * 0.03, bent_y, 5.0) + 0.7 * noise(rng, x * 0.05, bent_y, 11.0))
    mottle = normalized(fbm(rng, x, y, 16.0, octaves=3))
    darkness = 1.0 - picture.mean(axis=2)
    wear = 0.055 * grain + 0.03 * mottle + 0.1 * smoothstep(1.0, 2.6, mottle)
    ink = picture + (CREAM - picture) * np.clip(wear * (0.3 + darkness), -0.2, 0.5)[..., None]
    pool = darkness - blur(darkness, 9.0)
    tooth = 0.022 * paper(rng, HEIGHT, WIDTH) - 0.05 * np.clip(pool, 0.0, 1.0)
    printed: Picture = ink + tooth[..., None] * CREAM
    return printed
