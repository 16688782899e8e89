"""What Stylizer takes as an image: the same kind comes back, and all else is refused in a line."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import photo

from fast_style import Picture, Stylizer
from fast_style.checkpoints.files import load_model, save_model
from fast_style.images import from_float, image_to_tensor, to_float
from fast_style.networks.transformer import TransformerNet

PIXELS = image_to_tensor(photo(5, 40, 30))


@pytest.fixture
def stylizer(tiny_network: TransformerNet) -> Stylizer:
    return Stylizer(tiny_network, strength=0.5)


@pytest.fixture
def expected(stylizer: Stylizer) -> np.ndarray:
    """(40, 30, 3) uint8."""
    return stylizer.stylize_pixels(PIXELS.clone()).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float64, torch.bfloat16])
def test_a_tensor_keeps_its_type_and_is_not_changed(
    stylizer: Stylizer, expected: np.ndarray, dtype: torch.dtype
) -> None:
    image = to_float(PIXELS)
    image = image.to(dtype) if dtype.is_floating_point else from_float(image, dtype)
    before = image.clone()
    result = stylizer(image)
    assert result.dtype == dtype
    assert torch.equal(image, before)
    off = to_float(result).permute(1, 2, 0).float() - torch.from_numpy(expected) / 255
    assert off.abs().max() <= (0.02 if dtype == torch.bfloat16 else 0.51 / 255)


def test_integers_come_in_batches_too(stylizer: Stylizer) -> None:
    batch = torch.stack([PIXELS, PIXELS.flip(-1)])
    assert torch.equal(stylizer(batch)[1], stylizer(batch[1]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
def test_an_array_has_its_channels_last_and_keeps_its_type(
    stylizer: Stylizer, expected: np.ndarray, dtype: str
) -> None:
    most = 1 if "f" in dtype else np.iinfo(np.dtype(dtype)).max
    result = stylizer((np.asarray(photo(5, 40, 30)) * (most / 255)).astype(dtype))
    assert (result.dtype, result.shape) == (np.dtype(dtype), (40, 30, 3))
    assert np.abs(result.astype(float) / most - expected / 255).max() <= 0.6 / 255


def test_any_view_of_an_array_will_do(stylizer: Stylizer) -> None:
    image = np.asarray(photo(5, 40, 30))  # read-only
    turned = image[::-1, ::-2]
    assert np.array_equal(stylizer(turned), stylizer(turned.copy()))
    batch = np.stack([image, image[:, ::-1]])[None]
    assert np.array_equal(stylizer(batch)[0, 1], stylizer(batch[0, 1]))


def test_a_pillow_image_becomes_one(stylizer: Stylizer, expected: np.ndarray) -> None:
    image = photo(5, 40, 30)
    image.info["dpi"] = (72, 72)
    result = stylizer(image)
    assert (result.mode, result.size, result.info["dpi"]) == ("RGB", (30, 40), (72, 72))
    assert np.array_equal(np.asarray(result), expected)
    assert np.array_equal(np.asarray(image), np.asarray(photo(5, 40, 30)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_a_pillow_image_without_alpha_becomes_rgb(stylizer: Stylizer, mode: str) -> None:
    image = photo(5, 40, 30).convert(mode)
    result = stylizer(image)
    assert result.mode == "RGB"
    assert np.array_equal(np.asarray(result), np.asarray(stylizer(image.convert("RGB"))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_a_pillow_image_keeps_its_alpha(stylizer: Stylizer, mode: str) -> None:
    # Pillow has no way from LA to PA that keeps it.
    image = photo(5, 40, 30).convert({"LA": "L", "PA": "P"}.get(mode, "RGB"))
    alpha = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(40, 30).astype(np.uint8))
    image.putalpha(alpha)
    image = image.convert(mode) if mode == "RGBa" else image
    assert image.mode == mode
    result = stylizer(image)
    assert result.mode == "RGBA"
    assert np.array_equal(np.asarray(result.getchannel("A")), np.asarray(alpha))


def test_a_palette_keeps_the_colour_that_is_transparent(stylizer: Stylizer) -> None:
    image = photo(5, 40, 30).convert("P")
    image.info["transparency"] = image.getpixel((3, 4))
    result = stylizer(image)
    assert result.getpixel((3, 4))[3] == 0
    assert "transparency" not in result.info
    result.save(io.BytesIO(), "PNG")


def test_a_pillow_image_is_not_turned(stylizer: Stylizer) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    photo(5, 40, 30).save(file, "PNG", exif=exif)
    result = stylizer(Image.open(file))
    assert result.size == (30, 40)
    assert result.getexif()[274] == 6


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("in.jpg", "'in.jpg' is a path: use stylize_file"),
        (Path("in.jpg"), "'in.jpg' is a path: use stylize_file"),
        (b"JFIF", "bytes are no image: read_picture"),
        ([PIXELS], "a list is no image: hand over one after the other"),
        (None, "a NoneType is no image"),
        (Picture(pixels=PIXELS), "a Picture is what stylize_picture"),
        (PIXELS.long(), "a tensor of torch.int64 is no image: it must be uint8"),
        (PIXELS.numpy().transpose(1, 2, 0) > 9, "an array of bool is no image"),
    ],
)
def test_what_is_no_image_is_refused(stylizer: Stylizer, image: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        stylizer(image)


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((40, 30, 3), r"hand over image\.movedim\(-1, -3\)"),
        ((2, 40, 30, 4), r"hand over image\.movedim\(-1, -3\)"),
        ((4, 40, 30), r"image\[\.\.\., :3, :, :\], or hand over a Pillow image"),
        ((1, 40, 30), r"of a grey one make image\.expand\(3, -1, -1\)"),
        ((40, 30), r"of a grey one make image\.expand\(3, -1, -1\)"),
        ((3,), "no rows and columns"),
        ((0, 3, 40, 30), "it holds no pixels"),
        ((3, 0, 30), "it holds no pixels"),
        ((7, 40, 30), "it has 7 channels"),
    ],
)
def test_a_tensor_of_another_shape_is_told_the_cure(
    stylizer: Stylizer, shape: tuple[int, ...], cure: str
) -> None:
    with pytest.raises(ValueError, match=rf"is no tensor \(\.\.\., 3, H, W\): .*{cure}"):
        stylizer(torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((3, 40, 30), r"hand over numpy\.moveaxis\(image, -3, -1\)"),
        ((40, 30, 4), r"image\[\.\.\., :3\], or hand over a Pillow image"),
        ((40, 30, 1), r"of a grey one make numpy\.dstack\(\[image\] \* 3\)"),
        ((40, 30), r"of a grey one make numpy\.dstack\(\[image\] \* 3\)"),
        ((), "no rows and columns"),
        ((0, 30, 3), "it holds no pixels"),
    ],
)
def test_an_array_of_another_shape_is_told_the_cure(
    stylizer: Stylizer, shape: tuple[int, ...], cure: str
) -> None:
    with pytest.raises(ValueError, match=rf"is no array \(\.\.\., H, W, 3\): .*{cure}"):
        stylizer(np.zeros(shape))


def test_the_cures_cure(stylizer: Stylizer) -> None:
    image = to_float(PIXELS)
    stylizer(image.permute(1, 2, 0).movedim(-1, -3))
    stylizer(image[0].expand(3, -1, -1))
    stylizer(image[:1].expand(3, -1, -1))
    array = image.numpy()
    stylizer(np.moveaxis(array, -3, -1))
    stylizer(np.dstack([array[0]] * 3))
    stylizer(np.dstack([array[0][..., None]] * 3))


def test_floats_in_another_unit_are_refused(stylizer: Stylizer) -> None:
    image = to_float(PIXELS)
    for wrong in (image * 255, image * 4 - 2, image * float("nan")):
        for kind in (wrong, wrong.permute(1, 2, 0).numpy()):
            with pytest.raises(ValueError, match=r"floats must be in \[0, 1\]"):
                stylizer(kind)
    # What bicubic resampling leaves is not cut off.
    stylizer(image * 1.2 - 0.1)


def test_a_pillow_image_of_16_bits_is_refused(stylizer: Stylizer) -> None:
    with pytest.raises(ValueError, match="mode I;16 cannot be taken as it is: convert it to RGB"):
        stylizer(Image.new("I;16", (4, 4)))
    with pytest.raises(ValueError, match="of 0×4 pixels holds nothing"):
        stylizer(Image.new("RGB", (0, 4)))


def test_a_network_comes_from_a_model_bytes_or_a_stream(
    tiny_network: TransformerNet, tmp_path: Path
) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network)
    expected = Stylizer(tiny_network)(PIXELS)
    data = path.read_bytes()
    for source in (load_model(path), data, io.BytesIO(data)):
        assert torch.equal(Stylizer(source)(PIXELS), expected)


def test_a_subclass_loads_itself(tiny_network: TransformerNet) -> None:
    class Mine(Stylizer):
        pass

    mine = Mine.load(tiny_network, strength=0.25)
    assert type(mine) is Mine
    assert torch.equal(mine(PIXELS), Stylizer(tiny_network, strength=0.25)(PIXELS))
    with pytest.raises(TypeError, match="strenght"):
        Stylizer.load(tiny_network, strenght=0.25)


def test_a_stylizer_tells_what_it_does(tiny_network: TransformerNet) -> None:
    assert repr(Stylizer("wave", device="cpu")) == "Stylizer('wave', device='cpu')"
    stylizer = Stylizer(tiny_network, strength=0.5, tile=64, edge="none", device="cpu")
    described = "<TransformerNet of width 4>, device='cpu', tile=64, strength=0.5, edge='none'"
    assert repr(stylizer) == f"Stylizer({described})"
    stylizer = Stylizer(load_model("wave"), stroke_scale=2, size=512, preserve_color="luma")
    for part in ("<model 'wave'>", "stroke_scale=2", "size=512", "preserve_color='luma'"):
        assert part in repr(stylizer)
