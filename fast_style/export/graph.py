"""An ONNX graph in the making, node by node: what `onnx.py` and `stages.py` build with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from fast_style.errors import UserError
from fast_style.networks.streaming import EDGE_PIXELS, Edge
from fast_style.networks.transformer import InstanceNorm, Upsampling, upsample_kernel
from fast_style.version import __version__

Io = Literal["uint8", "float"]

OPSETS = range(13, 25)
# Reflecting the mirrored edge needs more lines than it has.
SMALLEST_SIZE = 2 * EDGE_PIXELS
Name = str
# A tensor's type, of `TensorProto`, and its axes: a length, or a name where it is not known.
Kind = tuple[int, Sequence[int | str]]


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


class Graph:
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

    def normalize(
        self, x: Name, name: str, norm: InstanceNorm, moments: Sequence[Name] = ()
    ) -> Name:
        """Normalize by the maps' own statistics, or by the mean and the variance in `moments`."""
        scale = self._tensor(f"{name}.weight", _array(norm.weight))
        shift = self._tensor(f"{name}.bias", _array(norm.bias))
        operator = "BatchNormalization" if moments else "InstanceNormalization"
        return self.add(operator, x, scale, shift, *moments, epsilon=norm.eps)

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

    def serialized(
        self, inputs: Mapping[str, Kind], outputs: Mapping[str, Kind], metadata: Mapping[str, str]
    ) -> bytes:
        """Return an ONNX file's bytes, the same ones each time."""
        opsets = [helper.make_opsetid("", self.form.opset)]
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                "fast-style",
                [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
                [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
                initializer=self.tensors,
            ),
            producer_name="fast-style",
            producer_version=__version__,
            ir_version=helper.find_min_ir_version_for(opsets),
            opset_imports=opsets,
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return cast(bytes, model.SerializeToString(deterministic=True))

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
