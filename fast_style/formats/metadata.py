"""What an image file says of its picture beside the pixels: EXIF, XMP, resolution."""

import re
import struct
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image

# Written into every file, by which a program recognises its own output.
SOFTWARE = "fast-style"

# What describes a photo rather than how its file is laid out, as the other tags of a TIFF do.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
# In the EXIF of the camera: of the picture as it was taken, upright or not.
_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """EXIF tags by number, the bytes of an XMP packet, dots per inch; none says how to turn."""

    exif: dict[int, Any] = field(default_factory=dict)
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None


def read_exif(image: Image.Image) -> Image.Exif:
    """Read EXIF tags; none where they are damaged, for the picture may well be whole."""
    if image.format == "PNG":
        image.load()  # An error here is one of the picture: its tags may come behind it.
    try:
        return image.getexif()
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return Image.Exif()


def read_metadata(image: Image.Image) -> Metadata:
    """Read what is worth keeping; an embedded thumbnail, which shows the old picture, is not."""
    exif = read_exif(image)
    kept: dict[int, Any] = {tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif}
    for kind in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        tags = {tag: value for tag, value in exif.get_ifd(kind).items() if tag not in _SIZE_TAGS}
        if tags:
            kept[kind] = tags
    xmp = image.info.get("xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    # The pixels are turned upright; a viewer must not turn them again.
    xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)
    return Metadata(exif=kept, xmp=xmp, dpi=image.info.get("dpi"))


def signed_exif(metadata: Metadata) -> Image.Exif:
    """Give the EXIF tags to write, signed with `SOFTWARE`."""
    exif = Image.Exif()
    exif.update(metadata.exif)
    exif[ExifTags.Base.Software] = SOFTWARE
    # Pillow's TIFF writer takes nested tags only as they come out of a file.
    loaded = Image.Exif()
    loaded.load(exif.tobytes())
    return loaded


def is_own_output(image: Image.Image) -> bool:
    """Say whether this program wrote the file; BMP files hold no signature."""
    return read_exif(image).get(ExifTags.Base.Software) == SOFTWARE
