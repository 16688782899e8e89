"""The one table of image formats: to add a format is to add its row.

Reading, writing, the naming of outputs and the commands' options all look here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFormat:
    """What a format is called, whether it is written, and what its files can hold.

    `name` is Pillow's, the first of `extensions` is the usual one. `alpha` and `depth` (16 bits a
    channel), `longest_edge` in pixels (None: no limit that matters) and `metadata` describe what is
    written. `options` are the keywords of Pillow's writer that are used. Pillow may have been built
    without a `codec`.
    """

    name: str
    extensions: tuple[str, ...]
    written: bool = False
    alpha: bool = False
    depth: bool = False
    longest_edge: int | None = None
    metadata: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    codec: str | None = None


FORMATS = (
    ImageFormat(
        name="JPEG",
        extensions=(".jpg", ".jpeg", ".jfif", ".jpe", ".jif"),
        written=True,
        longest_edge=65500,
        metadata=("EXIF", "XMP", "IPTC"),
        options=("quality", "subsampling", "xmp", "extra"),
    ),
    ImageFormat(
        name="PNG",
        extensions=(".png",),
        written=True,
        alpha=True,
        depth=True,
        metadata=("EXIF", "XMP"),
    ),
    ImageFormat(
        name="WEBP",
        extensions=(".webp",),
        written=True,
        alpha=True,
        longest_edge=16383,
        metadata=("EXIF", "XMP"),
        options=("quality", "xmp"),
        codec="webp",
    ),
    ImageFormat(
        name="TIFF",
        extensions=(".tiff", ".tif"),
        written=True,
        alpha=True,
        depth=True,
        metadata=("EXIF", "XMP", "IPTC"),
    ),
    ImageFormat(
        name="AVIF",
        extensions=(".avif",),
        written=True,
        alpha=True,
        longest_edge=65536,
        metadata=("EXIF", "XMP"),
        options=("quality", "subsampling", "xmp"),
        codec="avif",
    ),
    ImageFormat(name="BMP", extensions=(".bmp",), written=True),
    ImageFormat(name="GIF", extensions=(".gif",)),
    ImageFormat(name="HEIF", extensions=(".heic", ".heif")),
    ImageFormat(name="JPEG2000", extensions=(".jp2",)),
    ImageFormat(name="PPM", extensions=(".ppm",)),
    ImageFormat(name="TGA", extensions=(".tga",)),
)

WRITTEN = tuple(row for row in FORMATS if row.written)
# Of the files that a folder of photos is searched for.
EXTENSIONS = frozenset(extension for row in FORMATS for extension in row.extensions)


def by_extension(extension: str) -> ImageFormat | None:
    """Return the format of files with this extension, in upper or lower case; None if unknown."""
    return next((row for row in FORMATS if extension.lower() in row.extensions), None)


def by_name(name: str) -> ImageFormat | None:
    """Return the format that Pillow calls `name`; None if unknown."""
    return next((row for row in FORMATS if row.name == name), None)


def written_as(name: str) -> ImageFormat:
    """Return the format that Pillow calls `name`; a bare one where only Pillow knows it."""
    return by_name(name) or ImageFormat(name=name, extensions=())
