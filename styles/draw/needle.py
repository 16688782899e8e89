"""The etching needle: hatching that follows form, skylines, leaves and grass."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from styles.draw.fields import Field, Generator, grid, noise, sample
from styles.draw.strokes import Places, View, scatter, trace

FINE = 3  # The needle draws on a sheet this many times finer than the picture.
STEPS, STRIDE = 24, 2.5  # Of a line of hatching, to either side of its seed.


class Needle:
    """Cuts lines into a plate, each with a width in pixels at each of its points."""

    def __init__(self, height: int, width: int) -> None:
        """Start from an untouched plate."""
        self.size = (height, width)
        self.sheet = Image.new("L", (width * FINE, height * FINE))
        self.pen = ImageDraw.Draw(self.sheet)

    def cut(self, points: Places, widths: Field) -> None:
        """Cut one line."""
        fine = (points * FINE).tolist()
        thick = np.maximum(1, np.rint(widths * FINE)).astype(int).tolist()
        for step in range(len(fine) - 1):
            self.pen.line((*fine[step], *fine[step + 1]), 255, thick[step])

    def lines(self) -> Field:
        """Return how much of every pixel the lines cover."""
        return np.asarray(self.sheet.reduce(FINE), np.float32) / np.float32(255.0)

    def hatch(self, rng: Generator, view: View, turn: Field, spacing: float, least: float) -> None:
        """Lay evenly spaced lines, turned from the view's, wherever it is darker than `least`."""
        height, width = self.size
        starts = np.array(list(scatter(rng, height, width, 0.8 * spacing)), np.float32)
        starts = starts[sample(view.color[..., 0], starts[:, 0], starts[:, 1]) > least]
        x, y = grid(height, width)
        angle = view.angle + turn + 0.12 * noise(rng, x, y, 34.0)
        paths = trace(angle, starts, STEPS, STRIDE)
        paths = paths + rng.normal(0.0, 0.13, paths.shape).astype(np.float32)
        columns = np.clip(paths[..., 0], 0, width - 1).astype(np.int32)
        rows = np.clip(paths[..., 1], 0, height - 1).astype(np.int32)
        tones = view.color[rows, columns, 0] + rng.normal(0.0, 0.03, rows.shape)
        parts = view.part[rows, columns]
        free = (tones > least) & (parts == parts[:, STEPS : STEPS + 1])
        spans = _spaced(rows, columns, free, spacing, self.size)
        for line, span in spans:
            depth = np.clip((tones[line, span] - least) / (1.0 - least), 0.0, 1.0)
            count = np.arange(len(depth))
            taper = np.clip(0.45 + 0.2 * np.minimum(count, count[::-1]), 0.0, 1.0)
            self.cut(paths[line, span], (0.55 + 1.5 * depth) * taper)

    def outline(self, rng: Generator, view: View, skylines: Sequence[Field]) -> None:
        """Go over every skyline that is still in sight with a broken, swelling line."""
        height, width = self.size
        columns = np.arange(0, width, 3)
        for skyline in skylines:
            points = np.stack([columns, skyline[columns]], axis=-1)
            rows = np.clip(points[:, 1], 4, height - 5).astype(np.int32)
            seen = view.part[rows - 3, columns] != view.part[rows + 3, columns]
            seen &= view.color[rows, columns, 1] < 0.3
            seen &= rng.random(len(columns)) < 0.93
            widths = rng.uniform(0.9, 1.6, len(columns))
            for start in np.flatnonzero(seen[:-1]):
                self.cut(points[start : start + 2], widths[start : start + 2])

    def scribble(self, rng: Generator, view: View) -> None:
        """Loop the needle through leafy places in the small curls that stand for foliage."""
        height, width = self.size
        bend = np.linspace(0.0, 6.0 * np.pi, 26)
        for x, y in scatter(rng, height, width, 6.5):
            row, column = min(int(y), height - 1), min(int(x), width - 1)
            dark, leafy = view.color[row, column]
            if rng.random() > leafy * (0.2 + 1.1 * dark):
                continue
            size = rng.uniform(1.6, 3.4)
            heading = float(view.angle[row, column]) + rng.normal(0.0, 0.35)
            along = 0.75 * bend / np.pi - 2.2 + np.sin(bend) * rng.uniform(0.6, 1.0)
            across = np.cos(bend + rng.normal(0.0, 0.3)) * rng.uniform(0.6, 1.1)
            cos, sin = size * np.cos(heading), size * np.sin(heading)
            curl = np.stack([x + along * cos - across * sin, y + along * sin + across * cos], -1)
            self.cut(curl, np.full(len(curl), 0.45 + 0.75 * dark))

    def grass(self, rng: Generator, top: float) -> None:
        """Flick tufts of grass upwards below a height, taller towards the viewer."""
        height, width = self.size
        t = np.linspace(0.0, 1.0, 7)
        for x, y in scatter(rng, height, width, 11.0):
            near = (y - top) / (height - top)
            if rng.random() > 0.8 * near:
                continue
            for _ in range(rng.integers(3, 7)):
                tall = (5.0 + 24.0 * near**1.5) * rng.uniform(0.5, 1.1)
                foot = x + rng.normal(0.0, 3.0 + 4.0 * near)
                lean = rng.normal(0.12, 0.3) * tall
                blade = np.stack([foot + lean * t**1.7, y - tall * t], axis=-1)
                self.cut(blade, (0.5 + 0.9 * near) * (1.1 - t))


def _spaced(
    rows: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    free: npt.NDArray[np.bool_],
    spacing: float,
    size: tuple[int, int],
) -> list[tuple[int, slice]]:
    """Shorten traced lines until none runs closer to another than the spacing allows."""
    reach = int(spacing)
    near_y, near_x = (offset.ravel() for offset in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    disc = np.hypot(near_y, near_x) < 0.82 * spacing
    near_y, near_x = near_y[disc] + reach, near_x[disc] + reach
    taken = np.zeros((size[0] + 2 * reach, size[1] + 2 * reach), bool)
    kept = []
    for line in range(len(rows)):
        row, column = rows[line], columns[line]
        blocked = np.flatnonzero(~free[line] | taken[row + reach, column + reach])
        first = int(blocked[blocked <= STEPS].max(initial=-1)) + 1
        last = int(blocked[blocked >= STEPS].min(initial=len(row)))
        # A blocked seed leaves nothing, and a stub would read as a stain.
        if last - first < 4:
            continue
        span = slice(first, last)
        taken[row[span, None] + near_y, column[span, None] + near_x] = True
        kept.append((line, span))
    return kept
