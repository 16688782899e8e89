"""What a camera's sensor sees, written as a DNG by its specification."""

from pathlib import Path
from typing import Any

import numpy as np
from gradients import Array

# IEC 61966-2-1: XYZ of D65 to the linear light of sRGB.
TO_SRGB = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)
BLACK, WHITE = 200, 4000
# What the camera sees of white: less red and blue than green.
NEUTRAL = np.array([0.5, 1.0, 0.7])


def write_dng(
    path: Path, scene: Array, *, order: str = "<", nested: bool = False, orientation: int = 1
) -> None:
    """Write linear light (H, W, 3) of sRGB as a sensor sees it (DNG 1.4, chapter 4)."""
    camera = scene * NEUTRAL * (WHITE - BLACK) + BLACK
    mosaic = np.empty(scene.shape[:2], order + "u2")
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[y::2, x::2] = camera[y::2, x::2, channel].round()

    def rationals(values: Array) -> list[int]:
        return [int(part) for value in values.ravel() for part in (round(value * 10000), 10000)]

    about: list[Any] = [
        (50706, 1, 4, bytes((1, 4, 0, 0)), True),  # the version of DNG
        (50708, 2, 5, "Ours\0", True),  # the camera
        (50721, 10, 9, rationals(np.diag(NEUTRAL) @ TO_SRGB), True),  # XYZ to its colours
        (50778, 3, 1, 21, True),  # which is for D65
        (50728, 5, 3, rationals(NEUTRAL), True),
        (274, 3, 1, orientation, True),
        (271, 2, 5, "Ours\0", True),
        (272, 2, 5, "Ours\0", True),
    ]
    sensor: list[Any] = [
        (33421, 3, 2, (2, 2), True),  # the mosaic's pattern: 2 x 2
        (33422, 1, 4, bytes((0, 1, 1, 2)), True),  # of red, green, green, blue
        (50714, 3, 1, BLACK, True),
        (50717, 3, 1, WHITE, True),
    ]
    import tifffile

    with tifffile.TiffWriter(path, byteorder=order) as tiff:
        options: dict[str, Any] = {"photometric": 32803, "subfiletype": 0, "metadata": None}
        if nested:
            small = np.full((8, 10, 3), 99, np.uint8)
            tiff.write(
                small, photometric="rgb", subfiletype=1, subifds=1, extratags=about, metadata=None
            )
            tiff.write(mosaic, extratags=sensor, **options)
        else:
            tiff.write(mosaic, extratags=[*about, *sensor], **options)
