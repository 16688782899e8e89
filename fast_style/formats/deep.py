"""16 bits a channel in colour, PNG and TIFF, which Pillow rounds to 8 bits.

The codecs and the colour management are those of imagecodecs and tifffile, which the `formats`
extra brings; without them `available()` is false and nothing else here may be called.
"""

import importlib.util
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fast_style.formats.metadata import SOFTWARE

Channels = npt.NDArray[np.uint16]

# In a PNG: eight bytes of signature, then IHDR with the bit depth as its ninth byte of data.
_PNG_DEPTH_AT = 24
_PNG_HEADER_SIZE = 33
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_XMP = 700


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


def read(file: BinaryIO, image: Image.Image) -> Channels | None:
    """Read (H, W, C) as stored: grey or RGB, and straight alpha if C is even.

    None where the layout is none of these (CMYK, half floats): Pillow may know it. Raises
    ValueError for damaged data.
    """
    import imagecodecs
    import tifffile

    file.seek(0)
    try:
        if image.format == "PNG":
            channels: Any = imagecodecs.png_decode(file.read())
        else:
            with tifffile.TiffFile(file) as tiff:
                channels = _read_tiff(tiff.pages.first)
    except (RuntimeError, tifffile.TiffFileError, zlib.error) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if channels is None or channels.dtype != np.uint16:
        return None
    channels = np.atleast_3d(channels)
    expected = (image.height, image.width)
    return channels if channels.shape[:2] == expected and channels.shape[2] <= 4 else None


def to_srgb(channels: Channels, profile: bytes, srgb: bytes) -> Channels:
    """(H, W, 1 or 3) -> (H, W, 3): convert from a profile to sRGB. Raises ValueError."""
    import imagecodecs

    grey = channels.shape[2] == 1
    try:
        converted: Channels = imagecodecs.cms_transform(
            np.ascontiguousarray(channels[..., 0] if grey else channels),
            profile,
            srgb,
            colorspace="gray" if grey else "rgb",
            outcolorspace="rgb",
        )
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return converted


def write_png(
    file: BinaryIO, channels: Channels, *, profile: bytes, exif: bytes, xmp: bytes
) -> None:
    """Write (H, W, 3 or 4); empty metadata is left out. Raises OSError."""
    import imagecodecs

    encoded = memoryview(imagecodecs.png_encode(channels))
    file.write(encoded[:_PNG_HEADER_SIZE])
    if profile:
        file.write(_png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile)))
    if exif:
        file.write(_png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp:
        file.write(_png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    file.write(encoded[_PNG_HEADER_SIZE:])


def write_tiff(file: BinaryIO, channels: Channels, *, profile: bytes, xmp: bytes) -> None:
    """Write (H, W, 3 or 4); empty metadata is left out; the file must be seekable."""
    import tifffile

    tifffile.imwrite(
        file,
        channels,
        photometric="rgb",
        extrasamples=["unassalpha"] if channels.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
        iccprofile=profile or None,
        software=SOFTWARE,
        metadata=None,
        extratags=[(_TIFF_XMP, 1, len(xmp), xmp, True)] if xmp else (),
    )


def _read_tiff(page: object) -> Any:
    """Read one page of a TIFF; alpha that the colours are multiplied by is divided out."""
    import tifffile

    assert isinstance(page, tifffile.TiffPage)
    kinds = tifffile.PHOTOMETRIC
    if page.photometric not in (kinds.RGB, kinds.MINISBLACK, kinds.MINISWHITE):
        return None
    channels = page.asarray()
    if page.axes == "SYX":
        channels = channels.transpose(1, 2, 0)
    if page.photometric == kinds.MINISWHITE:
        channels = np.invert(channels)
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        alpha = channels[..., -1:].astype(np.float32)
        straight = channels[..., :-1] * (65535 / np.maximum(alpha, 1))
        channels[..., :-1] = straight.round().clip(0, 65535).astype(np.uint16)
    return channels


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    """PNG specification, section 5.3."""
    check = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
