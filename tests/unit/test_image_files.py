"""Reading and writing whole pictures: depth, transparency, profiles, metadata, bad files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, features
from synthetic import photo

import fast_style.images as images
from fast_style.formats import deep
from fast_style.images import (
    ImageError,
    Picture,
    fill_transparent,
    read_picture,
    set_depth,
    write_picture,
)

needs_codecs = pytest.mark.skipif(
    not deep.available(), reason="needs pip install 'fast-style[formats]'"
)
ORIENTATION = ExifTags.Base.Orientation


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
    monkeypatch.setattr("fast_style.formats.decoding._BAND_PIXELS", 7 * 48)
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


@needs_codecs
def test_metadata_of_a_16_bit_png_is_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    source = read_picture(save(tmp_path / "a.jpg", exif=exif, xmp=b"<x/>"))
    write_picture(set_depth(source, 16), tmp_path / "b.png", keep_metadata=True)
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert image.getexif()[ExifTags.Base.Artist] == "Ada"
        assert image.info["xmp"] == b"<x/>"


@needs_codecs
def test_what_a_16_bit_tiff_loses_is_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    source = set_depth(read_picture(save(tmp_path / "a.jpg", exif=exif, xmp=b"<x/>")), 16)
    (note,) = write_picture(source, tmp_path / "b.tif", keep_metadata=True)
    assert note == "its EXIF is lost: tifffile writes none; XMP is kept"
    with Image.open(tmp_path / "b.tif") as image:
        assert bytes(image.info["xmp"]) == b"<x/>"


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
    monkeypatch.setattr("fast_style.formats.decoding.MAX_PIXELS", 40 * 48 - 1)
    with pytest.raises(ImageError, match=r"a\.png: 48×40 is over 1,919 pixels"):
        read_picture(save(tmp_path / "a.png"))


def test_a_picture_too_long_for_a_format_is_refused(tmp_path: Path) -> None:
    picture = Picture(pixels=torch.zeros(3, 1, 16384, dtype=torch.uint8))
    with pytest.raises(ImageError, match="16384×1 is over the 16383 that WEBP can hold"):
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
