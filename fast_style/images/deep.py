"""16 bits a channel of a PNG, which Pillow rounds to 8 in colour, and profiles at that depth.

And JPEGs, whose pixels Pillow copies twice on their way out.

The codecs and the colour management are those of imagecodecs and tifffile, which the `formats`
extra brings; without them `available()` is false and nothing else here may be called.
"""

import importlib.util
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fast_style.images.samples import DeepChannels, Samples

# In a PNG: eight bytes of signature, then IHDR with bit depth and colour type as its ninth byte of
# data and the next.
_PNG_DEPTH_AT = 24
_JPEG_END = b"\xff\xd9"

Channels8 = npt.NDArray[np.uint8]


def available() -> bool:
    """Return whether the codecs are installed."""
    return all(importlib.util.find_spec(name) for name in ("imagecodecs", "tifffile"))


def png_layout(file: BinaryIO) -> tuple[int, int]:
    """Return the bit depth and the colour type of a PNG."""
    file.seek(_PNG_DEPTH_AT)
    depth, color_type = file.read(2)
    file.seek(0)
    return depth, color_type


def read_png(file: BinaryIO) -> Samples:
    """Read a PNG of 16 bits a channel. Raises ValueError for damaged data."""
    import imagecodecs

    _, color_type = png_layout(file)
    try:
        channels: Any = imagecodecs.png_decode(file.read())
    except (RuntimeError, zlib.error) as error:
        raise ValueError(" ".join(str(error).split())) from None
    channels = np.atleast_3d(channels)
    inks = 3 if color_type & 2 else 1
    return Samples(
        values=channels,
        inks=inks,
        black=0,
        white=65535,
        bits=16,
        alpha=inks if channels.shape[2] > inks else None,
    )


def read_jpeg(data: bytes) -> Channels8 | None:
    """Decode a JPEG to the pixels that Pillow gives, (H, W, 3) uint8; None where it may refuse it.

    One that is cut short is refused by Pillow, and filled up here.
    """
    import imagecodecs

    if not data.endswith(_JPEG_END):
        return None
    try:
        pixels: Channels8 = imagecodecs.jpeg8_decode(data)
    except RuntimeError:  # Pillow has the words for it
        return None
    return pixels


def to_srgb(colors: DeepChannels, profile: bytes, srgb: bytes) -> DeepChannels:
    """(H, W, 1, 3 or 4) -> (H, W, 3): convert from a profile to sRGB. Raises ValueError."""
    import imagecodecs

    grey = colors.shape[2] == 1
    try:
        converted: DeepChannels = imagecodecs.cms_transform(
            np.ascontiguousarray(colors[..., 0] if grey else colors),
            profile,
            srgb,
            colorspace={1: "gray", 3: "rgb", 4: "cmyk"}[colors.shape[2]],
            outcolorspace="rgb",
        )
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return converted


def inks_to_rgb(inks: DeepChannels) -> DeepChannels:
    """(H, W, 4) -> (H, W, 3): cyan, magenta, yellow and black as filters, without a profile."""
    white = np.uint32(65535)
    light = white - inks.astype(np.uint32)
    return ((light[..., :3] * light[..., 3:] + white // 2) // white).astype(np.uint16)
