"""Outlined vector shapes: splines, tapered ribbons, hooks, and the plate they are cut into."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from styles.draw.fields import Picture, to_image

Path = npt.NDArray[np.float64]
Widths = npt.NDArray[np.float64]
Color = npt.NDArray[np.float32]


def spline(control: Sequence[Sequence[float]] | Path, count: int) -> Path:
    """Run a Catmull-Rom curve of `count` points through all control points."""
    points = np.asarray(control, dtype=np.float64)
    ends = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    place = np.linspace(0.0, len(points) - 1.0, count)
    piece = np.minimum(place.astype(int), len(points) - 2)
    t = (place - piece)[:, None]
    a, b, c, d = (ends[piece + i] for i in range(4))
    curve: Path = b + 0.5 * t * (
        c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))
    )
    return curve


def normals(path: Path) -> Path:
    """Return the unit normal, to the right of travel on a y-down canvas, at every point."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-9
    return np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def ribbon(path: Path, half_width: Widths | float) -> Path:
    """Widen a path to a closed polygon with a half width per point."""
    offset = normals(path) * np.broadcast_to(np.asarray(half_width), len(path))[:, None]
    return np.concatenate([path + offset, (path - offset)[::-1]])


def hook(start: npt.ArrayLike, angle: float, length: float, turn: float, count: int = 20) -> Path:
    """Bend a path of `length` by `turn` radians in all, ever more tightly towards its tip."""
    t = np.linspace(0.0, 1.0, count)
    heading = angle + turn * t**1.7
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length / count)
    path: Path = np.asarray(start, dtype=np.float64) + np.cumsum(steps, axis=0) - steps[0]
    return path


def blob(
    rng: np.random.Generator, center: npt.ArrayLike, radius: float, wobble: float = 0.1
) -> Path:
    """Draw a closed, hand-cut near-circle."""
    angle = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    reach = np.ones_like(angle)
    for turns in (2, 3, 5):
        reach += wobble * rng.normal() / turns * np.cos(turns * angle + rng.uniform(0, 6.3))
    outline = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius * reach)[:, None]
    return np.asarray(center, dtype=np.float64) + outline


class Plate:
    """Holds a drawing at several times its final size, so that its edges come out smooth."""

    def __init__(self, ground: Picture, scale: int = 2) -> None:
        """Start from a ground of the final size."""
        height, width = ground.shape[:2]
        self.size, self.scale = (width, height), scale
        self.image = to_image(ground).resize(
            (width * scale, height * scale), Image.Resampling.BICUBIC
        )
        self.pen = ImageDraw.Draw(self.image)

    def fill(self, outline: Path, color: Color) -> None:
        """Fill a closed polygon."""
        self.pen.polygon((outline * self.scale).ravel().tolist(), fill=_levels(color))

    def stroke(self, path: Path, half_width: Widths | float, color: Color) -> None:
        """Draw a path with a half width per point and round ends."""
        half = np.broadcast_to(np.asarray(half_width, dtype=np.float64), len(path))
        self.fill(ribbon(path, half), color)
        for end in (0, -1):
            self.dot(path[end], float(half[end]), color)

    def dot(self, center: npt.ArrayLike, radius: float, color: Color) -> None:
        """Fill a disc."""
        x, y = np.asarray(center, dtype=np.float64) * self.scale
        r = radius * self.scale
        if r >= 0.5:
            self.pen.ellipse((x - r, y - r, x + r, y + r), fill=_levels(color))

    def lay(self, picture: Picture, outline: Path) -> None:
        """Fill a closed polygon with the pixels of a picture of the final size."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon((outline * self.scale).ravel().tolist(), fill=255)
        pattern = to_image(picture).resize(self.image.size, Image.Resampling.BICUBIC)
        self.image.paste(pattern, mask=mask)

    def picture(self) -> Picture:
        """Return the drawing at its final size."""
        small = self.image.resize(self.size, Image.Resampling.BOX)
        picture: Picture = np.asarray(small, dtype=np.float32) / np.float32(255.0)
        return picture


def _levels(color: Color) -> tuple[int, int, int]:
    red, green, blue = (int(value * 255.0 + 0.5) for value in np.clip(color, 0.0, 1.0))
    return red, green, blue
