"""Stylizer as a library: what its keywords do, and that none of them depends on the strips."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from synthetic import photo
from torch import Tensor

from fast_style import Picture, Stylizer, stylize_file, stylize_picture
from fast_style.checkpoints.files import CheckpointError, save_model
from fast_style.images import (
    ImageError,
    from_float,
    from_linear_light,
    image_to_tensor,
    load_image,
    read_picture,
    resize,
    to_float,
    to_linear_light,
)
from fast_style.networks.streaming import StreamingTransformer
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import looks

LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
LOOKS: list[dict[str, Any]] = [
    {},
    {"strength": 0.6},
    {"preserve_color": "luma", "strength": 0.8},
    {"preserve_color": "histogram"},
    {"stroke_scale": 2.0},
    {"stroke_scale": 0.6},
    {"size": 300, "preserve_color": "luma"},
    {"edge": "none"},
]


@pytest.fixture
def image() -> Tensor:
    return to_float(image_to_tensor(photo(5, 90, 70)))


@pytest.fixture
def plain(tiny_network: TransformerNet, image: Tensor) -> Tensor:
    """What the network makes of the image, with no keyword."""
    return Stylizer(tiny_network)(image)


def test_a_network_a_path_and_a_name_are_the_same(
    tiny_network: TransformerNet,
    image: Tensor,
    plain: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("checkpoints/mine/mine.pth")
    path.parent.mkdir(parents=True)
    save_model(path, tiny_network)
    for model in (path, str(path), "mine"):
        assert torch.equal(Stylizer(model)(image), plain)
        assert torch.equal(Stylizer.load(model)(image), plain)
    blended = Stylizer(tiny_network, strength=0.5)(image)
    assert torch.equal(Stylizer.load("mine", strength=0.5)(image), blended)
    with pytest.raises(CheckpointError, match="gone"):
        Stylizer.load("gone")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"strength": -0.1}, r"strength -0\.1 is impossible"),
        ({"strength": "0.5"}, r"strength '0\.5' is impossible"),
        ({"strength": None}, "strength None is impossible"),
        ({"size": "512"}, "size '512' is impossible"),
        ({"stroke_scale": "2"}, "stroke_scale '2' is impossible"),
        ({"strength": float("nan")}, "strength nan is impossible"),
        ({"preserve_color": "chroma"}, "preserve_color 'chroma': use off, luma or histogram"),
        ({"size": 0}, "size 0 is impossible"),
        ({"stroke_scale": 0.0}, r"stroke_scale 0\.0 is impossible"),
        ({"stroke_scale": float("inf")}, "stroke_scale inf is impossible"),
        ({"tile": 0}, "tile 0: use auto, off"),
        ({"tile": "big"}, "tile 'big': use auto, off"),
        ({"edge": "mirror"}, "edge 'mirror': use reflect or none"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_an_impossible_keyword_is_named(
    tiny_network: TransformerNet, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Stylizer(tiny_network, **keywords)


def test_a_batch_is_each_of_its_images(tiny_network: TransformerNet, image: Tensor) -> None:
    stylizer = Stylizer(tiny_network, size=40)
    images = torch.stack([image, image.flip(-1)])
    assert stylizer(images).shape == (2, 3, 40, 31)
    assert torch.equal(stylizer(images[None])[0, 1], stylizer(images[1]))


def test_no_frame_is_drawn_unless_asked_for(tiny_network: TransformerNet, image: Tensor) -> None:
    with torch.no_grad():
        own = tiny_network(image[None])[0]
        mirrored = tiny_network(F.pad(image[None], (8, 8, 8, 8), mode="reflect"))[0, :, 8:-8, 8:-8]
    for keywords, expected in (({}, mirrored), ({"edge": "none"}, own)):
        result = Stylizer(tiny_network, **keywords)(image)
        torch.testing.assert_close(result, expected.clamp(0, 1), atol=1e-4, rtol=0)


def test_strength_blends_in_linear_light(
    tiny_network: TransformerNet, image: Tensor, plain: Tensor
) -> None:
    torch.testing.assert_close(Stylizer(tiny_network, strength=0)(image), image)
    half = Stylizer(tiny_network, strength=0.5)(image)
    light = (to_linear_light(image) + to_linear_light(plain)) / 2
    torch.testing.assert_close(half, from_linear_light(light))


def test_luma_keeps_the_chroma_of_the_photo(
    tiny_network: TransformerNet, image: Tensor, plain: Tensor
) -> None:
    # Of little chroma, so that hardly anything is cut off at black and white.
    image = (0.9 * image.mean(0) + 0.1 * image) / 2 + 0.25
    plain = Stylizer(tiny_network)(image)
    result = Stylizer(tiny_network, preserve_color="luma")(image)
    inside = ((result > 0) & (result < 1)).all(0)
    assert inside.float().mean() > 0.3
    luma = [(LUMA * part).sum(0) for part in (result, image, plain)]
    chroma = (result - luma[0]) - (image - luma[1])
    assert chroma[:, inside].abs().max() < 1e-5
    assert (luma[0] - luma[2])[inside].abs().max() < 1e-5


def test_histogram_gives_the_colours_of_the_photo(
    tiny_network: TransformerNet, image: Tensor
) -> None:
    # Of little contrast, so that nothing is cut off at black and white.
    image = 0.45 + image / 10
    result = Stylizer(tiny_network, preserve_color="histogram")(image)
    torch.testing.assert_close(result.mean((1, 2)), image.mean((1, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        result.flatten(1).cov(), image.flatten(1).cov(), atol=2e-4, rtol=0.05
    )


def test_a_photo_of_one_colour_has_no_histogram_to_match(tiny_network: TransformerNet) -> None:
    image = torch.full((3, 40, 50), 0.5)
    result = Stylizer(tiny_network, preserve_color="histogram")(image)
    assert (result.mean((1, 2)) - 0.5).abs().max() < 0.1


def test_size_is_that_of_the_long_edge(tiny_network: TransformerNet, image: Tensor) -> None:
    for size, expected in ((45, (45, 35)), (90, (90, 70)), (120, (120, 93)), (1, (1, 1))):
        stylizer = Stylizer(tiny_network, size=size)
        assert stylizer.output_size(90, 70) == expected
        assert stylizer(image).shape == (3, *expected)
    assert Stylizer(tiny_network).output_size(90, 70) == (90, 70)
    small = Stylizer(tiny_network, size=45)(image)
    assert torch.equal(small, Stylizer(tiny_network)(resize(image, 45, 35)))


@pytest.mark.parametrize("scale", [0.5, 1.7, 3, 64])
def test_strokes_grow_and_the_size_stays(
    tiny_network: TransformerNet, image: Tensor, plain: Tensor, scale: float
) -> None:
    result = Stylizer(tiny_network, stroke_scale=scale)(image)
    assert result.shape == image.shape
    assert 0 <= result.min() <= result.max() <= 1
    assert not torch.equal(result, plain)


def test_edges_stay_sharp_where_strokes_grow() -> None:
    photograph = torch.zeros(3, 64, 64)
    photograph[:, :, 30:] = 1
    small = resize(photograph, 16, 16)
    strips = list(looks.upsample_along_edges(1 - small, small, photograph))
    assert [first for first, _ in strips] == [0]
    result = strips[0][1]
    # Bilinear upsampling would take four columns from one to the other.
    assert (result[:, :, 29] - result[:, :, 30]).min() > 0.7


def test_strokes_that_the_photo_knows_nothing_of_are_enlarged_and_kept() -> None:
    photograph, small = torch.full((3, 90, 120), 0.5), torch.full((3, 30, 40), 0.5)
    strokes = torch.zeros(3, 30, 40)
    strokes[:, ::4] = strokes[:, 1::4] = 1
    result = torch.cat(
        [strip for _, strip in looks.upsample_along_edges(strokes, small, photograph)], 1
    )
    # Three times as large, they are where they were: rows 6 k of three are bright, dark in turn.
    assert ((result[:, 1::12] > 0.75) & (result[:, 4::12] > 0.75)).all()
    assert ((result[:, 7::12] < 0.25) & (result[:, 10::12] < 0.25)).all()


def test_what_is_smooth_is_enlarged_exactly() -> None:
    ramp = torch.linspace(0.1, 0.9, 40).expand(3, 30, 40)
    photograph = torch.full((3, 90, 120), 0.5)
    result = torch.cat(
        [
            strip
            for _, strip in looks.upsample_along_edges(
                ramp, torch.full((3, 30, 40), 0.5), photograph
            )
        ],
        1,
    )
    step = 0.8 / 39 / 3
    expected = 0.1 + step * (torch.arange(120) - 1)
    torch.testing.assert_close(result[..., 6:-6], expected[6:-6].expand(3, 90, 108))


@pytest.mark.parametrize("model", ["wave", "great_wave"])
def test_strokes_twice_as_large_are_strokes(model: str) -> None:
    found = find_spec("skimage")
    if found is None or found.origin is None:
        pytest.skip("needs a real photo, which the demo extra brings")
    image = load_image(Path(found.origin).parent / "data" / "coffee.png")

    def gradient(picture: Tensor) -> float:
        luma = (LUMA * picture).sum(0)
        return float(luma.diff(dim=0).abs().mean() + luma.diff(dim=1).abs().mean())

    once, twice = (Stylizer(model, stroke_scale=scale)(image) for scale in (1, 2))
    assert gradient(twice) > 0.5 * gradient(once)


def test_rows_are_upsampled_the_same_in_strips_of_any_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photograph = torch.rand(3, 101, 40)
    small = resize(photograph, 37, 15)
    results = []
    for rows in (7, 256):
        monkeypatch.setattr(looks, "_BAND_ROWS", rows)
        strips = looks.upsample_along_edges(small, small, photograph)
        results.append(torch.cat([strip for _, strip in strips], dim=1))
    assert torch.equal(*results)


@pytest.mark.parametrize("keywords", LOOKS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integers_are_floats_rounded(
    tiny_network: TransformerNet, keywords: dict[str, Any], dtype: torch.dtype
) -> None:
    pixels = from_float(to_float(image_to_tensor(photo(7, 110, 150))), dtype)
    stylizer = Stylizer(tiny_network, **keywords)
    expected = stylizer(to_float(pixels))
    result = stylizer.stylize_pixels(pixels.clone())
    assert result.dtype == dtype
    # What is resized, or matched once all of it is known, is rounded on the way too.
    twice = {"size", "preserve_color"} & set(keywords)
    difference = (to_float(result) - expected).abs() * torch.iinfo(dtype).max
    assert difference.mean() < (2 if twice else 0.5)
    assert difference.max() < (60 if twice else 1)


@pytest.mark.parametrize("keywords", LOOKS)
def test_tiles_change_nothing(tiny_network: TransformerNet, keywords: dict[str, Any]) -> None:
    pixels = torch.randint(256, (3, 420, 900), dtype=torch.uint8)
    results = [
        Stylizer(tiny_network, tile=tile, **keywords).stylize_pixels(pixels.clone())
        for tile in ("auto", "off", 64, 10_000)
    ]
    assert all(torch.equal(result, results[0]) for result in results[1:])


def test_an_image_is_not_changed(tiny_network: TransformerNet, image: Tensor) -> None:
    before = image.clone()
    for keywords in LOOKS:
        Stylizer(tiny_network, **keywords)(image)
        assert torch.equal(image, before)


def test_a_picture_keeps_its_transparency(tiny_network: TransformerNet) -> None:
    alpha = torch.zeros(20, 30, dtype=torch.int32)
    alpha[:, 15:] = 50_000
    pixels = from_float(torch.rand(3, 20, 30), torch.uint16)
    picture = Picture(pixels=pixels, alpha=alpha.to(torch.uint16))
    result = stylize_picture(Stylizer(tiny_network, size=60), picture)
    assert result.alpha is not None
    assert result.alpha.shape == result.pixels.shape[1:] == (40, 60)
    assert result.alpha[:, :24].int().max() == 0
    assert result.alpha[:, 36:].int().unique().tolist() == [50_000]


def test_a_file_becomes_a_file(tiny_network: TransformerNet, tmp_path: Path) -> None:
    photo(1, 30, 40).save(tmp_path / "a.png")
    stylizer = Stylizer(tiny_network)
    output = stylize_file(stylizer, tmp_path / "a.png", tmp_path / "b.png")
    assert output == tmp_path / "b.png"
    expected = stylizer(load_image(tmp_path / "a.png"))
    assert torch.equal(read_picture(output).pixels, from_float(expected, torch.uint8))


def test_a_file_too_long_for_its_format_is_refused_before_the_work(
    tiny_network: TransformerNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(1, 1, 16384).save(tmp_path / "a.png")

    def strips(*_: object, **__: object) -> None:
        raise AssertionError("the network has run")

    monkeypatch.setattr(StreamingTransformer, "strips", strips)
    with pytest.raises(ImageError, match=r"b\.webp: cannot be written: 16384×1 is over the 16383"):
        stylize_file(Stylizer(tiny_network), tmp_path / "a.png", tmp_path / "b.webp")
    with pytest.raises(ImageError, match=r"b\.jpg: cannot be written: 65501×4 is over the 65500"):
        stylize_file(Stylizer(tiny_network, size=65501), tmp_path / "a.png", tmp_path / "b.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
