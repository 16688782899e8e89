"""The loss network: VGG-16 or VGG-19 (Simonyan & Zisserman 2014, arXiv:1409.1556), frozen.

Layers carry the literature's names, `relu1_1` ... `relu5_4`: block, then position in the block,
after the ReLU. Keras names (`block1_conv2` = `relu1_2`) are accepted too.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.vgg import cfgs, make_layers

from fast_style.errors import UserError
from fast_style.networks.transformer import replicate_one

VGGName = Literal["vgg16", "vgg19"]
Pooling = Literal["max", "average"]
Padding = Literal["zeros", "replicate"]

_CFG = {"vgg16": "D", "vgg19": "E"}  # the paper's table 1
# The mean RGB of ImageNet in [0, 255], which the original networks were trained with.
_MEAN = (123.68, 116.779, 103.939)
# An image in [0, 1] times this is the networks' input, before the mean is taken off.
INPUT_RANGE = 255
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)


class VGGFeatures(nn.Module):
    """(N, 3, H, W) in [0, 1] -> {layer: (N, C, H', W')}: feature maps of the layers asked for.

    Weights are random until `load_state_dict`; `weights.load_vgg` returns one with real weights.
    The network holds no layer after the deepest of `layers`, and is frozen, in evaluation mode and
    channels-last from the start.

    Variants for the optimisation baseline: `pooling` "average" as Gatys et al. 2016 have it,
    section 2; `padding` "replicate" in the first convolution, which sees no black frame then;
    `recompute` keeps only the maps asked for and computes those between again in the backward pass.
    """

    mean: Tensor

    def __init__(
        self,
        network: VGGName = "vgg16",
        layers: Iterable[str] = ("relu4_3",),
        *,
        pooling: Pooling = "max",
        padding: Padding = "zeros",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.recompute = recompute
        indices = layer_indices(network)
        self.layers = tuple(dict.fromkeys(canonical_layer(network, name) for name in layers))
        if not self.layers:
            raise UserError("VGGFeatures needs at least one layer")
        self._index_of = {name: indices[name] for name in self.layers}
        depth = max(self._index_of.values()) + 1
        stack: list[nn.Module] = list(make_layers(cfgs[_CFG[network]]))[:depth]
        if pooling == "average":
            stack = [nn.AvgPool2d(2) if isinstance(m, nn.MaxPool2d) else m for m in stack]
        assert isinstance(stack[0], nn.Conv2d)
        if padding == "replicate":
            first = nn.utils.skip_init(
                _ReplicatingConv2d, 3, 64, 3, padding=1, padding_mode=padding
            )
            first.load_state_dict(stack[0].state_dict())
            stack[0] = first
        self.features = nn.Sequential(*stack)
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, layers: Collection[str] | None = None) -> dict[str, Tensor]:
        """Compute the feature maps of `layers` (default: all of its own), and nothing deeper.

        Raises ValueError when the images are too small to reach the deepest layer.
        """
        wanted = {self._index_of[name]: name for name in (layers or self.layers)}
        depth = max(wanted)
        pools = sum(isinstance(m, _POOLINGS) for m in self.features[: depth + 1])
        if min(images.shape[-2:]) < 2**pools:
            height, width = images.shape[-2:]
            raise UserError(
                f"an image of {width}×{height} is too small for layer {wanted[depth]}: "
                f"both sides must be at least {2**pools} pixels"
            )
        x = (images * INPUT_RANGE - self.mean).contiguous(memory_format=torch.channels_last)
        maps = {}
        start = 0
        for index in sorted(wanted):
            between = self.features[start : index + 1]
            x = checkpoint(between, x, use_reentrant=False) if self.recompute else between(x)
            maps[wanted[index]] = x
            start = index + 1
        return maps


class _ReplicatingConv2d(nn.Conv2d):
    """The same with the project's padding: the compiler mistakes the layout of torch's."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.conv2d(replicate_one(input), weight, bias, self.stride)


def layer_indices(network: VGGName) -> dict[str, int]:
    """Map every layer name of a network to its index in torchvision's `features`."""
    indices, index = {}, 0
    block, position = 1, 0
    for entry in cfgs[_CFG[network]]:
        if entry == "M":
            block, position, index = block + 1, 0, index + 1
        else:
            position += 1
            indices[f"relu{block}_{position}"] = index + 1  # the convolution, then its ReLU
            index += 2
    return indices


def canonical_layer(network: VGGName, name: str) -> str:
    """Return a layer's name as in `relu1_2`. Raises ValueError for one that `network` lacks."""
    known = layer_indices(network)
    canonical = re.sub(r"^block(\d)_conv(\d)$", r"relu\1_\2", name)
    if canonical in known:
        return canonical
    near = difflib.get_close_matches(canonical, known, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"its layers are {', '.join(known)}"
    raise UserError(f"{network} has no layer {name!r}; {cure}")


def canonical_layers(network: VGGName, layers: Mapping[str, float]) -> dict[str, float]:
    """Return layers' weights by canonical name. Raises ValueError, also for a layer named twice."""
    names: dict[str, str] = {}
    for name in layers:
        other = names.setdefault(canonical_layer(network, name), name)
        if other != name:
            raise UserError(f"{other!r} and {name!r} are the same layer; name it once")
    return {canonical: layers[name] for canonical, name in names.items()}
