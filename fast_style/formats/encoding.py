"""Encoding a picture: which format, how well, and what else goes into the file."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, features

from fast_style.formats import deep
from fast_style.formats.decoding import Channels, ImageError
from fast_style.formats.metadata import NESTED_TAGS, Metadata, iptc_segment, signed_exif

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
WITH_ALPHA = frozenset(("PNG", "WEBP", "TIFF", "AVIF"))
WITH_DEPTH = frozenset(("PNG", "TIFF"))

# The longest edge that a format's header or encoder can hold.
_LONGEST_EDGES = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65536}
_XMP_TAG = 700
_IPTC_TAG = 33723
_PREDICTOR_TAG = 317


def format_of(path: Path) -> str:
    """Give the format that a path's extension asks for. Raises ImageError."""
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        raise ImageError(
            f"{path}: cannot write the image format {path.suffix!r}: "
            f"use {', '.join(sorted(FORMATS))}"
        )
    if name in ("AVIF", "WEBP") and not features.check(name.lower()):
        raise ImageError(f"{path}: this Pillow cannot write {name}: use .jpg or .png")
    return name


def check_size(file_format: str, width: int, height: int) -> None:
    """Raise ImageError, without a path, for a picture that is too long for a format."""
    longest = _LONGEST_EDGES.get(file_format, width + height)
    if max(width, height) > longest:
        raise ImageError(
            f"{width}×{height} is over the {longest} pixels that {file_format} can hold: "
            "use PNG or TIFF, or a smaller size"
        )


def encode(
    file: BinaryIO,
    colors: Channels,
    alpha: Channels | None,
    *,
    file_format: str,
    quality: int,
    tagged: bool,
    metadata: Metadata,
) -> None:
    """Write colors (H, W, 3) and alpha (H, W), uint8, or uint16 where `WITH_DEPTH` has the format.

    `tagged` embeds a profile of sRGB. Raises ImageError, without a path, or OSError.
    """
    check_size(file_format, colors.shape[1], colors.shape[0])
    profile = srgb_profile() if tagged else b""
    try:
        exif = signed_exif(metadata)
        if colors.dtype == np.uint16:
            channels = (colors if alpha is None else np.dstack([colors, alpha])).astype(np.uint16)
            write = deep.write_png if file_format == "PNG" else deep.write_tiff
            write(file, channels, profile=profile, exif=exif, metadata=metadata)
            return
        picture = Image.fromarray(colors)
        if alpha is not None:
            picture.putalpha(Image.fromarray(alpha))
        options = _options(file_format, quality, metadata)
        if file_format == "TIFF":
            # Pillow's compressing writer knows no nested tags: a photo's own need a plain file.
            if not set(NESTED_TAGS) & set(metadata.exif):
                exif[_PREDICTOR_TAG] = 2
                options["compression"] = "tiff_adobe_deflate"
            if metadata.xmp:
                exif[_XMP_TAG] = metadata.xmp
            if metadata.iptc:
                exif[_IPTC_TAG] = metadata.iptc
        picture.save(file, file_format, exif=exif, icc_profile=profile or None, **options)
    except (ValueError, TypeError, struct.error, RuntimeError) as error:
        raise ImageError(str(error)) from None


def srgb_profile() -> bytes:
    """Give an ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _options(file_format: str, quality: int, metadata: Metadata) -> dict[str, Any]:
    """Give Pillow's options for a format."""
    xmp = metadata.xmp
    options: dict[str, Any] = {"dpi": metadata.dpi} if metadata.dpi else {}
    # Stylized pictures have fine colour, which halved chroma would smear.
    chroma = "4:4:4" if quality >= 90 else "4:2:0"
    if file_format in ("JPEG", "AVIF"):
        options |= {"quality": quality, "subsampling": chroma}
    elif file_format == "WEBP":
        options |= {"quality": quality}
    elif file_format == "PNG" and xmp:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options |= {"pnginfo": text}
    if xmp and file_format in ("JPEG", "WEBP", "AVIF"):
        options |= {"xmp": xmp}
    if metadata.iptc and file_format == "JPEG":
        options |= {"extra": iptc_segment(metadata.iptc)}
    return options
