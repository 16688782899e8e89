"""The scene of `pointillist`: a bay at evening, seen from a meadow under pines."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from styles.draw.fields import (
    Field,
    Generator,
    blur,
    fbm,
    grid,
    mix,
    noise,
    palette,
    ramp,
    sample,
    smoothstep,
)
from styles.draw.strokes import View
from styles.draw.timber import grow, silhouette

HEIGHT, WIDTH = 1080, 1440
HORIZON, SUN_X, SUN_Y = 0.47 * HEIGHT, 0.30 * WIDTH, 0.33 * HEIGHT

SKY = palette("fff6c0", "ffdf8e", "ffb98a", "f291a4", "b98fd0", "7f9be0", "4f7fd0")
CLOUD = palette("4a63b8", "8f78c8", "e08fb8", "ffb090", "ffe7b0")
HILLS = palette("8f8fd8", "6a7cc8", "4f68b0", "4a7f8a")
SEA = palette("20408f", "2f74b8", "46b0b8", "a9d8b0", "ffd98f")
LEAVES = palette("141f66", "1a4f7a", "12785f", "3fa04a", "a8c83a", "ffd84a", "ff9f3a")
BARK = palette("2a1a5a", "6a2f7a", "e8703a")
MEADOW = palette("2f2f8a", "2a6f8a", "2f9a55", "8fc03f", "e8d640", "ffb040", "ff8a4a")
FLOWERS = palette("d83a7a", "f58ab0", "fff0c8")
GLARE, SAND = palette("fffbe0", "ffd9a0")
SAIL, SHADED_SAIL, HULL = palette("ffe9c0", "e89ab8", "2a2a78")


def bay(rng: Generator) -> View:
    """Compose the bay from its sky to its trees."""
    x, y = grid(HEIGHT, WIDTH)
    view = _sky(rng, x, y)
    _hills(rng, x, y, view)
    _sea(rng, x, y, view)
    for boat in ((0.41, 0.60, 0.15), (0.45, 0.505, 0.05), (0.55, 0.525, 0.07), (0.14, 0.53, 0.09)):
        _boat(view, *boat)
    _meadow(rng, x, y, view)
    for tree in ((0.735, 0.80, 0.44), (0.975, 0.80, 0.66), (0.865, 0.93, 0.86)):
        _pine(rng, x, y, view, *tree)
    return view


def _sky(rng: Generator, x: Field, y: Field) -> View:
    """Let the evening sky turn about the sun, with bars of cloud lit from beneath."""
    distance = np.hypot((x - SUN_X) / WIDTH, 1.3 * (y - SUN_Y) / HEIGHT)
    drift = fbm(rng, x, 1.6 * y, 320.0, 4)
    color = ramp(SKY, np.clip(1.9 * distance**0.85 - 0.08 + 0.12 * drift, 0.0, 1.0))
    color = mix(color, GLARE, smoothstep(0.062, 0.05, distance))
    around = np.arctan2(y - SUN_Y, x - SUN_X) + 0.5 * np.pi
    view = View(color, around + 0.3 * drift)
    bars = fbm(rng, x, 2.8 * y, 380.0, 5, 0.6)
    cloud = smoothstep(-0.05, 0.4, bars) * smoothstep(HORIZON, 0.35 * HORIZON, y)
    beneath = np.clip(0.75 - 1.1 * bars + 0.5 * np.exp(-3.0 * distance), 0.0, 1.0)
    view.over(ramp(CLOUD, beneath), 0.85 * cloud, 0.25 * drift)
    return view


def _hills(rng: Generator, x: Field, y: Field, view: View) -> None:
    """Range three lines of hills along the far shore, bluer and paler the farther."""
    for index, (rise, scale) in enumerate(((0.15, 420.0), (0.095, 300.0), (0.045, 200.0))):
        crest = HORIZON - HEIGHT * rise * (0.75 + 0.6 * fbm(rng, x, 0.0 * y, scale, 4))
        # The hills part where the sun goes down.
        crest += HEIGHT * rise * 0.9 * smoothstep(0.55, 0.1, np.abs(x / WIDTH - 0.3))
        mask = smoothstep(-1.5, 1.5, y - crest) * (y < HORIZON + 2.0)
        creases = fbm(rng, x, 1.4 * y, 80.0, 4)
        warmth = (0.8 - np.abs(x - SUN_X) / (0.4 * WIDTH)) * (0.5 + 0.5 * creases)
        color = ramp(HILLS, np.clip(0.28 * index + 0.35 * creases + 0.2, 0.0, 1.0))
        color = mix(color, SKY[2], 0.75 * np.clip(warmth, 0.0, 1.0))
        view.over(color, mask, np.arctan(np.gradient(crest, axis=1)) + 0.5 * creases)


def _sea(rng: Generator, x: Field, y: Field, view: View) -> None:
    """Spread the bay under the hills, with their reflections and the road of the sun."""
    depth = np.clip((y - HORIZON) / (HEIGHT - HORIZON), 0.001, 1.0)
    wave = noise(rng, 0.3 * x, y / (0.2 + depth), 15.0) + 0.4 * noise(rng, x, 3.0 * y, 60.0)
    mirrored = blur(view.color, 9.0, 3.0)
    mirrored = sample(mirrored, x + 20.0 * wave, 2.0 * HORIZON - y + 14.0 * wave)
    tint = ramp(SEA, np.clip(0.36 + 0.3 * wave - 0.25 * depth, 0.0, 1.0))
    color = mix(mirrored, tint, np.clip(0.35 + 0.6 * depth + 0.3 * wave, 0.0, 1.0))
    spread = (0.025 + 0.16 * depth) * WIDTH
    glitter = np.exp(-(((x - SUN_X) / spread) ** 2)) * smoothstep(-0.25, 0.35, wave)
    color = mix(color, ramp(SKY, 0.35 * depth + 0.05), glitter)
    view.over(color, (y > HORIZON).astype(np.float32), 0.12 * wave)


def _boat(view: View, at_x: float, at_y: float, tall: float) -> None:
    """Set a sailing boat on the bay over its own paler reflection."""
    left, base, size = at_x * WIDTH, at_y * HEIGHT, tall * HEIGHT
    for up, strength, angle in ((1.0, 1.0, 1.4), (-0.7, 0.6, 0.0)):
        mast, boom = (left, base - up * size), base - up * 0.1 * size
        _patch(view, [mast, (left + 0.42 * size, boom), (left, boom)], SAIL, strength, angle)
        _patch(view, [mast, (left - 0.28 * size, boom), (left, boom)], SHADED_SAIL, strength, angle)
        keel = (left, base + 0.03 * size)
        hull = [(left - 0.3 * size, boom), (left + 0.45 * size, boom), keel]
        _patch(view, hull, HULL, strength, 0.0)


def _patch(
    view: View,
    corners: Sequence[tuple[float, float]],
    color: npt.NDArray[np.floating],
    strength: float,
    angle: float,
) -> None:
    """Lay a polygon of one colour over a view."""
    sheet = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(sheet).polygon(list(corners), fill=255)
    mask = blur(np.asarray(sheet, np.float32) / np.float32(255.0), 1.5) * np.float32(strength)
    view.over(np.broadcast_to(color, view.color.shape), mask, angle)


def _meadow(rng: Generator, x: Field, y: Field, view: View) -> None:
    """Slope a flowering meadow down to the water, striped with the shadows of the trees."""
    across = x / WIDTH
    bank = 0.90 - 0.18 * smoothstep(0.15, 1.0, across) - 0.10 * smoothstep(0.35, -0.1, across)
    edge = HEIGHT * bank + 26.0 * fbm(rng, x, 0.0 * y, 260.0, 4)
    below = np.clip((y - edge) / (0.4 * HEIGHT), 0.0, 1.0)
    swell = fbm(rng, x, 1.8 * y, 240.0, 4, 0.6)
    shadow = smoothstep(0.05, 0.4, noise(rng, x + 1.6 * y, 2.2 * y, 190.0) + 0.3 * swell)
    tone = 0.74 + 0.2 * swell - 0.3 * below - 0.5 * shadow
    color = ramp(MEADOW, np.clip(tone, 0.0, 1.0))
    drifts = smoothstep(0.0, 0.35, fbm(rng, x, 1.6 * y, 90.0, 4, 0.7))
    drifts = 0.85 * drifts * smoothstep(0.02, 0.2, below)
    color = mix(color, ramp(FLOWERS, np.clip(0.5 + swell, 0.0, 1.0)), drifts)
    color = mix(color, SAND, 0.8 * np.exp(-(((y - edge) / 14.0) ** 2)))
    view.over(color, smoothstep(-3.0, 3.0, y - edge), 0.8 * swell - 0.35)


def _pine(
    rng: Generator, x: Field, y: Field, view: View, at_x: float, at_y: float, tall: float
) -> None:
    """Stand a pine on the shore, blue in its own shade and golden where the sun still comes."""
    size, foot = tall * HEIGHT, (at_x * WIDTH, at_y * HEIGHT)
    limbs = grow(rng, foot, -1.6 + rng.normal(0.0, 0.08), 0.38 * size, 0.034 * size)
    bark = ramp(BARK, np.clip(0.5 - 0.8 * noise(rng, x, y, 30.0), 0.0, 1.0))
    view.over(bark, blur(silhouette(limbs, HEIGHT, WIDTH), 0.8), 1.45)
    tips = [limb.points[-1] for limb in limbs if limb.thick < 0.016 * size]
    tufts = [(float(px), float(py)) for px, py in tips if py < foot[1] - 0.45 * size]
    fullness, sunny, around = _tufts(rng, x, y, tufts, 0.075 * size)
    ragged = fbm(rng, x, y, 0.09 * size, 4, 0.65)
    tone = 0.38 + 0.6 * sunny + 0.2 * ragged + 0.16 * noise(rng, x, y, 130.0)
    mask = smoothstep(0.22, 0.34, fullness + 0.26 * ragged)
    view.over(ramp(LEAVES, np.clip(tone, 0.0, 1.0)), mask, around)


def _tufts(
    rng: Generator, x: Field, y: Field, places: Sequence[tuple[float, float]], radius: float
) -> tuple[Field, Field, Field]:
    """Round needles about every twig; return their fullness, light side and contour."""
    fullness, sunny, around = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for at_x, at_y in places:
        reach = radius * rng.uniform(0.6, 1.15)
        right, down = (x - at_x) / (1.4 * reach), (y - at_y) / reach
        full = 1.0 - np.hypot(right, down)
        nearer = full > fullness
        fullness = np.where(nearer, full, fullness)
        sunny = np.where(nearer, -0.75 * right - 0.6 * down, sunny)
        around = np.where(nearer, np.arctan2(down, right) + 0.5 * np.pi, around)
    return fullness, sunny, around
