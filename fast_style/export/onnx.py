"""A trained network as an ONNX graph, written node by node: any runtime, no exporter.

The graph is that of `TransformerNet` in the form that is fastest in ONNX Runtime too: upsampling
and convolution folded into one at the low resolution, the last convolution's outputs as 2x2
squares. As in `StreamingTransformer` the image may go on beyond its edges, mirrored, and what the
network makes of that is not computed where nobody sees it.

Sizes are dynamic, without branches: each axis has an index of the lines to take, padded, mirrored
and clamped by arithmetic, and one Gather looks them up. A graph of one size has plain Pads instead,
for runtimes that know no arithmetic on shapes.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from onnx import TensorProto
from torch import Tensor

from fast_style.export.graph import OPSETS, Graph, GraphForm, Io, Name
from fast_style.networks.patch import PatchNet
from fast_style.networks.transformer import (
    MINIMUM_EDGE,
    OUTPUT_SCALE,
    STRIDE,
    ConvBlock,
    ResidualBlock,
    TransformerNet,
    UpsampleBlock,
    stride_padding,
    two_by_two_kernel,
)

__all__ = ["OPSETS", "GraphForm", "Io", "onnx_bytes"]

INPUT, OUTPUT = "image", "stylized"
# The 9x9 convolutions, the first and the last, see so many lines to each side.
MARGIN = 4


def onnx_bytes(network: TransformerNet, form: GraphForm, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file's bytes, the same ones each time."""
    graph = Graph(form)
    # The head of the fast family reads a map at half the edge.
    shrink = 2 if isinstance(network, PatchNet) else 1
    if form.size is None:
        x, crop, size = _any_size(graph, shrink)
    else:
        x, crop, size = _one_size(graph, *form.size, shrink=shrink)
    # nn.Sequential does not say what it holds.
    encoder = cast(Iterable[ConvBlock], network.encoder)
    decoder = cast(Iterable[UpsampleBlock], network.decoder)
    for i, block in enumerate(encoder):
        if i == 0:
            x = add_first_convolution(graph, x, block.conv.weight, stride=block.conv.stride[0])
        else:
            name, stride = f"encoder.{i}.conv", block.conv.stride[0]
            x = graph.convolve(graph.pad(x, 1), name, block.conv.weight, stride=stride)
        x = graph.add("Relu", graph.normalize(x, f"encoder.{i}.norm", block.norm))
    x = add_residual_blocks(graph, x, network)
    for i, upsample in enumerate(decoder):
        y = graph.pad(x, 1, mode=upsampling_border(network))
        y = add_upsampling(graph, y, f"decoder.{i}.conv", upsample)
        x = graph.add("Relu", graph.normalize(y, f"decoder.{i}.norm", upsample.norm))
    add_head(graph, crop(x), network, size)
    return _serialized(graph, metadata)


def add_residual_blocks(graph: Graph, x: Name, network: TransformerNet) -> Name:
    """Add all residual blocks."""
    # nn.Sequential does not say what it holds.
    for i, residual in enumerate(cast(Iterable[ResidualBlock], network.residual_blocks)):
        name = f"residual_blocks.{i}"
        y = graph.convolve(graph.pad(x, 1), f"{name}.conv1", residual.conv1.weight)
        y = graph.add("Relu", graph.normalize(y, f"{name}.norm1", residual.norm1))
        y = graph.convolve(graph.pad(y, 1), f"{name}.conv2", residual.conv2.weight)
        x = graph.add("Add", x, graph.normalize(y, f"{name}.norm2", residual.norm2))
    return x


def upsampling_border(network: TransformerNet) -> str:
    """Return the mode of the Pad by one pixel before an upsampling."""
    return "edge" if network.upsampling == "nearest" else "constant"


def add_upsampling(graph: Graph, padded: Name, name: str, block: UpsampleBlock) -> Name:
    """Add an upsampling by 2 of maps that are padded by one pixel."""
    y = graph.to_space(graph.upsample(padded, name, block.conv.weight, block.upsampling))
    # The outer ring is beyond the image.
    return graph.cut(y, graph.integers([1, 1]), graph.integers([-1, -1]))


def add_first_convolution(graph: Graph, x: Name, kernel: Tensor, *, stride: int = 1) -> Name:
    """Add the first convolution, with a bias that centres what it gives.

    The norm behind it would remove any constant; low precision is more precise without one.
    """
    kernel = kernel.double()
    bias = -kernel.sum((1, 2, 3)) / 2
    if graph.form.half and graph.full_range != 1:
        x = graph.add("Mul", x, graph.number(1 / graph.full_range))
    else:
        kernel = kernel / graph.full_range
    return graph.convolve(x, "encoder.0.conv", kernel, bias, stride=stride)


def add_head(graph: Graph, x: Name, network: TransformerNet, size: Name) -> Name:
    """Add the last convolution and what makes an image of its outputs."""
    assert network.head.bias is not None
    scale = OUTPUT_SCALE * graph.full_range
    # Times this, float16 kernels would be float16 no more.
    folded = 1.0 if graph.form.half else scale
    kernel = network.head.weight.double() * folded
    bias = (network.head.bias.double() + graph.full_range / 2 / scale) * folded
    stride = 1
    if not isinstance(network, PatchNet):  # whose head gives squares of 2x2 pixels by itself
        kernel, bias, stride = two_by_two_kernel(kernel), bias.repeat(4), 2
    x = graph.to_space(graph.convolve(x, "head", kernel, bias, stride=stride))
    if graph.form.half:
        x = graph.add("Mul", x, graph.number(scale))
    x = graph.cut(x, graph.integers([0, 0]), size)
    x = graph.add("Clip", x, graph.number(0), graph.number(graph.full_range))
    if graph.form.io == "uint8":
        x = graph.add("Cast", graph.add("Round", x), to=TensorProto.UINT8)
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    return x


def _any_size(graph: Graph, shrink: int) -> tuple[Name, Any, Name]:
    """Add what takes images of any size; return its output, the crop, and the images' size.

    The crop is of a map whose edge is a `shrink`th of the image's. All arithmetic is on the pair
    (height, width), but for the indices.
    """
    edge = graph.form.edge_pixels
    axes = (1, 2) if graph.form.io == "uint8" else (2, 3)
    shape = graph.add("Shape", INPUT)
    size = graph.add("Slice", shape, graph.integers([axes[0]]), graph.integers([axes[1] + 1]))
    padded = graph.add("Add", size, graph.integers([2 * edge])) if edge else size
    missing = graph.add("Mod", graph.negative(padded), graph.integers([STRIDE]))
    if not edge:
        short = graph.add("Sub", graph.integers([MINIMUM_EDGE]), size)
        missing = graph.add("Max", missing, short)
    total = graph.add("Add", padded, missing)
    x = INPUT
    for i, axis in enumerate(axes):
        lines = _lines(
            graph, *(graph.add("Gather", pair, graph.integer(i)) for pair in (size, missing, total))
        )
        x = graph.add("Gather", x, lines, axis=axis)

    def crop(x: Name) -> Name:
        if not edge:
            return graph.pad(x, MARGIN // shrink)
        # Two lines more than an even size and the margins: the squares of the head are whole.
        even = graph.add("Add", size, graph.add("Mod", size, graph.integers([2])))
        last = graph.add("Add", even, graph.integers([edge + MARGIN]))
        if shrink > 1:
            last = graph.add("Div", last, graph.integers([shrink]))
        return graph.cut(x, graph.integers([(edge - MARGIN) // shrink] * 2), last)

    return as_planes(graph, x), crop, size


def _lines(graph: Graph, size: Name, missing: Name, total: Name) -> Name:
    """Return which of an axis's lines are taken: the network's padding by reflection and all.

    The counterpart of `_border_index` in streaming.py; names are of scalars.
    """
    edge = graph.form.edge_pixels
    end = graph.add("Add", total, graph.integer(MARGIN))
    i = graph.add("Range", graph.integer(-MARGIN), end, graph.integer(1))
    i = graph.mirror(graph.absolute(i), graph.add("Sub", total, graph.integer(1)))
    if not edge:
        last = graph.add("Sub", size, graph.integer(1))
        # Where the image is shorter than what it lacks, its last line is repeated.
        inside = graph.add("Less", missing, size)
        return graph.add("Where", inside, graph.mirror(i, last), graph.add("Min", i, last))
    i = graph.mirror(i, graph.add("Add", size, graph.integer(2 * edge - 1)))
    i = graph.add("Sub", i, graph.integer(edge))
    # Where the image is smaller than the edge, it is mirrored to and fro.
    last = graph.add("Sub", size, graph.integer(1))
    period = graph.add("Max", graph.add("Add", last, last), graph.integer(1))
    return graph.mirror(graph.add("Mod", i, period), last)


def _one_size(graph: Graph, height: int, width: int, *, shrink: int) -> tuple[Name, Any, Name]:
    """Do what `_any_size` does for one size, by Pads alone."""
    edge = graph.form.edge_pixels
    x = as_planes(graph, INPUT)
    missing = [stride_padding(size + 2 * edge)[0] for size in (height, width)]
    if edge:
        x = graph.pad(x, edge)
    if any(missing):
        x = graph.pad(x, (0, 0, missing[0], missing[1]))
    x = graph.pad(x, MARGIN)

    def crop(x: Name) -> Name:
        if not edge:
            return graph.pad(x, MARGIN // shrink)
        ends = [(size + size % 2 + edge + MARGIN) // shrink for size in (height, width)]
        first = (edge - MARGIN) // shrink
        return graph.cut(x, graph.integers([first] * 2), graph.integers(ends))

    return x, crop, graph.integers([height, width])


def as_planes(graph: Graph, x: Name) -> Name:
    if graph.form.io == "float":
        return x
    x = graph.add("Cast", x, to=TensorProto.FLOAT)
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])


def _serialized(graph: Graph, metadata: Mapping[str, str]) -> bytes:
    form = graph.form
    height, width = form.size or ("height", "width")
    count = "batch" if form.size is None else 1
    if form.io == "uint8":
        kind, shape = TensorProto.UINT8, [count, height, width, 3]
    else:
        kind, shape = TensorProto.FLOAT, [count, 3, height, width]
    graph.nodes[-1].output[0] = OUTPUT
    return graph.serialized({INPUT: (kind, shape)}, {OUTPUT: (kind, shape)}, metadata)
