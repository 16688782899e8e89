"""Pictures that go around: the network's layers, the strips, and rolled photos."""

from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from synthetic import photo
from test_streaming import network, whole
from torch import Tensor, nn

from fast_style.errors import UserError
from fast_style.images import image_to_tensor, read_picture
from fast_style.networks.streaming import StreamingTransformer, Wrap
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer, stylize_file

Axes = Literal["x", "xy"]


def textbook(net: TransformerNet, image: Tensor, wrap: Axes) -> Tensor:
    """The network in plain layers, with circular padding; one axis at a time."""

    def pad(x: Tensor, margin: int, border: str = "reflect") -> Tensor:
        x = F.pad(x, (margin, margin, 0, 0), mode="circular")
        return F.pad(x, (0, 0, margin, margin), mode="circular" if wrap == "xy" else border)

    def norm(x: Tensor, layer: nn.Module) -> Tensor:
        return F.instance_norm(x, weight=layer.weight, bias=layer.bias, eps=layer.eps)

    x = image[None] - 0.5
    for block in net.encoder:
        conv = block.conv
        padded = pad(x, conv.kernel_size[0] // 2)
        x = F.relu(norm(F.conv2d(padded, conv.weight, conv.bias, conv.stride), block.norm))
    for block in net.residual_blocks:
        y = F.relu(norm(F.conv2d(pad(x, 1), block.conv1.weight, block.conv1.bias), block.norm1))
        x = x + norm(F.conv2d(pad(y, 1), block.conv2.weight, block.conv2.bias), block.norm2)
    for block in net.decoder:
        large = pad(F.interpolate(x, scale_factor=2, mode="nearest"), 1)
        x = F.relu(norm(F.conv2d(large, block.conv.weight, block.conv.bias), block.norm))
    return F.conv2d(pad(x, 4), net.head.weight, net.head.bias)[0] / 32 + 0.5


@pytest.mark.parametrize("wrap", ["x", "xy"])
@pytest.mark.parametrize("size", [(8, 8), (16, 40), (64, 12), (72, 88)])
def test_equals_the_network_with_circular_padding(size: tuple[int, int], wrap: Axes) -> None:
    net = network()
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = textbook(net, image, wrap)
    result = whole(StreamingTransformer(net, edge="none", wrap=wrap), image)
    assert (result - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("wrap", ["x", "xy"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strips_of_a_picture_that_goes_around_have_the_bits_of_the_whole(
    wrap: Wrap, recompute: bool, dtype: torch.dtype
) -> None:
    engine = StreamingTransformer(network(), dtype=dtype, wrap=wrap)
    image = torch.rand(3, 1000, 524)
    expected = whole(engine, image, height=10_000)
    assert torch.equal(whole(engine, image, height=1, recompute=recompute), expected)


def test_an_edge_that_is_joined_has_to_be_a_multiple_of_four() -> None:
    engine = StreamingTransformer(network(), wrap="x")
    with pytest.raises(ValueError, match="an edge of 30 pixels is joined: use a multiple of 4"):
        list(engine.strips(torch.rand(3, 20, 30)))


def roll(image: Tensor, rows: int, columns: int) -> Tensor:
    return image.roll((rows, columns), (-2, -1))


@pytest.mark.parametrize("shift", [4, 20, 36])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strength": 0.6, "preserve_color": "luma", "precision": "bf16"},
        {"preserve_color": "histogram", "tile": 8},
        {"stroke_scale": 1.7},
        {"stroke_scale": 0.7, "edge": "none"},
    ],
)
def test_a_panorama_that_is_rolled_by_a_multiple_of_4_gives_the_rolled_picture_to_the_bit(
    options: dict[str, object], shift: int
) -> None:
    stylizer = Stylizer(network(), wrap="x", **options)  # type: ignore[arg-type]
    image = image_to_tensor(photo(1, 24, 60))
    expected = roll(stylizer(image), 0, shift)
    assert torch.equal(stylizer(roll(image, 0, shift)), expected)
    floats = torch.rand(3, 24, 60)
    assert torch.equal(stylizer(roll(floats, 0, shift)), roll(stylizer(floats), 0, shift))


@pytest.mark.parametrize("shift", [(4, 0), (0, 4), (16, 28)])
def test_a_texture_that_is_rolled_gives_the_rolled_picture_to_the_bit(
    shift: tuple[int, int],
) -> None:
    stylizer = Stylizer(network(), wrap="xy")
    image = image_to_tensor(photo(1, 24, 60))
    assert torch.equal(stylizer(roll(image, *shift)), roll(stylizer(image), *shift))


def test_what_repeats_itself_is_rolled_to_the_bit_too() -> None:
    stylizer = Stylizer(network(), wrap="xy")
    diagonal = torch.zeros(3, 32, 32)
    for place in range(8):
        diagonal[:, 4 * place : 4 * place + 4, 4 * place : 4 * place + 4] = 1
    for image in (diagonal, image_to_tensor(photo(1, 8, 12)).repeat(1, 3, 3)):
        assert torch.equal(stylizer(roll(image, 8, 4)), roll(stylizer(image), 8, 4))


def seam(picture: Tensor, dim: int) -> tuple[float, float]:
    """The mean step from the last line to the first one, and that between neighbours inside."""
    steps = (picture.float() - picture.float().roll(1, dim)).abs().mean(0)
    steps = steps.mean(1 if dim == -2 else 0)
    return float(steps[0]), float(steps[1:].median())


@pytest.mark.parametrize("size", [(48, 96), (46, 97)])
@pytest.mark.parametrize("scale", [1, 2, 0.7])
def test_no_seam_is_seen_where_a_picture_meets_itself(size: tuple[int, int], scale: float) -> None:
    y, x = torch.meshgrid(*(torch.arange(edge) / edge for edge in size), indexing="ij")
    waves = torch.stack([(2 * torch.pi * (k * x + y)).sin() for k in (1, 2, 3)]) / 2 + 0.5
    with_seam = Stylizer(network(), stroke_scale=scale)(waves)
    joined = Stylizer(network(), stroke_scale=scale, wrap="xy")(waves)
    for dim in (-1, -2):
        step, usual = seam(joined, dim)
        assert step <= 2 * usual
    assert seam(with_seam, -1)[0] > seam(joined, -1)[0]


def test_a_file_is_stylized_around_with_its_rows_from_the_top(tmp_path: Path) -> None:
    stylizer = Stylizer(network(), wrap="xy")
    photo(1, 300, 40).save(tmp_path / "in.png")
    stylize_file(stylizer, tmp_path / "in.png", tmp_path / "out.png")
    expected = stylizer(read_picture(tmp_path / "in.png").pixels)
    assert torch.equal(read_picture(tmp_path / "out.png").pixels, expected)


def test_an_unknown_way_around_is_refused() -> None:
    with pytest.raises(UserError, match="wrap 'y': use off, x or xy"):
        Stylizer(network(), wrap="y")  # type: ignore[arg-type]
