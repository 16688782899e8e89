"""The artefact alarm: quiet at good pictures, loud at constructed bad ones."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from synthetic import photo
from torch import Tensor

from fast_style.images import image_to_tensor, load_image, resize_long_edge, to_float
from fast_style.training.artefacts import artefact_scores, find_artefacts

STYLES = sorted((Path(__file__).parents[2] / "styles").glob("*.jpg"))
SMALL = (1, 2, 3, 31, 33)


def content(seed: int = 1, height: int = 150, width: int = 200) -> Tensor:
    return to_float(image_to_tensor(photo(seed, height, width)))


def kinds(stylized: Tensor, photo_: Tensor | None = None) -> list[str]:
    """Return the first word of each alarm."""
    return [
        re.split("[ :]", s.removeprefix("a "))[0]
        for s in find_artefacts(content() if photo_ is None else photo_, stylized)
    ]


def grid_of(height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")


GRIDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "checks of 2 by 2 pixels": lambda y, x: 1 - 2.0 * ((y // 2 + x // 2) % 2),
    "checks of single pixels": lambda y, x: 1 - 2.0 * ((y + x) % 2),
    "columns": lambda y, x: 1 - 2.0 * (x // 2 % 2),
    "rows": lambda y, x: 1 - 2.0 * (y // 2 % 2),
    "a wave": lambda y, x: torch.cos(torch.pi / 2 * y + 0.4) * torch.cos(torch.pi / 2 * x),
}


@pytest.mark.parametrize("seed", range(4))
def test_a_photo_and_itself_are_quiet(seed: int) -> None:
    assert find_artefacts(content(seed), content(seed)) == []
    scores = artefact_scores(content(seed))
    assert list(scores) == ["deviation", "grid", "hot_pixels"]
    assert 0.8 < scores["grid"] < 1.6
    assert scores["hot_pixels"] < 1e-4


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.stem)
def test_the_style_images_are_quiet_at_the_sizes_of_a_preview(path: Path) -> None:
    for edge in (384, 512):
        style = resize_long_edge(load_image(path), edge)
        assert find_artefacts(content(), style) == []


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_one_flat_colour_is_flat(level: float) -> None:
    flat = torch.full((3, 150, 200), level)
    assert artefact_scores(flat) == {"deviation": 0, "grid": 1, "hot_pixels": 0}
    (sentence,) = find_artefacts(content(), flat)
    assert sentence.startswith("flat: its standard deviation, 0.000, is 0% of the photo's")
    assert "alarm under 20%" in sentence


def test_a_tenth_of_the_contrast_is_flat_and_half_is_not() -> None:
    image = content()
    assert kinds(0.5 + 0.1 * (image - 0.5)) == ["flat"]
    assert kinds(0.5 + 0.5 * (image - 0.5)) == []


def test_a_flat_photo_may_stay_flat() -> None:
    flat = torch.full((3, 64, 64), 0.3)
    assert find_artefacts(flat, flat) == []
    assert find_artefacts(flat, content(1, 64, 64)) == []


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("amplitude", [0.03, 0.1])
def test_a_grid_of_the_networks_upsampling_is_heard(name: str, amplitude: float) -> None:
    image = 0.2 + 0.6 * content()
    pattern = GRIDS[name](*grid_of(*image.shape[1:]))
    assert kinds(image + amplitude * pattern) == ["grid"]
    pattern[:, :100] = 0  # over half of the picture is enough, if it is stronger
    assert kinds(image + 2 * amplitude * pattern) == ["grid"]
    (sentence,) = find_artefacts(image, image + 2 * amplitude * pattern)
    assert re.match(r"a grid of 4 or 2 pixels: [\d.]+ times", sentence)


@pytest.mark.parametrize("period", [3, 5, 6, 7])
def test_a_pattern_of_another_period_is_the_styles_affair(period: int) -> None:
    y, x = grid_of(150, 200)
    pattern = torch.cos(2 * torch.pi / period * x) * torch.cos(2 * torch.pi / period * y)
    assert kinds(0.2 + 0.6 * content() + 0.05 * pattern) == []


def test_a_grid_too_faint_to_be_seen_is_none() -> None:
    y, x = grid_of(150, 200)
    assert kinds(content() + 0.002 * GRIDS["checks of single pixels"](y, x)) == []


def test_edges_and_stripes_along_the_axes_are_no_grid() -> None:
    image = torch.zeros(3, 128, 128)
    image[:, 37:] = 1  # all its energy is in one line of the spectrum
    assert artefact_scores(image)["grid"] < 1.5
    assert artefact_scores(image.transpose(1, 2))["grid"] < 1.5


def test_what_the_content_has_is_not_held_against_the_picture() -> None:
    y, x = grid_of(150, 200)
    fabric = 0.2 + 0.6 * content() + 0.1 * GRIDS["columns"](y, x)
    assert find_artefacts(fabric, fabric) == []
    starry_sky = with_salt(content(), 0.003)
    assert find_artefacts(starry_sky, starry_sky) == []


def with_salt(image: Tensor, share: float, value: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    hit = torch.rand(1, *image.shape[1:], generator=generator) < share
    return torch.where(hit, torch.full_like(image, value), image)


@pytest.mark.parametrize("share", [0.001, 0.01])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_salt_and_pepper_are_hot_pixels(share: float, value: float) -> None:
    image = 0.25 + 0.5 * content(1, 300, 400)
    assert kinds(with_salt(image, share, value), image) == ["hot"]


def test_a_coloured_dot_is_hot_even_where_its_luma_is_that_of_its_surroundings() -> None:
    image = torch.full((3, 200, 200), 0.3)
    image[2, 5::20, 5::20] = 1.0  # 100 dots of blue
    assert artefact_scores(image)["hot_pixels"] == pytest.approx(100 / 40_000)
    assert kinds(image, image.clamp(max=0.31)) == ["hot"]


def test_thin_lines_are_not_hot() -> None:
    image = torch.zeros(3, 90, 90)
    image[:, ::7] = 1
    assert artefact_scores(image)["hot_pixels"] == 0


def test_a_few_dots_are_no_alarm_however_small_the_picture() -> None:
    image = torch.full((3, 32, 32), 0.2)
    image[:, 10, 10] = 1
    assert kinds(image, torch.full((3, 32, 32), 0.2)) == []


@pytest.mark.parametrize("height", SMALL)
@pytest.mark.parametrize("width", SMALL)
def test_every_size_has_scores(height: int, width: int) -> None:
    image = content(2, 64, 64)[:, :height, :width]
    scores = artefact_scores(image)
    assert all(0 <= score < 100 for score in scores.values())
    assert find_artefacts(image, image) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_picture_is_said_to_be_none(value: float) -> None:
    image = content()
    image[1, 5, 5] = value
    assert find_artefacts(content(), image) == ["not a picture: it holds NaN or infinite values"]


def test_values_out_of_range_count_as_they_are_saved() -> None:
    image = content()
    beyond = torch.where(image > 0.8, image + 5, image)
    assert artefact_scores(beyond) == artefact_scores(beyond.clamp(0, 1))
    assert kinds(torch.full((3, 64, 64), -3.0) + 1e-3 * content(1, 64, 64)) == ["flat"]


def test_arguments_are_left_alone_and_gradients_do_not_matter() -> None:
    image = content().requires_grad_()
    before = image.detach().clone()
    artefact_scores(image)
    assert find_artefacts(image, image) == []
    assert torch.equal(image, before)
