"""Single marks of a brush, a knife or a pen, and the passes that cover a canvas with them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from styles.draw.fields import Field, Generator, Labels, Picture, mix, sample

Places = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Mark:
    """Where a stamped mark lies: its centre, direction, size and sideways bow in pixels."""

    x: float
    y: float
    angle: float
    length: float
    width: float
    bow: float = 0.0


@dataclass
class Canvas:
    """Holds the wet picture and the thickness of its paint."""

    color: Picture
    relief: Field

    def stamp(
        self, tile: Picture, mark: Mark, first: Picture, second: Picture, lift: float
    ) -> None:
        """Press a tile of (cover, streak, thickness) on the canvas in two half-mixed colours."""
        reach = 0.5 * float(np.hypot(mark.length, mark.width)) + abs(mark.bow) + 1.0
        height, width = self.relief.shape
        left, right = max(0, int(mark.x - reach)), min(width, int(mark.x + reach) + 2)
        top, bottom = max(0, int(mark.y - reach)), min(height, int(mark.y + reach) + 2)
        if left >= right or top >= bottom:
            return
        dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(mark.x)
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(mark.y)
        cos, sin = np.float32(np.cos(mark.angle)), np.float32(np.sin(mark.angle))
        along = (dx * cos + dy * sin) / np.float32(mark.length) + np.float32(0.5)
        across = dy * cos - dx * sin
        across -= np.float32(4.0 * mark.bow) * along * (1.0 - along)
        across = across / np.float32(mark.width) + np.float32(0.5)
        rows, columns = tile.shape[:2]
        texel = sample(tile, along * (columns - 1), across * (rows - 1))
        cover, streak, thick = texel[..., 0], texel[..., 1:2], texel[..., 2]
        patch = (slice(top, bottom), slice(left, right))
        paint = first + (second - first) * streak
        self.color[patch] += cover[..., None] * (paint - self.color[patch])
        self.relief[patch] += cover * (np.float32(lift) * thick - 0.75 * self.relief[patch])


def scatter(
    rng: Generator, height: int, width: int, spacing: float, margin: float = 0.0
) -> Iterator[tuple[float, float]]:
    """Yield the points of a jittered grid over the canvas and a margin, in random order."""
    columns = np.arange(-margin, width + margin, spacing)
    rows = np.arange(-margin, height + margin, spacing)
    points = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    points = points + rng.uniform(0.0, spacing, points.shape)
    for x, y in rng.permutation(points):
        yield float(x), float(y)


def lit(color: Picture, relief: Field, strength: float, gloss: float) -> Picture:
    """Light paint from the upper left, so that ridges shine and their far sides darken."""
    slope_y, slope_x = np.gradient(relief)
    facing = -(0.64 * slope_x + 0.77 * slope_y) * np.float32(strength)
    shade = 1.0 + 0.5 * np.tanh(facing)
    shine = np.float32(gloss) * np.clip(np.tanh(facing) - 0.35, 0.0, 1.0)
    shown: Picture = color * shade[..., None] + shine[..., None]
    return shown


class View:
    """Gathers the layers of a scene: their colours, the lie of their strokes and their outlines."""

    def __init__(self, color: Picture, angle: Field) -> None:
        """Start from the farthest layer, which is part 0."""
        self.color, self.angle = color, angle
        self.part: Labels = np.zeros(angle.shape, np.int32)

    def over(self, color: Picture, mask: Field, angle: Field | float) -> None:
        """Lay a nearer layer, a part of its own, over what is there."""
        self.color = mix(self.color, color, mask)
        hidden = mask > 0.5
        self.angle = np.where(hidden, np.float32(angle), self.angle).astype(np.float32)
        self.part = np.where(hidden, self.part.max() + 1, self.part).astype(np.int32)


def trace(angle: Field, starts: Places, steps: int, stride: float) -> Places:
    """Follow undirected angles both ways from (n, 2) starts; return (n, 2 * steps + 1, 2)."""
    height, width = angle.shape
    cos, sin = np.cos(angle), np.sin(angle)
    half = []
    for sign in (-1.0, 1.0):
        place, heading = starts.copy(), np.zeros_like(starts)
        path = []
        for step in range(steps):
            column = np.clip(place[:, 0], 0, width - 1).astype(np.int32)
            row = np.clip(place[:, 1], 0, height - 1).astype(np.int32)
            turn = np.stack([cos[row, column], sin[row, column]], axis=-1)
            ahead = (turn * heading).sum(axis=-1, keepdims=True) if step else np.float32(sign)
            heading = np.where(ahead < 0.0, -turn, turn).astype(np.float32)
            place = place + np.float32(stride) * heading
            path.append(place)
        half.append(path)
    return np.stack([*half[0][::-1], starts, *half[1]], axis=1)


def walk(start: npt.ArrayLike, headings: npt.ArrayLike, length: float) -> Places:
    """Return the path that leaves a start and takes equal steps along the given headings."""
    angles = np.asarray(headings)
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * (length / len(angles))
    path = np.vstack([np.zeros(2), np.cumsum(steps, axis=0)]) + np.asarray(start)
    return path.astype(np.float32)
