"""JPEG 2000 of more than 8 bits, which Pillow rounds to 8, and the whitest to black."""

import struct
from typing import BinaryIO

import numpy as np
from PIL import Image

from fast_style.images.samples import Samples

# The start of a codestream, and of its marker SIZ: ISO/IEC 15444-1, annex A.5.1.
_CODESTREAM = b"\xff\x4f\xff\x51"
_HEADER_BYTES = 1 << 16
_COMPONENTS_AT = 40
# An enumerated colour space of a `colr` box (annex I.5.3.3): luma and chroma.
_SYCC = 18


def depth(file: BinaryIO) -> int:
    """Return the bits of a component, the deepest one's; 0 where these cannot be told."""
    head = _head(file)
    start = head.find(_CODESTREAM)
    if start < 0 or len(head) < start + _COMPONENTS_AT + 2:
        return 0
    (count,) = struct.unpack_from(">H", head, start + _COMPONENTS_AT)
    about = head[start + _COMPONENTS_AT + 2 :][: 3 * count : 3]
    return max((1 + (one & 0x7F) for one in about), default=0)


def read(file: BinaryIO, image: Image.Image) -> Samples:
    """Read at full depth with imagecodecs. Raises ValueError."""
    import imagecodecs

    bits, head = depth(file), _head(file)
    inks = 1 if image.mode in ("I;16", "L", "LA") else 3
    if head[: head.find(_CODESTREAM)].find(struct.pack(">4sBxxI", b"colr", 1, _SYCC)) >= 0:
        raise ValueError(f"holds luma and chroma of {bits} bits, which cannot be read right")
    file.seek(0)
    try:
        values = np.atleast_3d(imagecodecs.jpeg2k_decode(file.read()))
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None
    if values.dtype.kind != "u" or values.shape[:2] != (image.height, image.width):
        raise ValueError(f"holds numbers with a sign, or {values.shape[:2]} of them")
    white = 2**bits - 1
    has_alpha = image.mode in ("LA", "RGBA") and values.shape[2] > inks
    return Samples(
        values=values, inks=inks, black=0, white=white, bits=16,
        alpha=inks if has_alpha else None, opaque=white,
    )  # fmt: skip


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(_HEADER_BYTES)
