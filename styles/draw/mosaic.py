"""`mosaic`: a stained-glass window of jewel-coloured panes set in lead."""

import numpy as np
from PIL import Image

from styles.draw.fields import (
    Field,
    Generator,
    Labels,
    Picture,
    blur,
    fbm,
    grid,
    mix,
    nearest,
    noise,
    palette,
    sample,
    smoothstep,
    to_image,
    warp,
)
from styles.draw.strokes import lit

HEIGHT, WIDTH = 1080, 1440
BANDS = 8
CELLS, SETTLINGS, GROUPS = 3000, 4, 4
WARM = palette("fff0a0", "fbc52c", "f58a1c", "e03a24", "b3123d", "8a1a6e", "e8518a", "ffd76a")
COOL = palette("123c8f", "1673c4", "0b8a8f", "2a1666", "1fa87a", "4fb7e0", "0f5a4a", "8ec63f")
ACCENT = palette("fff6cf", "f5a623", "d81e5b", "5fd0c8", "c9e265", "3a1a78")
LEAD, SOLDER = palette("1c1a24", "8f93a0")

# Rosettes as (x, y, reach, petals).
ROSETTES = (
    (930.0, 420.0, 330.0, 9),
    (300.0, 250.0, 220.0, 6),
    (420.0, 820.0, 250.0, 8),
    (1260.0, 900.0, 230.0, 7),
    (1390.0, 110.0, 170.0, 6),
    (40.0, 610.0, 150.0, 5),
    (790.0, 1010.0, 130.0, 6),
    (620.0, 60.0, 110.0, 5),
)


def draw(seed: int = 0) -> Image.Image:
    """Set the window."""
    rng = np.random.default_rng(seed)
    x, y = grid(HEIGHT, WIDTH)
    region, tint = _design(rng, x, y)
    pane = _panes(rng, x, y, region)
    glass = _glass(rng, x, y, pane, tint)
    window = _leaded(rng, glass, pane, region)
    return to_image(sample(window, *warp(rng, x, y, scale=22.0, amount=1.3, octaves=2)))


def _design(rng: Generator, x: Field, y: Field) -> tuple[Labels, Picture]:
    """Draw rosettes over a winding ground: the region of every pixel and the tint of its glass."""
    wx, wy = warp(rng, x, y, scale=260.0, amount=34.0, octaves=2)
    flow = 4.0 + 3.6 * fbm(rng, wx, wy * 1.3, 420.0, 2)
    region = np.floor(flow).astype(np.int32) % BANDS
    tint = COOL[region]
    nearest_share = np.ones_like(x)
    for index, (center_x, center_y, reach, petals) in enumerate(ROSETTES):
        angle = np.arctan2(wy - center_y, wx - center_x)
        share = np.hypot(wx - center_x, wy - center_y) / reach
        share = share * (1.0 + 0.13 * np.cos(petals * angle + 5.0 * share * (-1) ** index))
        inside = share < nearest_share
        nearest_share = np.where(inside, share, nearest_share)
        ring = np.floor(share * reach / 42.0).astype(np.int32)
        region = np.where(inside, BANDS * (index + 1) + ring % BANDS, region)
        tint = np.where(inside[..., None], WARM[(ring + index) % BANDS], tint)
    return region.astype(np.int32), tint.astype(np.float32)


def _panes(rng: Generator, x: Field, y: Field, region: Labels) -> Labels:
    """Divide every region into settled cells of mixed sizes and number the panes."""
    regions = int(region.max()) + 1
    coarse = rng.normal(0.0, 0.5, regions)[region]
    density = np.exp(1.5 * fbm(rng, x, y, 240.0, 2) + coarse).ravel()
    chance = np.cumsum(density, dtype=np.float64)
    places = np.searchsorted(chance, rng.uniform(0.0, chance[-1], CELLS))
    sites = np.stack([places % WIDTH, places // WIDTH], axis=1).astype(np.float64)
    # Regions that touch are mostly of different groups, so a cell ends where its region does.
    group = region % GROUPS
    for _ in range(SETTLINGS):
        cell = _cells(sites, group).ravel()
        mass = np.bincount(cell, density, CELLS)
        held = mass > 0.0
        for axis, place in enumerate((x, y)):
            moment = np.bincount(cell, density * place.ravel(), CELLS)
            sites[held, axis] = moment[held] / mass[held]
    cell = _cells(sites, group)
    _, pane = np.unique(cell.astype(np.int64) * regions + region, return_inverse=True)
    numbered: Labels = pane.reshape(region.shape).astype(np.int32)
    return numbered


def _cells(sites: Field, group: Labels) -> Labels:
    """Return for every pixel the closest site that lies in its own group of regions."""
    column, row = sites.astype(np.int64).T
    member = group[row, column]
    cell = np.zeros_like(group)
    for number in range(GROUPS):
        seeds = np.zeros_like(group)
        chosen = np.flatnonzero(member == number)
        seeds[row[chosen], column[chosen]] = chosen + 1
        label, _ = nearest(seeds)
        cell = np.where(group == number, label - 1, cell)
    return cell


def _glass(rng: Generator, x: Field, y: Field, pane: Labels, tint: Picture) -> Picture:
    """Colour every pane with a glass of its own: its streaks, its bubbles and its slope."""
    count = int(pane.max()) + 1
    area = np.bincount(pane.ravel(), minlength=count)
    mean = [np.bincount(pane.ravel(), f.ravel(), count) / area for f in (x, y)]
    base = tint[mean[1].astype(int), mean[0].astype(int)] + rng.normal(0.0, 0.035, (count, 3))
    stray = rng.random(count) < 0.09
    base[stray] = ACCENT[rng.integers(len(ACCENT), size=count)][stray]
    base *= rng.uniform(0.72, 1.22, count)[:, None]
    angle = rng.uniform(0.0, np.pi, count).astype(np.float32)[pane]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    streaks = fbm(rng, along * 0.16, across, 9.0, 3)
    cloud = fbm(rng, x, y, 90.0, 4)
    slope = rng.normal(0.0, 0.009, (2, count)).astype(np.float32)
    tilt = slope[0][pane] * (x - mean[0][pane]) + slope[1][pane] * (y - mean[1][pane])
    light = 1.0 + 0.2 * streaks + 0.16 * cloud + np.clip(tilt, -0.25, 0.25)
    bubbles = smoothstep(0.72, 0.9, noise(rng, x, y, 7.0) + 0.25 * cloud)
    glass = base[pane].astype(np.float32) * light[..., None]
    return mix(glass, np.ones(3, np.float32), 0.3 * bubbles)


def _leaded(rng: Generator, glass: Picture, pane: Labels, region: Labels) -> Picture:
    """Set the panes in rounded lead, heavier round the regions, and light the relief."""
    x, y = grid(HEIGHT, WIDTH)
    fine, heavy = _to_border(pane), _to_border(region)
    wide = 1.7 + 0.7 * noise(rng, x, y, 40.0)
    heavy_wide = 3.9 + 1.2 * noise(rng, x, y, 60.0)
    inside = np.maximum(wide - fine, heavy_wide - heavy)
    lead = smoothstep(-0.6, 0.6, inside)
    depth = np.minimum(fine - wide, heavy - heavy_wide)
    glow = 0.72 + 0.52 * smoothstep(0.0, 10.0, depth)
    bleed = blur(glass, 14.0)
    shining = glass * glow[..., None] * (0.92 + 0.35 * bleed)
    metal = LEAD + (SOLDER - LEAD) * 0.4 * np.clip(noise(rng, x, y, 5.0), 0, 1)[..., None]
    ripple = fbm(rng, *warp(rng, x, y, 50.0, 12.0), 13.0, 3)
    dome = 1.3 * smoothstep(0.0, 7.0, depth) + 0.6 * ripple
    bead = np.sqrt(np.clip(inside, 0.0, None)) * 1.6
    return lit(mix(shining, metal, lead), blur(dome * (1 - lead) + bead, 0.6), 1.7, 0.6)


def _to_border(label: Labels) -> Field:
    """Measure the distance of every pixel to the nearest change of label."""
    border = np.zeros_like(label)
    border[:, :-1] |= label[:, 1:] != label[:, :-1]
    border[:-1] |= label[1:] != label[:-1]
    _, distance = nearest(border)
    return blur(distance, 0.8)
