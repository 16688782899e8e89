"""Ink on absorbent paper: brushes whose bristles run dry, and washes that dry with an edge."""

from dataclasses import dataclass

import numpy as np

from styles.draw.fields import Field, Generator, blur, fbm, grid, noise, paper, smoothstep, warp
from styles.draw.strokes import Places

STEP = 0.7  # How far apart, in pixels, a bristle leaves its specks of pigment.


@dataclass(frozen=True)
class Dip:
    """How much pigment a brush has taken up, how dry it is (0..1) and of which colour."""

    load: float
    dry: float
    red: bool = False


class Sheet:
    """Holds the paper's grain and the depth of the black and red pigment that it has drunk."""

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        """Start from bare paper."""
        self.size = (height, width)
        self.grain = paper(rng, height, width)
        self.black: Field = np.zeros(self.size, np.float32)
        self.red: Field = np.zeros(self.size, np.float32)

    def stroke(self, rng: Generator, path: Places, widths: Field, dip: Dip) -> None:
        """Draw a brush along a path, with a width in pixels given at each of its points."""
        run = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
        count = max(4, int(run[-1] / STEP))
        along = np.linspace(0.0, run[-1], count)
        x, y = np.interp(along, run, path[:, 0]), np.interp(along, run, path[:, 1])
        half = 0.5 * np.interp(along, run, widths)[:, None]
        turn = np.arctan2(np.gradient(y), np.gradient(x))[:, None]
        hairs = max(3, int(6.0 * half.max()))
        across = np.linspace(-1.0, 1.0, hairs) + rng.normal(0.0, 0.5 / hairs, hairs)
        px = x[:, None] - np.sin(turn) * half * across
        py = y[:, None] + np.cos(turn) * half * across
        touch = self._touch(rng, px, py, dip.dry)
        fading = np.linspace(1.0, 0.65, count)[:, None]
        weight = dip.load * _charge(rng, across, dip.dry) * touch * fading * (2.0 * STEP * half)
        self._drop(px.ravel(), py.ravel(), weight.ravel() / hairs, dip.red)

    def wash(self, rng: Generator, tone: Field, edge: float) -> None:
        """Flood a tone on; pigment gathers at its edges, in its blooms and in the grain."""
        x, y = grid(*self.size)
        bloom = noise(rng, *warp(rng, x, y, 130.0, 60.0), 150.0)
        ring = np.exp(-((bloom / 0.05) ** 2)) - 0.4 * smoothstep(0.0, 0.3, bloom)
        clouds = 1.0 + 0.22 * fbm(rng, x, y, 110.0, 5, 0.65) + 0.12 * ring + 0.13 * self.grain
        gathered = np.clip(tone - blur(tone, 5.0), 0.0, None)
        self.black = self.black + tone * np.clip(clouds, 0.2, None) + edge * gathered

    def _touch(self, rng: Generator, x: Field, y: Field, dry: float) -> Field:
        """Return where bristles meet the paper: a dry brush skips, and skips more as it empties."""
        height, width = self.size
        count, hairs = x.shape
        knots = max(2, count // 26)
        skips = rng.normal(0.0, 1.0, (knots, hairs))
        where = np.linspace(0.0, knots - 1.001, count)
        knot, part = where.astype(int), (where % 1.0)[:, None]
        gaps = skips[knot] * (1.0 - part) + skips[knot + 1] * part
        row = np.clip(y, 0, height - 1).astype(np.int32)
        column = np.clip(x, 0, width - 1).astype(np.int32)
        emptied = np.linspace(0.0, 1.0, count)[:, None]
        contact = 1.5 + 0.5 * gaps + 0.45 * self.grain[row, column] - dry * (1.3 + 1.9 * emptied)
        return smoothstep(-0.15, 0.55, contact)

    def _drop(self, x: Field, y: Field, weight: Field, red: bool) -> None:
        """Add specks of pigment, each shared out between the four pixels around it."""
        height, width = self.size
        inside = (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
        x, y, weight = x[inside], y[inside], weight[inside]
        if not len(x):
            return
        column, row = x.astype(np.int32), y.astype(np.int32)
        fx, fy = x - column, y - row
        left, top = int(column.min()), int(row.min())
        columns, rows = int(column.max()) - left + 2, int(row.max()) - top + 2
        place = (row - top) * columns + column - left
        total = np.zeros(rows * columns)
        for shift, share in (
            (0, (1.0 - fx) * (1.0 - fy)),
            (1, fx * (1.0 - fy)),
            (columns, (1.0 - fx) * fy),
            (columns + 1, fx * fy),
        ):
            total += np.bincount(place + shift, weight * share, rows * columns)
        pigment = self.red if red else self.black
        pigment[top : top + rows, left : left + columns] += total.reshape(rows, columns)


def _charge(rng: Generator, across: Field, dry: float) -> Field:
    """Return every bristle's share of ink, the outer ones more, as a wet edge dries dark."""
    uneven = np.convolve(rng.normal(0.0, 1.0, len(across) + 4), np.full(5, 5.0**-0.5), "valid")
    rim = np.exp(-(((1.0 - np.abs(across)) / 0.16) ** 2)) * (1.0 - dry)
    charge: Field = np.clip(0.85 + 0.28 * uneven + 0.5 * rim, 0.08, None)
    return charge
