"""Masks: where a photo is stylized, in the library and in the command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from synthetic import photo
from torch import Tensor

from fast_style.checkpoints.files import save_model
from fast_style.commands.stylize import main
from fast_style.images import (
    from_linear_light,
    image_to_tensor,
    load_image,
    to_float,
    to_linear_light,
)
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer, load_mask
from fast_style.stylization.masks import MaskError

Command = Callable[..., int]


@pytest.fixture
def image() -> Tensor:
    return to_float(image_to_tensor(photo(5, 40, 60)))


@pytest.fixture
def stylize(
    tmp_path: Path, tiny_network: TransformerNet, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run the command with a tiny model in a folder with two photos."""
    monkeypatch.chdir(tmp_path)
    model = save_model(tmp_path / "wave.pth", tiny_network)
    for seed, name in enumerate(("in/a.png", "in/deep/b.png")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photo(seed, 16, 20).save(name)
    return lambda *arguments: main(["--model", str(model), *map(str, arguments)])


def grey(path: str, level: int, size: tuple[int, int] = (20, 16)) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)
    return Path(path)


@pytest.mark.parametrize("look", [{}, {"preserve_color": "histogram"}, {"preserve_color": "luma"}])
def test_black_is_the_photo_white_the_style_and_grey_between_in_linear_light(
    tiny_network: TransformerNet, image: Tensor, look: dict[str, str]
) -> None:
    stylizer = Stylizer(tiny_network, **look)  # type: ignore[arg-type]
    style = stylizer(image)
    mask = torch.zeros(40, 60)
    mask[:, 20:40] = 0.25
    mask[:, 40:] = 1
    result = stylizer(image, mask=mask)
    assert torch.equal(result[..., :20], image[..., :20])
    assert torch.equal(result[..., 40:], style[..., 40:])
    light = 0.75 * to_linear_light(image) + 0.25 * to_linear_light(style)
    torch.testing.assert_close(result[..., 20:40], from_linear_light(light)[..., 20:40])


def test_a_mask_multiplies_the_strength(tiny_network: TransformerNet, image: Tensor) -> None:
    weak = Stylizer(tiny_network, strength=0.3)(image)
    half = Stylizer(tiny_network, strength=0.6)(image, mask=torch.full((40, 60), 0.5))
    torch.testing.assert_close(half, weak)


def test_a_mask_of_another_size_is_scaled_to_the_output(
    tiny_network: TransformerNet, image: Tensor
) -> None:
    mask = torch.zeros(20, 30)
    mask[:, 15:] = 1
    stylizer = Stylizer(tiny_network, size=120)
    result = stylizer(image, mask=mask)
    assert result.shape[-2:] == (80, 120)
    assert torch.equal(result[..., 70:], stylizer(image)[..., 70:])
    plain = Stylizer(tiny_network, size=120, strength=0)(image)
    torch.testing.assert_close(result[..., :50], plain[..., :50])


def test_a_mask_rolls_with_a_panorama(tiny_network: TransformerNet, image: Tensor) -> None:
    stylizer = Stylizer(tiny_network, wrap="x")
    mask = torch.rand(40, 60)
    expected = stylizer(image, mask=mask).roll(8, -1)
    assert torch.equal(stylizer(image.roll(8, -1), mask=mask.roll(8, -1)), expected)
    assert torch.equal(stylizer(image, mask=torch.zeros(40, 60)), image)


def test_a_mask_of_another_shape_is_refused(tiny_network: TransformerNet, image: Tensor) -> None:
    with pytest.raises(MaskError, match="its mask is 60×60 and the photo 60×40"):
        Stylizer(tiny_network)(image, mask=torch.ones(60, 60))


def test_a_mask_is_read_at_its_depth_and_colours_by_their_mean(tmp_path: Path) -> None:
    Image.new("I;16", (3, 2), 12345).save(tmp_path / "deep.png")
    assert load_mask(tmp_path / "deep.png").sub(12345 / 65535).abs().max() < 1e-6
    Image.new("RGB", (3, 2), (255, 0, 51)).save(tmp_path / "rgb.png")
    assert load_mask(tmp_path / "rgb.png").sub(0.4).abs().max() < 1e-6


def test_one_mask_is_for_all_photos_and_named_in_the_manifest(stylize: Command) -> None:
    mask = grey("mask.png", 0)
    assert stylize("in", "--recursive", "-o", "out", "--mask", mask, "--manifest", "m.json") == 0
    assert torch.equal(load_image("out/deep/b.wave.png"), load_image("in/deep/b.png"))
    entries = [json.loads(line) for line in Path("m.json").read_text().splitlines()]
    assert [entry["mask"] for entry in entries] == ["mask.png"] * 2


def test_masks_in_a_folder_have_the_photos_names(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    grey("masks/a.jpg", 0)
    grey("masks/deep/b.png", 255)
    options = ("in", "--recursive", "-o", "out")
    assert stylize(*options, "--mask", "masks") == 0
    assert stylize(*options[:2], "-o", "plain") == 0
    assert torch.equal(load_image("out/a.wave.png"), load_image("in/a.png"))
    assert torch.equal(load_image("out/deep/b.wave.png"), load_image("plain/deep/b.wave.png"))
    Path("masks/a.jpg").unlink()
    capsys.readouterr()
    assert stylize(*options, "--mask", "masks", "--overwrite") == 1
    said = capsys.readouterr().err
    assert "error: in/a.png: its mask: masks/a.png: " in said
    assert said.count("error") == 1


def test_an_output_is_redone_when_its_mask_has_changed(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("in/a.png", "-o", "out", "--mask", grey("mask.png", 255))
    for level, said in ((255, ""), (255, "1 already there, skipped"), (90, "1 redone")):
        grey("mask.png", level)
        assert stylize(*options) == 0
        assert said in capsys.readouterr().err
    assert stylize(*options[:3]) == 0
    assert "1 redone" in capsys.readouterr().err


def test_masks_among_the_photos_are_no_photos(stylize: Command) -> None:
    grey("in/masks/a.png", 0)
    grey("in/masks/deep/b.png", 0)
    assert stylize("in", "--recursive", "-o", "out", "--mask", "in/masks") == 0
    assert sorted(path.name for path in Path("out").rglob("*.png")) == ["a.wave.png", "b.wave.png"]


def test_a_sheet_is_drawn_with_masks(stylize: Command, capsys: pytest.CaptureFixture[str]) -> None:
    grey("masks/a.png", 0, (10, 8))
    sheet = ("in", "--recursive", "--sheet", "s.png", "--size", "20", "--mask", "masks")
    assert stylize(*sheet) == 1
    assert "error: in/deep/b.png: its mask: masks/b.png" in capsys.readouterr().err
    cells = load_image("s.png")[:, 12 : 12 + 16]
    assert torch.equal(cells[..., 12:32], cells[..., 44:64])


@pytest.mark.parametrize("mask", ["masks", "masks/a.png"])
@pytest.mark.parametrize("option", ["-o", "--sheet"])
def test_a_mask_is_never_overwritten(
    stylize: Command, capsys: pytest.CaptureFixture[str], mask: str, option: str
) -> None:
    before = grey("masks/a.png", 255).read_bytes()
    Path("link.png").symlink_to("masks/a.png")
    for output in ("masks/a.png", "link.png"):
        arguments = ["in/a.png", "--mask", mask, option, output, "--overwrite"]
        assert stylize(*arguments) == 2
        assert f"{output}: is a mask, and inputs are never over" in capsys.readouterr().err
    assert Path("masks/a.png").read_bytes() == before


@pytest.mark.parametrize("option", [[], ["--sheet", "s.png"]])
def test_masks_alone_are_told(
    stylize: Command, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    mask = grey("masks/a.png", 255)
    assert stylize(mask, "--mask", mask, *option) == 2
    assert "there are no photos beside the masks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("gone.png", "gone.png: no such mask, or folder of masks"),
        ("empty", "empty: holds no masks"),
    ],
)
def test_a_place_without_masks_is_refused_before_any_work(
    stylize: Command, capsys: pytest.CaptureFixture[str], mask: str, message: str
) -> None:
    Path("empty").mkdir()
    assert stylize("in", "-o", "out", "--mask", mask) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_mask_of_other_proportions_is_its_photos_error(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    grey("masks/a.png", 255, (20, 20))
    grey("masks/b.png", 255)
    assert stylize("in", "--recursive", "-o", "out", "--mask", "masks") == 1
    assert "error: in/a.png: its mask is 20×20 and the photo 20×16" in capsys.readouterr().err
    assert Path("out/deep/b.wave.png").exists()
