"""A camera's raw file, made here: a DNG of a sensor's mosaic, and the photo that it becomes."""

from pathlib import Path

import numpy as np
import pytest
from gradients import Array, light
from mosaics import write_dng

from fast_style.images import read_picture, read_size

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("rawpy")


def scene() -> Array:
    """Return grey at the left, orange at the right, and a band of the brightest light above."""
    patches = np.full((64, 96, 3), 0.18)
    patches[:, 48:] = 0.6, 0.15, 0.05
    patches[:8] = 0.9
    return patches


def srgb(linear: Array) -> Array:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_dng_is_developed_with_the_cameras_white_into_srgb(
    tmp_path: Path, order: str, nested: bool
) -> None:
    write_dng(tmp_path / "a.dng", scene(), order=order, nested=nested)
    picture = read_picture(tmp_path / "a.dng")
    assert picture.pixels.shape == (3, 64, 96)
    assert picture.pixels.element_size() == 2
    assert (picture.file_format, picture.notes) == ("RAW", ())
    found = light(picture)
    # The brightest light becomes white.
    for y, x in ((40, 20), (40, 70), (3, 20)):
        assert np.abs(found[y, x] - srgb(scene()[y, x] / 0.9)).max() < 0.004


def test_a_turned_dng_is_upright(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", scene(), orientation=6)  # turn by 90 degrees clockwise
    picture = read_picture(tmp_path / "a.dng")
    assert picture.pixels.shape == (3, 96, 64)
    assert read_size(tmp_path / "a.dng") == (64, 96)
    assert light(picture)[20, 60].min() > 0.99  # what was above is at the right


def test_a_dng_of_another_kind_is_read_by_its_extension_in_folders(tmp_path: Path) -> None:
    from fast_style.data.photos import find_images, scan_images

    write_dng(tmp_path / "a.dng", scene())
    scan = scan_images(find_images([tmp_path]))
    assert (scan.usable, scan.sizes) == ([tmp_path / "a.dng"], [(96, 64)])
