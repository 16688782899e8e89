"""What the numbers of a TIFF or a PNG mean: range, polarity, palette, transparency, colours."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradients import Array, assert_shows, gradient, light, read_or_refused, write_tiff
from PIL import ExifTags, Image, ImageCms, features

from fast_style.images import ImageError, deep, profiles, read_picture, read_size

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

ORDERS = ("<", ">")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("u1", 0, 255), ("u2", 0, 65535), ("u4", 0, 2**32 - 1), ("i1", -128, 127),
     ("i2", -32768, 32767), ("i4", -(2**31), 2**31 - 1), ("f4", 0, 1), ("f4", 0, 255),
     ("f4", -1, 1), ("f2", 0, 1), ("f8", 0, 1), ("f8", 0, 65535)],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_of_any_type_are_scaled_by_it(
    tmp_path: Path, channels: int, dtype: str, low: float, high: float, order: str, codecs: bool
) -> None:
    whole = gradient(channels)
    numbers = low + whole * (high - low)
    values = (numbers if dtype[0] == "f" else numbers.round()).astype(order + dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", values[..., 0] if channels == 1 else values, byteorder=order,
        photometric="rgb" if channels == 3 else "minisblack",
    )  # fmt: skip
    picture = read_or_refused(tmp_path / "a.tif", codecs)
    if picture is None:
        return
    assert_shows(picture, whole)
    assert picture.alpha is None
    said = " ".join(picture.notes)
    assert ("its numbers" in said) is (
        dtype[0] == "i" or (dtype[0] == "f" and (low, high) != (0, 1))
    )


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_odd_depths_are_scaled(tmp_path: Path, channels: int, bits: int, codecs: bool) -> None:
    values = (gradient(channels)[:, :52] * (2**bits - 1)).round().astype(np.uint16)
    row = ["".join(f"{number:0{bits}b}" for number in line.ravel()) for line in values]
    packed = b"".join(
        int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
        for text in row
    )
    write_tiff(tmp_path / "a.tif", packed, (52, 37), [bits] * channels, 1 if channels == 1 else 2)
    picture = read_or_refused(tmp_path / "a.tif", codecs)
    if picture is None:
        return
    assert np.abs(light(picture) - gradient(channels)[:, :52]).max() < 0.004
    assert picture.pixels.element_size() == 2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
def test_white_is_zero(tmp_path: Path, dtype: str, order: str, codecs: bool) -> None:
    whole = gradient(1)[..., 0] * 0.8
    top = 1 if dtype == "f4" else 2 ** (8 * int(dtype[1])) - 1
    values = ((1 - whole) * top).astype(order + dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", byteorder=order)
    picture = read_or_refused(tmp_path / "a.tif", codecs)
    if picture is None:
        return
    assert_shows(picture, whole[..., None])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_palettes_map_may_be_of_8_bits(
    tmp_path: Path, bits: int, depth: int, codecs: bool
) -> None:
    steps = np.arange(2**bits) * 255 // (2**bits - 1)
    colors = np.stack([steps, 255 - steps, 0 * steps + 128]) * (257 if depth == 16 else 1)
    index = (gradient(1)[:, :52, 0] * (2**bits - 1)).round().astype(np.uint8)
    data = index if bits == 8 else (index[:, ::2] << 4 | index[:, 1::2])
    write_tiff(
        tmp_path / "a.tif", data.tobytes(), (52, 37), [bits], 3, {320: colors.ravel().tolist()}
    )
    red = steps[index] / 255
    expected = np.stack([red, 1 - red, 0 * red + 128 / 255], axis=-1)
    assert np.abs(light(read_picture(tmp_path / "a.tif")) - expected).max() < 0.004


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(
    ("kinds", "alpha"),
    [([0], None), ([2], 3), ([1], 3), ([0, 2], 4), ([2, 0], 3), ([0, 0], None)],
)
def test_only_what_is_said_to_be_transparency_is(
    tmp_path: Path, kinds: list[int], alpha: int | None, dtype: str, planes: str
) -> None:
    whole = np.concatenate([gradient(3), np.full((37, 53, len(kinds)), 0.6)], axis=-1)
    if alpha is not None and kinds[alpha - 3] == 1:
        whole[..., :3] *= 0.6
    values = (whole * (2 ** (8 * int(dtype[1])) - 1)).round().astype(dtype)
    stored = values if planes == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes, extrasamples=kinds
    )
    picture = read_picture(tmp_path / "a.tif")
    assert_shows(picture, gradient(3), within=0.008)
    assert (picture.alpha is None) is (alpha is None)
    if picture.alpha is not None:
        top = 2 ** (8 * int(dtype[1])) - 1
        assert np.abs(picture.alpha.numpy() / top - 0.6).max() < 0.004


@pytest.mark.parametrize("compression", ["zlib", "lzw", "webp", "jpeg2000", "zstd"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"bigtiff": True}])
def test_every_compression_is_read(
    tmp_path: Path, compression: str, layout: dict[str, Any]
) -> None:
    values = (gradient(3) * 255).round().astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", compression=compression, **layout
    )
    assert_shows(read_picture(tmp_path / "a.tif"), gradient(3), within=0.03)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_ink_with_transparency_is_read(tmp_path: Path, dtype: str) -> None:
    top = 2 ** (8 * int(dtype[1])) - 1
    ink = np.concatenate([1 - gradient(3), 0 * gradient(1), 0.6 + 0 * gradient(1)], axis=-1)
    tifffile.imwrite(
        tmp_path / "a.tif", (ink * top).round().astype(dtype), photometric="separated",
        extrasamples=[2], planarconfig="contig",
    )  # fmt: skip
    picture = read_picture(tmp_path / "a.tif")
    assert_shows(picture, gradient(3))
    assert picture.alpha is not None


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_lab_is_read_as_pillow_reads_it(tmp_path: Path, dtype: str) -> None:
    lab = np.asarray(
        ImageCms.profileToProfile(
            Image.fromarray((gradient(3) * 255).astype(np.uint8)), ImageCms.createProfile("sRGB"),
            ImageCms.createProfile("LAB"), outputMode="LAB",
        )
    )  # fmt: skip
    wide = lab.astype(dtype) << (8 * (int(dtype[1]) - 1))
    wide[..., 0] = lab[..., 0].astype(dtype) * (257 if dtype == "u2" else 1)
    extra = np.full((37, 53, 1), 2 ** (8 * int(dtype[1])) - 1, dtype)
    values = np.concatenate([wide, extra], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="cielab", extrasamples=[2])
    assert_shows(read_picture(tmp_path / "a.tif"), gradient(3), within=0.06)


@pytest.mark.parametrize("later", ["mask", "float", "cut", "jpeg2000"])
def test_a_later_page_does_not_cost_the_first(tmp_path: Path, later: str, codecs: bool) -> None:
    values = (gradient(3) * 255).round().astype(np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(values, photometric="rgb")
        if later == "mask":
            tiff.write(values[..., 0] > 99, photometric="mask", subfiletype=4)
        elif later == "jpeg2000":
            tiff.write(values, photometric="rgb", compression="jpeg2000")
        else:
            tiff.write(gradient(3).astype(np.float32), photometric="rgb")
    if later == "cut":
        with tifffile.TiffFile(path) as tiff:
            end = tiff.pages[1].offset
        path.write_bytes(path.read_bytes()[:end])
    picture = read_picture(path)
    assert_shows(picture, gradient(3))
    assert picture.notes == (() if later == "cut" else ("the first of its 2 pages",))


def test_a_tiff_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, gradient(3).astype(np.float32), photometric="rgb")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match=r"a\.tif: damaged or unreadable: is cut short"):
        read_picture(path)


def png(path: Path, color_type: int, bits: int, rows: Array, *chunks: tuple[bytes, bytes]) -> None:
    """Write a PNG by its specification; `rows` are the bytes of its lines."""
    lines = b"".join(b"\0" + line.tobytes() for line in rows)
    width = rows.shape[1] * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    header = struct.pack(">IIBBBBB", width, len(rows), bits, color_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (
        (b"IHDR", header),
        *chunks,
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("level", [0, 1])
def test_a_level_of_grey_is_transparent(
    tmp_path: Path, bits: int, level: int, codecs: bool
) -> None:
    levels = np.tile(np.arange(64) % min(2**bits, 32), (8, 1))
    if bits == 16:
        rows = levels.astype(">u2").view(np.uint8)
    else:
        bit_rows = (levels[..., None] >> np.arange(bits)[::-1]) & 1
        rows = np.packbits(bit_rows.reshape(8, -1).astype(np.uint8), axis=1)
    png(tmp_path / "a.png", 0, bits, rows, (b"tRNS", struct.pack(">H", level)))
    alpha = read_picture(tmp_path / "a.png").alpha
    assert alpha is not None
    assert np.array_equal(alpha.numpy() == 0, levels == level)


def test_16_bits_of_grey_with_alpha_are_read(tmp_path: Path) -> None:
    values = (np.concatenate([gradient(1), 0 * gradient(1) + 0.6], axis=-1) * 65535).round()
    rows = values.astype(">u2").reshape(37, -1).view(np.uint8)
    png(tmp_path / "a.png", 4, 16, rows)
    picture = read_picture(tmp_path / "a.png")
    assert_shows(picture, gradient(1), within=1e-4)
    assert picture.pixels.element_size() == 2
    assert picture.alpha is not None
    assert picture.alpha.int().unique().tolist() == [round(0.6 * 65535)]
    assert picture.notes == ()


def converted(values: Array, primaries: Array, power: float) -> Array:
    """Convert RGB by hand: a power, a matrix from chromaticities of one white, sRGB's curve."""

    def matrix(colors: Array) -> Array:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in colors]).T
        return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])

    linear = values**power @ (np.linalg.inv(matrix(np.array(profiles.SRGB))) @ matrix(primaries)).T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def adobe_exif(index: bytes = b"R03\0", space: int = 0xFFFF) -> bytes:
    """EXIF by its specification: a first directory, the camera's, and that of interoperability."""

    def directory(at: int, *entries: bytes) -> bytes:
        return struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)

    first = directory(8, struct.pack("<HHII", 0x8769, 4, 1, 26))
    camera = directory(
        26, struct.pack("<HHIHH", 0xA001, 3, 1, space, 0), struct.pack("<HHII", 0xA005, 4, 1, 56)
    )
    inter = directory(56, struct.pack("<HHI4s", 1, 2, 4, index))
    return b"Exif\0\0II*\0\x08\0\0\0" + first + camera + inter


@pytest.mark.parametrize("extension", ["jpg", "webp"])
def test_a_cameras_adobe_rgb_is_known_by_its_exif(tmp_path: Path, extension: str) -> None:
    image = Image.fromarray((gradient(3) * 255).round().astype(np.uint8))
    options: dict[str, Any] = {"quality": 100} | ({"lossless": True} if extension == "webp" else {})
    image.save(tmp_path / f"a.{extension}", exif=adobe_exif(), **options)
    picture = read_picture(tmp_path / f"a.{extension}")
    expected = converted(gradient(3), np.array(profiles.ADOBE), 563 / 256)
    assert np.abs(light(picture) - expected).mean() < 0.005
    assert picture.notes == ()
    assert picture.metadata.exif[ExifTags.IFD.Exif][ExifTags.Base.ColorSpace] == 1
    for other in (adobe_exif(b"R98\0"), adobe_exif(space=1)):
        image.save(tmp_path / f"b.{extension}", exif=other, **options)
        assert np.abs(light(read_picture(tmp_path / f"b.{extension}")) - gradient(3)).mean() < 0.01


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "png 16", "tif 16"])
def test_grey_takes_a_profile_of_rgb(tmp_path: Path, kind: str, codecs: bool) -> None:
    extension, _, bits = kind.partition(" ")
    top, dtype = (65535, np.uint16) if bits else (255, np.uint8)
    image = Image.fromarray((gradient(1)[..., 0] * top).round().astype(dtype))
    profile = profiles.rgb_profile(profiles.ADOBE, 1.8)
    image.save(tmp_path / f"a.{extension}", icc_profile=profile)
    picture = read_picture(tmp_path / f"a.{extension}")
    expected = converted(gradient(3)[..., [0, 0, 0]], np.array(profiles.ADOBE), 1.8)
    assert np.abs(light(picture) - expected).mean() < 0.006
    assert not any("profile" in note for note in picture.notes)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / f"b.{extension}", icc_profile=srgb)
    assert_shows(read_picture(tmp_path / f"b.{extension}"), gradient(1), within=0.02)


def rgb_rows(bits: int = 8) -> Array:
    values = (gradient(3) * (2**bits - 1)).round().astype(">u2" if bits == 16 else "u1")
    return values.reshape(37, -1).view(np.uint8)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("gamma", "primaries"),
    [(1.0, profiles.SRGB), (0.5, profiles.SRGB), (1 / 2.2, profiles.DISPLAY_P3)],
)
def test_a_pngs_gamma_and_chromaticities_count(
    tmp_path: Path, gamma: float, primaries: profiles.Chromaticities, bits: int
) -> None:
    flat = [value for xy in (primaries[3], *primaries[:3]) for value in xy]
    chunks = [(b"gAMA", struct.pack(">I", round(gamma * 1e5)))]
    chunks.append((b"cHRM", struct.pack(">8I", *(round(value * 1e5) for value in flat))))
    png(tmp_path / "a.png", 2, bits, rgb_rows(bits), *chunks)
    expected = converted(gradient(3), np.array(primaries), 1 / gamma)
    picture = read_picture(tmp_path / "a.png")
    assert np.abs(light(picture) - expected).mean() < 0.006
    png(tmp_path / "b.png", 2, bits, rgb_rows(bits), *chunks, (b"sRGB", b"\0"))
    assert_shows(read_picture(tmp_path / "b.png"), gradient(3))


def test_a_png_that_says_it_is_srgb_keeps_its_pixels(tmp_path: Path) -> None:
    flat = [value for xy in (profiles.SRGB[3], *profiles.SRGB[:3]) for value in xy]
    chrm = struct.pack(">8I", *(round(value * 1e5) for value in flat))
    png(tmp_path / "a.png", 2, 8, rgb_rows(), (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", chrm))
    found = read_picture(tmp_path / "a.png").pixels.permute(1, 2, 0).numpy()
    assert np.array_equal(found, (gradient(3) * 255).round().astype(np.uint8))


def test_a_pngs_code_of_its_colours_counts(tmp_path: Path) -> None:
    png(tmp_path / "srgb.png", 2, 8, rgb_rows(), (b"cICP", bytes((1, 13, 0, 1))))
    assert_shows(read_picture(tmp_path / "srgb.png"), gradient(3), within=0.003)
    png(tmp_path / "p3.png", 2, 8, rgb_rows(), (b"cICP", bytes((12, 13, 0, 1))))
    expected = converted(gradient(3), np.array(profiles.DISPLAY_P3), 2.2)
    assert np.abs(light(read_picture(tmp_path / "p3.png")) - expected).mean() < 0.01
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        png(tmp_path / "hdr.png", 2, 8, rgb_rows(), (b"cICP", bytes((9, transfer, 0, 1))))
        with pytest.raises(ImageError, match=rf"hdr\.png: holds {name}, light for HDR screens"):
            read_picture(tmp_path / "hdr.png")


def sensor_tiff(path: Path, *, nested: bool) -> None:
    """Write a TIFF as a raw file is laid out: a thumbnail, and what the sensor saw inside it."""
    small, large = np.full((8, 10, 3), 99, np.uint8), np.full((37, 53), 999, np.uint16)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(small, photometric="rgb", subfiletype=1, subifds=int(nested))
        tiff.write(large, photometric=32803)


@pytest.mark.parametrize("nested", [True, False])
def test_a_cameras_raw_file_is_not_its_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool, codecs: bool
) -> None:
    find_spec = deep.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "rawpy" else find_spec(name)
    )
    sensor_tiff(tmp_path / "a.dng", nested=nested)
    (tmp_path / "b.raf").write_bytes(b"FUJIFILMCCD-RAW " + bytes(200))
    (tmp_path / "c.cr3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(200))
    for name in ("a.dng", "b.raf", "c.cr3"):
        with pytest.raises(ImageError, match=rf"{name}: is a camera's raw file: pip install '"):
            read_picture(tmp_path / name)


def test_a_raw_file_that_cannot_be_developed_is_named(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    (tmp_path / "b.raf").write_bytes(b"FUJIFILMCCD-RAW " + bytes(200))
    with pytest.raises(ImageError, match=r"b\.raf: is a camera's raw file that cannot be read"):
        read_picture(tmp_path / "b.raf")


def test_of_a_thumbnail_and_the_picture_the_picture_is_read(tmp_path: Path) -> None:
    values = (gradient(3) * 255).round().astype(np.uint8)
    for nested in (True, False):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            tiff.write(values[::4, ::4], photometric="rgb", subfiletype=1, subifds=int(nested))
            tiff.write(values, photometric="rgb", subfiletype=0)
        picture = read_picture(tmp_path / "a.tif")
        assert_shows(picture, gradient(3))
        assert picture.notes == (() if nested else ("the largest of its 2 pages",))


def test_a_picture_that_is_called_a_thumbnail_is_read_where_it_is_alone(
    tmp_path: Path, codecs: bool
) -> None:
    values = (gradient(3) * 255).round().astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", subfiletype=1)
    assert_shows(read_picture(tmp_path / "a.tif"), gradient(3))


def test_streams_are_read_as_files_are(tmp_path: Path) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, gradient(3).astype(np.float32), photometric="rgb")
    file.seek(0)
    assert_shows(read_picture(file), gradient(3))


def test_an_avif_is_cropped_as_it_says(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    values = (gradient(3) * 255).round().astype(np.uint8)[:36, :52]
    file = io.BytesIO()
    Image.fromarray(values).save(file, "AVIF", quality=100, subsampling="4:4:4")
    # Show 20x10 pixels, whose centre is 4 to the right of the picture's, and 3 above it.
    clap = struct.pack(">I4s8I", 40, b"clap", 20, 1, 10, 1, 4, 1, 2**32 - 3, 1)
    (tmp_path / "a.avif").write_bytes(with_property(file.getvalue(), clap))
    picture = read_picture(tmp_path / "a.avif")
    expected = values[10:20, 20:40] / 255
    assert read_size(tmp_path / "a.avif") == (20, 10)
    assert np.abs(light(picture) - expected).max() < 0.04


def with_property(avif: bytes, box: bytes) -> bytes:
    """Add a property to the picture of an AVIF as libavif writes it."""
    data, count = bytearray(avif), avif.count(b"ipma")
    assert count == 1
    place = data.index(b"ipma") - 4
    association = struct.unpack_from(">I", data, place + 12)[0]
    assert association == 1  # one item: version 0, one byte a property
    number_at = place + 4 + 4 + 4 + 4 + 2
    ipco = data.index(b"ipco") - 4
    inside, index = ipco + 8, 1
    while inside < place:
        inside += struct.unpack_from(">I", data, inside)[0]
        index += 1
    end = number_at + 1 + data[number_at]
    data[number_at] += 1
    data[end:end] = bytes([index | 0x80])  # it is essential
    data[place:place] = box
    grown = len(box) + 1
    for name, more in ((b"ipma", 1), (b"ipco", len(box)), (b"iprp", grown), (b"meta", grown)):
        at = data.index(name) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + more)
    iloc = data.index(b"iloc") + 4  # version 0: sizes of 4 bytes, one item, one extent
    at = iloc + 4 + 2 + 2 + 2 + 2 + 2
    struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + grown)
    return bytes(data)
