"""The boxes of an AVIF or HEIF (ISO/IEC 14496-12, 23008-12), for what Pillow does not report."""

import contextlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

_CLEAN_APERTURE = struct.Struct(">IIIIiIiI")
_META_BYTES = 1 << 20


def clean_aperture(file: BinaryIO, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of the part that is to be shown; None for all of it."""
    with contextlib.suppress(OSError, struct.error, ArithmeticError, LookupError):
        properties = _properties(file)
        data = next((data for kind, data in properties if kind == b"clap"), None)
        if data is None:
            return None
        numbers = _CLEAN_APERTURE.unpack_from(data)
        wide, high, right, down = (a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True))
        left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
        box = left, top, left + round(wide), top + round(high)
        if 0 <= left < box[2] <= width and 0 <= top < box[3] <= height:
            return None if box == (0, 0, width, height) else box
    return None


def color_code(file: BinaryIO) -> tuple[int, int] | None:
    """Return the numbers of primaries and transfer (ITU-T H.273) of the picture; None without."""
    with contextlib.suppress(OSError, struct.error, LookupError):
        for kind, data in _properties(file):
            if kind == b"colr" and data[:4] == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", data, 4)
                return primaries, transfer
    return None


def _properties(file: BinaryIO) -> list[tuple[bytes, bytes]]:
    """Return the properties of the picture that a file is for."""
    file.seek(0)
    meta = dict(_boxes(file.read(_META_BYTES)))[b"meta"][4:]
    inside = dict(_boxes(meta))
    primary = _primary_item(inside[b"pitm"])
    about = list(_boxes(inside[b"iprp"]))
    known = list(_boxes(dict(about)[b"ipco"]))
    indices = [
        index
        for kind, data in about
        if kind == b"ipma"
        for item, places in _associations(data)
        if item == primary
        for index in places
    ]
    return [known[index - 1] for index in indices if index]


def _primary_item(data: bytes) -> int:
    return int(struct.unpack_from(">I" if data[0] else ">H", data, 4)[0])


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        end = len(data) if size == 0 else at + size
        if end < at + head:
            return
        yield kind, data[at + head : end]
        at = end


def _associations(data: bytes) -> Iterator[tuple[int, list[int]]]:
    """Yield items with the indices of their properties."""
    version, wide = data[0], data[3] & 1
    (count,) = struct.unpack_from(">I", data, 4)
    at = 8
    for _ in range(count):
        kind = ">IB" if version else ">HB"
        item, number = struct.unpack_from(kind, data, at)
        at += struct.calcsize(kind)
        places = struct.unpack_from(f">{number}{'H' if wide else 'B'}", data, at)
        at += number * (2 if wide else 1)
        yield item, [place & (0x7FFF if wide else 0x7F) for place in places]
