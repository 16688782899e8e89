from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from synthetic import photo

from fast_style.images import ImageError, load_image, resize, resize_long_edge, save_image


def write_grid(path: Path, **options: object) -> Path:
    """Write a 3x2 picture whose six pixels differ."""
    values = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
    Image.fromarray(values).save(path, **options)
    return path


def message_for(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_image_is_float32_rgb_in_0_to_1(tmp_path: Path) -> None:
    image = load_image(write_grid(tmp_path / "a.png"))
    assert (image.shape, image.dtype) == ((3, 2, 3), torch.float32)
    expected = torch.arange(18).reshape(2, 3, 3).permute(2, 0, 1) * 14 / 255
    torch.testing.assert_close(image, expected)


def test_a_lossless_file_comes_back_as_it_was(tmp_path: Path) -> None:
    values = torch.arange(256).expand(3, 4, 256) / 255
    path = save_image(values, tmp_path / "a.png")
    assert path == tmp_path / "a.png"
    assert torch.equal(load_image(path), values)


def test_saving_rounds_and_does_not_truncate(tmp_path: Path) -> None:
    values = torch.tensor([99.4, 99.6, 100.4, 254.6]).expand(3, 1, 4) / 255
    pixels = np.asarray(Image.open(save_image(values, tmp_path / "a.png")))
    assert pixels[0, :, 0].tolist() == [99, 100, 100, 255]


def test_saving_clamps(tmp_path: Path) -> None:
    values = torch.tensor([-5.0, -0.01, 1.01, 7.0]).expand(3, 1, 4)
    pixels = np.asarray(Image.open(save_image(values, tmp_path / "a.png")))
    assert pixels[0, :, 1].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp", "a.tif", "a.bmp"])
def test_the_extension_is_the_format(tmp_path: Path, name: str) -> None:
    image = torch.rand(3, 1, 1).expand(3, 8, 9)
    back = load_image(save_image(image, tmp_path / name))
    torch.testing.assert_close(back, image, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.psd"])
def test_a_format_that_cannot_be_written_is_refused_with_a_cure(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        save_image(torch.rand(3, 4, 4), tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert ".png" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tags_are_honoured(tmp_path: Path, orientation: int) -> None:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.open(write_grid(tmp_path / "upright.png"))
    stored = upright.transpose(turn[orientation]) if orientation in turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "stored.png", exif=exif)
    assert torch.equal(load_image(tmp_path / "stored.png"), load_image(tmp_path / "upright.png"))


def test_transparency_is_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [0, 0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    row = load_image(tmp_path / "a.png")[0, 0] * 255
    assert row.tolist() == pytest.approx([255, 204, 0], abs=1)


def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    assert message_for(tmp_path / "gone.jpg") == f"{tmp_path / 'gone.jpg'}: no such image file"
    assert message_for(tmp_path) == f"{tmp_path}: is a folder, not an image file"
    assert message_for(empty) == f"{empty}: is empty"


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    text = tmp_path / "page.jpg"
    text.write_text("<html>")
    assert message_for(text) == f"{text}: not an image file"


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "webp", "tif"])
def test_a_truncated_file_is_named(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"cut.{extension}"
    photo(1, 64, 64).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert message_for(path).startswith(f"{path}: ")


def test_a_bomb_of_compressed_text_is_named(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 70_000_000, zip=True)
    path = tmp_path / "bomb.png"
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    assert message_for(path).startswith(f"{path}: ")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(torch.zeros(3, 4, 4), tmp_path / "a.jpg")
    before = path.read_bytes()

    def half(self: Image.Image, file: object, *_: object, **__: object) -> None:
        file.write(b"half a picture")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(ImageError) as caught:
        save_image(torch.ones(3, 4, 4), path)
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_to_write_into_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a.png"
    with pytest.raises(ImageError, match="cannot be written: No such file or directory"):
        save_image(torch.rand(3, 4, 4), path)


@pytest.mark.parametrize(
    ("size", "edge", "expected"),
    [
        ((40, 80), 20, (10, 20)),
        ((80, 40), 20, (20, 10)),
        ((10, 10), 30, (30, 30)),
        ((1, 1000), 100, (1, 100)),
        ((7, 9), 0, (7, 9)),
    ],
)
def test_the_long_edge_is_resized_and_the_proportions_kept(
    size: tuple[int, int], edge: int, expected: tuple[int, int]
) -> None:
    assert resize_long_edge(torch.rand(3, *size), edge).shape == (3, *expected)


def test_a_resized_image_stays_in_0_to_1_and_keeps_its_mean() -> None:
    board = ((torch.arange(32)[:, None] // 4 + torch.arange(32) // 4) % 2).float()
    small = resize(board.expand(2, 3, 32, 32), 12, 20)
    assert small.shape == (2, 3, 12, 20)
    assert small.min() >= 0
    assert small.max() <= 1
    assert small.mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_resize_to_the_same_size_changes_nothing() -> None:
    image = torch.rand(3, 5, 6)
    assert torch.equal(resize(image, 5, 6), image)
