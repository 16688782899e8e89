"""Image files of every kind: how each is written, and what is to be seen in it."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, features
from synthetic import photo, write_photos

RED = (220, 30, 60)
WHITE = (255, 255, 255)

Write = Callable[[Path], object]


def write_palette_with_transparency(path: Path) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.paste(1, (20, 0, 40, 40))
    image.save(path, transparency=1)


def write_16_bit(path: Path) -> None:
    Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(path)


def write_animation(path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, "blue", "green")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def write_rotated(path: Path) -> None:
    """Write a picture that is red above and blue below once it is turned by its tag."""
    image = Image.new("RGB", (40, 40), RED)
    image.paste((0, 0, 255), (0, 20, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image.rotate(90, expand=True).save(path, exif=exif, quality=95)


def write_rgba(path: Path) -> None:
    image = Image.new("RGBA", (40, 40), (*RED, 255))
    image.paste((0, 0, 0, 0), (20, 0, 40, 40))
    image.save(path)


def solid(mode: str, colour: object, **options: object) -> Write:
    return lambda path: Image.new(mode, (40, 40), colour).save(path, **options)  # type: ignore


def write_cmyk(path: Path) -> None:
    Image.new("RGB", (40, 40), RED).convert("CMYK").save(path, quality=95)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

# How a file is written, and the colours at (5, 5), (35, 5) and (5, 35), as (x, y).
READABLE = {
    "plain.jpg": (solid("RGB", RED, quality=95), RED, RED, RED),
    "plain.png": (solid("RGB", RED), RED, RED, RED),
    "plain.webp": (solid("RGB", RED, lossless=True), RED, RED, RED),
    "profile.jpg": (solid("RGB", RED, quality=95, icc_profile=SRGB), RED, RED, RED),
    "keyed.png": (solid("RGB", RED, transparency=RED), WHITE, WHITE, WHITE),
    "grey.jpg": (solid("L", 80), (80,) * 3, (80,) * 3, (80,) * 3),
    "greyalpha.png": (solid("LA", (80, 255)), (80,) * 3, (80,) * 3, (80,) * 3),
    "bilevel.png": (solid("1", 1), WHITE, WHITE, WHITE),
    "cmyk.jpg": (write_cmyk, RED, RED, RED),
    "rgba.png": (write_rgba, RED, WHITE, RED),
    "palette.png": (solid("P", 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    "transparent.png": (write_palette_with_transparency, RED, WHITE, RED),
    "sixteen.png": (write_16_bit, (156,) * 3, (156,) * 3, (156,) * 3),
    "animated.gif": (write_animation, RED, RED, RED),
    "rotated.jpg": (write_rotated, RED, RED, (0, 0, 255)),
}


def truncated(path: Path) -> None:
    photo(1, 64, 64).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


UNREADABLE: dict[str, Write] = {
    "empty.jpg": lambda path: path.write_bytes(b""),
    "cut.jpg": truncated,
    "cut.png": truncated,
    "text.jpg": lambda path: path.write_text("<html>404 Not Found</html>"),
    "link.jpg": lambda path: path.symlink_to(path.with_name("nowhere")),
}


def _saved(file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    photo(1, 48, 40).save(file, file_format, **options)
    return file.getvalue()


def _broken_png() -> bytes:
    data = bytearray(_saved("PNG"))
    place = data.index(b"IDAT") + 40
    data[place : place + 40] = b"\x0a" * 40
    return bytes(data)


def _broken_planes() -> bytes:
    """Return an AVIF whose decoder raises a RuntimeError; a cut JPEG where there is no AVIF."""
    if not features.check("avif"):
        return _saved("JPEG")[:300]
    data = bytearray(_saved("AVIF"))
    place = data.index(b"mdat") + 8
    data[place : place + 40] = b"\x0a" * 40
    return bytes(data)


def _broken_tiff() -> bytes:
    """Return a TIFF whose codec prints lines of its own."""
    data = bytearray(_saved("TIFF", compression="tiff_adobe_deflate"))
    data[30:60] = bytes(30)
    return bytes(data)


def _large_png() -> bytes:
    data = bytearray(_saved("PNG"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


# Ten files that are broken in ten ways, each a photo by its name.
BROKEN: dict[str, bytes] = {
    "bomb.png": _large_png(),
    "codec.tif": _broken_tiff(),
    "half.gif": _saved("GIF")[:400],
    "cut.jpg": _saved("JPEG")[:700],
    "directory.tiff": b"II*\0" + bytes(range(200)),
    "empty.jpg": b"",
    "planes.avif": _broken_planes(),
    "sum.png": _broken_png(),
    "web page.jpg": b"<html>404 Not Found</html>",
    "zip.webp": b"PK\x03\x04" + bytes(200),
}


def write_broken(folder: Path, sound: int = 30) -> list[str]:
    """Write so many photos and ten broken ones among them; return the names of the latter."""
    write_photos(folder, sound, height=40, width=48)
    for name, data in BROKEN.items():
        (folder / name).write_bytes(data)
    return sorted(BROKEN)
