"""The plain implementation that ours is timed against, as PyTorch's own example writes it."""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    TransformerNet,
    UpsampleBlock,
)


class PlainTransformerNet(nn.Module):
    """The transformer network as PyTorch's own example writes it: module by module, NCHW."""

    def __init__(self, network: TransformerNet) -> None:
        super().__init__()
        encoder = [
            layer
            for block in cast(Iterable[ConvBlock], network.encoder)
            for layer in (*_plain_conv(block.conv), _plain_norm(block.norm), nn.ReLU())
        ]
        decoder = [
            layer
            for block in cast(Iterable[UpsampleBlock], network.decoder)
            for layer in (
                nn.Upsample(scale_factor=2, mode="nearest"),
                *_plain_conv(block.conv),
                _plain_norm(block.norm),
                nn.ReLU(),
            )
        ]
        self.encoder = nn.Sequential(*encoder)
        self.residual_blocks = nn.ModuleList(
            nn.Sequential(
                *_plain_conv(block.conv1),
                _plain_norm(block.norm1),
                nn.ReLU(),
                *_plain_conv(block.conv2),
                _plain_norm(block.norm2),
            )
            for block in cast(Iterable[ResidualBlock], network.residual_blocks)
        )
        self.decoder = nn.Sequential(*decoder, *_plain_conv(network.head))

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x - 0.5)
        for block in self.residual_blocks:
            x = x + block(x)
        return self.decoder(x) * OUTPUT_SCALE + 0.5


def _plain_conv(conv: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    size, stride = conv.kernel_size[0], conv.stride[0]
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride)
    plain.load_state_dict(conv.state_dict())
    return nn.ReflectionPad2d(size // 2), plain


def _plain_norm(norm: InstanceNorm) -> nn.Module:
    plain = nn.InstanceNorm2d(len(norm.bias), affine=True)
    plain.load_state_dict(norm.state_dict())
    return plain
