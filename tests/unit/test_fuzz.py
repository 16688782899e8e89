"""Damaged files of every format: they are read, or refused with an ImageError, and nothing else."""

import io
import random
import time
import warnings

import numpy as np
import pytest
from PIL import Image, features
from synthetic import photo

from fast_style.images import ImageError, read_picture

# Of CPU time; raise it to look longer.
SECONDS = 20


def seeds() -> dict[str, bytes]:
    """Write small files of each format; TIFF in the layouts that only tifffile reads too."""
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ada"
    made: dict[str, bytes] = {}

    def save(name: str, image: Image.Image, file_format: str, **options: object) -> None:
        file = io.BytesIO()
        image.save(file, file_format, **options)
        made[name] = file.getvalue()

    plain = photo(1, 24, 32)
    save("jpeg", plain, "JPEG", exif=exif)
    save("progressive", plain, "JPEG", progressive=True)
    save("cmyk", plain.convert("CMYK"), "JPEG")
    save("png", plain.convert("RGBA"), "PNG", exif=exif)
    save("palette", plain.quantize(16), "PNG", transparency=3)
    save("grey 16", Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)), "PNG")
    save("gif", plain.quantize(16), "GIF", save_all=True, append_images=[plain.quantize(4)])
    save("bmp", plain, "BMP")
    save("tga", plain, "TGA")
    save("ppm", plain, "PPM")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        save(f"tiff {compression}", plain, "TIFF", compression=compression, exif=exif)
    for name, file_format in (("webp", "WEBP"), ("avif", "AVIF")):
        if features.check(name):
            save(name, plain, file_format, exif=exif)
    if features.check("jpg_2000"):
        save("jp2", plain, "JPEG2000")
    made["hdr"] = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 8\n" + bytes(range(128))
    made["raw"] = b"FUJIFILMCCD-RAW " + bytes(300)
    return made | tifffile_seeds(np.asarray(plain))


def tifffile_seeds(pixels: np.ndarray) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    try:
        import tifffile
    except ImportError:
        return made
    for name, values, options in (
        ("rgb 16", pixels.astype(np.uint16) * 257, {"compression": "zlib"}),
        ("float", pixels / np.float32(255), {"tile": (16, 16)}),
        ("planes", pixels.transpose(2, 0, 1).astype(np.uint16), {"planarconfig": "separate"}),
        ("webp tiff", pixels, {"compression": "webp"}),
        ("big", pixels.astype(">u4"), {"bigtiff": True, "byteorder": ">"}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, values, photometric="rgb", **options)
        made[name] = file.getvalue()
    return made


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Change some bytes, cut the end off, cut a piece out, or write one over another."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        place = generator.randrange(len(changed))
        kind = generator.randrange(4)
        if kind == 0:
            changed[place] = generator.choice((0, 1, 10, 127, 128, 255, generator.randrange(256)))
        elif kind == 1:
            del changed[max(1, place) :]
        elif kind == 2:
            del changed[place : place + generator.randrange(1, 40)]
        else:
            other = generator.randrange(len(changed))
            changed[place : place + 8] = changed[other : other + 8]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_and_nothing_else() -> None:
    files = seeds()
    generator = random.Random(0)
    ends = time.process_time() + SECONDS
    tried = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.process_time() < ends:
            name = generator.choice(sorted(files))
            damaged = mutated(files[name], generator)
            tried += 1
            reason = ""
            try:
                read_picture(io.BytesIO(damaged))
            except ImageError as error:
                reason = str(error)
            except Exception as error:
                pytest.fail(f"{name}, file {tried}: {type(error).__name__}: {error}")
            assert "\n" not in reason, name
    assert tried > 100
