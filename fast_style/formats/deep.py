"""Reading 16 bits a channel in colour, PNG and TIFF, which Pillow rounds to 8 bits.

The codecs and the colour management are those of imagecodecs and tifffile, which the `formats`
extra brings; without them `available()` is false and nothing else here may be called.
"""

import importlib.util
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

DeepChannels = npt.NDArray[np.uint16]

# In a PNG: eight bytes of signature, then IHDR with the bit depth as its ninth byte of data.
_PNG_DEPTH_AT = 24
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_INK_SET = 332


@dataclass(frozen=True, kw_only=True, slots=True)
class Deep:
    """Colors (H, W, 1 or 3, or 4 of ink) as stored, and straight alpha (H, W)."""

    colors: DeepChannels
    alpha: DeepChannels | None


def available() -> bool:
    """Say whether the codecs are installed."""
    return all(importlib.util.find_spec(name) for name in ("imagecodecs", "tifffile"))


def is_deep(file: BinaryIO, image: Image.Image) -> bool:
    """Say whether a file that Pillow has opened holds 16 bits a channel, in colour or grey."""
    if image.format == "PNG":
        file.seek(_PNG_DEPTH_AT)
        deep = file.read(1) == b"\x10"
        file.seek(0)
        return deep
    if image.format == "TIFF":
        # getattr, because only Pillow's TIFF images have the attribute.
        return 16 in getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, ())
    return False


def read(file: BinaryIO, image: Image.Image) -> Deep | None:
    """Read grey, RGB or CMYK, with or without alpha.

    None where the layout is none of these (Lab, half floats): Pillow may know it. Raises ValueError
    for damaged data.
    """
    import imagecodecs
    import tifffile

    file.seek(0)
    try:
        if image.format == "PNG":
            channels: Any = imagecodecs.png_decode(file.read())
            inks = 1 if image.mode.startswith(("I", "L")) else 3
        else:
            with tifffile.TiffFile(file) as tiff:
                channels, inks = _read_tiff(tiff.pages.first)
    except (RuntimeError, tifffile.TiffFileError, zlib.error) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if channels is None or channels.dtype != np.uint16:
        return None
    channels = np.atleast_3d(channels)
    if channels.shape[:2] != _stored_size(image) or channels.shape[2] - inks not in (0, 1):
        return None
    alpha = channels[..., inks] if channels.shape[2] > inks else None
    return Deep(colors=channels[..., :inks], alpha=alpha)


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


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Give height and width before any turning; Pillow's own are upright for some TIFFs."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_TIFF_HEIGHT, image.height), tags.get(_TIFF_WIDTH, image.width)


def _read_tiff(page: object) -> tuple[Any, int]:
    """Read one page of a TIFF; alpha that the colours are multiplied by is divided out.

    Gives None for a layout that is not known here, and the number of channels without alpha.
    """
    import tifffile

    assert isinstance(page, tifffile.TiffPage)
    kinds = tifffile.PHOTOMETRIC
    known = {kinds.RGB: 3, kinds.MINISBLACK: 1, kinds.MINISWHITE: 1, kinds.SEPARATED: 4}
    inks = known.get(kinds(page.photometric), 0)
    multiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
    if inks == 4 and page.tags.valueof(_TIFF_INK_SET, default=1) != 1:
        inks = 0  # of other colours
    if not inks or page.dtype != np.uint16:
        return None, 0
    channels = page.asarray()
    if page.axes == "SYX":
        channels = channels.transpose(1, 2, 0)
    channels = np.atleast_3d(channels)
    if page.photometric == kinds.MINISWHITE:
        channels[..., :1] = np.invert(channels[..., :1])
    if multiplied:
        alpha = channels[..., -1:].astype(np.float32)
        straight = channels[..., :-1] * (65535 / np.maximum(alpha, 1))
        channels[..., :-1] = straight.round().clip(0, 65535).astype(np.uint16)
    return channels, inks
