"""A trained network as PyTorch's own program, a .pt2: it runs without this package.

`torch.export` follows one run and keeps it as a graph, which must then be right for every size and
number of images: so nothing here branches on them. The image always goes on beyond its edges,
mirrored, as `Stylizer` has it by default: then no image is too small for the network. Core ML,
LiteRT, ExecuTorch and AOTInductor begin with such a program.
"""

import copy
import io
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_style.networks.patch import PatchNet
from fast_style.networks.streaming import EDGE_PIXELS
from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    STRIDE,
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    TransformerNet,
    UpsampleBlock,
    conv2d_two_by_two,
    depth_to_space,
    upsample_conv2d,
)

_MARGIN = 4


class ExportableNet(nn.Module):
    """(N, 3, H, W) in [0, 1] -> the same shape in [0, 1]: what `Stylizer` makes of each image."""

    def __init__(self, network: TransformerNet) -> None:
        super().__init__()
        # Kernels in channels-last order are no whole tensors to torch.export.
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        lines, columns = (_lines(size, images.device) for size in (height, width))
        x = (images - 0.5).index_select(-2, lines).index_select(-1, columns)
        network = self.network
        # nn.Sequential does not say what it holds.
        for i, block in enumerate(cast(Iterable[ConvBlock], network.encoder)):
            x = x if i == 0 else _reflect(x, 1)
            x = F.relu(_normalize(block.conv(x), block.norm))
        for residual in cast(Iterable[ResidualBlock], network.residual_blocks):
            y = F.relu(_normalize(residual.conv1(_reflect(x, 1)), residual.norm1))
            x = x + _normalize(residual.conv2(_reflect(y, 1)), residual.norm2)
        for up in cast(Iterable[UpsampleBlock], network.decoder):
            x = upsample_conv2d(x, up.conv.weight, up.conv.bias, up.upsampling)
            x = F.relu(_normalize(x, up.norm))
        head = network.head
        if isinstance(network, PatchNet):
            x = depth_to_space(head(_reflect(x, head.kernel_size[0] // 2)))
        else:
            x = conv2d_two_by_two(_reflect(x, _MARGIN), head.weight, head.bias)
        x = x * OUTPUT_SCALE + 0.5
        x = x[..., EDGE_PIXELS : EDGE_PIXELS + height, EDGE_PIXELS : EDGE_PIXELS + width]
        return x.clamp(0, 1)


def program_bytes(network: TransformerNet) -> bytes:
    """Return a .pt2's bytes: `torch.export.load(path).module()(images)`, from 2x2 pixels on."""
    example = torch.zeros(2, 3, 36, 44)
    any_number = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(
        ExportableNet(network).eval(), (example,), dynamic_shapes={"images": any_number}
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _lines(size: int, device: torch.device) -> Tensor:
    """Return which lines of an axis the first convolution reads: see `_lines` in onnx.py."""
    padded = size + 2 * EDGE_PIXELS
    total = padded + -padded % STRIDE
    i = torch.arange(-_MARGIN, total + _MARGIN, device=device)
    i = _mirror(_mirror(i.abs(), total - 1), padded - 1) - EDGE_PIXELS
    # Where the image is smaller than the edge, it is mirrored to and fro.
    return _mirror(i.remainder(torch.sym_max(2 * size - 2, 1)), size - 1)


def _mirror(i: Tensor, last: int) -> Tensor:
    return last - (last - i).abs()


def _normalize(x: Tensor, norm: InstanceNorm) -> Tensor:
    return F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)


def _reflect(x: Tensor, padding: int) -> Tensor:
    return F.pad(x, (padding,) * 4, mode="reflect")
