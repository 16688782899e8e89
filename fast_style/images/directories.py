"""The directories of a TIFF, and of the cameras' raw files that are laid out like one."""

import contextlib
import struct
from typing import BinaryIO, NamedTuple

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

SUBFILE_TYPE, PHOTOMETRIC, NESTED, DNG_VERSION = 254, 262, 330, 50706
REDUCED, MASK = 1, 4  # bits of SUBFILE_TYPE

_WANTED = (SUBFILE_TYPE, PHOTOMETRIC, NESTED, DNG_VERSION)
_SIZES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 13: ("I", 4), 16: ("Q", 8), 18: ("Q", 8)}
_MOST = 100_000


class Directory(NamedTuple):
    """The numbers of the tags that matter here; pages follow each other, others lie inside one."""

    tags: dict[int, tuple[int, ...]]
    is_page: bool

    def number(self, tag: int) -> int:
        """Return a tag's first number, 0 where it has none."""
        return (self.tags.get(tag) or (0,))[0]


def read_directories(file: BinaryIO) -> list[Directory]:
    """List the pages and what is nested in them, as far as the file is sound."""
    found: list[Directory] = []
    seen: set[int] = set()
    with contextlib.suppress(OSError, struct.error, OverflowError):
        file.seek(0)
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = 43 in head[2:4]
        (first,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        waiting = [(first, True)]
        while waiting and len(seen) < _MOST:
            offset, is_page = waiting.pop(0)
            if not offset or offset in seen:
                continue
            seen.add(offset)
            with contextlib.suppress(OSError, struct.error, OverflowError):
                tags, following = _read_one(file, offset, order, big=big)
                found.append(Directory(tags, is_page))
                waiting += [(place, False) for place in tags.get(NESTED, ())]
                waiting.append((following, is_page))
    return found


def _read_one(
    file: BinaryIO, offset: int, order: str, *, big: bool
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Read one directory at its place: a count, entries, and where the next one is."""

    def number(kind: str) -> int:
        data = file.read(struct.calcsize(order + kind))
        return int(struct.unpack(order + kind, data)[0])

    file.seek(offset)
    tags: dict[int, tuple[int, ...]] = {}
    start = file.tell() + (8 if big else 2)
    entries, entry = number("Q" if big else "H"), 20 if big else 12
    for at in range(start, start + min(entries, _MOST) * entry, entry):
        file.seek(at)
        tag, kind, count = number("H"), number("H"), number("Q" if big else "I")
        if tag in _WANTED and kind in _SIZES and 0 < count <= 64:
            letter, size = _SIZES[kind]
            if size * count > (8 if big else 4):
                file.seek(number("Q" if big else "I"))
            tags[tag] = struct.unpack(f"{order}{count}{letter}", file.read(size * count))
    file.seek(start + entries * entry)
    return tags, number("Q" if big else "I")
