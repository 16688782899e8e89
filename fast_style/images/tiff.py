"""TIFF as its tags describe it, for what Pillow does not read, or reads as something else.

The `formats` extra's tifffile reads every layout here; without it Pillow's numbers are scaled by
the tags, where there is one channel, and other layouts are refused.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fast_style.images import deep, ycbcr
from fast_style.images.directories import MASK, REDUCED, SUBFILE_TYPE, read_directories
from fast_style.images.samples import Samples, number_range

NEEDS_EXTRA = "reading this kind of TIFF needs pip install 'fast-style[formats]'"

_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 258, 259, 262, 274
_XMP = 700
_BYTE_COUNTS, _PLANES, _COLOR_MAP, _INK_SET, _SAMPLE_FORMAT = 279, 284, 320, 332, 339
# What Pillow's libtiff always has: none, CCITT's, LZW, JPEG, deflate, PackBits.
_PLAIN_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946))
# Of which tifffile makes RGB, whatever the tags call the colours.
_DECODED_TO_RGB = (6, 7, 33003, 33005, 34712)
# The codecs lose what is beyond these bits.
_JPEG_2000, _MOST_OF_JPEG_2000 = (33003, 33004, 33005, 34712), 24
_ALPHA_MULTIPLIED, _ALPHA = 1, 2
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _INK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_INKS = {
    _WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _INK: 4, _YCBCR: 3, _LAB: 3, _ICC_LAB: 3,
}  # fmt: skip
_KEPT_TAGS = (
    ExifTags.Base.Orientation,
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.Base.Software,
)


class TiffPicture(ImageFile.ImageFile):
    """The header of a TIFF that tifffile reads, as Pillow's programs expect it: no pixels."""

    format = "TIFF"
    format_description = "TIFF read by tifffile"

    def _open(self) -> None:
        import tifffile

        assert self.fp is not None
        self.fp.seek(0)
        with tifffile.TiffFile(self.fp) as tiff:
            page = _main_page(tiff)
            self._size = (page.imagewidth, page.imagelength)
            self._mode = "F"
            self.is_first = page is tiff.pages.first
            self._tags = {int(tag): page.tags[tag].value for tag in _KEPT_TAGS if tag in page.tags}
            self._place = (tiff.byteorder, tiff.is_bigtiff, page.offset)
            if xmp := page.tags.valueof(_XMP):
                self.info["xmp"] = xmp
            if page.iccprofile:
                self.info["icc_profile"] = page.iccprofile
            with contextlib.suppress(Exception):
                self.info["dpi"] = tuple(float(dots) for dots in page.get_resolution("inch"))

    def getexif(self) -> Image.Exif:
        exif = Image.Exif()
        with contextlib.suppress(Exception):  # damaged tags do not cost the picture
            assert self.fp is not None
            exif.endian, exif.bigtiff, directory = self._place
            exif.load_from_fp(self.fp, directory)
            if set(exif) >= self._tags.keys():
                return exif
        exif = Image.Exif()
        exif.update(self._tags)
        return exif


def open_tiff(file: BinaryIO) -> Image.Image:
    """Open with Pillow, or where that cannot or would take a thumbnail, with tifffile."""
    try:
        image = Image.open(file)
    except (UnidentifiedImageError, SyntaxError, KeyError, OSError):
        if not deep.available():
            raise UnidentifiedImageError(
                "is a TIFF that is damaged, or of a kind Pillow cannot read; for more kinds: "
                "pip install 'fast-style[formats]'"
            ) from None
        return _open_with_tifffile(file)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return image
    # One that calls its only picture a thumbnail has nothing better.
    if tags.get(SUBFILE_TYPE, 0) & REDUCED and any(
        not directory.number(SUBFILE_TYPE) & (REDUCED | MASK)
        for directory in read_directories(file)
    ):
        if deep.available():
            return _open_with_tifffile(file)
        raise UnidentifiedImageError(f"begins with a thumbnail: {NEEDS_EXTRA}")
    return image


def is_beyond_pillow(image: Image.Image) -> bool:
    """Whether a TIFF that Pillow has opened holds other numbers than unsigned ones of 8 bits."""
    tags = getattr(image, "tag_v2", {})
    return (
        isinstance(image, TiffPicture)
        or max(tags.get(_BITS, (1,))) > 8
        or any(kind not in (1, 4) for kind in tags.get(_SAMPLE_FORMAT, (1,)))
        or _has_coarse_colors(image)
        or (tags.get(_PLANES) == 2 and len(tags.get(_BITS, (1,))) == 2)  # it loses the second
        or (deep.available() and is_compressed_oddly(image))
    )


def _has_coarse_colors(image: Image.Image) -> bool:
    """Whether a TIFF holds YCbCr in blocks, or with a range of its own: Pillow knows a part."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) != _YCBCR or tags.get(_COMPRESSION, 1) in (6, 7):
        return False
    if tuple(map(float, tags.get(ycbcr.REFERENCE, ycbcr.FULL_RANGE))) != ycbcr.FULL_RANGE:
        return True
    is_plain = sum(tags.get(_BYTE_COUNTS, ())) == 3 * image.width * image.height
    # Programs that store every pixel's colours forget to say so.
    default = (1, 1) if is_plain and tags.get(_COMPRESSION, 1) == 1 else (2, 2)
    return tuple(tags.get(ycbcr.SUBSAMPLING, default)) != (1, 1)


def is_for_libtiff(image: Image.Image) -> bool:
    """Whether Pillow hands a TIFF of YCbCr in blocks to libtiff, which reads it rightly."""
    tags = getattr(image, "tag_v2", {})
    return (
        tags.get(_PHOTOMETRIC) == _YCBCR
        and tags.get(_COMPRESSION, 1) != 1
        and tuple(tags.get(ycbcr.SUBSAMPLING, (2, 2))) not in ((1, 1), (4, 4))
        and tags.get(_BITS) == (8, 8, 8)
    )


def is_compressed_oddly(image: Image.Image) -> bool:
    """Whether a TIFF is compressed in a way that Pillow may not have been built for."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_COMPRESSION, 1) not in _PLAIN_COMPRESSIONS


def is_deep(image: Image.Image) -> bool:
    """Whether a TIFF that Pillow has opened holds integers of 16 bits without a sign."""
    tags = getattr(image, "tag_v2", {})
    return 16 in tags.get(_BITS, ()) and set(tags.get(_SAMPLE_FORMAT, (1,))) <= {1, 4}


def is_grey(image: Image.Image) -> bool:
    """Whether a TIFF that Pillow has opened holds one channel, which is no index."""
    bits = getattr(image, "tag_v2", {}).get(_BITS, (1,))
    return len(bits) == 1 and image.mode in ("L", "I;16", "I;16B", "I;16L", "I", "F")


def is_big_endian(image: Image.Image) -> bool:
    """Whether the numbers of a TIFF that Pillow has opened begin with their highest byte."""
    return bool(getattr(getattr(image, "tag_v2", None), "prefix", b"") == b"MM")


def check_planes(image: Image.Image) -> None:
    """Raise for planes of 16 bits which Pillow takes for something else."""
    tags = getattr(image, "tag_v2", {})
    read = image.info.get("compression") != "raw" and tags.get(_PHOTOMETRIC) in (_RGB, _INK)
    if tags.get(_PLANES) == 2 and len(tags.get(_BITS, (1,))) > 1 and not read:
        raise UnidentifiedImageError(
            "has planes of 16 bits: reading these needs pip install 'fast-style[formats]'"
        )


def read(file: BinaryIO, notes: list[str]) -> Samples | None:
    """Read the picture of a TIFF with tifffile; None for a layout that is not known here."""
    import tifffile

    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            return _samples(tiff, _main_page(tiff), notes)
    except (RuntimeError, tifffile.TiffFileError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def grey_samples(image: Image.Image, notes: list[str]) -> Samples:
    """Take the numbers of a grey TIFF from Pillow."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (1,))
    kind = tags.get(_SAMPLE_FORMAT, (1,))[0]
    if (
        kind != 1
        and bits[0] > 8
        and image.info.get("compression") != "raw"
        and is_big_endian(image)
    ):
        raise UnidentifiedImageError(NEEDS_EXTRA)  # Pillow exchanges the bytes twice
    image.load()
    values = np.asarray(image)
    if values.dtype.kind == "i" and kind == 1:
        values = values.view(np.uint32)
    elif values.dtype == np.uint8 and kind == 2:
        values = values.view(np.int8)
    black, white = number_range(values, bits[0], notes)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow inverts numbers of 8 bits only.
        black, white = white, black
    return Samples(
        values=values[..., None], inks=1, black=black, white=white, bits=8 if bits[0] <= 8 else 16
    )


def narrow_palette(image: Image.Image) -> bytes | None:
    """Return the palette, RGB, of a TIFF whose map holds numbers of 8 bits instead of 16."""
    colors = getattr(image, "tag_v2", {}).get(_COLOR_MAP, ())
    if not colors or max(colors) > 255:
        return None
    return np.asarray(colors, np.uint8).reshape(3, -1).T.tobytes()


def _open_with_tifffile(file: BinaryIO) -> Image.Image:
    import tifffile

    try:
        return TiffPicture(file)
    except UnidentifiedImageError:
        raise
    except (tifffile.TiffFileError, SyntaxError, ValueError, TypeError, LookupError) as error:
        raise UnidentifiedImageError(
            f"is a TIFF that is damaged, or of a kind Pillow cannot read, nor tifffile: {error}"
        ) from None


def _main_page(tiff: Any) -> Any:
    """Choose the first page; where that is a thumbnail, the largest picture that is none."""
    first = tiff.pages.first
    found = [first]
    if first.subfiletype & REDUCED:
        found += _pages_of(tiff, first)
    whole = [page for page in found if not page.subfiletype & (REDUCED | MASK)]
    return max(whole, key=lambda page: page.imagewidth * page.imagelength, default=first)


def _pages_of(tiff: Any, first: Any) -> Iterator[Any]:
    """Yield the pages after the first, and those nested in it."""
    for pages in (tiff.pages, first.pages or ()):
        with contextlib.suppress(Exception):  # what is damaged there is not needed
            yield from (page.aspage() for page in pages if page is not first)


def _samples(tiff: Any, page: Any, notes: list[str]) -> Samples | None:
    photometric = int(page.photometric)
    inks = _INKS.get(photometric, 0)
    if photometric == _INK and page.tags.valueof(_INK_SET, default=1) != 1:
        inks = 0  # of other colours
    if not inks or page.axes not in ("YX", "YXS", "SYX") or page.dtype is None:
        return None
    if page.dtype.kind not in "buif" or not isinstance(page.bitspersample, int):
        return None
    _check_whole(tiff, page)
    blocks = photometric == _YCBCR and ycbcr.subsampling(page) != (1, 1)
    if blocks and (page.dtype != np.uint8 or page.samplesperpixel != 3):
        return None
    if int(page.compression) in _JPEG_2000 and page.bitspersample > _MOST_OF_JPEG_2000:
        raise ValueError(
            f"holds JPEG 2000 of {page.bitspersample} bits, which cannot be read right"
        )
    values = ycbcr.read_blocks(tiff, page) if blocks else page.asarray()
    if page.bitspersample == 24 and values.dtype.kind == "u":
        values = _in_file_order(values, tiff.byteorder)
    if page.axes == "SYX":
        values = values.transpose(1, 2, 0)
    values = np.atleast_3d(values)
    if values.shape[2] < inks:
        return None
    bits = page.bitspersample
    deep = bits > 8 or values.dtype.kind == "f"
    alpha = _alpha_channel(page, inks, values.shape[2])
    palette, lab = None, None
    black, white = 0.0, 1.0
    if photometric == _PALETTE:
        palette = _palette(page)
    elif photometric in (_LAB, _ICC_LAB):
        lab = "icc" if photometric == _ICC_LAB else "cie"
        if values.dtype.kind != "u" or bits not in (8, 16):
            return None
    else:
        if photometric == _YCBCR and int(page.compression) not in _DECODED_TO_RGB:
            if values.dtype != np.uint8:
                return None
            rgb = ycbcr.to_rgb(values[..., :3], page)
            values = np.concatenate([rgb, values[..., 3:]], axis=-1)
        black, white = number_range(values[..., :inks], bits, notes)
    if photometric == _WHITE_IS_ZERO:
        black, white = white, black
    return Samples(
        values=values,
        inks=inks,
        black=black,
        white=white,
        bits=16 if deep else 8,
        alpha=alpha,
        opaque=1 if values.dtype.kind == "f" else 2 ** (bits - (values.dtype.kind == "i")) - 1,
        multiplied=alpha is not None and _ALPHA_MULTIPLIED in page.extrasamples,
        palette=palette,
        lab=lab,
    )


def _in_file_order(values: npt.NDArray[Any], order: str) -> npt.NDArray[Any]:
    """Order the bytes of integers of 24 bits as the file's own, which tifffile does not."""
    if order == ">":
        return values.byteswap()
    return values >> 16 | values & 0xFF00 | (values & 0xFF) << 16


def _alpha_channel(page: Any, inks: int, channels: int) -> int | None:
    """Return the channel of transparency: kinds 1 and 2 mean it, 0 means unspecified."""
    kinds = [int(kind) for kind in page.extrasamples]
    if not kinds:
        # Without the tag a fourth channel of RGB is taken for what it nearly always is.
        return 3 if inks == 3 and channels == 4 else None
    return next(
        (
            inks + i
            for i, kind in enumerate(kinds)
            if kind in (_ALPHA_MULTIPLIED, _ALPHA) and inks + i < channels
        ),
        None,
    )


def _palette(page: Any) -> npt.NDArray[np.uint16]:
    """Return the colours (n, 3) of 16 bits; a map without a number above 255 is of 8."""
    colors = np.asarray(page.colormap, np.uint16).T
    return colors * np.uint16(257) if colors.max(initial=0) < 256 else colors


def _check_whole(tiff: Any, page: Any) -> None:
    """Raise ValueError for a file that ends before its pixels, which tifffile would fill up."""
    size = tiff.filehandle.size
    ends = (
        offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    )
    if any(end > size for end in ends) or not math.prod(page.shape):
        raise ValueError("is cut short")
