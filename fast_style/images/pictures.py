"""Image files <-> RGB tensors (..., 3, H, W): float32 in [0, 1], or integers for large pictures.

One loader, `read_picture`, and one saver, `write_picture`. Pixels are upright and in sRGB: another
colour profile is converted, and a picture that came with a profile leaves with that of sRGB.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor

from fast_style.images import table
from fast_style.images.decoding import (
    Channels,
    Decoded,
    ImageError,
    Source,
    crop_of,
    decode,
    load_if_plain,
    on_white,
    opened,
    with_bits,
)
from fast_style.images.encoding import check_size, format_of
from fast_style.images.metadata import Metadata, read_metadata
from fast_style.images.tensors import (
    to_float,
    to_uint8,
)
from fast_style.images.writing import unwritable, write_arrays

_SMALLEST_STYLE = 64


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What an image file holds: pixels (3, H, W) and alpha (H, W), uint8 or uint16; sRGB, upright.

    `tagged` says that the file had a colour profile, `file_format` is Pillow's name, `notes` name
    what was not read ("the first of its 12 frames").
    """

    pixels: Tensor
    alpha: Tensor | None = None
    tagged: bool = False
    metadata: Metadata = dataclasses.field(default_factory=Metadata)
    file_format: str = "PNG"
    notes: tuple[str, ...] = ()


def read_picture(source: Source) -> Picture:
    """Read a file, or a seekable binary stream, at the full depth of its PNG or TIFF.

    Pixels are views of channels-last memory. Raises ImageError.
    """
    with opened(source) as (file, image):
        metadata = read_metadata(image)
        decoded = decode(file, image)
        return Picture(
            pixels=torch.from_numpy(decoded.colors).permute(2, 0, 1),
            alpha=None if decoded.alpha is None else torch.from_numpy(decoded.alpha),
            tagged=bool(image.info.get("icc_profile")),
            metadata=metadata,
            # MPO is a JPEG with more views of the scene after it.
            file_format="JPEG" if image.format == "MPO" else image.format or "",
            notes=decoded.notes,
        )


def write_picture(
    picture: Picture,
    output: str | Path | BinaryIO,
    *,
    file_format: str | None = None,
    quality: int = 95,
    keep_metadata: bool = False,
    ready: Iterable[slice] | None = None,
    made_with: str = "",
) -> tuple[str, ...]:
    """Write to a path, whose extension is the format, or to a stream; return notes of losses.

    A file appears whole or not at all. `quality`, 1 to 100, matters to JPEG, WebP and AVIF: from 90
    on chroma is kept at full resolution. `keep_metadata` keeps EXIF, XMP, IPTC and resolution.
    `ready` yields spans of rows from the top to the bottom as they become final, for a picture that
    is not finished yet (by default it is): PNG and TIFF are written as they come. `made_with` is a
    digest of settings, kept where the format has a place for it. Raises ImageError, and what
    `ready` raises.
    """
    if isinstance(output, str):
        output = Path(output)
    if file_format is None:
        file_format = format_of(output) if isinstance(output, Path) else nearest_format(picture)
    colors = picture.pixels.permute(1, 2, 0).numpy()
    alpha = None if picture.alpha is None else picture.alpha.numpy()
    return write_arrays(
        colors,
        alpha,
        output,
        file_format=file_format,
        quality=quality,
        tagged=picture.tagged,
        metadata=picture.metadata if keep_metadata else Metadata(),
        ready=ready,
        made_with=made_with,
    )


def check_fits(output: Path | BinaryIO, file_format: str, height: int, width: int) -> None:
    """Raise ImageError if a picture of this size is too large for the format of its file."""
    try:
        check_size(file_format, width, height)
    except ImageError as error:
        raise unwritable(output, error) from None


def nearest_format(picture: Picture) -> str:
    """Return a picture's own format, or PNG where its own cannot be written."""
    row = table.by_name(picture.file_format)
    return row.name if row and row.written else "PNG"


def load_image(path: str | Path) -> Tensor:
    """Read a file as (3, H, W) float32 RGB in [0, 1], upright, in sRGB; transparency on white.

    Raises ImageError.
    """
    with opened(path) as (file, image):
        colors = _flat(decode(file, image))
    return to_float(torch.from_numpy(colors).permute(2, 0, 1))


def style_doubts(path: str | Path) -> tuple[str, ...]:
    """Return what makes an image a poor style image, though not an error. Raises ImageError."""
    picture = read_picture(path)
    _, height, width = picture.pixels.shape
    doubts = []
    if min(height, width) < _SMALLEST_STYLE:
        doubts.append(f"is only {width}×{height} pixels: too few for strokes to learn from")
    if picture.alpha is not None and not picture.alpha.any():
        doubts.append("is wholly transparent: what is seen of it is white")
    return tuple(doubts)


def save_image(image: Tensor, path: str | Path, *, quality: int = 95) -> Path:
    """Write (3, H, W) RGB in [0, 1], clamped and rounded to 8 bits; the extension is the format.

    The file appears whole or not at all. Raises ImageError.
    """
    write_picture(Picture(pixels=to_uint8(image).cpu()), path, quality=quality)
    return Path(path)


def open_rgb(path: str | Path, *, at_least: int = 0) -> Image.Image:
    """Read a file as an upright 8-bit RGB Pillow image in sRGB; transparency on white.

    A JPEG may come smaller than it is, by a power of two, as long as its short side stays at least
    `at_least` pixels (0: full size): decoding it so is several times faster. Raises ImageError.
    """
    with opened(path) as (file, image):
        if at_least:
            # Draft mode takes the largest reduction that leaves both sides at least this large.
            image.draft("RGB", (at_least, at_least))
        if load_if_plain(file, image):
            return image.copy()
        return Image.fromarray(flat_rgb(file, image))


def flat_rgb(file: BinaryIO, image: Image.Image) -> Channels:
    """Return what `opened` yields as (H, W, 3) uint8, upright, in sRGB; transparency on white.

    Raises what Pillow raises, for `opened` to name.
    """
    # Without torch, whose threads would not survive in the forked workers that call this.
    return with_bits(_flat(decode(file, image)), 8)


def read_size(source: Source, *, at_least: int = 0) -> tuple[int, int]:
    """Read a file's or stream's width and height, as stored, from its header. Raises ImageError.

    With `at_least`, the size is that of what `open_rgb` returns.
    """
    with opened(source) as (file, image):
        if at_least:
            image.draft("RGB", (at_least, at_least))
        left, top, right, bottom = crop_of(file, image) or (0, 0, *image.size)
        return right - left, bottom - top


def set_depth(picture: Picture, bits: int) -> Picture:
    """Return a picture at 8 or 16 bits a channel: rounded, or spread over the whole range."""
    colors = with_bits(picture.pixels.permute(1, 2, 0).numpy(), bits)
    alpha = None if picture.alpha is None else with_bits(picture.alpha.numpy(), bits)
    return dataclasses.replace(
        picture,
        pixels=torch.from_numpy(colors).permute(2, 0, 1),
        alpha=None if alpha is None else torch.from_numpy(alpha),
    )


def _flat(decoded: Decoded) -> Channels:
    return decoded.colors if decoded.alpha is None else on_white(decoded.colors, decoded.alpha)
