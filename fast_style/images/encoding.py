"""Encoding a picture: which format, how well, and what else goes into the file."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, features

from fast_style.images import rowwise, table
from fast_style.images.codec_lines import hushed
from fast_style.images.decoding import ImageError, srgb_profile
from fast_style.images.metadata import (
    IPTC_TAG,
    NESTED_TAGS,
    XMP_TAG,
    Metadata,
    iptc_segment,
    signed_exif,
)
from fast_style.images.rowwise import Rows

_PREDICTOR_TAG = 317


def format_of(path: Path) -> str:
    """Return the format that a path's extension asks for. Raises ImageError."""
    row = table.by_extension(path.suffix)
    if row is None or not row.written:
        known = sorted(extension for row in table.WRITTEN for extension in row.extensions)
        raise ImageError(
            f"{path}: cannot write the image format {path.suffix!r}: use {', '.join(known)}"
        )
    if row.codec and not features.check(row.codec):
        raise ImageError(f"{path}: this Pillow cannot write {row.name}: use .jpg or .png")
    return row.name


def check_size(file_format: str, width: int, height: int) -> None:
    """Raise ImageError, without a path, for a picture that is too long for a format."""
    longest = table.written_as(file_format).longest_edge
    if longest is not None and max(width, height) > longest:
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

    For the other formats all rows must be there, with 8 bits, and alpha only where `table` has it.
    `tagged` embeds a profile of sRGB. Raises ImageError, without a path, or OSError.
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
        with hushed():
            picture.save(file, file_format, exif=exif, icc_profile=profile or None, **options)
    except RuntimeError as error:
        raise ImageError(str(error)) from None


def _options(file_format: str, quality: int, metadata: Metadata) -> dict[str, Any]:
    """Return the keywords of Pillow's writer for a format."""
    # Stylized pictures have fine colour, which halved chroma would smear.
    values: dict[str, Any] = {
        "quality": quality,
        "subsampling": "4:4:4" if quality >= 90 else "4:2:0",
    }
    if metadata.xmp:
        values["xmp"] = metadata.xmp
    if metadata.iptc:
        values["extra"] = iptc_segment(metadata.iptc)
    taken = table.written_as(file_format).options
    options = {name: value for name, value in values.items() if name in taken}
    return options | ({"dpi": metadata.dpi} if metadata.dpi else {})
