"""The distance of `ink`: ranges of peaks that rise out of mist."""

import numpy as np

from styles.draw.fields import Field, Generator, blur, fbm, grid, noise, smoothstep
from styles.draw.strokes import walk
from styles.draw.sumi import Dip, Sheet

# Ranges from far to near: the level and the height of the peaks, in shares of the sheet, the
# width of a peak in pixels and the depth of the ink.
RANGES = (
    (0.33, 0.13, 330.0, 0.10),
    (0.45, 0.15, 300.0, 0.17),
    (0.60, 0.15, 380.0, 0.28),
    (0.79, 0.13, 430.0, 0.44),
)


def raise_peaks(rng: Generator, sheet: Sheet) -> None:
    """Raise the ranges one before the other, the nearer the darker."""
    height, width = sheet.size
    x, y = grid(height, width)
    for level, rise, scale, load in RANGES:
        skyline = height * (level - rise * _jagged(rng, width, scale))
        below = np.clip(y - skyline, 0.0, None)
        body = smoothstep(-1.2, 1.2, y - skyline)
        # Mist hides the foot of what stands behind, then the range itself fades into it.
        sheet.black = sheet.black * (1.0 - 0.85 * body * np.exp(-below / (0.3 * height)))
        mist = 0.11 * height * (1.0 + 0.7 * fbm(rng, x, y, 240.0, 4))
        sheet.wash(rng, load * body * np.exp(-below / np.clip(mist, 30.0, None)), edge=2.0)
        drag_mist(rng, sheet, level - 0.08, level + 0.12, 16)
        _cut_folds(rng, sheet, skyline, load)
        _dot_moss(rng, sheet, skyline, load)


def drag_mist(rng: Generator, sheet: Sheet, low: float, high: float, count: int) -> None:
    """Drag a broad, nearly dry brush between two levels, in shares of the sheet."""
    height, width = sheet.size
    t = np.linspace(0.0, 1.0, 16)
    for _ in range(count):
        length, wide = rng.uniform(160.0, 620.0), rng.uniform(12.0, 74.0)
        x, y = rng.uniform(-200.0, width - 60.0), rng.uniform(low, high) * height
        sway = 0.09 * length * np.sin(rng.uniform(0.0, 6.0) + rng.uniform(1.5, 5.0) * t)
        path = np.stack([x + length * t, y + sway], axis=-1).astype(np.float32)
        widths = wide * np.sin(np.pi * np.clip(t, 0.04, 0.92)) ** 0.5
        dip = Dip(rng.uniform(0.03, 0.17), rng.uniform(0.45, 0.95))
        sheet.stroke(rng, path, widths, dip)


def _jagged(rng: Generator, width: int, scale: float) -> Field:
    """Draw a row of sharp peaks, in about -0.7..1.4."""
    x = np.arange(width, dtype=np.float32)[None, :]
    level = np.zeros_like(x)
    peaks = 1.0 - 2.0 * np.abs(noise(rng, x, level, scale))
    high = np.clip(peaks + 0.35 * noise(rng, x, level, 2.0 * scale), -0.5, 1.2)
    row: Field = (high + 0.22 * fbm(rng, x, level, 0.3 * scale, 5, 0.6))[0]
    return row


def _cut_folds(rng: Generator, sheet: Sheet, skyline: Field, load: float) -> None:
    """Cut dry strokes down from a skyline that lean away from its peaks."""
    height, width = sheet.size
    slope = np.gradient(blur(np.tile(skyline, (8, 1)), 1.0, 9.0)[0])
    for _ in range(520):
        start = int(rng.integers(0, width))
        drop = rng.exponential(0.055 * height)
        length = rng.uniform(24.0, 130.0) * (0.6 + load)
        lean = 0.5 * np.pi - 0.75 * np.tanh(1.2 * slope[start]) + rng.normal(0.0, 0.15)
        headings = lean + np.cumsum(rng.normal(0.0, 0.13, 10))
        path = walk((start, skyline[start] + drop), headings, length)
        widths = np.sin(np.linspace(0.1, 3.0, len(path))) * rng.uniform(3.0, 6.0 + 26.0 * load)
        depth = (0.08 + 1.3 * load) * np.exp(-drop / (0.13 * height))
        sheet.stroke(rng, path, widths, Dip(depth * rng.uniform(0.3, 1.1), rng.uniform(0.45, 0.95)))


def _dot_moss(rng: Generator, sheet: Sheet, skyline: Field, load: float) -> None:
    """Dot clumps of scrub along a skyline with the tip of the brush."""
    width = sheet.size[1]
    t = np.linspace(-0.5, 0.5, 6)
    for _ in range(34):
        middle, spread = rng.uniform(0.0, width), rng.uniform(6.0, 34.0)
        for _ in range(rng.integers(3, 26)):
            x = float(np.clip(rng.normal(middle, spread), 0, width - 1))
            y = float(skyline[int(x)]) + abs(rng.normal(0.0, 0.55 * spread)) - 3.0
            size, tilt = rng.uniform(2.5, 5.0 + 11.0 * load), rng.normal(0.0, 0.4)
            path = np.stack([x + size * t * np.cos(tilt), y + size * t * np.sin(tilt)], axis=-1)
            widths = 0.8 * size * np.sqrt(1.02 - 4.0 * t * t)
            depth = (0.1 + 1.4 * load) * rng.uniform(0.4, 1.6)
            dip = Dip(depth, rng.uniform(0.0, 0.45))
            sheet.stroke(rng, path.astype(np.float32), widths, dip)
