"""PNG and TIFF, 8 or 16 bits a channel, written row by row while the rows are still coming.

PNG's chunks and filters are written here, for no library takes rows as they come and filters them.
TIFF is tifffile's, which the `formats` extra brings.
"""

import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin

from fast_style.images import deep
from fast_style.images.decoding import Channels
from fast_style.images.metadata import IPTC_TAG, NESTED_TAGS, SOFTWARE, XMP_TAG, Metadata

# Above, a TIFF's offsets must have 64 bits; the rest of 4 GB is for what is no pixel.
_CLASSIC_TIFF_BYTES = 2**32 - 2**25
_ASCII, _BYTE, _LONG, _UNDEFINED, _LONG8 = 2, 1, 4, 7, 16
# The bytes of the rows that are compressed together, which is tifffile's size of strips too.
_BAND_BYTES = 1 << 18


def formats() -> frozenset[str]:
    """Return Pillow's names of the formats that are written so: PNG, and TIFF with its extra."""
    return frozenset(("PNG", "TIFF") if deep.available() else ("PNG",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Colors (H, W, 3) and alpha (H, W), both uint8 or both uint16.

    Rows are read once `ready` has named them, in spans from the top to the bottom.
    """

    colors: Channels
    alpha: Channels | None
    ready: Iterable[slice]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3), or with alpha (height, width, 4)."""
        height, width, _ = self.colors.shape
        return height, width, 3 if self.alpha is None else 4

    @property
    def dtype(self) -> np.dtype[np.integer[Any]]:
        """The type of a channel."""
        return self.colors.dtype

    @property
    def band_height(self) -> int:
        """The number of rows that are compressed together."""
        _, width, channels = self.shape
        return max(1, _BAND_BYTES // (width * channels * self.dtype.itemsize))

    def bands(self) -> Iterator[Channels]:
        """Yield bands (h, W, 3 or 4), each as soon as all of its rows are there."""
        first = 0
        for span in self.ready:
            at_end = span.stop == self.shape[0]
            while first + self.band_height <= span.stop or (at_end and first < span.stop):
                rows = slice(first, first + self.band_height)
                colors = self.colors[rows]
                yield colors if self.alpha is None else np.dstack([colors, self.alpha[rows]])
                first = rows.stop


def write(
    file: BinaryIO,
    rows: Rows,
    *,
    file_format: str,
    profile: bytes,
    exif: Image.Exif,
    metadata: Metadata,
) -> None:
    """Write rows as they come; a TIFF's file must be seekable and readable. Raises OSError."""
    write_format = _write_png if file_format == "PNG" else _write_tiff
    write_format(file, rows, profile=profile, exif=exif, metadata=metadata)


def _write_png(
    file: BinaryIO, rows: Rows, *, profile: bytes, exif: Image.Exif, metadata: Metadata
) -> None:
    """PNG specification, sections 5 and 11."""
    height, width, channels = rows.shape
    pixel = channels * rows.dtype.itemsize
    file.write(b"\x89PNG\r\n\x1a\n")
    color_type = 2 if rows.alpha is None else 6
    depth = 8 * rows.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    file.write(_png_chunk(b"IHDR", header))
    if profile:
        file.write(_png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile)))
    if metadata.dpi:
        per_meter = (round(dots / 0.0254) for dots in metadata.dpi)
        file.write(_png_chunk(b"pHYs", struct.pack(">IIB", *per_meter, 1)))
    file.write(_png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    if metadata.xmp:
        file.write(_png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    compressor = zlib.compressobj(memLevel=9, strategy=zlib.Z_FILTERED)
    above = np.zeros((1, width * pixel), np.uint8)
    for band in rows.bands():
        big_endian = np.ascontiguousarray(band, rows.dtype.newbyteorder(">"))
        samples = big_endian.view(np.uint8).reshape(len(band), -1)
        compressed = compressor.compress(_filtered(samples, above, pixel))
        if compressed:
            file.write(_png_chunk(b"IDAT", compressed))
        above = samples[-1:]
    file.write(_png_chunk(b"IDAT", compressor.flush()))
    file.write(_png_chunk(b"IEND", b""))


def _filtered(rows: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8], pixel: int) -> bytes:
    """Filter rows of bytes, each by what leaves the least (PNG specification, section 12.7).

    The average and Paeth's predictor are tried: on photos the other filters hardly ever win.
    """
    a, c = np.zeros((2, *rows.shape), np.int16)
    b = np.concatenate([above, rows[:-1]]).astype(np.int16)
    a[:, pixel:] = rows[:, :-pixel]
    c[:, pixel:] = b[:, :-pixel]
    from_a, from_b = np.abs(b - c), np.abs(a - c)
    from_c = np.abs(a + b - 2 * c)
    paeth = np.where((from_a <= from_b) & (from_a <= from_c), a, np.where(from_b <= from_c, b, c))
    tried = [rows - guess.astype(np.uint8) for guess in ((a + b) >> 1, paeth)]
    left = [np.abs(rest.view(np.int8).astype(np.int16)).sum(1) for rest in tried]
    best = (left[1] < left[0])[:, None]
    # The filters' numbers are 3 and 4.
    return np.hstack([best + np.uint8(3), np.where(best, tried[1], tried[0])]).tobytes()


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    """PNG specification, section 5.3."""
    check = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def _write_tiff(
    file: BinaryIO, rows: Rows, *, profile: bytes, exif: Image.Exif, metadata: Metadata
) -> None:
    import tifffile

    big = math.prod(rows.shape) * rows.dtype.itemsize > _CLASSIC_TIFF_BYTES
    nested = {tag: exif.get_ifd(tag) for tag in NESTED_TAGS if tag in metadata.exif}
    tifffile.imwrite(
        file,
        (_tiff_strip(band) for band in rows.bands()),
        shape=rows.shape,
        dtype=rows.dtype,
        rowsperstrip=rows.band_height,
        byteorder="<",
        bigtiff=big,
        photometric="rgb",
        extrasamples=None if rows.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=profile or None,
        software=SOFTWARE,
        metadata=None,
        resolution=metadata.dpi,
        resolutionunit="inch" if metadata.dpi else None,
        extratags=_extra_tags(exif, metadata, pointers=list(nested), big=big),
    )
    for tag, tags in nested.items():
        _append_directory(file, tag, tags, big=big)


def _tiff_strip(band: Channels) -> bytes:
    """Compress differences between neighbours: TIFF 6.0, section 14, and Adobe's deflate."""
    differences = np.diff(band, axis=1, prepend=band.dtype.type(0))
    return zlib.compress(differences.astype(band.dtype.newbyteorder("<")).tobytes())


def _extra_tags(
    exif: Image.Exif, metadata: Metadata, *, pointers: list[ExifTags.IFD], big: bool
) -> list[tuple[int | str, int, int, Any, bool]]:
    """Return the tags that tifffile does not write by itself, with pointers to nested ones."""
    names = {ExifTags.IFD.Exif: "ExifTag", ExifTags.IFD.GPSInfo: "GPSTag"}
    tags: list[tuple[int | str, int, int, Any, bool]] = [
        (names[tag], _LONG8 if big else _LONG, 1, 0, True) for tag in pointers
    ]
    for tag, value in exif.items():
        if tag != ExifTags.Base.Software and isinstance(value, str | bytes):
            text = value.encode("latin-1", "replace") if isinstance(value, str) else value
            tags.append((tag, _ASCII, len(text), text, True))
    if metadata.xmp:
        tags.append((XMP_TAG, _BYTE, len(metadata.xmp), metadata.xmp, True))
    if metadata.iptc:
        tags.append((IPTC_TAG, _UNDEFINED, len(metadata.iptc), metadata.iptc, True))
    return tags


def _append_directory(
    file: BinaryIO, pointer: ExifTags.IFD, tags: dict[int, Any], *, big: bool
) -> None:
    """Append nested EXIF tags to a TIFF, and point to them: tifffile cannot."""
    header = b"II\x2b\0" + bytes(12) if big else b"II\x2a\0" + bytes(4)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header, group=pointer)
    for tag, value in tags.items():
        directory[tag] = value
    end = file.seek(0, os.SEEK_END)
    end += file.write(b"\0" * (end % 2))
    file.write(directory.tobytes(end))
    # The file's own directory: a count, and entries of a number, a type, a count and a value.
    offset, count, entry, value_at = ("<Q", "<Q", 20, 12) if big else ("<I", "<H", 12, 8)
    file.seek(8 if big else 4)
    place = file.seek(*struct.unpack(offset, file.read(struct.calcsize(offset))))
    (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
    place += struct.calcsize(count)
    for start in range(place, place + entries * entry, entry):
        file.seek(start)
        if file.read(2) == struct.pack("<H", pointer):
            file.seek(start + value_at)
            file.write(struct.pack(offset, end))
