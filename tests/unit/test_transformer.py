from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fast_style.networks import transformer
from fast_style.networks.transformer import (
    TransformerNet,
    Upsampling,
    conv2d_two_by_two,
    pad_to_stride,
    reflect,
    replicate_one,
    upsample_conv2d,
    upsample_kernel,
)

KEYS_AND_SHAPES = {
    "encoder.0.conv.weight": (4, 3, 9, 9),
    "encoder.0.conv.bias": (4,),
    "encoder.0.norm.weight": (4,),
    "encoder.0.norm.bias": (4,),
    "encoder.1.conv.weight": (8, 4, 3, 3),
    "encoder.1.conv.bias": (8,),
    "encoder.1.norm.weight": (8,),
    "encoder.1.norm.bias": (8,),
    "encoder.2.conv.weight": (16, 8, 3, 3),
    "encoder.2.conv.bias": (16,),
    "encoder.2.norm.weight": (16,),
    "encoder.2.norm.bias": (16,),
    "residual_blocks.0.conv1.weight": (16, 16, 3, 3),
    "residual_blocks.0.conv1.bias": (16,),
    "residual_blocks.0.norm1.weight": (16,),
    "residual_blocks.0.norm1.bias": (16,),
    "residual_blocks.0.conv2.weight": (16, 16, 3, 3),
    "residual_blocks.0.conv2.bias": (16,),
    "residual_blocks.0.norm2.weight": (16,),
    "residual_blocks.0.norm2.bias": (16,),
    "decoder.0.conv.weight": (8, 16, 3, 3),
    "decoder.0.conv.bias": (8,),
    "decoder.0.norm.weight": (8,),
    "decoder.0.norm.bias": (8,),
    "decoder.1.conv.weight": (4, 8, 3, 3),
    "decoder.1.conv.bias": (4,),
    "decoder.1.norm.weight": (4,),
    "decoder.1.norm.bias": (4,),
    "head.weight": (3, 4, 9, 9),
    "head.bias": (3,),
}


class PlainTransformer(nn.Module):
    """The architecture in torch's own layers, for sizes that are a multiple of 4 and at least 8."""

    def __init__(self, width: int, num_residual_blocks: int) -> None:
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            self.block(3, w, 9), self.block(w, 2 * w, 3, 2), self.block(2 * w, 4 * w, 3, 2)
        )
        self.residual_blocks = nn.Sequential(
            *(PlainResidual(4 * w) for _ in range(num_residual_blocks))
        )
        self.decoder = nn.Sequential(self.block(4 * w, 2 * w, 3), self.block(2 * w, w, 3))
        self.head = nn.Conv2d(w, 3, 9, padding=4, padding_mode="reflect")

    @staticmethod
    def block(channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
        block = nn.Module()
        block.conv = nn.Conv2d(
            channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            padding_mode="reflect",
        )
        block.norm = nn.InstanceNorm2d(out_channels, affine=True)
        return block

    def forward(self, images: Tensor) -> Tensor:
        x = images - 0.5
        for block in self.encoder:
            x = block.norm(block.conv(x)).relu()
        x = self.residual_blocks(x)
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block.norm(block.conv(x)).relu()
        return self.head(x) / 32 + 0.5


class PlainResidual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        for i in (1, 2):
            conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", nn.InstanceNorm2d(channels, affine=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))


def scrambled(width: int, num_residual_blocks: int) -> TransformerNet:
    """Return a network whose affine maps are not the identity that they begin as."""
    network = TransformerNet(width, num_residual_blocks)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(("width", "count"), [(32, 1_679_235), (16, 424_899)])
def test_the_number_of_parameters_is_the_architectures(width: int, count: int) -> None:
    assert sum(p.numel() for p in TransformerNet(width).parameters()) == count


def test_keys_and_shapes_of_the_weights_are_the_file_format() -> None:
    state = TransformerNet(width=4, num_residual_blocks=1).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == KEYS_AND_SHAPES


@given(height=st.integers(1, 17), width=st.integers(1, 17))
def test_the_output_has_the_size_of_a_small_input(height: int, width: int) -> None:
    network = TransformerNet(width=2, num_residual_blocks=1)
    with torch.no_grad():
        output = network(torch.rand(1, 3, height, width))
    assert output.shape == (1, 3, height, width)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("size", [(31, 33), (64, 37), (1, 200), (200, 2), (101, 103)])
def test_the_output_has_the_size_of_an_odd_input(size: tuple[int, int]) -> None:
    network = TransformerNet(width=2, num_residual_blocks=1)
    with torch.no_grad():
        assert network(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_padding_reaches_a_multiple_of_4_and_keeps_the_image(height: int, width: int) -> None:
    images = torch.rand(1, 3, height, width)
    padded = pad_to_stride(images)
    for size, new in zip((height, width), padded.shape[-2:], strict=True):
        assert new == max(8, -(-size // 4) * 4)
    assert torch.equal(padded[..., :height, :width], images)


def test_padding_reflects_where_the_size_allows() -> None:
    row = torch.arange(10.0).expand(1, 3, 12, 10)
    assert pad_to_stride(row)[0, 0, 0].tolist() == [*range(10), 8, 7]


def test_padding_replicates_where_the_image_is_too_small() -> None:
    row = torch.arange(2.0).expand(1, 3, 8, 2)
    assert pad_to_stride(row)[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("size", [(16, 12), (24, 20)])
def test_equals_the_plain_statement_of_the_architecture(
    batch_size: int, size: tuple[int, int]
) -> None:
    network = scrambled(8, 2)
    plain = PlainTransformer(8, 2)
    plain.load_state_dict(network.state_dict())
    images = torch.rand(batch_size, 3, *size)
    torch.testing.assert_close(network(images), plain(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_gradients_equal_those_of_the_plain_architecture(batch_size: int) -> None:
    network = scrambled(8, 2)
    plain = PlainTransformer(8, 2)
    plain.load_state_dict(network.state_dict())
    images, target = torch.rand(2, batch_size, 3, 24, 20)
    for module in (network, plain):
        (module(images) - target).square().mean().backward()
    expected = {name: p.grad for name, p in plain.named_parameters()}
    # A norm takes the constants before it away: their gradients are zero but for rounding. (What
    # the residual blocks add passes through a norm, too.)
    without = ("conv.bias", "conv1.bias", "conv2.bias", "norm2.bias")
    compared = [name for name in expected if not name.endswith(without)]
    assert len(compared) == len(expected) - 9 - 2
    for name, parameter in network.named_parameters():
        if name in compared:
            error = (parameter.grad - expected[name]).norm() / expected[name].norm()
            assert error < 1e-3, name


def test_an_image_in_a_batch_is_stylized_as_if_alone(tiny_network: TransformerNet) -> None:
    images = torch.rand(3, 3, 21, 18)
    with torch.no_grad():
        alone = torch.cat([tiny_network(image[None]) for image in images])
        torch.testing.assert_close(tiny_network(images), alone, rtol=0, atol=1e-5)


def test_the_input_is_not_changed(tiny_network: TransformerNet) -> None:
    images = torch.rand(1, 3, 16, 16)
    before = images.clone()
    with torch.no_grad():
        tiny_network(images)
    assert torch.equal(images, before)


def test_the_output_is_not_clamped() -> None:
    network = TransformerNet(width=2, num_residual_blocks=0)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([-64.0, 0.0, 64.0]))
        output = network(torch.rand(1, 3, 8, 8))
    assert output.mean(dim=(0, 2, 3)).tolist() == [-1.5, 0.5, 2.5]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5)])
def test_upsample_conv2d_equals_torchs_upsampling_and_convolution(
    bias: bool, size: tuple[int, int]
) -> None:
    x, weight = torch.randn(2, 3, *size), torch.randn(5, 3, 3, 3)
    offset = torch.randn(5) if bias else None
    upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(F.pad(upsampled, (1, 1, 1, 1), mode="reflect"), weight, offset)
    torch.testing.assert_close(upsample_conv2d(x, weight, offset), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_conv2d_two_by_two_equals_torchs_convolution(bias: bool, kernel_size: int) -> None:
    edge = kernel_size - 1
    x = torch.randn(2, 4, 8 + edge, 6 + edge)
    weight = torch.randn(3, 4, kernel_size, kernel_size)
    offset = torch.randn(3) if bias else None
    expected = F.conv2d(x, weight, offset)
    torch.testing.assert_close(conv2d_two_by_two(x, weight, offset), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_the_kernel_that_a_gpu_computes_is_the_cpus(upsampling: Upsampling) -> None:
    weight = torch.randn(6, 5, 3, 3)
    found = transformer._upsample_kernel_on_device(weight, upsampling)
    torch.testing.assert_close(found, upsample_kernel(weight, upsampling), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("mode", "padding"), [("reflect", 1), ("reflect", 4), ("replicate", 1)])
def test_padding_pixels_as_a_volume_is_padding_the_image(mode: str, padding: int) -> None:
    x = torch.randn(2, 5, 9, 11).contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for padded in (
        transformer._pad_pixels(x, padding, mode),
        F.pad(x, (padding,) * 4, mode=mode),
    ):
        assert padded.is_contiguous(memory_format=torch.channels_last)
        results.append((padded, torch.autograd.grad(padded.square().sum(), x)[0]))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(our_gradient, their_gradient)


@pytest.mark.parametrize(
    ("pad", "mode", "padding"),
    [
        (lambda x: reflect(x, 1), "reflect", 1),
        (lambda x: reflect(x, 4), "reflect", 4),
        (replicate_one, "replicate", 1),
    ],
)
def test_padding_in_half_precision_is_torchs_with_its_gradient(
    pad: Callable[[Tensor], Tensor], mode: str, padding: int
) -> None:
    x = torch.randn(2, 5, 9, 11).bfloat16().requires_grad_()
    wanted_x = x.detach().float().requires_grad_()
    padded, wanted = pad(x), F.pad(wanted_x, (padding,) * 4, mode=mode)
    assert padded.dtype == torch.bfloat16
    assert torch.equal(padded.float(), wanted)
    gradient = torch.randint(-8, 8, wanted.shape).float()  # whole numbers: sums are exact
    padded.backward(gradient.bfloat16())
    wanted.backward(gradient)
    assert x.grad is not None
    assert wanted_x.grad is not None
    assert torch.equal(x.grad.float(), wanted_x.grad)
