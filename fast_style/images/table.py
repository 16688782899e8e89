"""The one table of image formats: to add a format is to add its row.

Reading, writing, the naming of outputs and the commands' options all look here.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFormat:
    """What a format is called, whether it is written, and what its files can hold.

    `name` is Pillow's, the first of `extensions` is the usual one. `alpha` and `depth` (16 bits a
    channel), `longest_edge` in pixels (None: no limit that matters) and `metadata` describe what is
    written. `options` are the keywords of Pillow's writer that are used. Pillow may have been built
    without a `codec`; reading may need a `package`, without which folders' files are left out.
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
    package: str | None = None


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
    ImageFormat(name="HDR", extensions=(".exr", ".hdr")),
    ImageFormat(name="TGA", extensions=(".tga",)),
    ImageFormat(
        name="RAW",
        extensions=(
            *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".raf", ".orf", ".rw2"),
            *(".pef", ".srw", ".x3f", ".3fr", ".iiq", ".mrw"),
        ),
        package="rawpy",
    ),
)

WRITTEN = tuple(row for row in FORMATS if row.written)
# Of the files that a folder of photos is searched for, whatever is installed.
EXTENSIONS = frozenset(
    extension for row in FORMATS if not row.package for extension in row.extensions
)
# What is a clip rather than a photo, wherever it is met.
CLIPS = frozenset(
    f".{ending}"
    for ending in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "mts", "m2ts", "mpg", "mpeg"),
        *("wmv", "flv", "3gp", "ogv"),
    )
)


def photo_extensions() -> frozenset[str]:
    """Return the extensions that a folder of photos is searched for with what is installed."""
    more = [row for row in FORMATS if row.package and importlib.util.find_spec(row.package)]
    return EXTENSIONS.union(*(row.extensions for row in more))


def left_out(extensions: Mapping[str, int]) -> str:
    """Return `3 files left out: 2 .psd, 1 .mov` for numbers of files; empty for none."""
    if not extensions:
        return ""
    total = sum(extensions.values())
    kinds = [
        f"{count:,} {extension or 'without extension'}"
        for extension, count in sorted(extensions.items(), key=lambda item: (-item[1], item[0]))
    ]
    raws = [row for row in FORMATS if row.package and set(row.extensions) & set(extensions)]
    cure = "; for cameras' raw files: pip install 'fast-style[raw]'" if raws else ""
    return f"{total:,} file{'s' * (total != 1)} left out: {', '.join(kinds)}{cure}"


def by_extension(extension: str) -> ImageFormat | None:
    """Return the format of files with this extension, in upper or lower case; None if unknown."""
    return next((row for row in FORMATS if extension.lower() in row.extensions), None)


def by_name(name: str) -> ImageFormat | None:
    """Return the format that Pillow calls `name`; None if unknown."""
    return next((row for row in FORMATS if row.name == name), None)


def written_as(name: str) -> ImageFormat:
    """Return the format that Pillow calls `name`; a bare one where only Pillow knows it."""
    return by_name(name) or ImageFormat(name=name, extensions=())
