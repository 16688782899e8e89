"""What the numbers of a file mean: their range, polarity, palette and transparency.

A file holds integers of 1 to 64 bits, with or without a sign, or floats. Its darkest and lightest
number become 0 and 65535:

    unsigned, b bits    0 and 2^b - 1
    signed, b bits      -2^(b-1) and 2^(b-1) - 1
    float               0 and 1; where there are others, the least of them and 0, the largest and 1

A largest float of more than half of 255 or 65535 stands for that: programs write such ranges.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DeepChannels = npt.NDArray[np.uint16]

_WHITE = 65535
# CIE L*a*b* of D50 to the linear light of sRGB's primaries: XYZ adapted by Bradford's matrix.
_D50 = np.array([0.96422, 1, 0.82521])
_LINEAR_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """The numbers of a file (H, W, C), as stored, and what they mean.

    The first `inks` channels are colours: 1 grey or index into `palette` (n, 3), 3 RGB (with `lab`
    the numbers of CIE L*a*b*), 4 ink. `alpha` is the channel of transparency, from 0 to `opaque`,
    by which the colours may be `multiplied`. `bits`, 8 or 16, are worth keeping.
    """

    values: npt.NDArray[Any]
    inks: int
    black: float
    white: float
    bits: int
    alpha: int | None = None
    opaque: float = 65535
    multiplied: bool = False
    palette: DeepChannels | None = None
    lab: str | None = None

    def colors(self, rows: slice) -> DeepChannels:
        """Return the colours of some rows: (h, W, 1, 3 or 4), black 0 and white 65535."""
        values = self.values[rows, :, : self.inks]
        if self.palette is not None:
            index = np.minimum(values[..., 0], len(self.palette) - 1).astype(np.intp)
            return self.palette[index]
        if self.lab:
            return _lab_to_srgb(values, self.lab)
        colors = _scaled(values, self.black, self.white)
        if self.multiplied and self.alpha is not None:
            alpha = self.opacity(rows)
            assert alpha is not None
            straight = colors * (_WHITE / np.maximum(alpha[..., None].astype(np.float32), 1))
            colors = straight.round().clip(0, _WHITE).astype(np.uint16)
        return colors

    def opacity(self, rows: slice) -> DeepChannels | None:
        """Return the transparency of some rows (h, W), opaque 65535; None where there is none."""
        if self.alpha is None:
            return None
        return _scaled(self.values[rows, :, self.alpha], 0, self.opaque)


def number_range(values: npt.NDArray[Any], bits: int, notes: list[str]) -> tuple[float, float]:
    """Return which numbers are black and white, by the type of `values`; a rule is noted."""
    kind = values.dtype.kind
    if kind in "bu":
        return 0, 2**bits - 1
    if kind == "i":
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        notes.append(f"its numbers have a sign: {low} is black, and {high} white")
        return low, high
    low, high = 0.0, 1.0
    for rows in range(0, len(values), 256):
        part = values[rows : rows + 256]
        part = part[np.isfinite(part)]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    for range_end in (255.0, 65535.0):
        if range_end / 2 < high <= range_end:
            high = range_end
    if (low, high) != (0, 1):
        notes.append(f"its numbers leave 0 to 1: {low:.6g} is black, and {high:.6g} white")
    return low, high


def _scaled(values: npt.NDArray[Any], black: float, white: float) -> DeepChannels:
    if values.dtype == np.uint16 and (black, white) == (0, _WHITE):
        return values
    span = float(white) - float(black)
    # Of 64 bits, or of floats above 1, single precision would lose some of the 16 that are kept.
    numbers = values.astype(np.float64)
    numbers = np.nan_to_num(numbers, nan=min(black, white), posinf=1e300, neginf=-1e300)
    return (((numbers - black) / span).clip(0, 1) * _WHITE).round().astype(np.uint16)


def _lab_to_srgb(values: npt.NDArray[Any], kind: str) -> DeepChannels:
    """TIFF 6.0, section 23, and its supplement's ICC variant, whose a* and b* have an offset."""
    bits = values.dtype.itemsize * 8
    light = values[..., 0].astype(np.float64) * (100 / (2**bits - 1))
    step = 2 ** (bits - 8)
    if kind == "icc":
        a, b = (values[..., i].astype(np.float64) / step - 128 for i in (1, 2))
    else:
        signed = values[..., 1:3].astype(values.dtype.str.replace("u", "i"))
        a, b = (signed[..., i].astype(np.float64) / step for i in (0, 1))
    y = (light + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _D50
    linear = (xyz @ _LINEAR_SRGB.T).clip(0, 1)
    curve = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (curve * _WHITE).round().astype(np.uint16)
