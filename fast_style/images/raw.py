"""Cameras' raw files: developed by rawpy, which the `raw` extra brings, or refused.

What else such a file holds is a preview of a few pixels or of many: not the photo.
"""

import importlib.util
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from fast_style.images.directories import (
    DNG_VERSION,
    PHOTOMETRIC,
    TIFF_MAGIC,
    read_directories,
)
from fast_style.images.samples import Samples

# How they begin where they are no TIFF, or what is at byte 8: of Canon, Fujifilm, Olympus,
# Panasonic, Sigma and Minolta.
_MAGIC = (
    b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"HEAPCCDR",
)  # fmt: skip
_MAGIC_AT_8 = (b"CR\x02", b"HEAPCCDR")
_MAGIC_AT_4 = (b"ftypcrx ",)
# Photometric interpretations of what a sensor saw: colours side by side, or one after another.
_SENSOR = frozenset((32803, 34892))
# IEC 61966-2-1: the power, and the slope at black. LibRaw's own default is television's curve.
_SRGB_CURVE = (2.4, 12.92)


class RawPicture(ImageFile.ImageFile):
    """The header of a raw file, as Pillow's programs expect it: no pixels."""

    format = "RAW"
    format_description = "camera's raw file"

    def _open(self) -> None:
        import rawpy

        assert self.fp is not None
        self.fp.seek(0)
        try:
            with rawpy.imread(cast(BinaryIO, self.fp)) as raw:
                sizes = raw.sizes
        except rawpy.LibRawError as error:
            raise UnidentifiedImageError(
                f"is a camera's raw file that cannot be read: {error}"
            ) from None
        turned = sizes.flip in (5, 6)
        self._size = (sizes.height, sizes.width) if turned else (sizes.width, sizes.height)
        self._mode = "F"

    def getexif(self) -> Image.Exif:
        return Image.Exif()  # developing turns the photo upright


def is_raw(file: BinaryIO, head: bytes) -> bool:
    """Whether a file that begins with these 16 bytes is a camera's raw file."""
    if head.startswith(_MAGIC) or head[8:].startswith(_MAGIC_AT_8):
        return True
    if head[4:].startswith(_MAGIC_AT_4):
        return True
    return head.startswith(TIFF_MAGIC) and any(
        directory.number(PHOTOMETRIC) in _SENSOR or DNG_VERSION in directory.tags
        for directory in read_directories(file)
    )


def open_raw(file: BinaryIO) -> Image.Image:
    """Open a raw file with rawpy. Raises UnidentifiedImageError."""
    if importlib.util.find_spec("rawpy") is None:
        raise UnidentifiedImageError(
            "is a camera's raw file: pip install 'fast-style[raw]', or develop it first"
        )
    return RawPicture(file)


def develop(file: BinaryIO) -> Samples:
    """Develop a photo: the camera's white balance, sRGB with its curve, 16 bits, upright.

    LibRaw chooses the brightness at which a hundredth of the pixels is white.
    """
    import rawpy

    file.seek(0)
    try:
        with rawpy.imread(file) as raw:
            values = raw.postprocess(
                use_camera_wb=True,
                output_color=rawpy.ColorSpace.sRGB,
                output_bps=16,
                gamma=_SRGB_CURVE,
            )
    except rawpy.LibRawError as error:
        raise ValueError(f"cannot be developed: {error}") from None
    return Samples(values=np.ascontiguousarray(values), inks=3, black=0, white=65535, bits=16)
