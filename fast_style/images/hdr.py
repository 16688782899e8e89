"""OpenEXR and Radiance HDR: linear light without an upper end, which a curve brings below white.

Light up to 0.8 stays as it is; a pixel whose brightest colour m is above is scaled so that this
becomes 1 - 0.04 / (m - 0.6), which goes on without an edge, and to 1 for ever brighter light. What
comes out is written with sRGB's curve, in 16 bits. Nothing chooses an exposure.
"""

import importlib.util
import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from fast_style.images.samples import Samples

_EXR_MAGIC = b"\x76\x2f\x31\x01"
_RADIANCE_MAGIC = (b"#?RADIANCE", b"#?RGBE")
# Up to here light is shown as it is.
_KNEE = 0.8
_RADIANCE_SIZE = re.compile(rb"\n-Y (\d{1,7}) \+X (\d{1,7})\n")
_HEADER_BYTES = 1 << 16


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
    light = _read_exr(file) if file.read(4) == _EXR_MAGIC else _read_radiance(file)
    light = np.nan_to_num(light.astype(np.float32), posinf=1e30, neginf=0)
    colors, alpha = light[..., :3].clip(0, None), light[..., 3:].clip(0, 1)
    if alpha.size:  # OpenEXR's colours are multiplied by their transparency
        colors = np.where(alpha > 0, colors / np.maximum(alpha, 1e-6), colors)
    brightest = colors.max(axis=-1, keepdims=True)
    if (brightest > 1).any():
        notes.append(f"its light, up to {brightest.max():.4g}, was brought below white by a curve")
    bent = 1 - (1 - _KNEE) ** 2 / (np.maximum(brightest, _KNEE) - 2 * _KNEE + 1)
    colors = np.where(brightest > _KNEE, colors * (bent / np.maximum(brightest, _KNEE)), colors)
    curve = np.where(
        colors <= 0.0031308,
        colors * 12.92,
        1.055 * np.maximum(colors, 0.0031308) ** (1 / 2.4) - 0.055,
    )
    values = (np.concatenate([curve, alpha], axis=-1).clip(0, 1) * 65535).round().astype(np.uint16)
    return Samples(
        values=values, inks=3, black=0, white=65535, bits=16, alpha=3 if alpha.size else None
    )


def _read_exr(file: BinaryIO) -> npt.NDArray[Any]:
    """Return (H, W, 3 or 4) of the layer without a name, or of the first one in colour."""
    import OpenEXR

    file.seek(0)
    channels = {name: channel.pixels for name, channel in OpenEXR.File(file).channels().items()}
    for name in ("RGBA", "RGB", *channels):
        pixels = channels.get(name)
        if pixels is not None and pixels.ndim == 3 and pixels.shape[2] in (3, 4):
            return np.asarray(pixels)
    if "Y" in channels:
        return np.repeat(np.asarray(channels["Y"])[..., None], 3, axis=2)
    raise ValueError(f"holds no colours, but {', '.join(channels)}")


def _read_radiance(file: BinaryIO) -> npt.NDArray[Any]:
    import imagecodecs

    file.seek(0)
    return np.asarray(imagecodecs.rgbe_decode(file.read()))
