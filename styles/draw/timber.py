"""Bare trees, grown limb by limb."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from styles.draw.fields import Field, Generator
from styles.draw.strokes import Places, walk


@dataclass(frozen=True)
class Limb:
    """Holds one bough of a tree: the points along it and its thickness at either end."""

    points: Places
    thick: float
    thin: float

    def widths(self) -> Field:
        """Return the thickness at every point."""
        return np.linspace(self.thick, self.thin, len(self.points))


def grow(
    rng: Generator, foot: tuple[float, float], angle: float, length: float, thick: float
) -> list[Limb]:
    """Grow a tree, each limb bending as it goes and dividing into two or three thinner ones."""
    headings = angle + np.cumsum(rng.normal(0.0, 0.09, 9))
    # Limbs seek the light: one that leans is turned back a little towards the sky.
    headings += np.linspace(0.0, 0.35, 9) * np.sin(-0.5 * np.pi - angle)
    points = walk(foot, headings, length)
    limbs = [Limb(points, thick, 0.72 * thick)]
    if thick < 2.0 or length < 14.0:
        return limbs
    for spread in rng.permutation([-0.55, 0.1, 0.6])[: rng.integers(2, 4)]:
        fork = points[rng.integers(6, 10)]
        start = float(fork[0]), float(fork[1])
        branch = float(headings[-1]) + spread + rng.normal(0.0, 0.16)
        shorter, thinner = length * rng.uniform(0.6, 0.82), thick * rng.uniform(0.5, 0.68)
        limbs += grow(rng, start, branch, shorter, thinner)
    return limbs


def silhouette(
    limbs: Sequence[Limb], height: int, width: int, share: float = 1.0, shift: float = 0.0
) -> Field:
    """Mask the limbs, or a share of their thickness that is shifted sideways by another."""
    sheet = Image.new("L", (width, height))
    pen = ImageDraw.Draw(sheet)
    for limb in limbs:
        wide = limb.widths()
        x, y = limb.points[:, 0] + shift * wide, limb.points[:, 1]
        for step in range(len(wide) - 1):
            line = [float(value) for value in (x[step], y[step], x[step + 1], y[step + 1])]
            pen.line(line, 255, max(1, round(share * float(wide[step]))))
    return np.asarray(sheet, np.float32) / np.float32(255.0)
