"""The fast family: a transformer network whose ends hold no map at the image's size.

Most of the time of a half-width `TransformerNet` goes into its first and last layers, whose maps
are large, though few of its parameters are there. Here one convolution makes the map at a quarter
of the edge from patches of pixels that overlap, and one makes squares of 2x2 pixels from the map at
half of it. What lies between are the same residual blocks: those of a trained network, and the
first block of its decoder, can be taken over (`grown_from`), and the ends be taught by it.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    STRIDE,
    ConvBlock,
    TransformerNet,
    UpsampleBlock,
    depth_to_space,
    pad_to_stride,
    reflect,
)

# A patch, and how far it goes beyond the pixels that it stands for.
_PATCH = 12
_OVERLAP = (_PATCH - STRIDE) // 2
_HEAD = 5
# What the head gives for each place of the map at half the edge: a square of 2x2 pixels.
_SQUARE = 4


class PatchNet(TransformerNet):
    """(N, 3, H, W) in [0, 1] -> (N, 3, H, W), about [0, 1] (not clamped), for every H, W >= 1.

    `width` is as in `TransformerNet`: the residual blocks have four times as many channels.
    426,540 parameters at width 16.
    """

    kind: ClassVar[str] = "patch"

    def __init__(self, width: int = 16, num_residual_blocks: int = 5) -> None:
        super().__init__(width, num_residual_blocks)

    def _build_encoder(self) -> nn.Sequential:
        return nn.Sequential(PatchBlock(3, 4 * self.width, kernel_size=_PATCH, stride=STRIDE))

    def _build_decoder(self) -> nn.Sequential:
        return nn.Sequential(UpsampleBlock(4 * self.width, 2 * self.width))

    def _build_head(self) -> nn.Conv2d:
        return nn.Conv2d(2 * self.width, 3 * _SQUARE, kernel_size=_HEAD)

    def spec(self) -> dict[str, Any]:
        """Return the description from which `networks.building` builds this network again."""
        return {
            "kind": self.kind,
            "width": self.width,
            "num_residual_blocks": self.num_residual_blocks,
        }

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        x = pad_to_stride(images - 0.5).contiguous(memory_format=torch.channels_last)
        x = self.decoder(self.residual_blocks(self.encoder(x)))
        x = self.head(reflect(x, _HEAD // 2))
        return depth_to_space(x)[..., :height, :width] * OUTPUT_SCALE + 0.5


class PatchBlock(ConvBlock):
    """Reflection padding, convolution over patches, instance norm, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(reflect(x, _OVERLAP))), inplace=True)


def grown_from(trained: TransformerNet) -> PatchNet:
    """Return a network with the residual blocks of a trained one, and new ends.

    Raises ValueError for a network that has other blocks to take over.
    """
    check_can_teach(trained)
    network = PatchNet(trained.width, trained.num_residual_blocks)
    network.residual_blocks.load_state_dict(trained.residual_blocks.state_dict())
    network.decoder[0].load_state_dict(trained.decoder[0].state_dict())
    return network


def check_can_teach(trained: TransformerNet) -> None:
    """Raise ValueError for a network whose blocks `grown_from` cannot take over."""
    if trained.kind != TransformerNet.kind:
        raise ValueError(f"is of kind {trained.kind} itself: name a model of kind residual")
    if trained.upsampling != "nearest":
        raise ValueError(
            f"upsamples by {trained.upsampling} convolutions, as other projects' models do, and "
            "cannot be taken over: name a model that was trained here"
        )
