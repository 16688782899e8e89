"""The motifs of `candy`: lollipops, rings, flowers, curls and drops, each in a dark contour."""

from collections.abc import Callable

import numpy as np

from styles.draw.fields import Generator, Picture, palette
from styles.draw.shapes import Path, Plate, blob, hook, normals

INK = palette("4b2a66")[0]
CREAM = palette("fdeccb")[0]
SWEETS = palette(
    *("f0518b", "fb8148", "f8c94a", "a6cf58", "3cb5a8", "57a5e0"),
    *("5a68c4", "9560c0", "cf4a6b", "fb9fbc", "fdeccb", "76d0c8"),
)

Motif = Callable[[Generator, Plate, Path, float], None]


def pick(rng: Generator, count: int) -> Picture:
    """Pick different colours."""
    chosen: Picture = SWEETS[rng.permutation(len(SWEETS))[:count]]
    return chosen


def _spokes(rng: Generator, count: int) -> Picture:
    """Pick two or three colours and repeat them round a wheel of `count` parts."""
    colors = pick(rng, 3 if count % 3 == 0 else 2)
    wheel: Picture = colors[np.arange(count) % len(colors)]
    return wheel


def _outlined(plate: Plate, outline: Path, line: float, color: Picture) -> None:
    plate.fill(outline, color)
    closed = np.concatenate([outline, outline[:2]])
    width = line * (1.0 + 0.4 * np.sin(np.linspace(0.0, 12.0, len(closed))))
    plate.stroke(closed, width, INK)


def lollipop(rng: Generator, plate: Plate, center: Path, radius: float) -> None:
    """Wind arms of alternate colours into a disc."""
    line = 0.7 + radius * 0.024
    arms = int(rng.choice([6, 8, 9, 12]))
    turn = float(rng.choice([-1.0, 1.0])) * rng.uniform(1.6, 3.2)
    plate.fill(blob(rng, center, radius + 1.7 * line, 0.02), INK)
    t = np.linspace(0.0, 1.0, 60)
    reach = radius * t**0.85
    edges = []
    for arm in range(arms + 1):
        angle = 2.0 * np.pi * arm / arms + turn * t
        edges.append(center + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    for arm, color in enumerate(_spokes(rng, arms)):
        angle = turn + 2.0 * np.pi * (arm + np.linspace(0.0, 1.0, 20)) / arms
        arc = center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        plate.fill(np.concatenate([edges[arm], arc, edges[arm + 1][::-1]]), color)
    for arm in range(arms):
        plate.stroke(edges[arm], line * (0.25 + 0.75 * t), INK)
    _dots_round(rng, plate, center, radius * 0.86, radius * 0.045)


def rings(rng: Generator, plate: Plate, center: Path, radius: float) -> None:
    """Nest wobbling rings, some of them set with beads or spokes."""
    line = 0.6 + radius * 0.018
    shares = np.linspace(1.0, 0.16, int(rng.integers(5, 8)))
    for index, (share, color) in enumerate(zip(shares, pick(rng, len(shares)), strict=True)):
        _outlined(plate, blob(rng, center, radius * share, 0.03), line, color)
        middle, gap = radius * (share - 0.07), radius * 0.14
        if index % 3 == 1 and share > 0.3:
            _dots_round(rng, plate, center, middle, gap * 0.28)
        elif index % 3 == 2 and share > 0.3:
            for angle in np.arange(0.0, 2.0 * np.pi, 9.0 / middle):
                way = np.array([np.cos(angle), np.sin(angle)])
                bar = center + way * np.array([[middle - gap * 0.3], [middle + gap * 0.3]])
                plate.stroke(bar, line * 0.5, INK)


def flower(rng: Generator, plate: Plate, center: Path, radius: float) -> None:
    """Open petals with a stripe in each around a beaded heart."""
    line = 0.6 + radius * 0.022
    count = int(rng.integers(7, 12))
    petal, stripe, heart = pick(rng, 3)
    for angle in rng.uniform(0, 6.3) + np.arange(count) * 2.0 * np.pi / count:
        way = np.array([np.cos(angle), np.sin(angle)])
        t = np.linspace(0.0, 1.0, 24)
        path = center + way * (radius * t)[:, None]
        half = radius * 2.4 / count * np.sin(np.pi * t**1.5) ** 0.8
        plate.stroke(path, half + line * 1.6, INK)
        plate.stroke(path, half, petal)
        plate.stroke(path[6:-3], half[6:-3] * 0.45, stripe)
        plate.stroke(path[4:-6], line * 0.5, INK)
    _outlined(plate, blob(rng, center, radius * 0.3, 0.05), line, heart)
    _dots_round(rng, plate, center, radius * 0.19, radius * 0.045)


def curl(rng: Generator, plate: Plate, center: Path, radius: float) -> None:
    """Roll a tapering striped ribbon into a snail."""
    line = 0.7 + radius * 0.024
    colors = pick(rng, 3)
    turns = float(rng.choice([-1.0, 1.0])) * rng.uniform(13.0, 17.0)
    t = np.linspace(0.0, 1.0, 220)
    angle = rng.uniform(0, 6.3) + turns * t**0.8
    reach = radius * (0.86 * (1.0 - t) + 0.05)
    path = center + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    half = radius * 0.125 * (1.0 - 0.6 * t)
    plate.fill(blob(rng, center, radius, 0.03), INK)
    plate.fill(blob(rng, center, radius - 2.0 * line, 0.03), colors[0])
    plate.stroke(path, half + line, INK)
    plate.stroke(path, half, colors[1])
    plate.stroke(path + normals(path) * half[:, None] * 0.35, half * 0.22, colors[2])
    for at in range(6, 210, 7):
        plate.dot(path[at], float(half[at]) * 0.3, CREAM)


def drop(rng: Generator, plate: Plate, center: Path, radius: float) -> None:
    """Set a curved drop on a spotted disc."""
    line = 0.7 + radius * 0.024
    ground, spots, outer, inner = pick(rng, 4)
    _outlined(plate, blob(rng, center, radius, 0.06), line * 1.2, ground)
    for ring in np.arange(0.25, 0.95, 0.16):
        _dots_round(rng, plate, center, radius * ring, radius * 0.035, spots)
    angle = rng.uniform(0, 6.3)
    start = center - 0.3 * radius * np.array([np.cos(angle), np.sin(angle)])
    path = hook(start, angle, radius * 1.3, float(rng.choice([-1, 1])) * 3.6, 60)
    t = np.linspace(0.0, 1.0, len(path))
    half = radius * 0.44 * np.cos(0.5 * np.pi * t) ** 1.3
    for share, color in ((1.0, outer), (0.72, inner), (0.46, CREAM), (0.24, spots)):
        plate.stroke(path, half * share + line, INK)
        plate.stroke(path, half * share, color)


def _dots_round(
    rng: Generator,
    plate: Plate,
    center: Path,
    reach: float,
    radius: float,
    color: Picture = CREAM,
) -> None:
    """String beads on a circle."""
    count = max(5, int(2.0 * np.pi * reach / (radius * 3.6)))
    for angle in rng.uniform(0, 6.3) + np.arange(count) * 2.0 * np.pi / count:
        place = center + reach * np.array([np.cos(angle), np.sin(angle)])
        plate.dot(place, radius * 1.2 + 0.4, INK)
        plate.dot(place, radius, color)


MOTIFS: tuple[Motif, ...] = (lollipop, flower, curl, rings, drop)
