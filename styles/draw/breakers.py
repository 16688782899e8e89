"""The breaking waves of the `wave` print: striped bodies under foam that ends in claws."""

from typing import NamedTuple

import numpy as np

from styles.draw.fields import Generator, palette
from styles.draw.shapes import Color, Path, Plate, Widths, blob, hook, normals, spline

INK, DEEP, PRUSSIAN, MID, PALE, MIST, CREAM, FOAM = palette(
    "24456b", "2c5680", "3d739b", "689bb4", "97b8bf", "bccbc2", "dfd3b6", "e9e0cb"
)

# A wave that curls to the right, in units of its own size with y up: its back and its hollow face,
# each from the foot to the tip of the crest.
BACK = (
    *((-3.0, -1.9), (-2.1, -0.75), (-1.35, -0.1), (-0.75, 0.6), (-0.05, 1.0)),
    *((0.6, 0.96), (1.02, 0.62), (1.12, 0.2), (0.95, -0.08)),
)
FACE = (
    *((1.7, -1.9), (0.8, -1.1), (0.1, -0.75), (-0.3, -0.25), (-0.25, 0.25)),
    *((0.1, 0.55), (0.5, 0.55), (0.78, 0.3), (0.95, -0.08)),
)
POINTS = 160


class Finger(NamedTuple):
    """One tapering foam finger: its middle line, its half widths and the way it bends."""

    path: Path
    half_width: Widths
    bend: float


class Breaker(NamedTuple):
    """One wave on the canvas: its size, the way it curls (1 or -1) and its two edges."""

    size: float
    side: float
    back: Path
    face: Path

    def between(self, share: float) -> Path:
        """Return the line that runs along the body a share of the way from back to face."""
        return self.back * (1.0 - share) + self.face * share


def breaker(rng: Generator, x: float, y: float, size: float, side: float) -> Breaker:
    """Shape a wave of its own around a canvas position."""
    place, scale = np.array([x, y]), np.array([side * size * rng.uniform(0.9, 1.15), -size])
    edges = []
    for edge in (BACK, FACE):
        control = np.array(edge)
        control[1:-1] += rng.normal(0.0, 0.05, control[1:-1].shape)
        edges.append(place + spline(control, POINTS) * scale)
    return Breaker(size, side, edges[0], edges[1])


def paint_body(rng: Generator, plate: Plate, wave: Breaker) -> None:
    """Fill the wave with blue, and cut stripes that run up into its crest."""
    outline = np.concatenate([wave.back, wave.face[::-1]])
    line = max(1.6, wave.size * 0.016)
    plate.stroke(wave.back, line * 1.3, INK)
    plate.stroke(wave.face, line, INK)
    plate.fill(outline, PRUSSIAN if rng.random() < 0.6 else DEEP)
    for share in rng.uniform(0.02, 0.98, 18):
        begin, end = int(rng.integers(0, 60)), int(rng.integers(POINTS - 70, POINTS - 10))
        path = wave.between(float(share))[begin:end]
        taper = np.sin(np.linspace(0.0, np.pi, len(path)))
        plate.stroke(path, line * 0.75 * taper, MID if rng.random() < 0.6 else INK)
    cycle = (DEEP, MID, CREAM, INK, PALE, DEEP, FOAM, PRUSSIAN, MIST)
    count = int(rng.integers(8, 11))
    first = int(rng.integers(len(cycle)))
    for index in range(count):
        share = (index + 0.5 + rng.uniform(-0.2, 0.2)) / count
        spread = np.hypot(*(wave.face - wave.back).T) / count
        begin, end = int(rng.integers(0, 12)), int(rng.integers(POINTS - 45, POINTS - 4))
        t = np.linspace(0.0, 1.0, end - begin)
        swell = np.sin(np.pi * t**0.6) ** 0.6 * rng.uniform(0.2, 0.5)
        half = spread[begin:end] * swell
        path = wave.between(share)[begin:end]
        plate.stroke(path, half + line * 0.45, INK)
        plate.stroke(path, half, cycle[(first + index) % len(cycle)])
        plate.stroke(path + normals(path) * half[:, None] * 0.3, half * 0.12, INK)
    plate.stroke(wave.face, line * (0.4 + np.linspace(1.0, 0.0, POINTS)), INK)


def paint_foam(rng: Generator, plate: Plate, wave: Breaker) -> None:
    """Lay foam along the crest: a lumpy rim, and claws that hook over and under it."""
    fingers = _rim(rng, wave)
    _paint_fingers(plate, fingers, line=max(1.3, wave.size * 0.011), accent=MIST)
    _fleck(rng, plate, wave)
    for share, count in ((0.0, 13), (1.0, 7)):
        fingers = _claws(rng, wave, share, count)
        _paint_fingers(plate, fingers, line=max(1.3, wave.size * 0.011), accent=PALE)


def _rim(rng: Generator, wave: Breaker) -> list[Finger]:
    begin = int(POINTS * rng.uniform(0.28, 0.4))
    path = wave.between(0.07)[begin:]
    t = np.linspace(0.0, 1.0, len(path))
    lumps = 1.0 + 0.25 * np.sin(t * rng.uniform(40, 60)) + 0.2 * np.sin(t * 23.0)
    rim = Finger(path, wave.size * 0.085 * lumps * np.sqrt(np.sin(np.pi * (0.02 + 0.93 * t))), 1.0)
    drips = [rim]
    for place in np.linspace(begin + 6, POINTS - 14, 22):
        at = int(place + rng.integers(-3, 4))
        line = wave.between(0.16)
        heading = line[at - 2] - line[at]
        inward = wave.face[at] - wave.back[at]
        aim = heading / np.hypot(*heading) + inward / np.hypot(*inward) * rng.uniform(0.4, 1.2)
        length = wave.size * rng.uniform(0.12, 0.34)
        angle = float(np.arctan2(aim[1], aim[0]))
        drips += _finger(rng, line[at], angle, length, wave.side * rng.uniform(0.4, 1.5), 0)
    return drips


def _claws(rng: Generator, wave: Breaker, share: float, count: int) -> list[Finger]:
    """Grow claws outward from the back (share 0) or from under the crest (share 1)."""
    edge = wave.between(share)
    outward = normals(edge) * (-wave.side if share == 0.0 else wave.side)
    tangent = np.gradient(edge, axis=0)
    fingers: list[Finger] = []
    for place in np.linspace(0.45 if share == 0.0 else 0.72, 0.98, count):
        at = min(int(place * POINTS + rng.uniform(-2, 2)), POINTS - 2)
        ahead = tangent[at] / (np.hypot(*tangent[at]) + 1e-9)
        aim = ahead * rng.uniform(0.5, 1.1) + outward[at] * rng.uniform(0.6, 1.1)
        root = edge[at] - outward[at] * wave.size * 0.05
        length = wave.size * rng.uniform(0.2, 0.4) * (0.4 + 0.8 * place)
        angle = float(np.arctan2(aim[1], aim[0]))
        fingers += _finger(rng, root, angle, length, wave.side * rng.uniform(0.9, 1.8), 2)
    return fingers


def _finger(
    rng: Generator, start: Path, angle: float, length: float, turn: float, depth: int
) -> list[Finger]:
    """Grow a finger and, to the given depth, smaller ones from its outer side."""
    path = hook(start, angle, length, turn)
    t = np.linspace(0.0, 1.0, len(path))
    lumps = np.minimum(1.0, 0.35 + 4.0 * t) * (1.0 + 0.3 * np.sin(t * 9.0))
    half = length * 0.12 * (1.0 - t) ** 0.6 * lumps
    grown = [Finger(path, half, turn)]
    if depth:
        for place in (0.25, 0.5, 0.75):
            at = int(place * len(path))
            step = path[at + 1] - path[at]
            aside = np.arctan2(step[1], step[0]) - np.sign(turn) * rng.uniform(0.4, 0.9)
            reach = length * rng.uniform(0.4, 0.6) * (1.1 - 0.4 * place)
            grown += _finger(rng, path[at], float(aside), reach, turn * 1.05, depth - 1)
    return grown


def _paint_fingers(plate: Plate, fingers: list[Finger], line: float, accent: Color) -> None:
    """Paint a group as one shape: all contours first, then all fills, then the shading."""
    for finger in fingers:
        t = np.linspace(0.0, 1.0, len(finger.path))
        plate.stroke(finger.path, finger.half_width + line * (1.3 - 0.6 * t), INK)
    for finger in fingers:
        plate.stroke(finger.path, finger.half_width, FOAM)
    for finger in fingers:
        inner = normals(finger.path) * (np.sign(finger.bend) * finger.half_width * 0.5)[:, None]
        core = slice(2, -3)
        plate.stroke((finger.path + inner)[core], finger.half_width[core] * 0.28, accent)


def _fleck(rng: Generator, plate: Plate, wave: Breaker) -> None:
    """Dot and fleck the rim with small blue marks."""
    for _ in range(60):
        at = int(POINTS * rng.uniform(0.42, 0.96))
        center = wave.between(rng.uniform(0.0, 0.13))[at]
        if rng.random() < 0.5:
            plate.fill(blob(rng, center, wave.size * rng.uniform(0.006, 0.016)), MID)
        else:
            length = wave.size * rng.uniform(0.04, 0.1)
            angle = rng.uniform(0.0, 2.0 * np.pi)
            path = hook(center, float(angle), length, wave.side * 3.0)
            plate.stroke(path, np.linspace(0.012, 0.003, len(path)) * wave.size, PALE)


def paint_spray(rng: Generator, plate: Plate, wave: Breaker) -> None:
    """Throw drops of many sizes ahead of the crest."""
    for _ in range(70):
        at = int(POINTS * rng.uniform(0.5, 0.99))
        ahead = np.array([wave.side, rng.uniform(-1.0, 0.8)])
        center = wave.back[at] + ahead * wave.size * (0.12 + rng.exponential(0.3))
        radius = min(wave.size * 0.006 * (1.0 + rng.pareto(1.6)), wave.size * 0.04)
        plate.fill(blob(rng, center, radius + wave.size * 0.008, 0.2), INK)
        plate.fill(blob(rng, center, radius, 0.2), FOAM)
