"""Image files <-> RGB tensors (..., 3, H, W): float32 in [0, 1], or integers for large pictures.

One loader, `read_picture`, and one saver, `write_picture`. Pixels are upright and in sRGB: another
colour profile is converted, and a picture that came with a profile leaves with that of sRGB.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fast_style.formats import table
from fast_style.formats.decoding import (
    Channels,
    Decoded,
    ImageError,
    Source,
    decode,
    load_if_plain,
    on_white,
    opened,
    with_bits,
)
from fast_style.formats.encoding import check_size, format_of
from fast_style.formats.metadata import Metadata, read_metadata
from fast_style.formats.table import EXTENSIONS
from fast_style.formats.writing import unwritable, write_arrays

__all__ = [
    "EXTENSIONS",
    "ImageError",
    "Picture",
    "check_fits",
    "fill_transparent",
    "format_of",
    "from_float",
    "from_linear_light",
    "image_to_tensor",
    "load_image",
    "nearest_format",
    "open_rgb",
    "read_picture",
    "read_size",
    "resize",
    "resize_long_edge",
    "save_image",
    "scaled_size",
    "set_depth",
    "to_float",
    "to_linear_light",
    "to_uint8",
    "write_picture",
]

_BAND_ROWS = 256


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What an image file holds: pixels (3, H, W) and alpha (H, W), uint8 or uint16; sRGB, upright.

    `tagged` says that the file had a colour profile, `file_format` is Pillow's name, `notes` tell
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
            # MPO is a JPEG with more views of the scene behind it.
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
    """Write to a path, whose extension is the format, or to a stream; give notes of what was lost.

    A file appears whole or not at all. `quality`, 1 to 100, matters to JPEG, WebP and AVIF: from 90
    on chroma is kept at full resolution. `keep_metadata` keeps EXIF, XMP, IPTC and resolution.
    `ready` gives spans of rows from the top to the bottom as they become final, for a picture that
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
    """Give a picture's own format, or PNG where that is one which cannot be written."""
    row = table.by_name(picture.file_format)
    return row.name if row and row.written else "PNG"


def load_image(path: str | Path) -> Tensor:
    """Read a file as (3, H, W) float32 RGB in [0, 1], upright, in sRGB; transparency on white.

    Raises ImageError.
    """
    with opened(path) as (file, image):
        colors = _flat(decode(file, image))
    return to_float(torch.from_numpy(colors).permute(2, 0, 1))


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
        # Without torch, whose threads would not survive in the forked workers that call this.
        return Image.fromarray(with_bits(_flat(decode(file, image)), 8))


def read_size(path: str | Path, *, at_least: int = 0) -> tuple[int, int]:
    """Read a file's width and height, as stored, from its header. Raises ImageError.

    With `at_least`, what `open_rgb` would make of them.
    """
    with opened(path) as (_, image):
        if at_least:
            image.draft("RGB", (at_least, at_least))
        return image.size


def image_to_tensor(image: Image.Image) -> Tensor:
    """8-bit RGB Pillow image -> (3, H, W) uint8, a view of channels-last memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_float(pixels: Tensor) -> Tensor:
    """Uint8 or uint16 -> float32 in [0, 1]; what is float already stays as it is."""
    if pixels.is_floating_point():
        return pixels
    return pixels.float() / torch.iinfo(pixels.dtype).max


def from_float(image: Tensor, dtype: torch.dtype) -> Tensor:
    """[0, 1] -> uint8 or uint16: clamped, then rounded."""
    return (image.clamp(0, 1) * torch.iinfo(dtype).max).round().to(dtype)


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] -> uint8 in [0, 255]: clamped, then rounded."""
    return from_float(image, torch.uint8)


def to_linear_light(image: Tensor) -> Tensor:
    """SRGB in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def from_linear_light(light: Tensor) -> Tensor:
    """Linear light in [0, 1] -> sRGB in [0, 1] (IEC 61966-2-1)."""
    curve = 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, curve)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """(..., 3, H, W) -> (..., 3, height, width): bicubic, antialiased, clamped to [0, 1]."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1).reshape(*image.shape[:-2], height, width)


def resize_long_edge(image: Tensor, long_edge: int) -> Tensor:
    """Resize to a long edge of so many pixels, keeping the proportions (0: leave as it is)."""
    return resize(image, *scaled_size(*image.shape[-2:], long_edge=long_edge))


def scaled_size(height: int, width: int, *, long_edge: int) -> tuple[int, int]:
    """Give height and width at a long edge of so many pixels (0: as they are)."""
    if not long_edge:
        return height, width
    scale = long_edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def set_depth(picture: Picture, bits: int) -> Picture:
    """Give 8 or 16 bits a channel to a picture: rounded, or spread over the whole range."""
    colors = with_bits(picture.pixels.permute(1, 2, 0).numpy(), bits)
    alpha = None if picture.alpha is None else with_bits(picture.alpha.numpy(), bits)
    return dataclasses.replace(
        picture,
        pixels=torch.from_numpy(colors).permute(2, 0, 1),
        alpha=None if alpha is None else torch.from_numpy(alpha),
    )


def fill_transparent(pixels: Tensor, alpha: Tensor) -> None:
    """Give the invisible pixels of (3, H, W), in place, colors of the visible ones around them.

    What a file holds where alpha (H, W) is 0 is arbitrary; a network would let it bleed into the
    visible part, and count it in its statistics. Push-pull (Gortler et al. 1996, section 3.4).
    """
    if not (alpha == 0).any():
        return
    halves = [_halved(pixels[:, rows], alpha[rows]) for rows in _bands(pixels)]
    around = _pull(torch.cat(halves, dim=-2))
    height = pixels.shape[-2]
    for rows in _bands(pixels):
        # The band's own rows of the half-size image; its last band may have one that is shared.
        part = around[:, rows.start // 2 : (min(rows.stop, height) + 1) // 2]
        filled = part.repeat_interleave(2, -1).repeat_interleave(2, -2)
        band = pixels[:, rows]
        filled = from_float(filled[:, : band.shape[-2], : band.shape[-1]], pixels.dtype)
        band.copy_(torch.where(alpha[rows] == 0, filled, band))


def _flat(decoded: Decoded) -> Channels:
    return decoded.colors if decoded.alpha is None else on_white(decoded.colors, decoded.alpha)


def _bands(pixels: Tensor) -> Iterator[slice]:
    """Cut rows into spans, so that floats of the whole picture are never held."""
    for first in range(0, pixels.shape[-2], _BAND_ROWS):
        yield slice(first, first + _BAND_ROWS)


def _halved(pixels: Tensor, alpha: Tensor) -> Tensor:
    """(3, h, w), (h, w) -> (4, h / 2, w / 2): colors times weight, and weight, summed by fours."""
    weight = to_float(alpha)[None]
    return _pooled(torch.cat([to_float(pixels) * weight, weight]))


def _pooled(weighted: Tensor) -> Tensor:
    return F.avg_pool2d(weighted[None], 2, ceil_mode=True)[0]


def _pull(weighted: Tensor) -> Tensor:
    """(4, h, w) -> (3, h, w): colors everywhere, from coarser sizes where the weight is 0."""
    colors, weight = weighted[:3], weighted[3:]
    own = colors / weight.clamp(min=1e-12)
    if (weight > 0).all() or weight.numel() == 1:
        return own
    coarse = _pull(_pooled(weighted))
    around = F.interpolate(coarse[None], weight.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, own, around[0])
