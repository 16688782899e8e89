"""What an image file holds beside the pixels: EXIF, XMP, IPTC, resolution."""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from fast_style.images import table

# Written into every file, by which a program recognises its own output.
SOFTWARE = "fast-style"
# The tag of what an output was made with: a digest of settings, in a place no photo's tag has.
_MADE_WITH = ExifTags.Base.ProcessingSoftware

# What describes a photo rather than how its file is laid out, as the other tags of a TIFF do.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
# In the EXIF of the camera: its picture's size, upright or not, and where in its file more follows.
_LAYOUT_TAGS = (
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
)
XMP_TAG, IPTC_TAG = 700, 33723  # of a TIFF
NESTED_TAGS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

# In a JPEG, IPTC is one of Photoshop's resources.
_IPTC_RESOURCE = 0x0404
# What one segment of a JPEG can hold.
_JPEG_SEGMENT = 65533 - 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """EXIF tags by number, the bytes of XMP and IPTC, dots per inch; without any orientation.

    Only an output has `made_with`, a digest of the settings that made it.
    """

    exif: dict[int, Any] = field(default_factory=dict)
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    made_with: str = ""


def read_exif(image: Image.Image) -> Image.Exif:
    """Read EXIF tags; none where they are damaged, for the picture may well be whole."""
    if image.format == "PNG":
        image.load()  # An error here is one of the pixels: the tags may come after them.
    try:
        return image.getexif()
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return Image.Exif()


def read_metadata(image: Image.Image) -> Metadata:
    """Read what is worth keeping: all but an embedded thumbnail, which shows the old picture."""
    exif = read_exif(image)
    kept: dict[int, Any] = {tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif}
    for kind in NESTED_TAGS:
        tags = {tag: value for tag, value in exif.get_ifd(kind).items() if tag not in _LAYOUT_TAGS}
        if ExifTags.Base.ColorSpace in tags:
            tags[ExifTags.Base.ColorSpace] = 1  # sRGB, whatever the photo was in
        if tags:
            kept[kind] = tags
    xmp = image.info.get("xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    # The pixels are turned upright; a viewer must not turn them again.
    xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)
    return Metadata(exif=kept, xmp=xmp, iptc=_read_iptc(image), dpi=_read_resolution(image))


def fitting(metadata: Metadata, file_format: str) -> tuple[Metadata, list[str]]:
    """Return what can be written in a format, and a note of each part that cannot."""
    notes = []
    try:
        exif = signed_exif(metadata).tobytes() if metadata.exif else b""
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error):
        notes.append("its EXIF is damaged and was left out")
        metadata, exif = replace(metadata, exif={}), b""
    lost = []
    places = table.written_as(file_format).metadata
    for kind, data in (("EXIF", exif), ("XMP", metadata.xmp), ("IPTC", metadata.iptc)):
        if data and kind not in places:
            notes.append(f"its {kind} is lost: {file_format} has no place for it")
            lost.append(kind)
        elif file_format == "JPEG" and len(data) > _JPEG_SEGMENT:
            notes.append(f"its {kind} is lost: {len(data)} bytes are more than a JPEG can hold")
            lost.append(kind)
    fits = Metadata(
        exif={} if "EXIF" in lost else metadata.exif,
        xmp=b"" if "XMP" in lost else metadata.xmp,
        iptc=b"" if "IPTC" in lost else metadata.iptc,
        dpi=metadata.dpi,
    )
    return fits, notes


def signed_exif(metadata: Metadata) -> Image.Exif:
    """Return the EXIF tags to write, signed with `SOFTWARE`."""
    exif = Image.Exif()
    exif.update(_with_accents(metadata.exif))
    exif[ExifTags.Base.Software] = SOFTWARE
    if metadata.made_with:
        exif[_MADE_WITH] = metadata.made_with
    # Pillow's TIFF writer takes nested tags only as they come out of a file.
    loaded = Image.Exif()
    loaded.load(exif.tobytes())
    for tags in (loaded, *[loaded.get_ifd(tag) for tag in NESTED_TAGS if tag in metadata.exif]):
        tags.update(_with_accents(dict(tags)))
    return loaded


def _with_accents(tags: Mapping[int, Any]) -> dict[int, Any]:
    """Return tags with bytes for text beyond ASCII: Pillow would write question marks."""
    return {
        tag: _with_accents(value)
        if isinstance(value, dict)
        else value.encode("latin-1", "replace")
        if isinstance(value, str) and not value.isascii()
        else value
        for tag, value in tags.items()
    }


def iptc_segment(iptc: bytes) -> bytes:
    """Return the segment of a JPEG that holds IPTC, as Photoshop writes it."""
    resource = struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc
    data = b"Photoshop 3.0\0" + resource + b"\0" * (len(iptc) % 2)
    return struct.pack(">HH", 0xFFED, 2 + len(data)) + data


def _read_resolution(image: Image.Image) -> tuple[float, float] | None:
    """Read dots per inch; none where they make no sense."""
    try:
        across, down = map(float, image.info.get("dpi") or (0, 0))
    except (TypeError, ValueError, ArithmeticError):
        return None
    return (across, down) if all(1 <= dots <= 65535 for dots in (across, down)) else None


def _read_iptc(image: Image.Image) -> bytes:
    """Read the IPTC records of a JPEG or a TIFF; none where they are damaged."""
    try:
        records = IptcImagePlugin.getiptcinfo(cast(ImageFile.ImageFile, image)) or {}
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return b""
    iptc = b""
    for record, values in records.items():
        for value in values if isinstance(values, list) else [values]:
            value = value or b""
            if len(value) < 1 << 15:  # longer ones have a header of their own
                iptc += struct.pack(">BBBH", 0x1C, *record, len(value)) + value
    return iptc


def is_own_output(image: Image.Image) -> bool:
    """Return whether this program wrote the file; BMP files hold no signature."""
    return read_exif(image).get(ExifTags.Base.Software) == SOFTWARE


def made_with(image: Image.Image) -> str:
    """Return the digest of the settings that made an output; "" where the file holds none."""
    if image.format == "PNG" and "exif" not in image.info:
        return ""  # ours are before the pixels, which need not be decoded to look for others
    try:
        exif = image.getexif()
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return ""
    value = exif.get(_MADE_WITH) if exif.get(ExifTags.Base.Software) == SOFTWARE else ""
    return value if isinstance(value, str) else ""
