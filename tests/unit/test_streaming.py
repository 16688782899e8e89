import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fast_style.checkpoints.files import load_model
from fast_style.images import from_float, to_float
from fast_style.networks import strip_math
from fast_style.networks.streaming import Edge, StreamingTransformer
from fast_style.networks.transformer import TransformerNet


def network(width: int = 4, blocks: int = 2) -> TransformerNet:
    """A network whose norms have scales of both signs and of zero, as training can make them."""
    torch.manual_seed(0)
    net = TransformerNet(width, blocks)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter += 0.5 * torch.randn_like(parameter)
        net.head.weight *= 8
        net.encoder[0].norm.weight[0] = 0
        net.encoder[1].norm.weight[1] = -0.7
        for block in net.residual_blocks:
            block.norm1.weight[2] = -0.1
    return net


def whole(engine: StreamingTransformer, image: torch.Tensor, **options: object) -> torch.Tensor:
    return torch.cat([strip for _, strip in engine.strips(image, **options)], dim=1)


@settings(deadline=None, max_examples=25)
@given(st.integers(6, 90), st.integers(6, 90), st.integers(0, 3))
def test_equals_the_network_for_any_size(height: int, width: int, blocks: int) -> None:
    net = network(blocks=blocks)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(image[None])[0]
    result = whole(StreamingTransformer(net, edge="none"), image)
    assert result.shape == image.shape
    assert (result - expected).abs().max() <= 1e-4 * expected.std()


@settings(deadline=None, max_examples=25)
@given(st.integers(9, 90), st.integers(9, 90))
def test_equals_the_network_on_a_mirrored_image_cut_to_its_size(height: int, width: int) -> None:
    net = network(blocks=1)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(F.pad(image[None], (8, 8, 8, 8), mode="reflect"))[0, :, 8:-8, 8:-8]
    result = whole(StreamingTransformer(net), image)
    assert result.shape == image.shape
    assert (result - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("size", [(1, 40), (2, 3), (3, 5), (8, 8), (40, 1)])
def test_tiny_images_are_mirrored_to_and_fro(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size)
    padded = image.numpy()
    for sides in ([(0, 0), (8, 8), (0, 0)], [(0, 0), (0, 0), (8, 8)]):
        padded = np.pad(padded, sides, mode="reflect")
    with torch.no_grad():
        expected = network()(torch.from_numpy(padded)[None])[0, :, 8:-8, 8:-8]
    result = whole(StreamingTransformer(network()), image)
    assert result.shape == image.shape
    assert (result - expected).abs().max() <= 1e-3 * expected.std()


@pytest.mark.parametrize("edge", ["reflect", "none"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (40, 1)])
def test_keeps_the_size_of_tiny_images(size: tuple[int, int], edge: Edge) -> None:
    result = whole(StreamingTransformer(network(), edge=edge), torch.rand(3, *size))
    assert result.shape[1:] == size
    assert result.isfinite().all()


@pytest.mark.parametrize("edge", ["reflect", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(2050, 203), (1100, 333), (700, 601), (300, 2047)])
def test_strips_of_any_height_give_the_same_bits(
    size: tuple[int, int], dtype: torch.dtype, edge: Edge
) -> None:
    engine = StreamingTransformer(network(), dtype=dtype, edge=edge)
    image = torch.rand(3, *size)
    expected = whole(engine, image, height=10_000)
    for height, recompute in ((1, True), (64, False), (256, True), (1024, False)):
        assert torch.equal(whole(engine, image, height=height, recompute=recompute), expected)


def test_huge_images_have_larger_strips_and_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, image = StreamingTransformer(network()), torch.rand(3, 1100, 333)
    expected = whole(engine, image)
    usual = len(list(engine.strips(image)))
    monkeypatch.setattr("fast_style.networks.streaming._HUGE_PIXELS", 1000)
    monkeypatch.setattr("fast_style.networks.streaming._HUGE_BYTES", 250_000 * 4 * 4)
    assert torch.equal(whole(engine, image), expected)
    assert len(list(engine.strips(image))) < usual


@pytest.mark.slow
@pytest.mark.parametrize("height", [64, 1024])
def test_a_large_image_in_strips_is_the_whole_frame(height: int) -> None:
    engine = StreamingTransformer(network(width=16, blocks=5))
    image = torch.rand(3, 2047, 2049)
    whole_frame = whole(engine, image, height=2047)
    strips = whole(engine, image, height=height, recompute=True)
    assert (strips - whole_frame).abs().max() < 1e-4 * whole_frame.std()
    assert torch.equal(from_float(strips, torch.uint8), from_float(whole_frame, torch.uint8))


def test_strips_come_in_order_and_are_as_high_as_asked() -> None:
    engine = StreamingTransformer(network(blocks=0), edge="none")
    strips = list(engine.strips(torch.rand(3, 420, 1024), height=130))
    assert [first for first, _ in strips] == [0, 160]
    # The last takes along what would have fewer than 131,072 pixels.
    assert [strip.shape[1] for _, strip in strips] == [160, 260]


def test_strips_are_of_the_image_alone() -> None:
    engine = StreamingTransformer(network(blocks=0))
    strips = list(engine.strips(torch.rand(3, 420, 1024), height=130))
    assert [first for first, _ in strips] == [0, 136, 280]
    assert [strip.shape for _, strip in strips] == [(3, rows, 1024) for rows in (136, 144, 140)]


def test_strips_that_hold_only_what_is_around_a_very_wide_image_are_left_out() -> None:
    image = torch.rand(3, 24, 17_000)
    engine = StreamingTransformer(network(width=2, blocks=0))
    strips = list(engine.strips(image, height=8))
    assert [first for first, _ in strips] == [0, 8, 16]
    assert torch.equal(whole(engine, image, height=8), whole(engine, image, height=1000))


def test_image_may_be_overwritten_as_soon_as_strips_come() -> None:
    engine = StreamingTransformer(network())
    pixels = torch.randint(0, 256, (3, 300, 1024), dtype=torch.uint8)
    expected = whole(engine, to_float(pixels))
    for recompute in (False, True):
        image = pixels.clone()
        for first, strip in engine.strips(image, height=128, recompute=recompute):
            torch.testing.assert_close(strip, expected[:, first : first + strip.shape[1]])
            image.fill_(0)


def test_bf16_is_close_to_float32() -> None:
    image = torch.rand(3, 120, 120)
    net = network(width=8)
    exact = whole(StreamingTransformer(net), image)
    rough = whole(StreamingTransformer(net, dtype=torch.bfloat16), image)
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.std()


class Float64Apart(TorchDispatchMode):
    """Fails where float64 and other floats meet otherwise than by being copied."""

    def __torch_dispatch__(
        self,
        function: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = [item for item in args if isinstance(item, torch.Tensor)]
        dtypes = {item.dtype for item in found if item.is_floating_point()}
        copies = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        assert torch.float64 not in dtypes or len(dtypes) == 1 or function in copies, function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float64_may_live_on_another_device_than_the_maps(dtype: torch.dtype) -> None:
    # As it must where the maps are on an Apple GPU.
    engine = StreamingTransformer(network(), dtype=dtype)
    for recompute in (False, True):
        with Float64Apart():
            whole(engine, torch.rand(3, 300, 600), recompute=recompute)


@pytest.mark.parametrize("rows", [5, 24, 29])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_of_all_chunks_at_once_are_those_of_each(rows: int, dtype: torch.dtype) -> None:
    # As a GPU takes them.
    strip = (3 + torch.randn(rows, 40, 8)).to(dtype)
    pairs = list(zip(*strip_math._moments_at_once(strip, 8), strict=True))
    means, variances = (torch.cat(values) for values in pairs)
    for i, chunk in enumerate(strip.double().split(8)):
        torch.testing.assert_close(means[i].double(), chunk.mean((0, 1)), rtol=1e-5, atol=0)
        exact = chunk.var((0, 1), correction=0)
        torch.testing.assert_close(variances[i].double(), exact, rtol=1e-5, atol=0)


def test_statistics_are_those_of_float64_at_a_large_mean() -> None:
    # A bright, low-contrast image is where sums in float32 go wrong.
    net = network().double()
    image = 0.9 + 0.02 * torch.rand(3, 512, 96)
    with torch.no_grad():
        x = net(image[None].double())[0].float()
    result = whole(StreamingTransformer(net.float(), edge="none"), image)
    assert (result - x).abs().max() <= 1e-3 * x.std()


@pytest.mark.parametrize("color", [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (0.9, 0.2, 0.4)])
@pytest.mark.parametrize("size", [(1, 1), (40, 25)])
def test_an_image_of_one_colour_is_stylized_as_the_network_does_it(
    size: tuple[int, int], color: tuple[float, float, float]
) -> None:
    """Rounding, divided by almost no variance, once became a picture of its own."""
    network = load_model("wave").network
    image = torch.tensor(color)[:, None, None].expand(3, *size)
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(image[None].double())[0]
    for edge in ("none", "reflect"):
        streaming = StreamingTransformer(network, edge=edge)
        found = torch.cat([strip for _, strip in streaming.strips(image)], dim=1)
        middle = expected.mean((1, 2), keepdim=True) if edge == "reflect" else expected
        assert (found - middle).abs().max() < 0.03
