"""Reading and writing whole pictures: depth, transparency, profiles, metadata, bad files."""

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, features
from synthetic import photo

import fast_style.images as images
from fast_style.images import (
    ImageError,
    Picture,
    deep,
    fill_transparent,
    read_picture,
    set_depth,
    table,
    write_picture,
)
from fast_style.images.decoding import opened

needs_codecs = pytest.mark.skipif(
    not deep.available(), reason="needs pip install 'fast-style[formats]'"
)
ORIENTATION = ExifTags.Base.Orientation
Array = npt.NDArray[Any]


def ramp_16(channels: int) -> Picture:
    """Make 40x50 pixels of which no two have the same 16 bits, with alpha if `channels` is 4."""
    values = (np.arange(40 * 50 * channels) * 8 % 65521).astype(np.uint16)
    tensor = torch.from_numpy(values.reshape(channels, 40, 50))
    return Picture(pixels=tensor[:3], alpha=tensor[3] if channels == 4 else None)


def save(path: Path, mode: str = "RGB", **options: Any) -> Path:
    photo(3).convert(mode).save(path, **options)
    return path


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green colorants change places."""
    data = srgb()
    return data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


@pytest.mark.parametrize(
    ("mode", "extension"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("P", "png"), ("1", "png"),
     ("RGB", "bmp"), ("CMYK", "tif"), ("P", "gif"), ("RGB", "webp")],
)  # fmt: skip
def test_every_mode_is_read_as_pillow_sees_it(tmp_path: Path, mode: str, extension: str) -> None:
    save(tmp_path / f"a.{extension}", mode)
    with Image.open(tmp_path / f"a.{extension}") as image:
        expected = np.asarray(image.convert("RGB"))
    picture = read_picture(tmp_path / f"a.{extension}")
    assert picture.pixels.dtype == torch.uint8
    assert picture.alpha is None
    assert np.array_equal(picture.pixels.permute(1, 2, 0).numpy(), expected)


def test_a_picture_taller_than_one_band_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", "RGBA")
    whole = read_picture(path)
    monkeypatch.setattr("fast_style.images.decoding._BAND_PIXELS", 7 * 48)
    assert torch.equal(read_picture(path).pixels, whole.pixels)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_file_is_upright_and_its_tag_is_reset(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[ExifTags.Base.Artist] = "Ada"
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
    path = save(tmp_path / "a.jpg", exif=exif, xmp=xmp, dpi=(72, 72), quality=100)
    picture = read_picture(path)
    assert picture.pixels.is_contiguous(memory_format=torch.contiguous_format) is False
    assert tuple(picture.pixels.shape[1:]) == ((48, 40) if orientation > 4 else (40, 48))
    write_picture(picture, tmp_path / "kept.jpg", keep_metadata=True, quality=100)
    with Image.open(tmp_path / "kept.jpg") as kept:
        assert kept.size == picture.pixels.shape[:0:-1]
        assert kept.getexif().get(ORIENTATION, 1) == 1
        assert kept.getexif()[ExifTags.Base.Artist] == "Ada"
        assert b'tiff:Orientation="1"' in kept.info["xmp"]
        assert kept.info["dpi"] == (72, 72)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_metadata_is_kept_only_when_asked_for(tmp_path: Path, extension: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "(c) Ada"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ISOSpeedRatings: 400}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    picture = read_picture(save(tmp_path / "a.jpg", exif=exif))
    for keep in (True, False):
        output = tmp_path / f"b.{extension}"
        write_picture(picture, output, keep_metadata=keep)
        with Image.open(output) as image:
            found = image.getexif()
            assert (found.get(ExifTags.Base.Copyright) == "(c) Ada") is keep
            assert (found.get_ifd(ExifTags.IFD.Exif).get(0x8827) == 400) is keep
            assert (found.get_ifd(ExifTags.IFD.GPSInfo).get(1) == "N") is keep
            assert found[ExifTags.Base.Software] == "fast-style"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 30)
    assert read_picture(path).pixels.shape == (3, 40, 48)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_a_profile_is_converted_and_that_of_srgb_embedded(tmp_path: Path, extension: str) -> None:
    path = save(tmp_path / "a.png", icc_profile=swapped_profile())
    picture, plain = read_picture(path), read_picture(save(tmp_path / "plain.png"))
    swapped = plain.pixels[[1, 0, 2]]
    assert (picture.pixels.int() - swapped.int()).abs().max() <= 2
    for source, tagged in ((picture, True), (plain, False)):
        output = tmp_path / f"b.{extension}"
        write_picture(source, output)
        with Image.open(output) as image:
            assert bool(image.info.get("icc_profile")) is tagged
    assert picture.notes == ()


def test_an_unusable_profile_is_ignored_and_said(tmp_path: Path) -> None:
    picture = read_picture(save(tmp_path / "a.png", icc_profile=b"not a profile"))
    assert picture.notes == ("its colour profile cannot be used and was ignored",)
    assert torch.equal(picture.pixels, read_picture(save(tmp_path / "b.png")).pixels)


@pytest.mark.parametrize("extension", ["png", "webp", "tif", "avif"])
def test_transparency_is_carried_through(tmp_path: Path, extension: str) -> None:
    if extension == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    rgba = photo(3).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    rgba.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert write_picture(picture, tmp_path / f"b.{extension}") == ()
    back = read_picture(tmp_path / f"b.{extension}")
    assert back.alpha is not None
    assert picture.alpha is not None
    assert (back.alpha.int() - picture.alpha.int()).abs().max() <= (8 if extension == "avif" else 0)


@pytest.mark.parametrize("extension", ["jpg", "bmp"])
def test_transparency_is_white_where_a_format_has_none(tmp_path: Path, extension: str) -> None:
    alpha = torch.zeros(16, 16, dtype=torch.uint8)
    picture = Picture(pixels=torch.zeros(3, 16, 16, dtype=torch.uint8), alpha=alpha)
    (note,) = write_picture(picture, tmp_path / f"a.{extension}")
    assert note.startswith("its transparency is now white")
    assert read_picture(tmp_path / f"a.{extension}").pixels.min() >= 254


def test_a_palette_with_transparency_has_alpha(tmp_path: Path) -> None:
    image = photo(3).convert("P")
    image.save(tmp_path / "a.gif", transparency=image.getpixel((0, 0)))
    alpha = read_picture(tmp_path / "a.gif").alpha
    assert alpha is not None
    assert alpha.unique().tolist() == [0, 255]


def test_an_opaque_alpha_channel_is_none(tmp_path: Path) -> None:
    assert read_picture(save(tmp_path / "a.png", "RGBA")).alpha is None


@pytest.mark.parametrize("size", [(1, 2), (37, 53), (600, 3)])
def test_invisible_pixels_take_the_colors_around_them(size: tuple[int, int]) -> None:
    alpha = torch.zeros(size, dtype=torch.uint8)
    alpha[:, -1] = 7
    pixels = torch.randint(256, (3, *size), dtype=torch.uint8)
    pixels[:, :, -1] = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None]
    fill_transparent(pixels, alpha)
    expected = torch.tensor([200, 100, 50])[:, None, None]
    assert (pixels.int() - expected).abs().max() <= 1


def test_visible_pixels_are_left_as_they_are() -> None:
    alpha = torch.randint(3, (30, 31), dtype=torch.uint8)
    pixels = torch.randint(256, (3, 30, 31), dtype=torch.uint8)
    before = pixels.clone()
    fill_transparent(pixels, alpha)
    assert torch.equal(pixels[:, alpha > 0], before[:, alpha > 0])
    assert not torch.equal(pixels, before)


@needs_codecs
@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("tagged", [False, True])
def test_16_bits_come_back(tmp_path: Path, extension: str, channels: int, tagged: bool) -> None:
    picture = ramp_16(channels)
    path = tmp_path / f"a.{extension}"
    write_picture(Picture(pixels=picture.pixels, alpha=picture.alpha, tagged=tagged), path)
    back = read_picture(path)
    assert back.pixels.dtype == torch.uint16
    # Through a profile of sRGB and back again, a step or two of 65536.
    worst = (back.pixels.int() - picture.pixels.int()).abs().max()
    assert worst <= (8 if tagged else 0)
    assert back.tagged is tagged
    if picture.alpha is not None:
        assert back.alpha is not None
        assert torch.equal(back.alpha, picture.alpha)
    with Image.open(path) as image:
        image.load()  # Pillow finds nothing wrong with it
        assert image.getexif()[ExifTags.Base.Software] == "fast-style"


def ink_profile() -> bytes:
    """An ICC profile (version 2.1, section 6) that makes grey of cyan, magenta, yellow and black.

    Ink of any colour darkens as much; the profile's table has two steps a channel.
    """
    inks = np.indices((2, 2, 2, 2)).reshape(4, -1)
    light = (1 - inks[3]) * (1 - inks[:3].mean(0))
    table = np.stack([light * 255, *[np.full(16, 128)] * 2], axis=-1).round().astype(np.uint8)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).flat)
    lut = (
        b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table.tobytes() + ramp * 3
    )
    head = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0")
    head = (head + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0")
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut
    profile = head + body
    return struct.pack(">I", len(profile)) + profile[4:]


@needs_codecs
@pytest.mark.parametrize("profile", [b"", ink_profile()])
def test_16_bit_inks_are_read_at_full_depth(tmp_path: Path, profile: bytes) -> None:
    import tifffile

    inks = np.random.RandomState(0).randint(0, 65536, (30, 40, 4)).astype(np.uint16)
    inks[0, 0], inks[0, 1], inks[0, 2] = 0, (0, 0, 0, 65535), (65535, 0, 0, 0)
    coarse = ((inks.astype(int) + 128) // 257).astype(np.uint8)
    for name, bits in (("deep.tif", inks), ("plain.tif", coarse)):
        tifffile.imwrite(
            tmp_path / name, bits, photometric="separated", iccprofile=profile or None,
            compression="zlib", metadata=None,
        )  # fmt: skip
    picture, plain = read_picture(tmp_path / "deep.tif"), read_picture(tmp_path / "plain.tif")
    assert picture.pixels.dtype == torch.uint16
    assert picture.alpha is None
    assert picture.notes == ()
    assert picture.tagged is bool(profile)
    assert picture.pixels[:, 0, 0].int().min() >= 65000
    assert picture.pixels[:, 0, 1].int().max() <= 600
    if not profile:
        assert picture.pixels[:, 0, 2].tolist() == [0, 65535, 65535]
    # 8 bits are a coarser view of the same.
    difference = picture.pixels.int() / 257 - plain.pixels.int()
    assert difference.abs().max() < (3 if profile else 2)


@needs_codecs
@pytest.mark.parametrize(
    ("photometric", "channels"), [("separated", 5), ("miniswhite", 2), ("minisblack", 3)]
)
def test_a_tiff_of_a_kind_unknown_to_pillow_needs_the_codecs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photometric: str, channels: int
) -> None:
    import tifffile

    pixels = np.full((20, 30, channels), 40_000, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, planarconfig="contig")
    light = (65535 - 40_000) ** 2 / 65535 if channels == 5 else 40_000
    light = 65535 - light if channels == 2 else light
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.pixels.int() - light).abs().max() <= 1
    assert picture.alpha is None  # its other channels are of no known kind
    monkeypatch.setattr(deep, "available", lambda: False)
    with pytest.raises(ImageError, match=r"a\.tif: is a TIFF .* of a kind Pillow cannot read; for"):
        read_picture(tmp_path / "a.tif")


@needs_codecs
@pytest.mark.parametrize("photometric", [32844, 4])
def test_a_tiff_of_an_unknown_kind_is_named(tmp_path: Path, photometric: int) -> None:
    import tifffile

    pixels = np.zeros((20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
    with pytest.raises(ImageError, match=r"a\.tif: is a TIFF of colours that cannot be read"):
        read_picture(tmp_path / "a.tif")


def test_without_codecs_8_bits_of_16_bit_inks_are_read_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    inks = np.full((20, 30, 4), (0, 65535, 0, 0), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    monkeypatch.setattr(deep, "available", lambda: False)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels[:, 3, 3].tolist() == [255, 0, 255]
    assert picture.notes == ("8 of its 16 bits; for all: pip install 'fast-style[formats]'",)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_without_codecs_planes_of_16_bits_are_read_rightly_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    planes = np.random.default_rng(0).integers(0, 65536, (3, 20, 30)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        planes,
        photometric="rgb",
        planarconfig="separate",
        compression=compression,
    )
    monkeypatch.setattr(deep, "available", lambda: False)
    if compression is None:
        with pytest.raises(ImageError, match=r"a\.tif: has planes of 16 bits: reading these needs"):
            read_picture(tmp_path / "a.tif")
    else:
        pixels = read_picture(tmp_path / "a.tif").pixels.numpy()
        assert np.abs(pixels - planes / 257).max() < 1


@needs_codecs
def test_16_bit_grey_whose_white_is_zero(tmp_path: Path) -> None:
    import tifffile

    pixels = np.full((20, 30), 10_000, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    assert read_picture(tmp_path / "a.tif").pixels.int().unique().tolist() == [55_535]


def quarters() -> Image.Image:
    """Four coloured quarters: red and green above blue and white."""
    image = Image.new("RGB", (60, 40), "white")
    for colour, place in (("red", (0, 0)), ("lime", (30, 0)), ("blue", (0, 20))):
        image.paste(colour, (*place, place[0] + 30, place[1] + 20))
    return image


def corners(picture: Picture) -> str:
    """Name the colours of the corners, row by row."""
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
    points = picture.pixels[:, [3, 3, -4, -4], [3, -4, 3, -4]].T > 127
    return "".join(names[tuple(map(int, point))] for point in points.tolist())


@pytest.mark.parametrize("file_format", ["JPEG", "HEIF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "upright"), [(1, "RGBW"), (3, "WBGR"), (5, "RBGW"), (6, "BRWG"), (8, "GWRB")]
)
def test_a_turned_photo_is_turned_once(
    tmp_path: Path, file_format: str, orientation: int, upright: str
) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif file_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[ExifTags.Base.Artist] = "Ada"
    path = tmp_path / f"a.{file_format.lower().replace('heif', 'heic')}"
    # Its red and green are exchanged, and its profile exchanges them back.
    red, green, blue = quarters().split()
    swapped = Image.merge("RGB", (green, red, blue))
    swapped.save(path, file_format, exif=exif.tobytes(), icc_profile=swapped_profile(), quality=95)
    picture = read_picture(path)
    assert corners(picture) == upright
    assert picture.tagged
    assert picture.notes == ()
    assert tuple(picture.pixels.shape[1:]) == ((60, 40) if orientation > 4 else (40, 60))
    write_picture(picture, tmp_path / "b.jpg", keep_metadata=True)
    again = read_picture(tmp_path / "b.jpg")
    assert corners(again) == upright
    assert again.metadata.exif == {ExifTags.Base.Artist: "Ada"}


# How a TIFF stores an upright picture for each orientation (TIFF 6.0, page 36).
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def save_tiff(path: Path, kind: str, upright: Array, orientation: int) -> None:
    """Write a TIFF of one of `TIFF_KINDS`; 16 bits of colour are not within Pillow's reach."""
    stored = np.ascontiguousarray(STORED[orientation](upright))
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
    if kind in ("RGB 16", "RGBA 16", "CMYK 16"):
        photometric = "separated" if kind == "CMYK 16" else "rgb"
        extra = ["unassalpha"] if kind == "RGBA 16" else None
        tags = [(274, 3, 1, orientation, True), (315, 2, 4, "Ada", True)]
        tags.append((700, 1, len(xmp), xmp, True))
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(
            path, stored, photometric=photometric, extrasamples=extra, extratags=tags, metadata=None
        )
        return
    if kind == "CMYK":
        image = Image.frombytes("CMYK", stored.shape[1::-1], stored.tobytes())
    else:
        image = Image.fromarray(stored)
    if kind == "palette":
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[ExifTags.Base.Artist] = "Ada"
    exif[700] = xmp
    pages = {"save_all": True, "append_images": [image]} if kind == "pages" else {}
    image.save(path, exif=exif, compression="tiff_lzw" if kind == "LZW" else "raw", **pages)


TIFF_KINDS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "RGB": (np.uint8, (3,)),
    "RGBA": (np.uint8, (4,)),
    "grey": (np.uint8, ()),
    "palette": (np.uint8, ()),
    "CMYK": (np.uint8, (4,)),
    "LZW": (np.uint8, (3,)),
    "pages": (np.uint8, (3,)),
    "float": (np.float32, ()),
    "grey 16": (np.uint16, ()),
    "RGB 16": (np.uint16, (3,)),
    "RGBA 16": (np.uint16, (4,)),
    "CMYK 16": (np.uint16, (4,)),
}


@pytest.mark.parametrize("codecs", [pytest.param(True, marks=needs_codecs), False])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TIFF_KINDS)
def test_a_turned_tiff_is_turned_once(
    tmp_path: Path, kind: str, orientation: int, codecs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, channels = TIFF_KINDS[kind]
    values = np.random.default_rng(0).random((7, 11, *channels))
    upright = (values if dtype is np.float32 else values * np.iinfo(dtype).max).astype(dtype)
    paths = [tmp_path / "a.tif", tmp_path / "upright.tif"]
    save_tiff(paths[0], kind, upright, orientation)
    save_tiff(paths[1], kind, upright, 1)
    if not codecs:
        monkeypatch.setattr(deep, "available", lambda: False)
    monkeypatch.setattr("fast_style.images.decoding._BAND_PIXELS", 3 * 11)
    picture, expected = map(read_picture, paths)
    reduced = dtype is np.uint16 and kind != "grey 16" and not codecs
    if kind.startswith(("RGB", "LZW", "pages", "grey", "float")) and not reduced:
        whole = (upright * 65535).round().astype(np.uint16) if dtype is np.float32 else upright
        colours = np.broadcast_to(whole.reshape(7, 11, -1)[..., :3], (7, 11, 3))
        assert np.array_equal(picture.pixels.permute(1, 2, 0).numpy(), colours)
    assert torch.equal(picture.pixels, expected.pixels)
    assert any("16 bits" in note for note in picture.notes) is reduced
    if kind.startswith("RGBA"):
        assert torch.equal(picture.alpha, expected.alpha)
    assert torch.equal(*map(images.load_image, paths))
    assert np.array_equal(*(np.asarray(images.open_rgb(path)) for path in paths))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["RGB", pytest.param("RGB 16", marks=needs_codecs)])
def test_the_tag_of_a_turned_tiff_is_reset(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = np.zeros((7, 11, 3), TIFF_KINDS[kind][0])
    save_tiff(tmp_path / "a.tif", kind, upright, orientation)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.getexif()[ORIENTATION] == orientation
    write_picture(read_picture(tmp_path / "a.tif"), tmp_path / "b.tif", keep_metadata=True)
    with Image.open(tmp_path / "b.tif") as kept:
        assert kept.size == (11, 7)
        assert kept.getexif().get(ORIENTATION, 1) == 1
        assert kept.getexif()[ExifTags.Base.Artist] == "Ada"
        assert b'tiff:Orientation="1"' in kept.info["xmp"]


def test_8_of_10_bits_of_a_heif_are_read_and_that_is_said(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    values = np.full((32, 32, 3), 40_000, np.uint16)
    heif.from_bytes("RGB;16", (32, 32), values.tobytes()).save(tmp_path / "a.heic", quality=90)
    picture = read_picture(tmp_path / "a.heic")
    assert picture.notes == ("8 of its 10 bits",)
    assert (picture.pixels.float().mean() - 40_000 / 257).abs() < 3


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_grey_needs_no_codecs(
    tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep, "available", lambda: False)
    values = (np.arange(40 * 50) * 32).astype(np.uint16).reshape(40, 50)
    Image.fromarray(values).save(tmp_path / f"a.{extension}")
    picture = read_picture(tmp_path / f"a.{extension}")
    assert np.array_equal(picture.pixels[1].numpy(), values)
    assert picture.notes == ()


@needs_codecs
def test_without_codecs_8_of_16_bits_are_read_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(ramp_16(3), tmp_path / "a.png")
    monkeypatch.setattr(deep, "available", lambda: False)
    picture = read_picture(tmp_path / "a.png")
    assert picture.pixels.dtype == torch.uint8
    assert picture.notes == ("8 of its 16 bits; for all: pip install 'fast-style[formats]'",)


@needs_codecs
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_a_truncated_16_bit_file_is_named(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    write_picture(ramp_16(3), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"a\.\w+: damaged or unreadable") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_depths_are_rounded_and_spread() -> None:
    values = torch.tensor([0, 128, 129, 32768, 65535], dtype=torch.int32).to(torch.uint16)
    picture = set_depth(Picture(pixels=values.expand(3, 1, 5)), 8)
    assert picture.pixels[0, 0].tolist() == [0, 0, 1, 128, 255]
    assert set_depth(picture, 16).pixels[0, 0].tolist() == [0, 0, 257, 32896, 65535]


def test_the_first_frame_of_an_animation_is_read_and_that_is_said(tmp_path: Path) -> None:
    frames = [photo(seed).convert("P") for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture = read_picture(tmp_path / "a.gif")
    assert picture.notes == ("the first of its 3 frames",)
    expected = np.asarray(frames[0].convert("RGB"))
    assert np.array_equal(picture.pixels.permute(1, 2, 0).numpy(), expected)


def test_streams_are_read_and_written() -> None:
    source, output = io.BytesIO(), io.BytesIO()
    photo(3).save(source, "BMP")
    source.seek(0)
    write_picture(read_picture(source), output)
    assert Image.open(output).format == "BMP"
    with pytest.raises(ImageError, match=r"^input stream: is empty"):
        read_picture(io.BytesIO())


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fast_style.images.decoding.MAX_PIXELS", 40 * 48 - 1)
    with pytest.raises(ImageError, match=r"a\.png: 48×40 is over 1,919 pixels"):
        read_picture(save(tmp_path / "a.png"))


@pytest.mark.parametrize("limit", [None, 1000, 89_478_485])
def test_pillows_own_limit_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """An application may guard its own images with it: ours have more pixels here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    path = save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(path.read_bytes()[:-40])
    read_picture(path)
    with pytest.raises(ImageError):
        read_picture(tmp_path / "b.png")
    assert limit == Image.MAX_IMAGE_PIXELS
    with opened(path), ThreadPoolExecutor(4) as pool:
        list(pool.map(images.read_size, [path] * 50))
        assert Image.MAX_IMAGE_PIXELS is not None
        assert Image.MAX_IMAGE_PIXELS > 40 * 48
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_picture_inside_another_is_guarded_too(tmp_path: Path) -> None:
    inner = io.BytesIO()
    Image.new("L", (3000, 3000)).save(inner, "PNG")
    block = struct.pack(">4sI", b"ic07", 8 + inner.tell()) + inner.getvalue()  # of 128x128
    (tmp_path / "a.icns").write_bytes(struct.pack(">4sI", b"icns", 8 + len(block)) + block)
    with pytest.raises(ImageError, match=r"a\.icns: Image size \(9000000 pixels\) exceeds limit"):
        read_picture(tmp_path / "a.icns")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")
@pytest.mark.parametrize("kind", ["screen", "transparent screen", "deep"])
def test_memory_is_bounded_by_the_pixels_that_are_kept(tmp_path: Path, kind: str) -> None:
    """A small frame on a large screen of a GIF once took fifteen bytes a pixel."""
    side, path = 4000, tmp_path / "a.gif"
    if kind == "deep":
        tifffile = pytest.importorskip("tifffile")
        values = np.zeros((side, side, 3), np.uint16)
        tifffile.imwrite(path, values, photometric="rgb", compression="zlib")
    else:
        options = {"transparency": 3} if kind == "transparent screen" else {}
        Image.new("P", (20, 20), 3).save(path, **options)
        data = bytearray(path.read_bytes())
        data[6:10] = struct.pack("<HH", side, side)
        path.write_bytes(data)
    program = (
        "import resource, sys\n"
        "from fast_style.images import read_picture\n"
        "def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = most()\n"
        "pixels = read_picture(sys.argv[1]).pixels\n"
        "print((most() - before) / (pixels.numel() * pixels.element_size()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 3.2


def test_the_table_of_formats_is_all_that_writing_asks(tmp_path: Path) -> None:
    names = [name for row in table.FORMATS for name in (row.name, *row.extensions)]
    assert len(set(names)) == len(names)
    for row in table.WRITTEN:
        if row.codec and not features.check(row.codec):
            continue
        write_picture(Picture(pixels=torch.zeros(3, 8, 8, dtype=torch.uint8)), f := io.BytesIO(),
                      file_format=row.name)  # fmt: skip
        with Image.open(f) as image:
            assert image.format == row.name
        for extension in row.extensions:
            assert images.format_of(Path(f"a{extension.upper()}")) == row.name
    with pytest.raises(ImageError, match=r"a\.gif: cannot write the image format '\.gif': use .*"):
        images.format_of(Path("a.gif"))


def test_a_picture_too_long_for_a_format_is_refused(tmp_path: Path) -> None:
    picture = Picture(pixels=torch.zeros(3, 1, 16384, dtype=torch.uint8))
    with pytest.raises(
        ImageError, match="16384×1 is over the 16383 pixels that WEBP can hold: use PNG"
    ):
        write_picture(picture, tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", ["heic", "jpg"])
def test_a_file_of_an_unknown_iso_brand_is_named(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    path.write_bytes(b"\0\0\0\x18ftypnone" + bytes(100))
    with pytest.raises(ImageError, match=r"a\.\w+: (cannot identify|not an image file)"):
        read_picture(path)


def test_fine_colour_is_kept_from_quality_90(tmp_path: Path) -> None:
    stripes = torch.zeros(3, 16, 16, dtype=torch.uint8)
    stripes[0, :, ::2] = 255
    stripes[2, :, 1::2] = 255
    off = []
    for quality in (90, 89):
        write_picture(Picture(pixels=stripes), tmp_path / "a.jpg", quality=quality)
        difference = read_picture(tmp_path / "a.jpg").pixels.int() - stripes.int()
        off.append(int(difference.abs().max()))
    assert off[0] < 40 < 100 < off[1]


def test_what_is_public_is_there() -> None:
    assert all(hasattr(images, name) for name in images.__all__)
