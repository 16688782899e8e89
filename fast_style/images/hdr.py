"""OpenEXR and Radiance HDR: linear light without an upper end, which a curve brings below white.

Light up to 0.8 stays as it is; a pixel whose brightest colour m is above is scaled so that this
becomes 1 - 0.04 / (m - 0.6), which goes on without an edge, and to 1 for ever brighter light. What
comes out is written with sRGB's curve, in 16 bits. Nothing chooses an exposure.
"""

import importlib.util
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from fast_style.images import profiles
from fast_style.images.samples import Samples

_EXR_MAGIC = b"\x76\x2f\x31\x01"
_RADIANCE_MAGIC = (b"#?RADIANCE", b"#?RGBE")
# Up to here light is shown as it is.
_KNEE = 0.8
_RADIANCE_SIZE = re.compile(rb"\n-Y (\d{1,7}) \+X (\d{1,7})\n")
_HEADER_BYTES = 1 << 16
_BAND_ROWS = 64
# Chromaticities that differ by no more are the same.
_SAME_COLORS = 0.002

_Light = npt.NDArray[Any]


class HdrPicture(ImageFile.ImageFile):
    """The header of an HDR file, as Pillow's programs expect it: no pixels."""

    format = "HDR"
    format_description = "linear light"

    def _open(self) -> None:
        assert self.fp is not None
        self.fp.seek(0)
        head = self.fp.read(_HEADER_BYTES)
        if head.startswith(_EXR_MAGIC):
            import OpenEXR

            self.fp.seek(0)
            (left, top), (right, bottom) = OpenEXR.File(self.fp, header_only=True).header()[
                "dataWindow"
            ]
            self._size = int(right) - int(left) + 1, int(bottom) - int(top) + 1
        else:
            size = _RADIANCE_SIZE.search(head)
            if size is None:
                raise UnidentifiedImageError("is a Radiance HDR that is damaged, or turned")
            self._size = int(size[2]), int(size[1])
        self._mode = "F"

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def is_hdr(head: bytes) -> bool:
    """Whether a file that begins so is an OpenEXR or a Radiance HDR."""
    return head.startswith((_EXR_MAGIC, *_RADIANCE_MAGIC))


def open_hdr(file: BinaryIO, head: bytes) -> Image.Image:
    """Open an HDR file with the libraries of the `formats` extra."""
    exr = head.startswith(_EXR_MAGIC)
    if importlib.util.find_spec("OpenEXR" if exr else "imagecodecs") is None:
        name = "an OpenEXR" if exr else "a Radiance HDR"
        raise UnidentifiedImageError(
            f"is {name}: reading it needs pip install 'fast-style[formats]'"
        )
    return HdrPicture(file)


def read(file: BinaryIO, notes: list[str]) -> Samples:
    """Read and tone-map an HDR file. Raises what the libraries raise."""
    file.seek(0)
    exr = file.read(4) == _EXR_MAGIC
    light, to_srgb = _read_exr(file) if exr else (_read_radiance(file), None)
    values: npt.NDArray[np.uint16] = np.empty(light.shape, np.uint16)
    most = max(_develop(light[rows], to_srgb, values[rows]) for rows in _bands(light))
    if most > 1:
        notes.append(f"its light, up to {most:.4g}, was brought below white by a curve")
    alpha = 3 if light.shape[-1] > 3 else None
    return Samples(values=values, inks=3, black=0, white=65535, bits=16, alpha=alpha)


def _bands(light: _Light) -> Iterator[slice]:
    """Cut rows into spans, so that the floats of the whole picture are held once."""
    for first in range(0, len(light), _BAND_ROWS):
        yield slice(first, first + _BAND_ROWS)


def _develop(stored: _Light, to_srgb: _Light | None, values: npt.NDArray[np.uint16]) -> float:
    """(h, W, 3 or 4): write light as `values` of 16 bits; return the most of it."""
    light = np.nan_to_num(stored.astype(np.float32), posinf=1e30, neginf=0)
    colors, alpha = light[..., :3], light[..., 3:].clip(0, 1)
    if to_srgb is not None:
        colors = colors @ to_srgb
    colors = colors.clip(0, None)
    if alpha.size:  # OpenEXR's colours are multiplied by their transparency
        colors = np.where(alpha > 0, colors / np.maximum(alpha, 1e-6), colors)
    brightest = colors.max(axis=-1, keepdims=True)
    bent = 1 - (1 - _KNEE) ** 2 / (np.maximum(brightest, _KNEE) - 2 * _KNEE + 1)
    colors = np.where(brightest > _KNEE, colors * (bent / np.maximum(brightest, _KNEE)), colors)
    curve = np.where(
        colors <= 0.0031308,
        colors * 12.92,
        1.055 * np.maximum(colors, 0.0031308) ** (1 / 2.4) - 0.055,
    )
    values[:] = (np.concatenate([curve, alpha], axis=-1).clip(0, 1) * 65535).round()
    return float(brightest.max(initial=0))


def _read_exr(file: BinaryIO) -> tuple[_Light, _Light | None]:
    """Return (H, W, 3 or 4) of the layer without a name, or of the first one in colour.

    With it comes the matrix that makes sRGB's light of a row of its colours, if they are others.
    """
    import OpenEXR

    file.seek(0)
    opened = OpenEXR.File(file)
    to_srgb = _matrix_of(opened.header().get("chromaticities"))
    channels = {name: channel.pixels for name, channel in opened.channels().items()}
    for name in ("RGBA", "RGB", *channels):
        pixels = channels.get(name)
        if pixels is not None and pixels.ndim == 3 and pixels.shape[2] in (3, 4):
            return np.asarray(pixels), to_srgb
    if "Y" in channels:
        return np.repeat(np.asarray(channels["Y"])[..., None], 3, axis=2), None
    raise ValueError(f"holds no colours, but {', '.join(channels)}")


def _matrix_of(chromaticities: Any) -> _Light | None:
    """Return the matrix from light of other primaries, as a header names them; None for sRGB's."""
    if chromaticities is None:
        return None
    flat = [float(value) for value in np.asarray(chromaticities).ravel()]
    colors = tuple(zip(flat[0::2], flat[1::2], strict=True))
    if len(colors) != 4 or not all(y > 0 for _, y in colors):
        return None
    difference = np.abs(np.array(colors) - np.array(profiles.SRGB)).max()
    if difference < _SAME_COLORS:
        return None
    matrix = np.linalg.inv(profiles.to_d50(profiles.SRGB)) @ profiles.to_d50(colors)
    return matrix.T.astype(np.float32)


def _read_radiance(file: BinaryIO) -> _Light:
    import imagecodecs

    file.seek(0)
    return np.asarray(imagecodecs.rgbe_decode(file.read()))
