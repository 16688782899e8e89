"""The foreground of `ink`: bamboo, a flowering plum, and rocks and reeds by the water."""

import numpy as np

from styles.draw.fields import Generator
from styles.draw.strokes import walk
from styles.draw.sumi import Dip, Sheet
from styles.draw.timber import grow

# Stalks of bamboo from far to near: the foot, in shares of the sheet, the lean, the width in
# pixels and the depth of the ink.
STALKS = (
    (0.20, 0.05, 15.0, 0.35),
    (0.03, 0.06, 19.0, 0.45),
    (0.26, -0.06, 12.0, 0.60),
    (0.31, 0.04, 10.0, 0.30),
    (0.085, 0.03, 30.0, 1.00),
    (0.155, -0.02, 22.0, 1.35),
)

# Rocks: the place of the foot, in shares of the sheet, and the height in pixels.
ROCKS = (
    (0.36, 1.0, 95.0),
    (0.47, 1.02, 70.0),
    (0.78, 1.0, 120.0),
    (0.93, 0.97, 150.0),
    (0.66, 1.03, 60.0),
)


def grow_bamboo(rng: Generator, sheet: Sheet) -> None:
    """Grow stalks joint by joint, pale ones behind dark ones, and hang their leaves."""
    height, width = sheet.size
    t = np.linspace(0.0, 1.0, 8)
    for foot, lean, wide, load in STALKS:
        x, y, joint = foot * width, height + 20.0, 5.2 * wide
        while y > -joint:
            rise = joint * rng.uniform(0.9, 1.15)
            path = np.stack([x + lean * rise * t, y - 3.0 - (rise - 3.0) * t], axis=-1)
            widths = wide * (1.0 + 0.16 * np.cos(2.0 * np.pi * t))
            dip = Dip(0.8 * load, rng.uniform(0.35, 0.75))
            sheet.stroke(rng, path.astype(np.float32), widths, dip)
            x, y, joint = x + lean * rise, y - rise, 1.04 * joint
            side = 0.62 * wide
            knot = np.array([(x - side, y + 2.0), (x, y - 1.5), (x + side, y + 2.5)], np.float32)
            sheet.stroke(rng, knot, np.array([3.5, 2.0, 4.0]) * wide / 20.0, Dip(1.6 * load, 0.1))
            if rng.random() < 0.75:
                _hang_leaves(rng, sheet, (x, y), 2.6 * wide + 50.0, load)


def _hang_leaves(
    rng: Generator, sheet: Sheet, start: tuple[float, float], reach: float, load: float
) -> None:
    """Throw out a twig to either side and hang a handful of pointed leaves on it."""
    side = rng.choice([-1.0, 1.0])
    t = np.linspace(0.0, 1.0, 8)
    twig = np.stack([start[0] + side * reach * t, start[1] - 0.45 * reach * t * (1.4 - t)], axis=-1)
    sheet.stroke(rng, twig.astype(np.float32), np.linspace(3.0, 1.2, 8), Dip(load, 0.3))
    leaf = np.sin(np.pi * np.linspace(0.03, 1.0, 13) ** 0.62) ** 1.1
    for _ in range(rng.integers(4, 9)):
        droop = rng.normal(0.75, 0.45) + rng.normal(0.25, 0.2) * np.linspace(0.0, 1.0, 12)
        headings = droop if side > 0.0 else np.pi - droop
        path = walk(twig[rng.integers(3, 8)], headings, rng.uniform(45.0, 135.0))
        dip = Dip(load * rng.uniform(0.5, 1.3), rng.uniform(0.0, 0.5))
        sheet.stroke(rng, path, rng.uniform(9.0, 19.0) * leaf, dip)


def grow_plum(rng: Generator, sheet: Sheet) -> None:
    """Reach gnarled plum branches in from the right and set red blossom on their twigs."""
    height, width = sheet.size
    for level, angle, length, thick in ((0.40, 3.5, 400.0, 38.0), (0.13, 2.8, 260.0, 20.0)):
        for limb in grow(rng, (width + 30.0, level * height), angle, length, thick):
            rough = 1.0 + 0.16 * rng.normal(0.0, 1.0, len(limb.points))
            kinked = limb.points + rng.normal(0.0, 0.1 * limb.thick, limb.points.shape)
            dip = Dip(1.1, rng.uniform(0.3, 0.8) if limb.thick > 5.0 else 0.2)
            widths = np.maximum(limb.widths() * rough, 1.2)
            sheet.stroke(rng, kinked.astype(np.float32), widths, dip)
            if limb.thick < 9.0:
                for x, y in limb.points[2:]:
                    if rng.random() < 0.14:
                        _blossom(rng, sheet, float(x), float(y))


def _blossom(rng: Generator, sheet: Sheet, x: float, y: float) -> None:
    """Press three to five wet petals and flick a few dark stamens over them."""
    size, turn = rng.uniform(5.0, 11.0), rng.uniform(0.0, 2.0 * np.pi)
    petal = size * np.array([0.4, 0.8, 1.2, 1.1, 0.4])
    for angle in turn + 0.4 * np.pi * np.arange(rng.integers(3, 6)):
        path = walk((x, y), np.full(4, angle), 1.25 * size)
        sheet.stroke(rng, path, petal, Dip(rng.uniform(0.5, 1.5), 0.15, red=True))
    for angle in rng.uniform(0.0, 2.0 * np.pi, 3):
        path = walk((x, y), np.full(2, angle), 0.8 * size)
        sheet.stroke(rng, path, np.array([1.0, 0.8, 1.8]), Dip(1.2, 0.0))


def lay_shore(rng: Generator, sheet: Sheet) -> None:
    """Drag ripples over the water, pile rocks at its edge and stand reeds between them."""
    height, width = sheet.size
    t = np.linspace(0.0, 1.0, 10)
    for _ in range(330):
        depth = rng.random() ** 0.7
        length = rng.uniform(40.0, 260.0) * (0.4 + depth)
        x, y = rng.uniform(-60.0, width), height * (0.80 + 0.2 * depth)
        path = np.stack([x + length * t, y + np.cumsum(rng.normal(0.0, 1.1, 10))], axis=-1)
        widths = rng.uniform(2.0, 13.0) * np.sin(np.pi * np.clip(t, 0.06, 0.95))
        dip = Dip(rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.0))
        sheet.stroke(rng, path.astype(np.float32), widths, dip)
    for rock_x, rock_y, size in ROCKS:
        _pile_rock(rng, sheet, rock_x * width, rock_y * height, size)
    for _ in range(150):
        foot = rng.choice([0.33, 0.42, 0.60, 0.72, 0.86]) * width + rng.normal(0.0, 45.0)
        tall, lean = rng.uniform(40.0, 170.0), rng.normal(0.1, 0.3)
        path = np.stack([foot + lean * tall * t**1.8, height + 8.0 - tall * t], axis=-1)
        widths = rng.uniform(2.0, 5.5) * (1.05 - t)
        dip = Dip(rng.uniform(0.4, 1.3), rng.uniform(0.1, 0.6))
        sheet.stroke(rng, path.astype(np.float32), widths, dip)


def _pile_rock(rng: Generator, sheet: Sheet, x: float, y: float, size: float) -> None:
    """Build a boulder from broad dry strokes of the side of the brush."""
    for _ in range(44):
        side = rng.uniform(-1.0, 1.0)
        top = y - size * (1.0 - side * side) * rng.uniform(0.5, 1.0)
        angle = 0.5 * np.pi - 0.9 * side + rng.normal(0.0, 0.35)
        headings = angle + np.cumsum(rng.normal(0.0, 0.16, 8))
        path = walk((x + 1.2 * side * size, top), headings, size * rng.uniform(0.3, 0.8))
        widths = size * rng.uniform(0.1, 0.36) * np.sin(np.linspace(0.3, 2.9, len(path)))
        sheet.stroke(rng, path, widths, Dip(rng.uniform(0.3, 1.3), rng.uniform(0.4, 0.95)))
