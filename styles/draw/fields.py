"""Smooth noise, flow, colour and texture fields that every style is built from.

A field is a float array over the pixels of a canvas, a picture is three of them with values in
0..1.  Functions that need chance take the style's own generator, so a seed fixes the drawing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.floating]
Picture = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int32]
Generator = np.random.Generator


def grid(height: int, width: int) -> tuple[Field, Field]:
    """Return the x and the y coordinate of every pixel."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x, y


def smoothstep(low: float, high: float, value: Field) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high`, or fall where `low` is the larger."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    smooth: Field = t * t * (3.0 - 2.0 * t)
    return smooth


def noise(rng: Generator, x: Field, y: Field, scale: float) -> Field:
    """Evaluate gradient noise in about -1..1 whose features are `scale` pixels wide."""
    table = rng.permutation(256)
    angle = rng.uniform(0.0, 2.0 * np.pi, 256)
    slope_x, slope_y = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    offset_x, offset_y = rng.uniform(0.0, 256.0, 2)
    px, py = (
        x / np.float32(scale) + np.float32(offset_x),
        y / np.float32(scale) + np.float32(offset_y),
    )
    column, row = np.floor(px).astype(np.int32), np.floor(py).astype(np.int32)
    px, py = px - column, py - row

    def corner(dx: int, dy: int) -> Field:
        index = table[(table[(column + dx) & 255] + row + dy) & 255]
        value: Field = slope_x[index] * (px - dx) + slope_y[index] * (py - dy)
        return value

    fade_x = px * px * px * (px * (px * 6.0 - 15.0) + 10.0)
    fade_y = py * py * py * (py * (py * 6.0 - 15.0) + 10.0)
    upper = corner(0, 0) * (1.0 - fade_x) + corner(1, 0) * fade_x
    lower = corner(0, 1) * (1.0 - fade_x) + corner(1, 1) * fade_x
    value: Field = (upper * (1.0 - fade_y) + lower * fade_y) * np.float32(1.45)
    return value


def fbm(
    rng: Generator, x: Field, y: Field, scale: float, octaves: int = 5, gain: float = 0.5
) -> Field:
    """Sum octaves of gradient noise, each half as wide and `gain` times as strong as the last."""
    total = np.zeros_like(x)
    strength, norm = 1.0, 0.0
    for octave in range(octaves):
        total += np.float32(strength) * noise(rng, x, y, scale / 2**octave)
        norm += strength * strength
        strength *= gain
    summed: Field = total / np.float32(np.sqrt(norm))
    return summed


def warp(
    rng: Generator, x: Field, y: Field, scale: float, amount: float, octaves: int = 3
) -> tuple[Field, Field]:
    """Displace coordinates by up to about `amount` pixels of noise."""
    dx = fbm(rng, x, y, scale, octaves)
    dy = fbm(rng, x, y, scale, octaves)
    return x + np.float32(amount) * dx, y + np.float32(amount) * dy


def blur(field: Field, sigma: float, sigma_x: float | None = None) -> Field:
    """Blur a field or picture with a Gaussian, with a sigma of its own along x where given."""
    sigma_y, sigma_x = sigma, sigma if sigma_x is None else sigma_x
    height, width = field.shape[:2]
    pad_y = min(int(3.0 * sigma_y) + 1, height - 1)
    pad_x = min(int(3.0 * sigma_x) + 1, width - 1)
    padding = [(pad_y, pad_y), (pad_x, pad_x)] + [(0, 0)] * (field.ndim - 2)
    padded = np.pad(field, padding, mode="reflect")
    fy = np.fft.fftfreq(padded.shape[0]).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(padded.shape[1]).astype(np.float32)[None, :]
    transfer = np.exp(-2.0 * np.pi**2 * ((sigma_y * fy) ** 2 + (sigma_x * fx) ** 2))
    if field.ndim == 3:
        transfer = transfer[:, :, None]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * transfer
    smooth = np.fft.irfft2(spectrum, s=padded.shape[:2], axes=(0, 1))
    inner: Field = smooth[pad_y : pad_y + height, pad_x : pad_x + width].astype(np.float32)
    return inner


def normalized(field: Field, spread: float = 1.0) -> Field:
    """Shift and scale a field to zero mean and a standard deviation of `spread`."""
    centerd = field - field.mean()
    scaled: Field = centerd * np.float32(spread / (centerd.std() + 1e-9))
    return scaled


def sample(field: Field, x: Field, y: Field) -> Field:
    """Read a field or picture bilinearly at any coordinates, holding the edge values outside."""
    height, width = field.shape[:2]
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - column, y - row
    if field.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    upper = field[row, column] * (1.0 - fx) + field[row, column + 1] * fx
    lower = field[row + 1, column] * (1.0 - fx) + field[row + 1, column + 1] * fx
    read: Field = (upper * (1.0 - fy) + lower * fy).astype(np.float32)
    return read


def curl(potential: Field) -> tuple[Field, Field]:
    """Return the unit flow (u, v) that runs along the contour lines of a potential."""
    slope_y, slope_x = np.gradient(potential)
    length = np.hypot(slope_x, slope_y) + 1e-9
    return (slope_y / length).astype(np.float32), (-slope_x / length).astype(np.float32)


def smear(field: Field, u: Field, v: Field, length: int) -> Field:
    """Average a field over `length` pixels of flow to either side, as bristles leave it."""
    x, y = grid(*field.shape[:2])
    height, width = field.shape[:2]
    total, weight = field.copy(), 1.0
    for sign in (1.0, -1.0):
        px, py = x.copy(), y.copy()
        for step in range(length):
            row = np.clip(py + 0.5, 0, height - 1).astype(np.int32)
            column = np.clip(px + 0.5, 0, width - 1).astype(np.int32)
            px += np.float32(sign) * u[row, column]
            py += np.float32(sign) * v[row, column]
            fade = 1.0 - (step + 1) / (length + 1)
            row = np.clip(py + 0.5, 0, height - 1).astype(np.int32)
            column = np.clip(px + 0.5, 0, width - 1).astype(np.int32)
            total += np.float32(fade) * field[row, column]
            weight += fade
    mean: Field = total / np.float32(weight)
    return mean


def palette(*codes: str) -> Picture:
    """Read colours written as six hexadecimal digits into an (n, 3) array."""
    values = [[int(code[i : i + 2], 16) / 255.0 for i in (0, 2, 4)] for code in codes]
    return np.array(values, dtype=np.float32)


def ramp(colors: Picture, t: Field, stops: Sequence[float] | None = None) -> Picture:
    """Interpolate a palette at positions 0..1, evenly spaced unless `stops` places its colours."""
    places = np.linspace(0.0, 1.0, len(colors)) if stops is None else np.asarray(stops)
    channels = [np.interp(t, places, colors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def mix(below: Picture, above: Picture, mask: Field) -> Picture:
    """Lay a picture or a single colour over another where a mask is 1."""
    blended: Picture = below + (above - below) * mask[..., None]
    return blended


def paper(rng: Generator, height: int, width: int) -> Field:
    """Draw the grain of laid paper: short fibres, fine tooth and broad clouds, spread 1."""
    white = rng.standard_normal((height, width), dtype=np.float32)
    across = normalized(blur(white, 0.6, 5.0))
    down = normalized(blur(white[::-1, ::-1], 5.0, 0.6))
    tooth = normalized(blur(white[::-1], 0.7))
    clouds = normalized(blur(white[:, ::-1], 45.0))
    return normalized(0.6 * across + 0.5 * down + 0.8 * tooth + 0.5 * clouds)


def nearest(seeds: Labels) -> tuple[Labels, Field]:
    """Find for every pixel the label (0 is none) of the closest seed and its distance.

    Jump flooding: pixels ask neighbours at halving steps, so nearly all end with the true nearest.
    """
    height, width = seeds.shape
    x, y = grid(height, width)
    far = np.float32(1e6)
    seed_x, seed_y = np.where(seeds > 0, x, far), np.where(seeds > 0, y, far)
    label, best = seeds.copy(), np.where(seeds > 0, np.float32(0.0), far)
    step = 1 << (min(height, width) - 1).bit_length() - 1
    while step:
        for dy, dx in ((a, b) for a in (-step, 0, step) for b in (-step, 0, step) if a or b):
            to = _overlap(height, dy), _overlap(width, dx)
            at = _overlap(height, -dy), _overlap(width, -dx)
            distance = np.hypot(seed_x[at] - x[to], seed_y[at] - y[to])
            closer = distance < best[to]
            for known in (label, seed_x, seed_y):
                known[to] = np.where(closer, known[at], known[to])
            best[to] = np.minimum(distance, best[to])
        step //= 2
    return label, best


def _overlap(extent: int, shift: int) -> slice:
    """Return the places of an axis that still lie on it once moved by a shift."""
    return slice(max(0, -shift), extent - max(0, shift))


def to_image(picture: Picture) -> Image.Image:
    """Round a picture to an eight-bit RGB image."""
    levels = (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return Image.fromarray(levels)
