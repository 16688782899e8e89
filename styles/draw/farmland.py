"""The scene of `etching`: fields on rolling hills, an old oak and a storm drawing near."""

import numpy as np

from styles.draw.fields import (
    Field,
    Generator,
    Labels,
    Picture,
    blur,
    fbm,
    grid,
    mix,
    noise,
    smoothstep,
    warp,
)
from styles.draw.strokes import View
from styles.draw.timber import grow, silhouette

HEIGHT, WIDTH = 1080, 1440

# Ranges of hills from far to near: the level and the height of their skylines, in shares of the
# canvas, the width of a hill in pixels and the darkness of its slopes.
RANGES = (
    (0.42, 0.120, 330.0, 0.36),
    (0.49, 0.070, 330.0, 0.42),
    (0.56, 0.060, 420.0, 0.34),
    (0.65, 0.060, 520.0, 0.40),
    (0.79, 0.055, 640.0, 0.44),
    (0.93, 0.050, 700.0, 0.68),
)


def farmland(rng: Generator) -> tuple[View, list[Field]]:
    """Compose a view whose colours are (darkness, leafiness), and the skylines of its hills."""
    x, y = grid(HEIGHT, WIDTH)
    view = _clouds(rng, x, y)
    skylines = []
    for index, (level, rise, scale, dark) in enumerate(RANGES):
        skyline = HEIGHT * (level - rise * fbm(rng, x, 0.0 * y, scale, 4, 0.42))
        swell = fbm(rng, x, 1.6 * y - skyline, 190.0 + 50.0 * index, 3)
        _hill(view, y, skyline, swell, dark)
        if index:
            _fields(rng, x, y, view, skyline, swell)
            _copses(rng, x, y, view, skyline[0], 9.0 + 10.0 * index)
        skylines.append(skyline[0])
    _oak(rng, x, y, view)
    return view, skylines


def _shaded(dark: Field, leafy: Field | float = 0.0) -> Picture:
    return np.stack([np.clip(dark, 0.0, 0.98), np.broadcast_to(leafy, dark.shape)], axis=-1)


def _clouds(rng: Generator, x: Field, y: Field) -> View:
    """Pile up clouds, lit from the left, before a storm that slants down at the right."""
    px, py = warp(rng, x, 1.7 * y, 160.0, 34.0)
    billow = np.zeros_like(x)
    for scale, strength in ((520.0, 1.0), (240.0, 0.5), (110.0, 0.27), (52.0, 0.14)):
        billow += strength * (0.6 - 2.0 * np.abs(noise(rng, px, py, scale)))
    heap = smoothstep(-0.55, 0.7, billow)
    lobes = smoothstep(0.1, 0.5, heap)
    slope_y, slope_x = np.gradient(blur(heap, 5.0))
    light = np.tanh(62.0 * (0.7 * slope_x + 0.72 * slope_y))
    rain = fbm(rng, x + 0.5 * y, 0.07 * y, 90.0, 3)
    storm = smoothstep(0.2, 0.95, x / WIDTH + 0.2 * rain) * smoothstep(0.62, 0.25, y / HEIGHT)
    clear = smoothstep(0.35, 0.1, heap) * smoothstep(0.5, 0.0, y / HEIGHT)
    dark = 0.34 * clear + lobes * (0.10 - 0.48 * light) + storm * (0.62 - 0.34 * lobes)
    # The lines run level, bent around the clouds, and fall with the rain.
    broad_y, broad_x = np.gradient(blur(heap, 18.0))
    level = 1.1 * np.hypot(broad_x, broad_y).mean()
    bend = np.arctan(broad_x / (np.where(broad_y > 0.0, -level, level) - broad_y))
    return View(_shaded(dark), 0.7 * bend - 0.5 * smoothstep(0.45, 0.75, storm) + 0.05 * rain)


def _hill(view: View, y: Field, skyline: Field, swell: Field, dark: float) -> None:
    """Roll one range of hills before the last, its slopes darker away from the light."""
    below = np.clip((y - skyline) / (0.16 * HEIGHT), 0.0, 1.5)
    slope = np.gradient(skyline, axis=1)
    lean = slope + 64.0 * np.gradient(blur(swell, 5.0), axis=1)
    tone = dark + 0.34 * np.tanh(1.5 * lean) + 0.26 * (below - 0.5) + 0.12 * swell
    tone -= 0.16 * np.exp(-9.0 * below)
    angle = np.arctan(slope) * np.exp(-below) + 0.9 * swell * np.clip(below, 0.0, 1.0)
    view.over(_shaded(tone), smoothstep(-0.8, 0.8, y - skyline), angle)


def _fields(rng: Generator, x: Field, y: Field, view: View, skyline: Field, swell: Field) -> None:
    """Cut a range into strips of plough and meadow, each hatched in a direction of its own."""
    depth = (y - skyline) / HEIGHT
    inside = (depth > 0.012) & (depth < 0.30)
    strip = np.floor((x / WIDTH + 1.3 * depth + 0.06 * swell) * rng.uniform(5.0, 8.0))
    row = np.floor(depth * rng.uniform(14.0, 20.0) + 0.25 * swell)
    field: Labels = (7 * strip + 13 * row).astype(np.int32) % 64
    turn = rng.uniform(-0.75, 0.75, 64)[field]
    dark = rng.uniform(-0.17, 0.17, 64)[field]
    border = (np.diff(field, axis=0, prepend=0) != 0) | (np.diff(field, axis=1, prepend=0) != 0)
    hedge = 1.6 * blur((border & inside).astype(np.float32), 1.6)
    tone = view.color[..., 0] + np.where(inside, dark, 0.0) + 0.5 * hedge
    leafy = np.maximum(view.color[..., 1], smoothstep(0.3, 0.6, hedge))
    view.color = _shaded(np.maximum(tone, 0.02), leafy)
    view.angle = view.angle + np.where(inside, turn, 0.0)
    view.part = view.part + np.where(inside, 100 * field, 0).astype(np.int32)


def _copses(rng: Generator, x: Field, y: Field, view: View, skyline: Field, size: float) -> None:
    """Dot trees about a range in ones and clusters, each with its shadow to the right."""
    for middle in rng.uniform(0.0, WIDTH, 8):
        for _ in range(rng.integers(1, 8)):
            at_x = float(np.clip(middle + rng.normal(0.0, 2.6 * size), 0, WIDTH - 1))
            at_y = float(skyline[int(at_x)]) + abs(rng.normal(0.3, 0.8)) * size
            radius = size * rng.uniform(0.45, 0.95)
            flat = np.hypot((x - at_x - 0.8 * radius) / 1.5, (y - at_y - 0.2 * radius) / 0.3)
            shadow = smoothstep(1.1 * radius, 0.6 * radius, flat)
            view.color[..., 0] += shadow * (0.9 - view.color[..., 0])
            if rng.random() < 0.25:
                _tuft(rng, view, at_x, at_y - 1.9 * radius, 0.7 * radius)
            _tuft(rng, view, at_x, at_y - 0.6 * radius, radius)


def _tuft(
    rng: Generator, view: View, at_x: float, at_y: float, radius: float, shade: float = 0.0
) -> None:
    """Round one tuft of leaves, pale towards the light and nearly black away from it."""
    reach = int(2.2 * radius) + 2
    left, right = max(0, int(at_x) - reach), min(WIDTH, int(at_x) + reach)
    top, bottom = max(0, int(at_y) - reach), min(HEIGHT, int(at_y) + reach)
    if left >= right or top >= bottom:
        return
    patch = (slice(top, bottom), slice(left, right))
    x, y = grid(bottom - top, right - left)
    dx, dy = (x + left - at_x) / radius, (y + top - at_y) / radius
    ragged = fbm(rng, dx, dy, 0.8, 3, 0.6)
    clumps = noise(rng, dx, dy, 0.55)
    mask = smoothstep(0.05, -0.05, np.hypot(dx, 0.9 * dy) - 0.8 - 0.55 * ragged)
    tone = 0.46 + shade + 0.40 * dx + 0.30 * dy + 0.22 * ragged + 0.30 * clumps
    view.color[patch] = mix(view.color[patch], _shaded(np.maximum(tone, 0.02), 1.0), mask)
    hidden = mask > 0.5
    turn = 0.75 + 0.9 * clumps + 0.4 * dx
    view.angle[patch] = np.where(hidden, turn, view.angle[patch])
    view.part[patch] = np.where(hidden, -1, view.part[patch])


def _oak(rng: Generator, x: Field, y: Field, view: View) -> None:
    """Stand an old oak in the foreground, its boughs dark among clumps of leaves."""
    foot, size = np.array([0.20 * WIDTH, 0.95 * HEIGHT]), 0.86 * HEIGHT
    limbs = grow(rng, (foot[0], foot[1]), -1.62, 0.34 * size, 0.075 * size)
    # Limbs that straggle out of a round crown are sawn off.
    middle, spread = foot - (0.0, 0.58 * size), np.array([0.50, 0.46]) * size
    limbs = [limb for limb in limbs if np.hypot(*((limb.points[-1] - middle) / spread)) < 1.0]
    mask = blur(silhouette(limbs, HEIGHT, WIDTH), 0.7)
    turn = np.gradient(blur(mask, 9.0), axis=1)
    bark = np.clip(0.72 - 22.0 * turn + 0.3 * noise(rng, x, 0.3 * y, 9.0), 0.2, 1.0)
    view.over(_shaded(bark), mask, 1.5 + 0.5 * noise(rng, x, y, 60.0))
    twigs = [limb.points[-1] for limb in limbs if limb.thick < 0.02 * size]
    tips = np.array(twigs).reshape(-1, 2)
    for tip_x, tip_y in rng.permutation(tips[tips[:, 1] < foot[1] - 0.33 * size]):
        if rng.random() < 0.75:
            # The whole crown turns from light to shade, and every tuft does so again.
            shade = 0.30 * (tip_x - foot[0] + tip_y - foot[1]) / size + 0.08
            radius = 0.09 * size * rng.uniform(0.4, 1.0)
            _tuft(rng, view, float(tip_x), float(tip_y), radius, float(shade))
