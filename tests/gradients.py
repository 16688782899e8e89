"""The picture that tests write in every way, and look for in what is read: a gradient."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fast_style.images import ImageError, Picture, read_picture

Array = npt.NDArray[Any]


def gradient(channels: int) -> Array:
    """Red across, green down, blue a half, then black; or grey across: (37, 53, C) in [0, 1]."""
    across, down = np.meshgrid(np.linspace(0, 1, 53), np.linspace(0, 1, 37))
    half = np.full_like(across, 0.5)
    return np.stack([across, down, half, 0 * half][:channels], axis=-1)


def light(picture: Picture) -> Array:
    """(H, W, 3) in [0, 1]."""
    top = {1: 255, 2: 65535}[picture.pixels.element_size()]
    return picture.pixels.permute(1, 2, 0).numpy().astype(np.float64) / top


def assert_shows(picture: Picture, expected: Array, *, within: float = 0.004) -> None:
    assert np.abs(light(picture) - np.broadcast_to(expected, (37, 53, 3))).max() < within


def write_tiff(
    path: Path,
    data: bytes,
    size: tuple[int, int],
    bits: list[int],
    photometric: int,
    extra: dict[int, list[int]] | None = None,
) -> None:
    """Write a little-endian TIFF of one strip by its specification."""
    tags = {
        256: [size[0]], 257: [size[1]], 258: bits, 259: [1], 262: [photometric], 273: [8],
        277: [len(bits)], 278: [size[1]], 279: [len(data)], **(extra or {}),
    }  # fmt: skip
    data += bytes(len(data) % 2)
    place = 8 + len(data)
    entries, behind = b"", b""
    end = place + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", end + len(behind)), behind + packed
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", place)
    body = struct.pack("<H", len(tags)) + entries + bytes(4) + behind
    path.write_bytes(head + data + body)


def read_or_refused(path: Path, codecs: bool) -> Picture | None:
    """Read a file; without the codecs it may also be refused with the extra's name."""
    try:
        return read_picture(path)
    except ImageError as error:
        reason = str(error)
    assert not codecs, reason
    assert "pip install 'fast-style[formats]'" in reason
    return None
