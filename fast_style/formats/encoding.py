"""Encoding a picture: which format, how well, and what else goes into the file."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageCms, features

from fast_style.formats import rowwise
from fast_style.formats.decoding import ImageError
from fast_style.formats.metadata import (
    IPTC_TAG,
    NESTED_TAGS,
    XMP_TAG,
    Metadata,
    iptc_segment,
    signed_exif,
)
from fast_style.formats.rowwise import Rows

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
    rows: Rows,
    *,
    file_format: str,
    quality: int,
    tagged: bool,
    metadata: Metadata,
) -> None:
    """Write rows as they come in one of `rowwise.formats()`, to a seekable and readable file.

    For the other formats all rows must be there, with 8 bits, and alpha only for those of
    `WITH_ALPHA`. `tagged` embeds a profile of sRGB. Raises ImageError, without a path, or OSError.
    """
    check_size(file_format, rows.shape[1], rows.shape[0])
    profile = srgb_profile() if tagged else b""
    try:
        exif = signed_exif(metadata)
        if file_format in rowwise.formats():
            rowwise.write(
                file, rows, file_format=file_format, profile=profile, exif=exif, metadata=metadata
            )
        else:
            _write_whole(file, rows, file_format, quality, profile, exif, metadata)
    except (ValueError, TypeError, struct.error) as error:
        raise ImageError(str(error)) from None


def _write_whole(
    file: BinaryIO,
    rows: Rows,
    file_format: str,
    quality: int,
    profile: bytes,
    exif: Image.Exif,
    metadata: Metadata,
) -> None:
    picture = Image.fromarray(rows.colors)
    if rows.alpha is not None:
        picture.putalpha(Image.fromarray(rows.alpha))
    options = _options(file_format, quality, metadata)
    if file_format == "TIFF":
        # Pillow's compressing writer knows no nested tags: a photo's own need a plain file.
        if not set(NESTED_TAGS) & set(metadata.exif):
            exif[_PREDICTOR_TAG] = 2
            options["compression"] = "tiff_adobe_deflate"
        if metadata.xmp:
            exif[XMP_TAG] = metadata.xmp
        if metadata.iptc:
            exif[IPTC_TAG] = metadata.iptc
    try:
        picture.save(file, file_format, exif=exif, icc_profile=profile or None, **options)
    except RuntimeError as error:
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
    if xmp and file_format in ("JPEG", "WEBP", "AVIF"):
        options |= {"xmp": xmp}
    if metadata.iptc and file_format == "JPEG":
        options |= {"extra": iptc_segment(metadata.iptc)}
    return options
