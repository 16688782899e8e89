"""What is read rightly is read so in every layout, byte order and compression of its kind."""

import io
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradients import Array, assert_shows, gradient, light, read_or_refused, write_tiff
from PIL import ExifTags, Image, ImageCms, features

from fast_style.images import ImageError, profiles, read_picture, rowwise

tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

TOPS = {"u1": 2**8 - 1, "u2": 2**16 - 1, "u4": 2**32 - 1, "f2": 1, "f4": 1, "f8": 1}
SIGNED = {"i1": 2**7, "i2": 2**15, "i4": 2**31}


@pytest.mark.parametrize("layout", ["strips", "tiles", "planes", "tiled planes"])
@pytest.mark.parametrize("dtype", TOPS)
def test_a_tiff_of_any_layout_is_read_or_refused(
    tmp_path: Path, layout: str, dtype: str, codecs: bool
) -> None:
    """Byte orders, compressions, predictors, 32 and 64 bits of offsets."""
    compressions = ((None, False), ("lzw", True), ("zlib", False), ("packbits", False))
    whole = gradient(1 if layout == "tiles" else 3)
    for order, (compression, predictor), big in itertools.product(
        "<>", compressions, (False, True)
    ):
        values = whole * TOPS[dtype]
        values = (values if dtype[0] == "f" else values.round()).astype(order + dtype)
        if "planes" in layout:
            values = values.transpose(2, 0, 1)
        tifffile.imwrite(
            tmp_path / "a.tif",
            values[..., 0] if layout == "tiles" else values,
            byteorder=order,
            bigtiff=big,
            photometric="minisblack" if layout == "tiles" else "rgb",
            planarconfig="separate" if "planes" in layout else None,
            tile=(16, 16) if "tile" in layout else None,
            compression=compression,
            predictor=predictor and dtype != "f2",
        )
        picture = read_or_refused(tmp_path / "a.tif", codecs)
        if picture is not None:
            assert_shows(picture, whole)
            assert picture.alpha is None


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
def test_numbers_with_a_sign_survive_compression(
    tmp_path: Path, dtype: str, compression: str | None, codecs: bool
) -> None:
    half = SIGNED[dtype]
    for order, photometric in itertools.product("<>", ("minisblack", "miniswhite")):
        values = (gradient(1)[..., 0] * (2 * half - 1) - half).round().astype(order + dtype)
        tifffile.imwrite(
            tmp_path / "a.tif", values, byteorder=order, photometric=photometric,
            compression=compression,
        )  # fmt: skip
        picture = read_or_refused(tmp_path / "a.tif", codecs)
        if picture is not None:
            white = gradient(1) if photometric == "minisblack" else 1 - gradient(1)
            assert_shows(picture, white)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_a_compressed_float_is_never_guessed(
    tmp_path: Path, order: str, compression: str, codecs: bool
) -> None:
    values = gradient(1)[..., 0].astype(order + "f4")
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order, compression=compression)
    picture = read_or_refused(tmp_path / "a.tif", codecs)
    if picture is not None:
        assert_shows(picture, gradient(1))
        assert picture.notes == ()


@pytest.mark.parametrize("bits", [2, 4, 9, 10, 12, 14, 17, 20, 24, 28, 31])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_number_of_bits_is_read_in_either_order(
    tmp_path: Path, bits: int, channels: int, codecs: bool
) -> None:
    values = (gradient(channels)[:, :48] * (2**bits - 1)).round().astype(np.int64)
    steps = (values[..., None] >> np.arange(bits)[::-1]) & 1
    packed = np.packbits(steps.reshape(37, -1).astype(np.uint8), axis=1).tobytes()
    if bits == 24:  # whole bytes are in the file's order
        bytes_of = values.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    for order in "<>":
        data = packed
        if bits == 24 and order == "<":
            data = bytes_of.tobytes()
        photometric = 1 if channels == 1 else 2
        write_tiff(tmp_path / "a.tif", data, (48, 37), [bits] * channels, photometric)
        if order == ">":
            swap_byte_order(tmp_path / "a.tif")
        picture = read_or_refused(tmp_path / "a.tif", codecs)
        if picture is not None:
            expected = values / (2**bits - 1)
            assert np.abs(light(picture) - expected).max() < 0.004, (bits, order)


def swap_byte_order(path: Path) -> None:
    """Turn the directory of what `write_tiff` has written; the pixels stay."""
    data = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    data[:8] = b"MM\0*" + struct.pack(">I", place)
    data[place : place + 2] = struct.pack(">H", count)
    for at in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from("<HHI", data, at)
        data[at : at + 8] = struct.pack(">HHI", tag, kind, number)
        letters, inside = f"{number}{'I' if kind == 4 else 'H'}", at + 8
        if struct.calcsize(letters) > 4:
            (inside,) = struct.unpack_from("<I", data, at + 8)
            struct.pack_into(">I", data, at + 8, inside)
        struct.pack_into(
            f">{letters}", data, inside, *struct.unpack_from(f"<{letters}", data, inside)
        )
    path.write_bytes(data)


def write_blocks(path: Path, block: tuple[int, int], compression: int) -> Array:
    """Write YCbCr in blocks by TIFF 6.0, section 21; return what it shows."""
    across, down = block
    shown = gradient(3)[:36, :52]
    picture = Image.fromarray((shown * 255).round().astype(np.uint8)).convert("YCbCr")
    pixels = np.asarray(picture).astype(float)
    data = b""
    for top, left in itertools.product(range(0, 36, down), range(0, 52, across)):
        part = pixels[top : top + down, left : left + across]
        colors = part[..., 1:].mean(axis=(0, 1)).round().astype(np.uint8)
        data += part[..., 0].round().astype(np.uint8).tobytes() + colors.tobytes()
    codecs = {
        1: bytes,
        5: imagecodecs.lzw_encode,
        8: zlib.compress,
        32773: imagecodecs.packbits_encode,
    }
    tags = {530: [across, down], 259: [compression]}
    write_tiff(path, codecs[compression](data), (52, 36), [8, 8, 8], 6, tags)
    return shown


@pytest.mark.parametrize("block", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_colours_that_are_coarser_than_the_light_are_read(
    tmp_path: Path, block: tuple[int, int], compression: int, codecs: bool
) -> None:
    shown = write_blocks(tmp_path / "a.tif", block, compression)
    picture = read_or_refused(tmp_path / "a.tif", codecs)
    if picture is None:
        assert compression == 1 or block == (4, 4)
        return
    assert np.abs(light(picture) - shown).max() < 0.06
    assert np.abs(light(picture) - shown).mean() < 0.02
    assert picture.notes == ()


def test_blocks_in_tiles_and_of_odd_sizes_are_read(tmp_path: Path) -> None:
    values = np.asarray(
        Image.fromarray((gradient(3) * 255).round().astype(np.uint8)).convert("YCbCr")
    )
    across, down = -(-53 // 2), -(-37 // 2)
    padded = np.pad(values, ((0, 1), (0, 1), (0, 0)), mode="edge").astype(float)
    data = b""
    for top, left in itertools.product(range(down), range(across)):
        part = padded[2 * top : 2 * top + 2, 2 * left : 2 * left + 2]
        colors = part[..., 1:].mean(axis=(0, 1)).round().astype(np.uint8)
        data += part[..., 0].astype(np.uint8).tobytes() + colors.tobytes()
    write_tiff(tmp_path / "a.tif", data, (53, 37), [8, 8, 8], 6)  # 2 and 2 by default
    assert np.abs(light(read_picture(tmp_path / "a.tif")) - gradient(3)).max() < 0.06
    write_tiff(tmp_path / "cut.tif", data[:-40], (53, 37), [8, 8, 8], 6)
    with pytest.raises(ImageError, match=r"cut\.tif: damaged or unreadable: is cut short"):
        read_picture(tmp_path / "cut.tif")


def test_a_range_of_its_own_counts(tmp_path: Path) -> None:
    values = np.zeros((36, 52, 3), np.uint8)
    values[..., 0] = 16 + np.linspace(0, 219, 52).round().astype(np.uint8)
    values[..., 1:] = 128
    tags = [(532, 5, 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True)]
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="ycbcr", subsampling=(1, 1), extratags=tags
    )
    expected = np.linspace(0, 1, 52)[None, :, None]
    assert np.abs(light(read_picture(tmp_path / "a.tif")) - expected).max() < 0.004


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_grey_with_a_second_channel_is_read_in_every_layout(
    tmp_path: Path, dtype: str, kind: int, codecs: bool
) -> None:
    for planes, compression, order in itertools.product(
        ("contig", "separate"), (None, "zlib"), "<>"
    ):
        color = gradient(1) * (0.6 if kind == 1 else 1)
        values = np.concatenate([color, np.full((37, 53, 1), 0.6)], axis=-1) * TOPS[dtype]
        values = (values if dtype == "f4" else values.round()).astype(order + dtype)
        tifffile.imwrite(
            tmp_path / "a.tif", values if planes == "contig" else values.transpose(2, 0, 1),
            photometric="minisblack", planarconfig=planes, extrasamples=[kind],
            compression=compression, byteorder=order,
        )  # fmt: skip
        picture = read_or_refused(tmp_path / "a.tif", codecs)
        if picture is None:
            continue
        assert_shows(picture, gradient(1), within=0.009)
        assert (picture.alpha is None) is (kind == 0)
        if picture.alpha is not None:
            top = 255 if picture.alpha.element_size() == 1 else 65535
            assert abs(picture.alpha.float().mean().item() / top - 0.6) < 0.003


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_jpeg_2000_keeps_all_of_its_bits(
    tmp_path: Path, bits: int, channels: int, codecs: bool
) -> None:
    whole = gradient(min(channels, 3))
    values = (whole * (2**bits - 1)).round().astype(np.uint16)
    if channels == 4:
        half = np.full((37, 53, 1), 2 ** (bits - 1), np.uint16)
        values = np.concatenate([values, half], axis=-1)
    (tmp_path / "a.jp2").write_bytes(
        imagecodecs.jpeg2k_encode(
            values.squeeze(), codecformat="jp2", bitspersample=bits, reversible=True
        )
    )
    picture = read_or_refused(tmp_path / "a.jp2", codecs)
    if picture is None:
        assert channels > 1
        return
    assert_shows(picture, whole)
    assert picture.pixels.element_size() == 2
    assert (picture.alpha is not None) is (channels == 4)


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA"])
def test_a_jpeg_2000_of_8_bits_is_pillows(tmp_path: Path, kind: str, codecs: bool) -> None:
    image = Image.fromarray((gradient(3) * 255).round().astype(np.uint8)).convert(kind)
    image.save(tmp_path / "a.jp2")
    assert_shows(read_picture(tmp_path / "a.jp2"), np.asarray(image.convert("RGB")) / 255)


def interlaced(values: Array, bits: int, color_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG in Adam7's seven passes (PNG specification, section 8.2)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    lines = b""
    for top, left, down, across in (*passes, (1, 0, 2, 1)):
        for row in values[top::down, left::across]:
            steps = (row.reshape(-1, 1) >> np.arange(bits)[::-1]) & 1
            lines += (
                b"\0" + np.packbits(steps.ravel().astype(np.uint8)).tobytes() if row.size else b""
            )
    height, width = values.shape[:2]
    data = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 1)
    for kind, content in (
        (b"IHDR", head),
        *chunks,
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    return data


@pytest.mark.parametrize(
    ("color_type", "bits"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_an_interlaced_png_is_read(
    tmp_path: Path, color_type: int, bits: int, keyed: bool, codecs: bool
) -> None:
    channels = 3 if color_type & 2 else 1
    values = (gradient(channels) * (2**bits - 1)).round().astype(int)
    key = values[5, 5]
    chunks = [(b"tRNS", struct.pack(f">{channels}H", *key))] if keyed else []
    stored = values
    if color_type & 4:
        if keyed:
            return  # such a file has a channel for it
        half = np.full((37, 53, 1), 2**bits // 2)
        stored = np.concatenate([values, half], axis=-1)
    (tmp_path / "a.png").write_bytes(interlaced(stored, bits, color_type, *chunks))
    picture = read_or_refused(tmp_path / "a.png", codecs)
    if picture is None:
        assert (color_type, bits, keyed) == (2, 16, True)
        return
    assert_shows(picture, values / (2**bits - 1))
    assert (picture.alpha is not None) is (keyed or color_type >= 4)
    if keyed and picture.alpha is not None:
        assert np.array_equal(picture.alpha.numpy() == 0, (values == key).all(axis=-1))


@pytest.mark.parametrize("top", [1, 100, 255, 1000, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_ppms_numbers_are_scaled_by_its_maximum(tmp_path: Path, top: int, channels: int) -> None:
    values = (gradient(channels) * top).round().astype(">u2" if top > 255 else "u1")
    magic = "P5" if channels == 1 else "P6"
    (tmp_path / "a.ppm").write_bytes(f"{magic}\n53 37\n{top}\n".encode() + values.tobytes())
    assert_shows(read_picture(tmp_path / "a.ppm"), values.astype(float) / top)


@pytest.mark.parametrize("code", [(1, 13), (2, 2), (5, 6), (6, 1), (12, 13), (9, 16), (9, 18)])
def test_an_avifs_code_of_its_colours_counts(tmp_path: Path, code: tuple[int, int]) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    shown = gradient(3)[:36, :52]
    path = tmp_path / "a.avif"
    image = Image.fromarray((shown * 255).round().astype(np.uint8))
    image.save(path, quality=100, subsampling="4:4:4")
    data = bytearray(path.read_bytes())
    place = data.index(b"nclx") + 4
    data[place : place + 4] = struct.pack(">HH", *code)
    path.write_bytes(data)
    if code[1] in (16, 18):
        with pytest.raises(ImageError, match=r"a\.avif: holds (PQ|HLG), light for HDR screens"):
            read_picture(path)
        return
    picture = read_picture(path)
    off = np.abs(light(picture) - shown).mean()
    assert bool(off > 0.02) is (code[0] == 12)
    assert picture.notes == ()


@pytest.mark.parametrize("big", [False, True])
def test_nested_tags_of_a_tiff_that_only_tifffile_reads_are_kept(tmp_path: Path, big: bool) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    loaded = Image.Exif()
    loaded.load(exif.tobytes())
    pointers: list[Any] = [(name, 16 if big else 4, 1, 0, True) for name in ("ExifTag", "GPSTag")]
    with (tmp_path / "a.tif").open("w+b") as file:
        tifffile.imwrite(
            file, gradient(3).astype(np.float32), photometric="rgb", bigtiff=big,
            extratags=[*pointers, (271, 2, 6, "Maker\0", True)],
        )  # fmt: skip
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            rowwise._append_directory(file, tag, loaded.get_ifd(tag), big=big)
    kept = read_picture(tmp_path / "a.tif").metadata.exif
    assert kept[ExifTags.Base.Make] == "Maker"
    assert kept[ExifTags.IFD.Exif][ExifTags.Base.DateTimeOriginal] == "2020:01:02 03:04:05"
    assert kept[ExifTags.IFD.GPSInfo] == {1: "N"}


@pytest.mark.parametrize("extension", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_profile_is_converted_in_every_format(tmp_path: Path, extension: str, mode: str) -> None:
    image = Image.fromarray((gradient(3) * 255).round().astype(np.uint8)).convert(mode)
    wide = profiles.rgb_profile(profiles.ADOBE, 1.8)
    options = {"lossless": True} if extension == "webp" else {}
    image.save(tmp_path / f"a.{extension}", icc_profile=wide, quality=100, **options)
    with Image.open(tmp_path / f"a.{extension}") as stored:
        rgb = stored.convert("RGB")
    expected = ImageCms.profileToProfile(
        rgb, ImageCms.ImageCmsProfile(io.BytesIO(wide)), ImageCms.createProfile("sRGB")
    )
    assert expected is not None
    assert_shows(read_picture(tmp_path / f"a.{extension}"), np.asarray(expected) / 255, within=0.02)
