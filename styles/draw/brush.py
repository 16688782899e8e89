"""A loaded bristle brush and the passes that lay its strokes along a flow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from styles.draw.fields import Field, Generator, Picture, blur, normalized, smoothstep
from styles.draw.strokes import Canvas, Mark, scatter

Chooser = Callable[[int, int], tuple[Picture, Picture] | None]


def bristle_tile(rng: Generator, rows: int = 24, columns: int = 96) -> Picture:
    """Print one stroke of a bristle brush as (cover, streak, thickness)."""
    white = rng.standard_normal((rows, columns), dtype=np.float32)
    hairs = normalized(blur(white, 0.8, columns * 0.25))
    grit = normalized(blur(white[::-1], 0.7, 3.0))
    across = np.linspace(-1.0, 1.0, rows, dtype=np.float32)[:, None]
    along = np.linspace(0.0, 1.0, columns, dtype=np.float32)[None, :]
    ragged_start = 0.07 + 0.03 * hairs + 0.10 * across**2
    ragged_end = 0.90 + 0.06 * hairs[:, ::-1] - 0.14 * across**2
    cover = smoothstep(-0.04, 0.04, along - ragged_start)
    cover *= smoothstep(-0.06, 0.06, ragged_end - along)
    cover *= smoothstep(1.02, 0.82, np.abs(across) + 0.06 * grit)
    cover *= 1.0 - 0.75 * smoothstep(0.5, 1.6, hairs + 0.5 * grit + 1.6 * (along - 0.75))
    # A canvas repeats the border of a tile beyond it, so the border must be bare.
    cover[[0, -1]] = 0.0
    cover[:, [0, -1]] = 0.0
    rim = np.exp(-(((np.abs(across) - 0.72) / 0.2) ** 2))
    bank = np.exp(-(((along - ragged_end + 0.05) / 0.06) ** 2))
    thick = 0.55 + 0.28 * hairs + 0.08 * grit + 0.35 * rim + 0.4 * bank
    streak = np.clip(0.45 + 0.3 * hairs + 0.12 * grit, 0.0, 1.0)
    return np.stack([cover, streak, thick], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Flow:
    """Holds the direction of a flow and its curvature, in radians per pixel of travel."""

    angle: Field
    bend: Field

    @classmethod
    def of(cls, u: Field, v: Field) -> "Flow":
        """Measure the flow of a vector field of any length."""
        length = np.hypot(u, v) + np.float32(1e-6)
        u, v = u / length, v / length
        u_slopes, v_slopes = np.gradient(u), np.gradient(v)
        turn_u = u * u_slopes[1] + v * u_slopes[0]
        turn_v = u * v_slopes[1] + v * v_slopes[0]
        return cls(np.arctan2(v, u), u * turn_v - v * turn_u)


@dataclass(frozen=True)
class Brush:
    """The strokes of a pass: their prints, mean size and spacing in pixels."""

    tiles: Sequence[Picture]
    length: float
    width: float
    spacing: float


def lay_strokes(rng: Generator, canvas: Canvas, brush: Brush, flow: Flow, choose: Chooser) -> None:
    """Cover the canvas with strokes along a flow.

    `choose` names the two colours a stroke is loaded with at a row and column, or None to leave
    the place bare.
    """
    height, width = canvas.relief.shape
    for x, y in scatter(rng, height, width, brush.spacing, margin=brush.spacing):
        row, column = min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)
        colors = choose(row, column)
        if colors is None:
            continue
        length = brush.length * rng.uniform(0.7, 1.35)
        angle = float(flow.angle[row, column]) + rng.normal(0.0, 0.08)
        bow = float(np.clip(-flow.bend[row, column] * length / 8.0, -0.25, 0.25)) * length
        # The bow swings the middle of the mark aside; this brings it back to its place.
        x, y = x + bow * float(np.sin(angle)), y - bow * float(np.cos(angle))
        mark = Mark(x, y, angle, length, brush.width * rng.uniform(0.75, 1.3), bow)
        tile = brush.tiles[int(rng.integers(len(brush.tiles)))]
        canvas.stamp(tile, mark, *colors, lift=0.12 * brush.width)
