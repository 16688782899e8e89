"""Damaged files of every format: they are read, or refused with an ImageError, and nothing else."""

import contextlib
import io
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from synthetic import photo

from fast_style.images import ImageError, read_picture
from fast_style.images.codec_lines import kept_apart

# How long it looks, by the clock: beside other tests in CI, or longer by hand.
SECONDS = float(os.environ.get("FAST_STYLE_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("FAST_STYLE_FUZZ_SEED", "0"))


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
        save("jp2 16", Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)), "JPEG2000")
    save("icns", plain.resize((32, 32)), "ICNS")
    save("ico", plain, "ICO")
    made["mpo"] = made["jpeg"] + made["progressive"]
    made["hdr"] = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 8\n" + bytes(range(128))
    made["raw"] = b"FUJIFILMCCD-RAW " + bytes(300)
    return made | tifffile_seeds(np.asarray(plain)) | other_seeds(np.asarray(plain))


def tifffile_seeds(pixels: np.ndarray) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    try:
        import tifffile
    except ImportError:
        return made
    blocks = bytes(range(256)) * 5
    tags = [(530, 3, 2, (2, 2), True)]
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
    file = io.BytesIO()
    tifffile.imwrite(
        file, iter([blocks[: 24 * 32 * 6 // 4]]), shape=(24, 32, 3), dtype=np.uint8,
        photometric="ycbcr", compression="zlib", extratags=tags,
    )  # fmt: skip
    made["blocks"] = file.getvalue()
    return made


def other_seeds(pixels: np.ndarray) -> dict[str, bytes]:
    """Write what other packages read: HEIC, OpenEXR, a raw file of a sensor's mosaic."""
    made: dict[str, bytes] = {}
    with contextlib.suppress(ImportError):
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(file)
        made["heic"] = file.getvalue()
    with contextlib.suppress(ImportError), tempfile.TemporaryDirectory() as folder:
        import OpenEXR

        path = Path(folder, "a.exr")
        light = {"RGB": pixels.astype(np.float32) / 255}
        OpenEXR.File({"type": OpenEXR.scanlineimage}, light).write(str(path))
        made["exr"] = path.read_bytes()
    with contextlib.suppress(ImportError), tempfile.TemporaryDirectory() as folder:
        import rawpy  # noqa: F401
        from mosaics import write_dng

        write_dng(Path(folder, "a.dng"), pixels / 255)
        made["dng"] = Path(folder, "a.dng").read_bytes()
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
    # In a process of its own: a codec that harms its memory harms no other test, and is seen.
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    result = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS + 200,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr


def look() -> None:
    """Read damaged files for `SECONDS`."""
    files = seeds()
    generator = random.Random(SEED)
    names = sorted(files)
    ends = time.monotonic() + SECONDS
    tried = 0
    with kept_apart(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.monotonic() < ends:
            name = names[tried % len(names)]
            damaged = mutated(files[name], generator)
            tried += 1
            reason = ""
            try:
                read_picture(io.BytesIO(damaged))
            except ImageError as error:
                reason = str(error)
            except Exception as error:
                raise AssertionError(f"{name}, file {tried}") from error
            assert "\n" not in reason, name
    print(f"{tried} damaged files, {tried // len(names)} of each of {len(names)} kinds")
    assert tried > 20 * len(names)


if __name__ == "__main__":
    look()
