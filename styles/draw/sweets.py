"""The motifs of `candy`: lollipops, rings, flowers, curls and drops, each in a dark contour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from styles.draw.fields import Generator, Picture, palette
from styles.draw.shapes import Path, Plate, blob, hook, normals

INK = palette("1b1030")[0]
CREAM = palette("fff1d2")[0]
SWEETS = palette(
    *("f0286e", "ff6a1f", "ffc81e", "9bcf35", "12a99c", "2f93e0"),
    *("2b3aa8", "7a37b0", "b3123f", "ff8fb4", "fff1d2", "5fd0c8"),
)

Motif = Callable[[Generator, Plate, Path, float], None]


def pick(rng: Generator, count: int) -> Picture:
    """Picks different colours."""
    chosen: Picture = SWEETS[rng.permutation(len(SWEETS))[:count]]
    return chosen


def _spokes(rng: Generator, count: int) -> Picture:
    """Picks two or three colours and repeats them round a wheel of `count` parts."""
    colours = pick(rng, 3 if count % 3 == 0 else 2)
    wheel: Picture = colours[np.arange(count) % len(colours)]
    return wheel


def _outlined(plate: Plate, outline: Path, line: float, colour: Picture) -> None:
    plate.fill(outline, colour)
    closed = np.concatenate([outline, outline[:2]])
    width = line * (1.0 + 0.4 * np.sin(np.linspace(0.0, 12.0, len(closed))))
    plate.stroke(closed, width, INK)


def lollipop(rng: Generator, plate: Plate, centre: Path, radius: float) -> None:
    """Winds arms of alternate colours into a disc."""
    line = 0.7 + radius * 0.024
    arms = int(rng.choice([6, 8, 9, 12]))
    turn = float(rng.choice([-1.0, 1.0])) * rng.uniform(1.6, 3.2)
    plate.fill(blob(rng, centre, radius + 1.7 * line, 0.02), INK)
    t = np.linspace(0.0, 1.0, 60)
    reach = radius * t**0.85
    edges = []
    for arm in range(arms + 1):
        angle = 2.0 * np.pi * arm / arms + turn * t
        edges.append(centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    for arm, colour in enumerate(_spokes(rng, arms)):
        angle = turn + 2.0 * np.pi * (arm + np.linspace(0.0, 1.0, 20)) / arms
        arc = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        plate.fill(np.concatenate([edges[arm], arc, edges[arm + 1][::-1]]), colour)
    for arm in range(arms):
        plate.stroke(edges[arm], line * (0.25 + 0.75 * t), INK)
    _dots_round(rng, plate, centre, radius * 0.86, radius * 0.045)


def rings(rng: Generator, plate: Plate, centre: Path, radius: float) -> None:
    """Nests wobbling rings, some of them set with beads or spokes."""
    line = 0.6 + radius * 0.018
    shares = np.linspace(1.0, 0.16, int(rng.integers(5, 8)))
    for index, (share, colour) in enumerate(zip(shares, pick(rng, len(shares)), strict=True)):
        _outlined(plate, blob(rng, centre, radius * share, 0.03), line, colour)
        middle, gap = radius * (share - 0.07), radius * 0.14
        if index % 3 == 1 and share > 0.3:
            _dots_round(rng, plate, centre, middle, gap * 0.28)
        elif index % 3 == 2 and share > 0.3:
            for angle in np.arange(0.0, 2.0 * np.pi, 9.0 / middle):
                way = np.array([np.cos(angle), np.sin(angle)])
                bar = centre + way * np.array([[middle - gap * 0.3], [middle + gap * 0.3]])
                plate.stroke(bar, line * 0.5, INK)


def flower(rng: Generator, plate: Plate, centre: Path, radius: float) -> None:
    """Opens petals with a stripe in each around a beaded heart."""
    line = 0.6 + radius * 0.022
    count = int(rng.integers(7, 12))
    petal, stripe, heart = pick(rng, 3)
    for angle in rng.uniform(0, 6.3) + np.arange(count) * 2.0 * np.pi / count:
        way = np.array([np.cos(angle), np.sin(angle)])
        t = np.linspace(0.0, 1.0, 24)
        path = centre + way * (radius * t)[:, None]
        half = radius * 2.4 / count * np.sin(np.pi * t**1.5) ** 0.8
        plate.stroke(path, half + line * 1.6, INK)
        plate.stroke(path, half, petal)
        plate.stroke(path[6:-3], half[6:-3] * 0.45, stripe)
        plate.stroke(path[4:-6], line * 0.5, INK)
    _outlined(plate, blob(rng, centre, radius * 0.3, 0.05), line, heart)
    _dots_round(rng, plate, centre, radius * 0.19, radius * 0.045)


def curl(rng: Generator, plate: Plate, centre: Path, radius: float) -> None:
    """Rolls a tapering striped ribbon into a snail."""
    line = 0.7 + radius * 0.024
    colours = pick(rng, 3)
    turns = float(rng.choice([-1.0, 1.0])) * rng.uniform(13.0, 17.0)
    t = np.linspace(0.0, 1.0, 220)
    angle = rng.uniform(0, 6.3) + turns * t**0.8
    reach = radius * (0.86 * (1.0 - t) + 0.05)
    path = centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    half = radius * 0.125 * (1.0 - 0.6 * t)
    plate.fill(blob(rng, centre, radius, 0.03), INK)
    plate.fill(blob(rng, centre, radius - 2.0 * line, 0.03), colours[0])
    plate.stroke(path, half + line, INK)
    plate.stroke(path, half, colours[1])
    plate.stroke(path + normals(path) * half[:, None] * 0.35, half * 0.22, colours[2])
    for at in range(6, 210, 7):
        plate.dot(path[at], float(half[at]) * 0.3, CREAM)


def drop(rng: Generator, plate: Plate, centre: Path, radius: float) -> None:
    """Sets a curved drop on a spotted disc."""
    line = 0.7 + radius * 0.024
    ground, spots, outer, inner = pick(rng, 4)
    _outlined(plate, blob(rng, centre, radius, 0.06), line * 1.2, ground)
    for ring in np.arange(0.25, 0.95, 0.16):
        _dots_round(rng, plate, centre, radius * ring, radius * 0.035, spots)
    angle = rng.uniform(0, 6.3)
    start = centre - 0.3 * radius * np.array([np.cos(angle), np.sin(angle)])
    path = hook(start, angle, radius * 1.3, float(rng.choice([-1, 1])) * 3.6, 60)
    t = np.linspace(0.0, 1.0, len(path))
    half = radius * 0.44 * np.cos(0.5 * np.pi * t) ** 1.3
    for share, colour in ((1.0, outer), (0.72, inner), (0.46, CREAM), (0.24, spots)):
        plate.stroke(path, half * share + line, INK)
        plate.stroke(path, half * share, colour)


def _dots_round(
    rng: Generator,
    plate: Plate,
    centre: Path,
    reach: float,
    radius: float,
    colour: Picture = CREAM,
) -> None:
    """Strings beads on a circle."""
    count = max(5, int(2.0 * np.pi * reach / (radius * 3.6)))
    for angle in rng.uniform(0, 6.3) + np.arange(count) * 2.0 * np.pi / count:
        place = centre + reach * np.array([np.cos(angle), np.sin(angle)])
        plate.dot(place, radius * 1.2 + 0.4, INK)
        plate.dot(place, radius, colour)


MOTIFS: tuple[Motif, ...] = (lollipop, flower, curl, rings, drop)
