"""ICC profiles: built where a file describes its colours otherwise, and told from one another."""

import struct
from collections.abc import Callable

import numpy as np

# Chromaticities (x, y) of red, green, blue and white.
Chromaticities = tuple[tuple[float, float], ...]
_D65 = (0.3127, 0.3290)
SRGB: Chromaticities = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
ADOBE: Chromaticities = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65)
DISPLAY_P3: Chromaticities = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65)
BT_2020: Chromaticities = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)
# Adobe RGB (1998) Color Image Encoding, section 4.3.4.2.
ADOBE_GAMMA = 563 / 256

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def color_space(profile: bytes) -> str:
    """Return the colours that a profile is for: "RGB", "GRAY", "CMYK", "Lab" ..."""
    return profile[16:20].decode("latin-1").strip()


def rgb_profile(colors: Chromaticities, light: Callable[[float], float] | float) -> bytes:
    """Build a profile of RGB; `light` is a power, or makes linear light of a value in [0, 1].

    ICC.1:2001-04, sections 6.1 and 6.3: a matrix and a curve.
    """
    if callable(light):
        steps = [round(65535 * light(i / 1023)) for i in range(1024)]
        curve = struct.pack(">4s4xI1024H", b"curv", 1024, *steps)
    else:
        curve = struct.pack(">4s4xIH2x", b"curv", 1, round(light * 256))
    text = b"fast-style\0"
    described = struct.pack(">4s4xI", b"desc", len(text)) + text + bytes(78)
    described += bytes(-len(described) % 4)
    columns = [struct.pack(">4s4x3i", b"XYZ ", *_fixed(column)) for column in to_d50(colors).T]
    blocks = [
        (b"desc", described),
        (b"cprt", b"text\0\0\0\0" + b"none\0\0\0\0"),
        (b"wtpt", struct.pack(">4s4x3i", b"XYZ ", *_fixed(_D50))),
        *zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True),
        *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, data = struct.pack(">I", len(blocks)), b""
    start = 128 + 4 + 12 * len(blocks)
    for name, block in blocks:
        table += struct.pack(">4sII", name, start + len(data), len(block))
        data += block
    head = struct.pack(
        ">I4sI4s4s4s", start + len(data), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3i", *_fixed(_D50))
    return head.ljust(128, b"\0") + table + data


def srgb_light(value: float) -> float:
    """SRGB in [0, 1] -> linear light (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def to_d50(colors: Chromaticities) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the XYZ of red, green and blue as columns, adapted to D50 by Bradford's matrix."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in colors]).T
    primaries, white = columns[:, :3], columns[:, 3]
    matrix = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix


def _fixed(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    return [round(float(value) * 65536) for value in values]
