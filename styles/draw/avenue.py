"""The scene of `autumn`: trees along a wet road, against a low sun."""

from typing import NamedTuple

import numpy as np

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
    ramp,
    sample,
    smoothstep,
)
from styles.draw.timber import grow, silhouette

HEIGHT, WIDTH = 1080, 1440
HORIZON, SUN_X, SUN_Y = 0.55 * HEIGHT, 0.57 * WIDTH, 0.42 * HEIGHT

LIGHT = palette("fff3c4", "ffe08a", "f7c35f", "a9c9b8", "4f9a9c", "2c6f86")
LEAVES = palette("2a1440", "5a1846", "9c1f2e", "d2401c", "ee7418", "f7a524", "fdd860")
WATER = palette("1b0f45", "2b2a86", "1f6f9c", "58b0b4", "ff9a3c")
MIST = palette("2b2a66", "4a4f8c", "7f7aa0", "d9a070", "ffd98a")
BARK, RIM = palette("120c26", "5b2a52")


class Tree(NamedTuple):
    """One tree: its foot and its height, in shares of the canvas."""

    x: float
    y: float
    tall: float


class Layer(NamedTuple):
    """Something that hides what lies behind it."""

    color: Picture
    mask: Field


FAR_TO_NEAR = (
    Tree(0.505, 0.565, 0.26),
    Tree(0.63, 0.56, 0.30),
    Tree(0.45, 0.575, 0.36),
    Tree(0.69, 0.58, 0.42),
    Tree(0.37, 0.60, 0.52),
    Tree(0.79, 0.63, 0.66),
    Tree(0.25, 0.66, 0.72),
    Tree(0.93, 0.74, 0.90),
    Tree(0.06, 0.78, 1.00),
)


def avenue(rng: Generator) -> Picture:
    """Compose the colours of the avenue."""
    x, y = grid(HEIGHT, WIDTH)
    sky = _sky(rng, x, y)
    layers: list[Layer] = []
    for tree in FAR_TO_NEAR:
        leaves = _crown(rng, x, y, tree)
        layers += [leaves, _wood(rng, tree, leaves)]
    mirrored = _stack(sky, layers)
    land = _ground(rng, x, y, mirrored)
    view = _stack(mix(sky, land, (y > HORIZON).astype(np.float32)), layers)
    grey = view.mean(axis=-1, keepdims=True)
    vivid: Picture = np.clip(grey + 1.2 * (view - grey), 0.0, 1.0)
    return vivid


def _stack(view: Picture, layers: list[Layer]) -> Picture:
    for layer in layers:
        view = mix(view, layer.color, layer.mask)
    return view


def _glow(x: Field, y: Field) -> Field:
    """Return a glow that falls from 1 at the low sun to 0 at the far corners."""
    distance = np.hypot((x - SUN_X) / WIDTH, (y - SUN_Y) / HEIGHT * 0.9)
    glow: Field = np.exp(-3.2 * distance)
    return glow


def _sky(rng: Generator, x: Field, y: Field) -> Picture:
    """Fade the sky from the sun to teal, with woods in the haze along the horizon."""
    haze = 1.0 - _glow(x, y) + 0.16 * fbm(rng, x, y, 180.0)
    sky = ramp(LIGHT, np.clip(1.2 * haze - 0.1, 0.0, 1.0))
    woods = smoothstep(-25.0, 25.0, y - HORIZON + 0.14 * HEIGHT + 90.0 * fbm(rng, x, y, 90.0, 4))
    misty = ramp(MIST, np.clip(1.25 * _glow(x, y) + 0.25 * fbm(rng, x, y, 50.0), 0.0, 1.0))
    return mix(sky, misty, 0.85 * woods)


def _crown(rng: Generator, x: Field, y: Field, tree: Tree) -> Layer:
    """Make a cloud of leaves, in clumps that are lit from the sun's side and dark beneath."""
    size = tree.tall * HEIGHT
    middle_x, middle_y = tree.x * WIDTH, tree.y * HEIGHT - 0.66 * size
    ragged = fbm(rng, x, y, 0.4 * size, 5, 0.66)
    radius = np.hypot((x - middle_x) / (0.42 * size), (y - middle_y) / (0.40 * size))
    mask = smoothstep(0.10, -0.06, radius - 0.86 - 0.5 * ragged)
    clumps = fbm(rng, x, y, 0.17 * size, 4, 0.6)
    masses = fbm(rng, x, y, 0.3 * size, 2)
    sunny = (x - middle_x) * np.sign(SUN_X - middle_x) / size - 0.8 * (y - middle_y) / size
    tone = 0.42 + 0.34 * clumps + 0.2 * masses + 0.3 * sunny + 0.5 * _glow(x, y)
    color = ramp(LEAVES, np.clip(tone - 0.16 * tree.tall, 0.0, 1.0))
    gaps = smoothstep(0.42, 0.62, -clumps - 0.5 * masses) * smoothstep(0.3, 0.8, radius)
    return Layer(color, mask * (1.0 - 0.85 * gaps))


def _wood(rng: Generator, tree: Tree, leaves: Layer) -> Layer:
    """Draw a stem and its boughs, dark but for a rim of light, half behind their leaves."""
    size, toward = tree.tall * HEIGHT, float(np.sign(SUN_X - tree.x * WIDTH))
    foot = (tree.x * WIDTH, tree.y * HEIGHT)
    limbs = grow(rng, foot, -0.5 * np.pi - 0.05 * toward, 0.36 * size, 0.05 * size)
    rim = silhouette(limbs, HEIGHT, WIDTH, share=0.3, shift=0.3 * toward)
    bark = mix(np.broadcast_to(BARK, leaves.color.shape), RIM, rim)
    in_front = leaves.mask * smoothstep(0.5, 0.85, leaves.color[..., 0])
    return Layer(bark, silhouette(limbs, HEIGHT, WIDTH) * (1.0 - 0.6 * in_front))


def _ground(rng: Generator, x: Field, y: Field, above: Picture) -> Picture:
    """Lay the road between two banks of fallen leaves that the trees stripe with shadow."""
    depth = np.clip((y - HORIZON) / (HEIGHT - HORIZON), 0.001, 1.0)
    sway = 0.05 * WIDTH * np.sin(4.2 * np.sqrt(depth) + 0.6)
    center = SUN_X + sway * np.sqrt(depth) - 0.07 * WIDTH * depth
    edge = np.abs(x - center) - (0.03 + 0.40 * depth) * WIDTH
    bank = smoothstep(-12.0, 22.0, edge + 75.0 * np.sqrt(depth) * fbm(rng, x, y, 170.0))
    litter = fbm(rng, x, y / (0.3 + depth), 80.0, 5, 0.7)
    shadows = noise(rng, 300.0 * np.arctan2(x - SUN_X, y - SUN_Y), 0.1 * y, 34.0)
    tone = 0.37 + 0.26 * litter + 0.3 * shadows + 0.5 * _glow(x, y) - 0.22 * depth
    leaves = ramp(LEAVES, np.clip(tone, 0.0, 1.0))
    return mix(_road(rng, x, y, depth, x - center, above), leaves, bank)


def _road(
    rng: Generator, x: Field, y: Field, depth: Field, aside: Field, above: Picture
) -> Picture:
    """Mirror the trees in wet ground, with pools of sky and a beam of the sun."""
    ripple = noise(rng, 0.25 * x, y / (0.25 + depth), 16.0)
    mirror_y = HORIZON - 1.12 * (y - HORIZON)
    mirrored = sample(blur(above, 16.0, 3.0), x + 30.0 * depth * ripple, mirror_y)
    drift = fbm(rng, 0.6 * x, y / (0.3 + depth), 150.0)
    pools = ramp(WATER, np.clip(0.34 + 0.36 * ripple + 0.34 * drift, 0.0, 1.0))
    wet = smoothstep(-0.45, 0.5, ripple + 0.7 * drift + 0.5 * depth - 0.25)
    road = mix(mirrored, pools, 0.92 * wet)
    beam = np.exp(-((aside / (26.0 + 110.0 * depth)) ** 2)) * smoothstep(-0.4, 0.6, ripple)
    return mix(road, ramp(LIGHT, 0.3 * depth), 0.9 * beam * (1.0 - 0.5 * depth))
