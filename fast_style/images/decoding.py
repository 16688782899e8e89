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
from fast_style.images import deep, hdr, jpeg2000, raw, tiff
from fast_style.images.boxes import clean_aperture
from fast_style.images.codec_lines import hushed
from fast_style.images.colors import profile_of
from fast_style.images.directories import TIFF_MAGIC, read_directories
from fast_style.images.metadata import read_exif
from fast_style.images.profiles import color_space
from fast_style.images.samples import DeepChannels, Samples, number_range
from fast_style.remote import is_remote, read_bytes, shown
from fast_style.shards import read_from_shard, shard_of

# A decompression bomb has more; Pillow's own limit of 179 megapixels would stop real scans.
MAX_PIXELS = 1_000_000_000
_INSIDE = 4  # of which Pillow's error is at twice
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
_EIGHT_OF_16 = "8 of its 16 bits; for all: pip install 'fast-style[formats]'"
_NEEDS_EXTRA = "reading all of its bits needs pip install 'fast-style[formats]'"
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


class TooManyPixelsError(ImageError):
    """A picture has more pixels than any that is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """An upright picture in sRGB: colors (H, W, 3), alpha (H, W), both uint8 or both uint16."""

    colors: Channels
    alpha: Channels | None
    notes: tuple[str, ...]


@contextlib.contextmanager
def _pillow_limit(pixels: int | None) -> Iterator[None]:
    """Let Pillow read `pixels` pixels (None: any number) in this thread, and others meanwhile.

    Pillow's limit is one for the whole process, which may open files of its own: the limit of
    before is put back once none of ours is open.
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
    name = shown(source) if isinstance(source, str | Path) else "input stream"
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(hushed())
            if isinstance(source, str | Path) and (inside := shard_of(source)):
                source = read_from_shard(*inside)
            elif isinstance(source, str | Path) and is_remote(source):
                source = io.BytesIO(read_bytes(Path(source)))
            if isinstance(source, str | Path):
                file: BinaryIO = stack.enter_context(Path(source).open("rb"))
            else:
                file = source
            with _pillow_limit(None):
                image = stack.enter_context(_identify(file))
            if image.width * image.height > MAX_PIXELS:
                raise TooManyPixelsError(
                    f"{name}: {image.width}×{image.height} is over {MAX_PIXELS:,} pixels"
                )
            # Pillow checks what lies inside a file too, as in an icon: no more than several times
            # the pixels that are kept.
            with _pillow_limit(_INSIDE * max(image.width * image.height, 1 << 20)):
                yield file, image
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image file") from None
    except (ImageError, NameError):  # the latter is a fault of this program
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name}: {error}") from None
    except (MemoryError, OverflowError) as error:
        raise ImageError(f"{name}: too large to be read: {error}") from None
    except Exception as error:  # decoders raise anything on damaged files
        raise ImageError(f"{name}: damaged or unreadable: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return an exception's message, in one line, with its class where that is not a sentence."""
    text = " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def load_if_plain(file: BinaryIO, image: Image.Image) -> bool:
    """Load the pixels if Pillow's own are those of `decode`, and return whether they are.

    Raises what Pillow raises, for `opened` to name.
    """
    if not is_plain(file, image):
        return False
    image.load()
    return True


def is_plain(file: BinaryIO, image: Image.Image) -> bool:
    """Return whether Pillow's own pixels are those of `decode`, from the header.

    They are for a photo as most are: 8-bit RGB, opaque, upright, without a colour profile.
    """
    return not (
        image.mode != "RGB"
        or image.info.get("icc_profile")
        or profile_of(file, image, [])
        or read_exif(image).get(ExifTags.Base.Orientation, 1) in _ORIENTATIONS
        or image.has_transparency_data
        or crop_of(file, image)
        or (image.format == "PNG" and deep.png_layout(file)[0] == 16)
        or (image.format == "TIFF" and tiff.is_beyond_pillow(image))
        or (image.format == "JPEG2000" and jpeg2000.depth(file) > 8)
    )


def decode(file: BinaryIO, image: Image.Image) -> Decoded:
    """Decode what `opened` yields; of several frames or pages, the first.

    Raises what Pillow raises, for `opened` to name.
    """
    notes: list[str] = []
    bits = image.info.get("bit_depth", 8)
    if image.format == "HEIF" and bits > 8:
        notes.append(f"8 of its {bits} bits")
    profile = profile_of(file, image, notes)
    found = _samples(file, image, notes) or _load(file, image, notes)
    if found is not None:
        height, width, _ = found.values.shape
        bands = _sample_bands(found, profile, notes)
    else:
        shown = image.crop(box) if (box := crop_of(file, image)) else image
        height, width = shown.height, shown.width
        bands = _pillow_bands(shown, profile, notes)
    # Not before: Pillow turns a TIFF while it loads it, and drops the tag then.
    orientation = read_exif(image).get(ExifTags.Base.Orientation, 1)
    decoded = _assemble(bands, (height, width), orientation)
    return Decoded(
        colors=decoded[0], alpha=decoded[1], notes=(*_notes_of_frames(file, image), *notes)
    )


def crop_of(file: BinaryIO, image: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the part of a picture that its file wants shown, where Pillow decodes all of it."""
    return clean_aperture(file, *image.size) if image.format == "AVIF" else None


def _notes_of_frames(file: BinaryIO, image: Image.Image) -> list[str]:
    """Return a note of the number of frames or pages, where there are several."""
    frames = 1
    if image.format == "TIFF":
        frames = sum(directory.is_page for directory in read_directories(file))
    # Phones append other views of a photo to its JPEG; these are no frames.
    elif image.format != "MPO":
        with contextlib.suppress(Exception):  # of another frame: this one has been read
            frames = getattr(image, "n_frames", 1)
    what = "pages" if image.format == "TIFF" else "frames"
    which = "largest" if isinstance(image, tiff.TiffPicture) and not image.is_first else "first"
    return [f"the {which} of its {frames} {what}"] if frames > 1 else []


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
    """(H, W) or (H, W, C) -> the same at 8 or 16 bits: rounded, or spread over the range."""
    if channels.dtype.itemsize * 8 == bits:
        return channels
    output = np.empty(channels.shape, np.uint8 if bits == 8 else np.uint16)
    for rows in _rows(*channels.shape[:2]):
        wide = channels[rows].astype(np.uint32)
        output[rows] = (wide + 128) // 257 if bits == 8 else wide * 257
    return output


def _identify(file: BinaryIO) -> Image.Image:
    """Open with Pillow, and HEIF with its plugin where that is installed."""
    head = file.read(16)
    file.seek(0)
    if hdr.is_hdr(head):
        return hdr.open_hdr(file, head)
    if raw.is_raw(file, head):
        return raw.open_raw(file)
    file.seek(0)
    if head.startswith(TIFF_MAGIC):
        return tiff.open_tiff(file)
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
    if not head:
        raise UnidentifiedImageError("is empty")
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
    bands: Iterator[_Band], stored_size: tuple[int, int], orientation: int
) -> tuple[Channels, Channels | None]:
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
    return colors, alpha


def _rows(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BAND_PIXELS // width)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def _samples(file: BinaryIO, image: Image.Image, notes: list[str]) -> Samples | None:
    """Read numbers, not turned, where Pillow's would be others; None where its 8 bits must do."""
    if image.format == "PNG":
        return _png_samples(file, image, notes)
    if image.format == "TIFF":
        return _tiff_samples(file, image, notes)
    if isinstance(image, raw.RawPicture):
        return raw.develop(file)
    if isinstance(image, hdr.HdrPicture):
        return hdr.read(file, notes)
    if image.format == "JPEG2000" and jpeg2000.depth(file) > 8 and image.mode != "I;16":
        if not deep.available():
            raise UnidentifiedImageError(_NEEDS_EXTRA)
        return jpeg2000.read(file, image)
    if image.mode.startswith("I") or image.mode == "F":
        image.load()
        values = np.asarray(image)
        if image.mode == "F":
            black, white = number_range(values, 32, notes)
        else:
            values, (black, white) = values.clip(0, 65535).astype(np.uint16), (0, 65535)
        return Samples(values=values[..., None], inks=1, black=black, white=white, bits=16)
    return None


def _png_samples(file: BinaryIO, image: Image.Image, notes: list[str]) -> Samples | None:
    """Read a PNG of 16 bits, or of such a grey without the codecs; Pillow reads the others."""
    depth, color_type = deep.png_layout(file)
    if depth < 16:
        return None
    if deep.available():
        return deep.read_png(file)
    if color_type and "transparency" in image.info:
        raise UnidentifiedImageError(_NEEDS_EXTRA)  # Pillow looks for 16 bits among its 8
    if color_type:
        notes.append(_EIGHT_OF_16)
        return None
    image.load()
    values = np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None]
    level = image.info.get("transparency")
    if not isinstance(level, int):
        return Samples(values=values, inks=1, black=0, white=65535, bits=16)
    opaque = np.where(values == level, 0, 65535).astype(np.uint16)
    values = np.concatenate([values, opaque], axis=-1)
    return Samples(values=values, inks=1, black=0, white=65535, bits=16, alpha=1)


def _tiff_samples(file: BinaryIO, image: Image.Image, notes: list[str]) -> Samples | None:
    """Read a TIFF of other numbers than unsigned ones of 8 bits."""
    if not tiff.is_beyond_pillow(image):
        return None
    if deep.available():
        found = tiff.read(file, notes)
        if found is None and isinstance(image, tiff.TiffPicture):
            raise UnidentifiedImageError("is a TIFF of colours that cannot be read")
        if found is None and tiff.is_deep(image):
            notes.append("8 of its 16 bits: its colours cannot be read at full depth")
        return found
    if tiff.is_grey(image):
        return tiff.grey_samples(image, notes)
    if tiff.is_for_libtiff(image):
        return None
    if not tiff.is_deep(image):
        raise UnidentifiedImageError(tiff.NEEDS_EXTRA)
    tiff.check_planes(image)
    notes.append(_EIGHT_OF_16)
    return None


def _load(file: BinaryIO, image: Image.Image, notes: list[str]) -> Samples | None:
    """Let Pillow decode, and put right what it takes for something else.

    Of a TIFF that it cannot decode after all, tifffile's numbers are returned.
    """
    level = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(level, int):
        depth, _ = deep.png_layout(file)
        if depth in (2, 4) and level < 2**depth:  # it scales the pixels, but not this
            image.info["transparency"] = level * 255 // (2**depth - 1)
    try:
        image.load()
    except (ValueError, KeyError):  # of a layout; damage is an OSError
        if image.format != "TIFF":
            raise
        if not deep.available():
            raise UnidentifiedImageError(tiff.NEEDS_EXTRA) from None
        return tiff.read(file, notes)
    except OSError:
        if image.format == "TIFF" and not deep.available() and tiff.is_compressed_oddly(image):
            raise UnidentifiedImageError(tiff.NEEDS_EXTRA) from None
        raise
    if image.format == "TIFF" and image.mode in ("P", "PA"):
        palette = tiff.narrow_palette(image)
        if palette:
            image.putpalette(palette)
    return None


def _sample_bands(found: Samples, profile: bytes, notes: list[str]) -> Iterator[_Band]:
    if found.lab:
        profile = b""  # it describes the numbers of L*a*b*, which are known
    bits = found.bits
    if profile and bits == 16 and not deep.available():
        bits = 8
        notes.append(_EIGHT_OF_16)
    for rows in _rows(*found.values.shape[:2]):
        colors = found.colors(rows)
        if profile:
            try:
                colors = _to_srgb(colors, profile)
            except (ValueError, OSError, ImageCms.PyCMSError):
                profile = b""
                notes.append(_UNUSABLE_PROFILE)
        if colors.shape[2] == 4:
            colors = deep.inks_to_rgb(colors)
        alpha = found.opacity(rows)
        yield (
            rows.start,
            with_bits(colors, bits),
            None if alpha is None else with_bits(alpha, bits),
        )


def _to_srgb(colors: DeepChannels, profile: bytes) -> DeepChannels:
    """Convert from a profile; without the codecs with 8 bits, as Pillow does."""
    if colors.shape[2] == 1 and color_space(profile) == "RGB":
        colors = colors.repeat(3, axis=2)
    if deep.available():
        return deep.to_srgb(colors, profile, srgb_profile())
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colors.shape[2]]
    narrow = with_bits(colors, 8)
    image = Image.fromarray(narrow[..., 0] if mode == "L" else narrow, mode)
    return with_bits(np.asarray(_transform(profile, mode)(image)), 16).astype(np.uint16)


def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _transform(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image]:
    """Return the conversion of an image of this mode from a profile to sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted

    return convert


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
    """Return the function that converts a band to RGB in sRGB."""
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    mode = "L" if grey else "CMYK" if image.mode == "CMYK" else "RGB"
    if grey and color_space(profile) == "RGB":
        mode, grey = "RGB", False  # it is for the grey of RGB
    if not profile:
        return lambda band: band.convert("RGB")
    try:
        transform = _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append(_UNUSABLE_PROFILE)
        return lambda band: band.convert("RGB")
    # The grey of a band with alpha is in its red channel.
    return lambda band: transform(
        band.getchannel("R") if grey and band.mode == "RGBA" else band.convert(mode)
    )
