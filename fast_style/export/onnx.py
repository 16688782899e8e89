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
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from fast_style.errors import UserError
from fast_style.networks.patch import PatchNet
from fast_style.networks.streaming import EDGE_PIXELS, Edge
from fast_style.networks.transformer import (
    MINIMUM_EDGE,
    OUTPUT_SCALE,
    STRIDE,
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    TransformerNet,
    UpsampleBlock,
    Upsampling,
    stride_padding,
    two_by_two_kernel,
    upsample_kernel,
)
from fast_style.version import __version__

Io = Literal["uint8", "float"]

OPSETS = range(13, 25)
# Reflecting the mirrored edge needs more lines than it has.
SMALLEST_SIZE = 2 * EDGE_PIXELS
# The 9x9 convolutions, the first and the last, see so many lines to each side.
_MARGIN = 4

Name = str


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphForm:
    """What a graph takes and gives, and how it is written.

    `io`: "uint8" is (N, H, W, 3) as image files have it, "float" (N, 3, H, W) in [0, 1]. `size` is
    one height and width, for one image; None is any number of images of any size. `half` stores
    kernels of a network whose weights are float16 numbers as such, and computes in float32.
    """

    io: Io = "uint8"
    size: tuple[int, int] | None = None
    opset: int = 17
    half: bool = False
    edge: Edge = "reflect"

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise UserError(f"opset {self.opset}: use {OPSETS[0]} to {OPSETS[-1]}")
        if self.io not in get_args(Io):
            raise UserError(f"io {self.io!r}: use uint8 or float")
        if self.size is not None and min(self.size) < SMALLEST_SIZE:
            height, width = self.size
            raise UserError(
                f"size {height}x{width}: a graph of one size needs at least {SMALLEST_SIZE} pixels "
                "a side; without a size it takes any"
            )

    @property
    def edge_pixels(self) -> int:
        """How far the image goes on beyond its edges."""
        return EDGE_PIXELS if self.edge == "reflect" else 0


def onnx_bytes(network: TransformerNet, form: GraphForm, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file's bytes, the same ones each time."""
    graph = _Graph(form)
    # The head of the fast family reads a map at half the edge.
    shrink = 2 if isinstance(network, PatchNet) else 1
    if form.size is None:
        x, crop, size = _any_size(graph, shrink)
    else:
        x, crop, size = _one_size(graph, *form.size, shrink=shrink)
    # nn.Sequential does not say what it holds.
    encoder = cast(Iterable[ConvBlock], network.encoder)
    residual_blocks = cast(Iterable[ResidualBlock], network.residual_blocks)
    decoder = cast(Iterable[UpsampleBlock], network.decoder)
    for i, block in enumerate(encoder):
        if i == 0:
            x = _first_convolution(graph, x, block.conv.weight, block.conv.stride[0])
        else:
            name, stride = f"encoder.{i}.conv", block.conv.stride[0]
            x = graph.convolve(graph.pad(x, 1), name, block.conv.weight, stride=stride)
        x = graph.add("Relu", graph.normalize(x, f"encoder.{i}.norm", block.norm))
    for i, residual in enumerate(residual_blocks):
        name = f"residual_blocks.{i}"
        y = graph.convolve(graph.pad(x, 1), f"{name}.conv1", residual.conv1.weight)
        y = graph.add("Relu", graph.normalize(y, f"{name}.norm1", residual.norm1))
        y = graph.convolve(graph.pad(y, 1), f"{name}.conv2", residual.conv2.weight)
        x = graph.add("Add", x, graph.normalize(y, f"{name}.norm2", residual.norm2))
    border = "edge" if network.upsampling == "nearest" else "constant"
    for i, upsample in enumerate(decoder):
        y = graph.pad(x, 1, mode=border)
        y = graph.upsample(y, f"decoder.{i}.conv", upsample.conv.weight, network.upsampling)
        # The outer ring is beyond the image.
        y = graph.cut(graph.to_space(y), graph.integers([1, 1]), graph.integers([-1, -1]))
        x = graph.add("Relu", graph.normalize(y, f"decoder.{i}.norm", upsample.norm))
    _head(graph, crop(x), network, size)
    return _serialized(graph, metadata)


def _first_convolution(graph: "_Graph", x: Name, kernel: Tensor, stride: int) -> Name:
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


def _head(graph: "_Graph", x: Name, network: TransformerNet, size: Name) -> None:
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
        graph.add("Transpose", x, perm=[0, 2, 3, 1])


def _any_size(graph: "_Graph", shrink: int) -> tuple[Name, Any, Name]:
    """Add what takes images of any size; return its output, the crop, and the images' size.

    The crop is of a map whose edge is a `shrink`th of the image's. All arithmetic is on the pair
    (height, width), but for the indices.
    """
    edge = graph.form.edge_pixels
    axes = (1, 2) if graph.form.io == "uint8" else (2, 3)
    shape = graph.add("Shape", _INPUT)
    size = graph.add("Slice", shape, graph.integers([axes[0]]), graph.integers([axes[1] + 1]))
    padded = graph.add("Add", size, graph.integers([2 * edge])) if edge else size
    missing = graph.add("Mod", graph.negative(padded), graph.integers([STRIDE]))
    if not edge:
        short = graph.add("Sub", graph.integers([MINIMUM_EDGE]), size)
        missing = graph.add("Max", missing, short)
    total = graph.add("Add", padded, missing)
    x = _INPUT
    for i, axis in enumerate(axes):
        lines = _lines(
            graph, *(graph.add("Gather", pair, graph.integer(i)) for pair in (size, missing, total))
        )
        x = graph.add("Gather", x, lines, axis=axis)

    def crop(x: Name) -> Name:
        if not edge:
            return graph.pad(x, _MARGIN // shrink)
        # Two lines more than an even size and the margins: the squares of the head are whole.
        even = graph.add("Add", size, graph.add("Mod", size, graph.integers([2])))
        last = graph.add("Add", even, graph.integers([edge + _MARGIN]))
        if shrink > 1:
            last = graph.add("Div", last, graph.integers([shrink]))
        return graph.cut(x, graph.integers([(edge - _MARGIN) // shrink] * 2), last)

    return _as_planes(graph, x), crop, size


def _lines(graph: "_Graph", size: Name, missing: Name, total: Name) -> Name:
    """Return which of an axis's lines are taken: the network's padding by reflection and all.

    The counterpart of `_border_index` in streaming.py; names are of scalars.
    """
    edge = graph.form.edge_pixels
    end = graph.add("Add", total, graph.integer(_MARGIN))
    i = graph.add("Range", graph.integer(-_MARGIN), end, graph.integer(1))
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


def _one_size(graph: "_Graph", height: int, width: int, *, shrink: int) -> tuple[Name, Any, Name]:
    """Do what `_any_size` does for one size, by Pads alone."""
    edge = graph.form.edge_pixels
    x = _as_planes(graph, _INPUT)
    missing = [stride_padding(size + 2 * edge)[0] for size in (height, width)]
    if edge:
        x = graph.pad(x, edge)
    if any(missing):
        x = graph.pad(x, (0, 0, missing[0], missing[1]))
    x = graph.pad(x, _MARGIN)

    def crop(x: Name) -> Name:
        if not edge:
            return graph.pad(x, _MARGIN // shrink)
        ends = [(size + size % 2 + edge + _MARGIN) // shrink for size in (height, width)]
        first = (edge - _MARGIN) // shrink
        return graph.cut(x, graph.integers([first] * 2), graph.integers(ends))

    return x, crop, graph.integers([height, width])


def _as_planes(graph: "_Graph", x: Name) -> Name:
    if graph.form.io == "float":
        return x
    x = graph.add("Cast", x, to=TensorProto.FLOAT)
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])


_INPUT, _OUTPUT = "image", "stylized"


def _serialized(graph: "_Graph", metadata: Mapping[str, str]) -> bytes:
    graph.nodes[-1].output[0] = _OUTPUT
    form = graph.form
    height, width = form.size or ("height", "width")
    count = "batch" if form.size is None else 1
    if form.io == "uint8":
        kind, shape = TensorProto.UINT8, [count, height, width, 3]
    else:
        kind, shape = TensorProto.FLOAT, [count, 3, height, width]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fast-style",
            [helper.make_tensor_value_info(_INPUT, kind, shape)],
            [helper.make_tensor_value_info(_OUTPUT, kind, shape)],
            initializer=graph.tensors,
        ),
        producer_name="fast-style",
        producer_version=__version__,
        ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", form.opset)]),
        opset_imports=[helper.make_opsetid("", form.opset)],
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return cast(bytes, model.SerializeToString(deterministic=True))


class _Graph:
    """A graph in the making: each method adds a node and returns the name of its output."""

    def __init__(self, form: GraphForm) -> None:
        self.form = form
        self.full_range = 255 if form.io == "uint8" else 1
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._names: set[Name] = set()

    def add(self, operator: str, *inputs: Name, **attributes: Any) -> Name:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def convolve(
        self, x: Name, name: str, kernel: Tensor, bias: Tensor | None = None, *, stride: int = 1
    ) -> Name:
        """Convolve; without a bias for a norm behind it, which would remove one."""
        inputs = [x, self._kernel(f"{name}.weight", kernel)]
        if bias is not None:
            inputs.append(self._tensor(f"{name}.bias", _array(bias)))
        return self.add(
            "Conv", *inputs, kernel_shape=list(kernel.shape[2:]), strides=[stride, stride]
        )

    def upsample(self, x: Name, name: str, kernel: Tensor, upsampling: Upsampling) -> Name:
        """Convolve with what `upsample_kernel` makes of a kernel."""
        if not self.form.half:
            return self.convolve(x, name, upsample_kernel(kernel, upsampling))
        # Its sums are no float16 numbers any more, and rounded ones would differ among the four
        # pixels that come from one: the runtime adds them up, once, when it loads the graph.
        channels, inputs = kernel.shape[:2]
        taps = torch.eye(9).reshape(1, 9, 3, 3)
        matrix = upsample_kernel(taps, upsampling).permute(1, 0, 2, 3).reshape(9, 16)
        sums = self.add("Reshape", self._kernel(f"{name}.weight", kernel), self.integers([-1, 9]))
        sums = self.add("MatMul", sums, self._tensor(f"{upsampling}_taps", _array(matrix)))
        sums = self.add("Reshape", sums, self.integers([channels, inputs, 4, 2, 2]))
        sums = self.add("Transpose", sums, perm=[2, 0, 1, 3, 4])
        sums = self.add("Reshape", sums, self.integers([4 * channels, inputs, 2, 2]))
        return self.add("Conv", x, sums, kernel_shape=[2, 2], strides=[1, 1])

    def normalize(self, x: Name, name: str, norm: InstanceNorm) -> Name:
        scale = self._tensor(f"{name}.weight", _array(norm.weight))
        shift = self._tensor(f"{name}.bias", _array(norm.bias))
        return self.add("InstanceNormalization", x, scale, shift, epsilon=norm.eps)

    def pad(
        self, x: Name, lines: int | tuple[int, int, int, int], *, mode: str = "reflect"
    ) -> Name:
        """Pad all sides by so many lines, or (top, left, bottom, right) by as many each."""
        top, left, bottom, right = (lines,) * 4 if isinstance(lines, int) else lines
        return self.add("Pad", x, self.integers([0, 0, top, left, 0, 0, bottom, right]), mode=mode)

    def cut(self, x: Name, starts: Name, ends: Name) -> Name:
        """(N, C, H, W): cut rows and columns."""
        return self.add("Slice", x, starts, ends, self.integers([2, 3]))

    def to_space(self, x: Name) -> Name:
        """Do what `depth_to_space` in transformer.py does."""
        return self.add("DepthToSpace", x, blocksize=2, mode="DCR")

    def negative(self, x: Name) -> Name:
        return self.add("Sub", self.integer(0), x)

    def absolute(self, x: Name) -> Name:
        """Return |x| of integers. OpenVINO 2026.4 drops the operator Abs of integers."""
        return self.add("Max", x, self.negative(x))

    def mirror(self, x: Name, last: Name) -> Name:
        """Reflect lines beyond the last one: last - |last - x|."""
        return self.add("Sub", last, self.absolute(self.add("Sub", last, x)))

    def integer(self, value: int) -> Name:
        return self._tensor(f"int_{value}", np.array(value, np.int64))

    def integers(self, values: list[int]) -> Name:
        return self._tensor("_".join(map(str, ["ints", *values])), np.array(values, np.int64))

    def number(self, value: float) -> Name:
        return self._tensor(f"float_{value:g}", np.array(value, np.float32))

    def _kernel(self, name: str, kernel: Tensor) -> Name:
        array = _array(kernel)
        if not self.form.half:
            return self._tensor(name, array)
        half = array.astype(np.float16)
        assert (half == array).all(), "the network's weights are no float16 numbers"
        return self.add("Cast", self._tensor(name, half), to=TensorProto.FLOAT)

    def _tensor(self, name: str, array: npt.NDArray[Any]) -> Name:
        if name not in self._names:
            self._names.add(name)
            self.tensors.append(numpy_helper.from_array(array, name))
        return name


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
