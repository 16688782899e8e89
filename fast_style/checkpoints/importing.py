"""Other projects' checkpoints: recognised by their keys, rewritten as the network of this project.

Only plain state dicts are read. Every project here trains the architecture of `TransformerNet` up
to the names of its layers and up to what can be folded into weights exactly:

* Colours. A network that reads (x - mean) / std and whose output is y * std + mean, x in [0, 1]:
  1 / std goes into the first kernel, std and mean go into the head. The input's mean does not
  matter: reflection padding keeps a constant constant, and the norm after the convolution removes
  it. BGR reverses the channels of both.
* The norms' epsilon. norm(s x) with epsilon s^2 e is norm(x) with epsilon e, so a kernel before a
  norm takes the factor s.
* A residual added twice, x' = f(x) + 2 x. With y = x / 2^k before block k this is
  y' = f(2^k y) / 2^(k+1) + y: powers of two, which round nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    InstanceNorm,
    TransformerNet,
    Upsampling,
)

_BLOCKS = 5  # residual blocks, in every project here

_CONVS = (*(f"encoder.{i}.conv" for i in range(3)), "decoder.0.conv", "decoder.1.conv", "head")
_NORMS = (*(f"encoder.{i}.norm" for i in range(3)), "decoder.0.norm", "decoder.1.norm")
_BLOCK = ("conv1", "norm1", "conv2", "norm2")

# Where checkpoints with more in them than weights keep these, the ones to prefer first; other names
# are looked at too.
_NESTED = ("params_ema", "ema", "state_dict", "model_state_dict", "model", "generator", "params")
_DEEPEST = 8  # of mappings in mappings, and of prefixes before prefixes
# Instance norms saved these until PyTorch 0.4, and did not use them. (Those that do use them save
# `num_batches_tracked` too.)
_UNUSED = (".running_mean", ".running_var")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Colors:
    """What a network sees of an image in [0, 1]: (x - mean) / std; its output is mapped back."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


_RANGE_255 = _Colors(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
_BGR_255 = _Colors(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255), bgr=True)
_IMAGENET = _Colors(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Project:
    """How a project names its layers, in the order of ours, and in what it differs from ours."""

    name: str
    convs: tuple[str, ...]
    norms: tuple[str, ...]
    blocks: tuple[str, ...]
    block: tuple[str, str, str, str]
    colors: _Colors
    affine: tuple[str, str] = ("weight", "bias")
    eps: float = 1e-5
    adds_residual_twice: bool = False
    upsampling: Upsampling = "nearest"

    def keys(self) -> dict[str, str]:
        """Return the project's key of every parameter, by ours."""
        convs = dict(zip(_CONVS, self.convs, strict=True))
        norms = dict(zip(_NORMS, self.norms, strict=True))
        for i, block in enumerate(self.blocks):
            for name, theirs in zip(_BLOCK, self.block, strict=True):
                modules = convs if name.startswith("conv") else norms
                modules[f"residual_blocks.{i}.{name}"] = f"{block}.{theirs}"
        weight, bias = self.affine
        return {
            **{f"{ours}.weight": f"{theirs}.weight" for ours, theirs in convs.items()},
            **{f"{ours}.bias": f"{theirs}.bias" for ours, theirs in convs.items()},
            **{f"{ours}.weight": f"{theirs}.{weight}" for ours, theirs in norms.items()},
            **{f"{ours}.bias": f"{theirs}.{bias}" for ours, theirs in norms.items()},
        }


def _names(pattern: str, first: int, count: int) -> tuple[str, ...]:
    return tuple(pattern.format(i) for i in range(first, first + count))


_EXAMPLES_BLOCKS = _names("res{}", 1, _BLOCKS)
_EXAMPLES_BLOCK = ("conv1.conv2d", "in1", "conv2.conv2d", "in2")

# Each as its own files define it: the network, and what its stylizing command does to an image.
_PROJECTS = (
    # github.com/pytorch/examples, fast_neural_style; github.com/yakhyo's first versions are equal.
    _Project(
        name="pytorch/examples",
        convs=(*_names("conv{}.conv2d", 1, 3), *_names("deconv{}.conv2d", 1, 3)),
        norms=_names("in{}", 1, 5),
        blocks=_EXAMPLES_BLOCKS,
        block=_EXAMPLES_BLOCK,
        colors=_RANGE_255,
    ),
    # github.com/abhiskk/fast-neural-style, the origin of the former: its own norm, and BGR.
    _Project(
        name="abhiskk",
        convs=(*_names("conv{}.conv2d", 1, 3), *_names("deconv{}.conv2d", 1, 3)),
        norms=_names("in{}", 1, 5),
        blocks=_EXAMPLES_BLOCKS,
        block=_EXAMPLES_BLOCK,
        colors=_BGR_255,
        affine=("scale", "shift"),
        eps=1e-9,
    ),
    # github.com/yakhyo/fast-neural-style-transfer
    _Project(
        name="yakhyo",
        convs=(*_names("conv{}.conv2d", 1, 3), *_names("upsample_conv{}.conv2d", 1, 3)),
        norms=_names("in{}", 1, 5),
        blocks=_EXAMPLES_BLOCKS,
        block=_EXAMPLES_BLOCK,
        colors=_RANGE_255,
        adds_residual_twice=True,
    ),
    # github.com/gordicaleksa/pytorch-neural-style-transfer-johnson
    _Project(
        name="gordicaleksa",
        convs=(
            *_names("conv{}.conv2d", 1, 3),
            *_names("up{}.conv2d.conv2d", 1, 2),
            "up3.conv2d",
        ),
        norms=_names("in{}", 1, 5),
        blocks=_EXAMPLES_BLOCKS,
        block=_EXAMPLES_BLOCK,
        colors=_IMAGENET,
    ),
    # github.com/eriklindernoren/Fast-Neural-Style-Transfer
    _Project(
        name="eriklindernoren",
        convs=(*_names("model.{}.block.1", 0, 3), *_names("model.{}.block.1", 8, 3)),
        norms=(*_names("model.{}.norm", 0, 3), *_names("model.{}.norm", 8, 2)),
        blocks=_names("model.{}.block", 3, _BLOCKS),
        block=("0.block.1", "0.norm", "1.block.1", "1.norm"),
        colors=_IMAGENET,
    ),
    # github.com/igreat/fast-style-transfer
    _Project(
        name="igreat",
        convs=(
            *(f"layers.{i}.conv" for i in (0, 3, 6)),
            *(f"layers.{i}.conv.conv" for i in (14, 17)),
            "layers.20.conv",
        ),
        norms=tuple(f"layers.{i}" for i in (1, 4, 7, 15, 18)),
        blocks=_names("layers.{}", 9, _BLOCKS),
        block=("conv1.conv", "instance_norm1", "conv2.conv", "instance_norm2"),
        colors=_IMAGENET,
    ),
    # github.com/pystiche/pystiche, examples/advanced/example_model_optimization.py
    _Project(
        name="pystiche",
        convs=(*_names("encoder.{}.conv", 0, 3), *_names("decoder.{}.conv", 0, 3)),
        norms=(*_names("encoder.{}.norm", 0, 3), *_names("decoder.{}.norm", 0, 2)),
        blocks=_names("encoder.{}", 3, _BLOCKS),
        block=("conv1.conv", "conv1.norm", "conv2.conv", "conv2.norm"),
        colors=_RANGE_255,
    ),
    # github.com/rrmina/fast-neural-style-pytorch, whose images are OpenCV's. Its first networks
    # ended in a tanh, which a file does not show.
    _Project(
        name="rrmina",
        convs=(
            *(f"ConvBlock.{i}.conv_layer" for i in (0, 2, 4)),
            *(f"DeconvBlock.{i}.conv_transpose" for i in (0, 2)),
            "DeconvBlock.4.conv_layer",
        ),
        norms=(
            *(f"ConvBlock.{i}.norm_layer" for i in (0, 2, 4)),
            *(f"DeconvBlock.{i}.norm_layer" for i in (0, 2)),
        ),
        blocks=_names("ResidualBlock.{}", 0, _BLOCKS),
        block=("conv1.conv_layer", "conv1.norm_layer", "conv2.conv_layer", "conv2.norm_layer"),
        colors=_BGR_255,
        upsampling="transposed",
    ),
)

# A key of each project that is known but cannot be imported, and the reason.
_REFUSED = (
    (
        "encoder.4.residual.0.0.weight",  # github.com/pystiche/papers
        "a pystiche_papers checkpoint: pads once and ends in a tanh, which this version cannot run",
    ),
)

_FEWEST_KEYS = min(len(project.keys()) for project in _PROJECTS)

SUPPORTED = ", ".join(project.name for project in _PROJECTS)


def import_network(data: Mapping[Any, Any]) -> tuple[TransformerNet, str] | None:
    """Return the network in another project's checkpoint, and the project's name; None if unknown.

    Raises ValueError where the project is known but the network cannot be imported.
    """
    for state in _candidates(data):
        for project in _PROJECTS:
            keys = project.keys()
            if state.keys() == set(keys.values()):
                weights = {ours: state[theirs] for ours, theirs in keys.items()}
                if project.upsampling == "transposed":
                    for i in (0, 1):  # torch holds these kernels as (channels, out channels, 3, 3)
                        key = f"decoder.{i}.conv.weight"
                        weights[key] = weights[key].transpose(0, 1)
                return _convert(project, weights), project.name
        for key, reason in _REFUSED:
            if key in state:
                raise ValueError(reason)
    return None


def find_state_dict(data: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors by name in that place of a file which holds the most of them."""
    return max((_tensors(mapping) for mapping in _mappings(data)), key=len)


def _candidates(data: Mapping[Any, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield what may be a network's weights: from any place, with and without prefixes.

    Wrappers (DataParallel, torch.compile, Lightning) put theirs before every key of a network, and
    in each other; beside it there may be another, as the loss network.
    """
    for mapping in _mappings(data):
        yield from _without_prefixes(_tensors(mapping), _DEEPEST)


def _mappings(data: Mapping[Any, Any], depth: int = _DEEPEST) -> Iterator[Mapping[Any, Any]]:
    """Yield the mappings nested in a file, the preferred ones first, and the file itself last."""
    inner = {name: value for name, value in data.items() if isinstance(value, Mapping)}
    known = [name for name in _NESTED if name in inner]
    for name in (*known, *(name for name in inner if name not in known)) if depth else ():
        yield from _mappings(inner[name], depth - 1)
    yield data


def _tensors(data: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        key: value
        for key, value in data.items()
        if isinstance(key, str) and isinstance(value, Tensor) and not key.endswith(_UNUSED)
    }


def _without_prefixes(state: dict[str, Tensor], depth: int) -> Iterator[dict[str, Tensor]]:
    yield state
    prefixes = dict.fromkeys(key.partition(".")[0] for key in state if "." in key)
    for prefix in prefixes if depth else ():
        start = f"{prefix}."
        inner = {key[len(start) :]: state[key] for key in state if key.startswith(start)}
        if len(inner) >= _FEWEST_KEYS:
            yield from _without_prefixes(inner, depth - 1)


def _convert(project: _Project, theirs: Mapping[str, Tensor]) -> TransformerNet:
    """Build the network from the project's weights under our names."""
    network = _empty_network(project, theirs)
    weights = {key: value.detach().to(torch.float64, copy=True) for key, value in theirs.items()}
    _fold_colors(weights, project.colors)
    _fold_eps(weights, network, project.eps)
    if project.adds_residual_twice:
        _fold_second_residual(weights)
    weights = {key: value.float() for key, value in weights.items()}
    network.load_state_dict(weights, assign=True)
    return network


def _empty_network(project: _Project, weights: Mapping[str, Tensor]) -> TransformerNet:
    """Build the network without memory; check that the weights fit it."""
    width = max(1, weights["encoder.0.norm.weight"].numel())
    with torch.device("meta"):
        network = TransformerNet(width, _BLOCKS, upsampling=project.upsampling)
    names = project.keys()
    for key, expected in network.state_dict().items():
        found = weights[key]
        dense = found.is_floating_point() and found.layout == torch.strided
        if not dense or found.shape != expected.shape:
            kind = "" if dense else f"{found.dtype}, {found.layout}, "
            raise ValueError(
                f"has the names of a {project.name} checkpoint, but {names[key]} is "
                f"{kind}{tuple(found.shape)} instead of {tuple(expected.shape)}"
            )
    return network


def _fold_colors(weights: dict[str, Tensor], colors: _Colors) -> None:
    mean, std = (torch.tensor(c, dtype=torch.float64) for c in (colors.mean, colors.std))
    kernel, head, bias = (
        weights[key] for key in ("encoder.0.conv.weight", "head.weight", "head.bias")
    )
    if colors.bgr:
        kernel, head, bias = kernel.flip(1), head.flip(0), bias.flip(0)
    weights["encoder.0.conv.weight"] = kernel / std[:, None, None]
    weights["head.weight"] = head * std[:, None, None, None] / OUTPUT_SCALE
    weights["head.bias"] = (bias * std + mean - 0.5) / OUTPUT_SCALE


def _fold_eps(weights: dict[str, Tensor], network: TransformerNet, eps: float) -> None:
    for name, module in network.named_modules():
        if isinstance(module, InstanceNorm):
            for parameter in ("weight", "bias"):
                weights[f"{name.replace('norm', 'conv')}.{parameter}"] *= (module.eps / eps) ** 0.5


def _fold_second_residual(weights: dict[str, Tensor]) -> None:
    for k in range(_BLOCKS):
        block = f"residual_blocks.{k}"
        weights[f"{block}.conv1.weight"] *= 2.0**k
        weights[f"{block}.norm2.weight"] /= 2.0 ** (k + 1)
        weights[f"{block}.norm2.bias"] /= 2.0 ** (k + 1)
    weights["decoder.0.conv.weight"] *= 2.0**_BLOCKS
