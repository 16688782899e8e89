"""What a file holds beside its pixels: EXIF, XMP, IPTC and resolution, kept or lost with a note."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, IptcImagePlugin
from PIL.TiffImagePlugin import IFDRational
from synthetic import photo

from fast_style.images import Picture, deep, read_picture, rowwise, set_depth, write_picture
from fast_style.images.metadata import Metadata

needs_codecs = pytest.mark.skipif(
    not deep.available(), reason="needs pip install 'fast-style[formats]'"
)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
# Two records: the keyword "sea", and a caption of an odd number of bytes.
IPTC = b"\x1c\x02\x19\0\x03sea\x1c\x02\x78\0\x06a wave"
EVERYTHING = Metadata(
    exif={
        ExifTags.Base.Artist: "José Núñez".encode().decode("latin-1"),
        ExifTags.Base.ImageDescription: "waves",
        ExifTags.Base.DateTime: "2026:01:02 03:04:05",
        ExifTags.IFD.Exif: {
            ExifTags.Base.ISOSpeedRatings: 400,
            ExifTags.Base.ExposureTime: IFDRational(1, 250),
            ExifTags.Base.LensModel: "30 mm",
            ExifTags.Base.ExifVersion: b"0232",
        },
        ExifTags.IFD.GPSInfo: {
            ExifTags.GPS.GPSLatitudeRef: "N",
            ExifTags.GPS.GPSLatitude: (IFDRational(48), IFDRational(51), IFDRational(24)),
        },
    },
    xmp=XMP,
    iptc=IPTC,
    dpi=(300, 300),
)


def picture(metadata: Metadata = EVERYTHING, *, bits: int = 8) -> Picture:
    pixels = torch.randint(256, (3, 30, 40), dtype=torch.uint8)
    return set_depth(Picture(pixels=pixels, metadata=metadata), bits)


def iptc_of(image: Image.Image) -> dict[tuple[int, int], Any]:
    return IptcImagePlugin.getiptcinfo(image) or {}


@needs_codecs
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_keeps_everything(
    tmp_path: Path, bits: int, big: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tifffile

    if big:
        monkeypatch.setattr(rowwise, "_CLASSIC_TIFF_BYTES", 0)
    assert write_picture(picture(bits=bits), tmp_path / "a.tif", keep_metadata=True) == ()
    with Image.open(tmp_path / "a.tif") as image:
        image.load()
        exif = image.getexif()
        assert exif[ExifTags.Base.Artist].encode("latin-1").decode() == "José Núñez"
        assert exif[ExifTags.Base.Software] == "fast-style"
        camera, place = map(exif.get_ifd, (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))
        assert camera == EVERYTHING.exif[ExifTags.IFD.Exif]
        assert place == EVERYTHING.exif[ExifTags.IFD.GPSInfo]
        assert bytes(image.info["xmp"]) == XMP
        assert image.info["dpi"] == (300, 300)
        assert iptc_of(image) == {(2, 25): b"sea", (2, 120): b"a wave"}
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff is big
        tags = tiff.pages.first.tags
        assert tags[34665].value["ISOSpeedRatings"] == 400
        assert tags[34853].value["GPSLatitudeRef"] == "N"
    kept = read_picture(tmp_path / "a.tif").metadata
    assert kept == EVERYTHING


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_a_name_keeps_its_accents(tmp_path: Path, extension: str) -> None:
    write_picture(picture(), tmp_path / f"a.{extension}", keep_metadata=True)
    with Image.open(tmp_path / f"a.{extension}") as image:
        assert image.getexif()[ExifTags.Base.Artist].encode("latin-1") == "José Núñez".encode()


@needs_codecs
def test_a_16_bit_png_keeps_what_a_png_can(tmp_path: Path) -> None:
    (note,) = write_picture(picture(bits=16), tmp_path / "a.png", keep_metadata=True)
    assert note == "its IPTC is lost: PNG has no place for it"
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "30 mm"
        assert bytes(image.info["xmp"]) == XMP
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_iptc_is_kept(tmp_path: Path, extension: str) -> None:
    path, again = tmp_path / f"a.{extension}", tmp_path / "b.jpg"
    assert write_picture(picture(), path, keep_metadata=True) == ()
    write_picture(read_picture(path), again, keep_metadata=True)
    for file in (path, again):
        with Image.open(file) as image:
            assert iptc_of(image) == {(2, 25): b"sea", (2, 120): b"a wave"}
    assert read_picture(again).metadata.iptc == IPTC


@pytest.mark.parametrize("order", ["<", ">"])
def test_iptc_as_numbers_is_read_in_the_order_of_its_bytes(tmp_path: Path, order: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    padded = IPTC + bytes(-len(IPTC) % 4)
    numbers = struct.unpack(f"{order}{len(padded) // 4}I", padded)
    tag = (33723, 4, len(numbers), numbers, True)
    pixels = np.zeros((20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order, extratags=[tag])
    assert read_picture(tmp_path / "a.tif").metadata.iptc == IPTC


def test_damaged_iptc_does_not_cost_the_picture(tmp_path: Path) -> None:
    for number, iptc in enumerate((b"\x1c\x02\x19\0\x09sea", b"sea", IPTC[:7] + b"?" * 9)):
        path = tmp_path / f"{number}.jpg"
        write_picture(picture(Metadata(iptc=iptc)), path, keep_metadata=True)
        assert read_picture(path).pixels.shape == (3, 30, 40)


@pytest.mark.parametrize(
    ("extension", "lost"),
    [("png", ["IPTC"]), ("webp", ["IPTC"]), ("bmp", ["EXIF", "XMP", "IPTC"])],
)
def test_what_a_format_has_no_place_for_is_said(
    tmp_path: Path, extension: str, lost: list[str]
) -> None:
    path = tmp_path / f"a.{extension}"
    notes = write_picture(picture(), path, keep_metadata=True)
    expected = [f"its {kind} is lost: {extension.upper()} has no place for it" for kind in lost]
    assert list(notes) == expected
    assert write_picture(picture(), path) == ()


def test_what_is_too_long_for_a_jpeg_is_said(tmp_path: Path) -> None:
    long = Metadata(
        exif={ExifTags.IFD.Exif: {ExifTags.Base.MakerNote: bytes(70_000)}},
        xmp=b"<x/>".ljust(70_000),
        iptc=bytes(70_000),
    )
    notes = write_picture(picture(long), tmp_path / "a.jpg", keep_metadata=True)
    assert [note.split(":")[0] for note in notes] == [
        "its EXIF is lost",
        "its XMP is lost",
        "its IPTC is lost",
    ]
    kept = read_picture(tmp_path / "a.jpg").metadata
    assert (kept.exif, kept.xmp, kept.iptc) == ({}, b"", b"")
    assert write_picture(picture(long), tmp_path / "a.tif", keep_metadata=True) == ()


@pytest.mark.parametrize("length", [65533 - 32, 65533 - 33])
def test_what_just_fits_into_a_jpeg_is_kept(tmp_path: Path, length: int) -> None:
    record = b"\x1c\x02\x78" + struct.pack(">H", 20_000) + bytes(20_000)
    just = Metadata(xmp=b"<x/>".ljust(length), iptc=(3 * record).ljust(length, b"\0"))
    assert write_picture(picture(just), tmp_path / "a.jpg", keep_metadata=True) == ()
    kept = read_picture(tmp_path / "a.jpg").metadata
    assert kept.xmp == just.xmp
    assert kept.iptc[: len(3 * record)] == 3 * record


def test_exif_that_cannot_be_written_does_not_cost_the_picture(tmp_path: Path) -> None:
    damaged = Metadata(exif={ExifTags.IFD.Exif: {ExifTags.Base.ISOSpeedRatings: (object(),)}})
    for extension in ("jpg", "png", "tif"):
        path = tmp_path / f"a.{extension}"
        (note,) = write_picture(picture(damaged), path, keep_metadata=True)
        assert note == "its EXIF is damaged and was left out"
        assert read_picture(path).pixels.shape == (3, 30, 40)


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"), 72), (-1, -1), (1e9, 1e9), ("a", "b"), 72])
def test_an_impossible_resolution_is_none(dpi: object, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    photo(1).save(stream, "BMP")
    stream.seek(0)
    opened = Image.open

    def open_with_resolution(file: Any) -> Image.Image:
        image = opened(file)
        image.info["dpi"] = dpi
        return image

    monkeypatch.setattr("PIL.Image.open", open_with_resolution)
    assert read_picture(stream).metadata.dpi is None


def test_what_says_where_more_follows_is_not_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.IFD.Interop: {1: "R98"}, ExifTags.Base.ExifImageWidth: 7}
    photo(1).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").metadata.exif == {}
