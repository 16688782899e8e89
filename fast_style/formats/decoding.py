"""Decoding an image file: formats, depth, colour profiles, orientation, transparency.

Pillow's image and the array that is made of it are all that is held: every conversion goes by bands
of rows.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from fast_style.errors import UserError
from fast_style.formats import deep
from fast_style.formats.metadata import read_exif

# A decompression bomb has more; Pillow's own limit of 179 megapixels would stop real scans.
MAX_PIXELS = 1_000_000_000
# What each file that is open needs Pillow's limit to be, and what it was before the first was.
_limits: list[int | None] = []
_limit_before: int | None = None
_limits_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a loader's worker must not inherit it locked
    os.register_at_fork(
        before=_limits_lock.acquire,
        after_in_parent=_limits_lock.release,
        after_in_child=_limits_lock.release,
    )

Source = str | Path | BinaryIO
Channels = npt.NDArray[np.integer[Any]]

_BAND_PIXELS = 1 << 20
_TIFF_PLANES = 284
_UNUSABLE_PROFILE = "its colour profile cannot be used and was ignored"
# How a file's rows and columns become upright ones, for each EXIF orientation: exchanged, and then
# flipped up-down, left-right.
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class ImageError(UserError):
    """An image file cannot be read or written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """An upright picture in sRGB: colors (H, W, 3), alpha (H, W), both uint8 or both uint16."""

    colors: Channels
    alpha: Channels | None
    notes: tuple[str, ...]


@contextlib.contextmanager
def _pillow_limit(pixels: int | None) -> Iterator[None]:
    """Let Pillow read so many pixels (None: any number) in this thread, and others meanwhile.

    Its limit is one for the whole process, which may open files of its own: once none of ours is
    open it is put back.
    """
    global _limit_before
    with _limits_lock:
        if not _limits:
            _limit_before = Image.MAX_IMAGE_PIXELS
        _limits.append(pixels)
        Image.MAX_IMAGE_PIXELS = _largest(_limits)
    try:
        yield
    finally:
        with _limits_lock:
            _limits.remove(pixels)
            Image.MAX_IMAGE_PIXELS = _largest(_limits) if _limits else _limit_before


def _largest(limits: list[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """Open a file without decoding it. What is raised inside becomes an ImageError naming it."""
    name = str(source) if isinstance(source, str | Path) else "input stream"
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(source, str | Path):
                file: BinaryIO = stack.enter_context(Path(source).open("rb"))
            else:
                file = source
            with _pillow_limit(None):
                image = stack.enter_context(_identify(file))
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{name}: {image.width}×{image.height} is over {MAX_PIXELS:,} pixels"
                )
            # Pillow raises its error at twice its limit. It also checks what lies inside a file.
            with _pillow_limit(MAX_PIXELS // 2):
                yield file, image
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image file") from None
    except ImageError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name}: {error}") from None
    except (MemoryError, OverflowError) as error:
        raise ImageError(f"{name}: too large to be read: {error}") from None
    except Exception as error:  # decoders raise anything on damaged files
        raise ImageError(f"{name}: damaged or unreadable: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what an exception says, in one line, with its class where that is not a sentence."""
    text = " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def load_if_plain(file: BinaryIO, image: Image.Image) -> bool:
    """Load the pixels if Pillow's own are what `decode` would give, and say so.

    They are for a photo as most are: 8-bit RGB, opaque, upright, without a colour profile. Raises
    what Pillow raises, for `opened` to name.
    """
    if (
        image.mode != "RGB"
        or image.info.get("icc_profile")
        or read_exif(image).get(ExifTags.Base.Orientation, 1) in _ORIENTATIONS
        or image.has_transparency_data
        or deep.is_deep(file, image)
    ):
        return False
    image.load()
    return True


def decode(file: BinaryIO, image: Image.Image) -> Decoded:
    """Decode what `opened` gave; of several frames or pages, the first.

    Raises what Pillow raises, for `opened` to name.
    """
    notes = []
    frames = getattr(image, "n_frames", 1)
    # Phones append other views of a photo to its JPEG; these are no frames.
    if frames > 1 and image.format != "MPO":
        notes.append(f"the first of its {frames} {'pages' if image.format == 'TIFF' else 'frames'}")
    bits = image.info.get("bit_depth", 8)
    if image.format == "HEIF" and bits > 8:
        notes.append(f"8 of its {bits} bits")
    profile = image.info.get("icc_profile") or b""
    grey = image.mode.startswith("I")
    scalar = grey or image.mode == "F"
    found = None
    # Pillow too reads 16 bits of grey, but cannot convert them from a profile.
    if deep.is_deep(file, image) and (deep.available() or not grey or profile):
        found = _read_deep(file, image, notes)
        scalar = False
    if found is not None:
        height, width, _ = found.colors.shape
        bands = _convert_deep(found, profile, notes)
    else:
        image.load()
        height, width = image.height, image.width
        bands = _scalar_bands(image) if scalar else _pillow_bands(image, profile, notes)
    # Not before: Pillow turns a TIFF while it loads it, and drops the tag then.
    orientation = read_exif(image).get(ExifTags.Base.Orientation, 1)
    return _assemble(bands, (height, width), orientation, notes)


def on_white(colors: Channels, alpha: Channels) -> Channels:
    """Colors (H, W, 3) and alpha (H, W) -> (H, W, 3)."""
    output = np.empty_like(colors)
    top = np.uint32(np.iinfo(colors.dtype).max)
    for rows in _rows(*alpha.shape):
        # 65535 squared and a half still fit.
        ink = (top - colors[rows]) * alpha[rows, :, None].astype(np.uint32)
        output[rows] = top - (ink + top // 2) // top
    return output


def with_bits(channels: Channels, bits: int) -> Channels:
    """Give 8 or 16 bits to each of (H, W) or (H, W, C): rounded, or spread over the whole range."""
    if channels.dtype.itemsize * 8 == bits:
        return channels
    output = np.empty(channels.shape, np.uint8 if bits == 8 else np.uint16)
    for rows in _rows(*channels.shape[:2]):
        wide = channels[rows].astype(np.uint32)
        output[rows] = (wide + 128) // 257 if bits == 8 else wide * 257
    return output


def _identify(file: BinaryIO) -> Image.Image:
    """Open with Pillow, and HEIF with its plugin where that is installed."""
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        head = file.read(12)
        file.seek(0)
    if not head:
        raise UnidentifiedImageError("is empty")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise UnidentifiedImageError("is a TIFF that is damaged, or of a kind Pillow cannot read")
    if head[4:8] != b"ftyp":
        raise UnidentifiedImageError("not an image file")
    try:
        import pillow_heif
    except ImportError:
        raise UnidentifiedImageError(
            "not an image file that Pillow knows; for HEIC: pip install 'fast-style[formats]'"
        ) from None
    pillow_heif.register_heif_opener()
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        raise UnidentifiedImageError("not an image file that can be read") from None


# A band: its first row, colors (h, W, 3), and alpha (h, W) or None.
_Band = tuple[int, Channels, Channels | None]


def _assemble(
    bands: Iterator[_Band], stored_size: tuple[int, int], orientation: int, notes: list[str]
) -> Decoded:
    """Write bands to where they belong in the upright picture."""
    exchanged, up_down, left_right = _ORIENTATIONS.get(orientation, (False, False, False))
    size = stored_size[::-1] if exchanged else stored_size

    def as_stored(upright: Channels) -> Channels:
        flipped = upright[:: -1 if up_down else 1, :: -1 if left_right else 1]
        return flipped.swapaxes(0, 1) if exchanged else flipped

    colors: Channels | None = None
    alpha: Channels | None = None
    for first, band, band_alpha in bands:
        if colors is None:
            colors = np.empty((*size, 3), band.dtype)
            alpha = None if band_alpha is None else np.empty(size, band_alpha.dtype)
        rows = slice(first, first + len(band))
        as_stored(colors)[rows] = band
        if alpha is not None and band_alpha is not None:
            as_stored(alpha)[rows] = band_alpha
    assert colors is not None
    if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
        alpha = None
    return Decoded(colors=colors, alpha=alpha, notes=tuple(notes))


def _rows(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BAND_PIXELS // width)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def _read_deep(file: BinaryIO, image: Image.Image, notes: list[str]) -> deep.Deep | None:
    """Read 16 bits a channel as stored, not turned; None where 8 must do, which is noted."""
    if not deep.available():
        planes = getattr(image, "tag_v2", {}).get(_TIFF_PLANES) == 2
        if planes and image.info.get("compression") == "raw":  # Pillow takes them for 8-bit ones
            raise UnidentifiedImageError(
                "has planes of 16 bits: reading these needs pip install 'fast-style[formats]'"
            )
        notes.append("8 of its 16 bits; for all: pip install 'fast-style[formats]'")
        return None
    found = deep.read(file, image)
    if found is None:
        notes.append("8 of its 16 bits: only grey, RGB and CMYK can be read at full depth")
    return found


def _convert_deep(found: deep.Deep, profile: bytes, notes: list[str]) -> Iterator[_Band]:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for rows in _rows(*found.colors.shape[:2]):
        colors = found.colors[rows]
        if profile:
            try:
                colors = deep.to_srgb(colors, profile, srgb)
            except ValueError:
                profile = b""
                notes.append(_UNUSABLE_PROFILE)
        if colors.shape[2] == 4:
            colors = deep.inks_to_rgb(colors)
        yield rows.start, colors, None if found.alpha is None else found.alpha[rows]


def _scalar_bands(image: Image.Image) -> Iterator[_Band]:
    """Read a loaded grey image of one wide number a pixel: 16-bit integers, or floats in [0, 1]."""
    for rows in _rows(image.height, image.width):
        values = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        if image.mode == "F":
            values = (np.nan_to_num(values).clip(0, 1) * 65535).round()
        yield rows.start, values.clip(0, 65535).astype(np.uint16)[..., None], None


def _pillow_bands(image: Image.Image, profile: bytes, notes: list[str]) -> Iterator[_Band]:
    """Read 8 bits a channel from a loaded image of any mode."""
    to_rgb = _converter(image, profile, notes)
    has_alpha = image.has_transparency_data
    for rows in _rows(image.height, image.width):
        band = image.crop((0, rows.start, image.width, rows.stop))
        alpha = None
        if band.mode.startswith("I"):
            # Pillow's own conversion to 8 bits clips instead of scaling.
            band = Image.fromarray(with_bits(np.asarray(band).clip(0, 65535).astype(np.uint16), 8))
        elif has_alpha:
            band = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
            alpha = np.asarray(band.getchannel("A"))
        yield rows.start, np.asarray(to_rgb(band)), alpha


def _converter(
    image: Image.Image, profile: bytes, notes: list[str]
) -> Callable[[Image.Image], Image.Image]:
    """Give the conversion of a band to RGB in sRGB."""
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    mode = "L" if grey else "CMYK" if image.mode == "CMYK" else "RGB"
    if not profile:
        return lambda band: band.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append(_UNUSABLE_PROFILE)
        return lambda band: band.convert("RGB")

    def convert(band: Image.Image) -> Image.Image:
        # The grey of a band with alpha is in its red channel.
        plain = band.getchannel("R") if grey and band.mode == "RGBA" else band.convert(mode)
        converted = ImageCms.applyTransform(plain, transform)
        assert converted is not None
        return converted

    return convert
