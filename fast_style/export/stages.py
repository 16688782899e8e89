"""A trained network as a chain of small ONNX graphs: a large photo, strip by strip, exactly.

An instance norm wants the mean and the variance of a whole feature map, so what runs strip by strip
has to stop there. Each graph ends at a norm and gives the statistics of its own rows; whoever runs
the chain merges them and gives them to the next graph, which computes what came before once more
instead of holding it. Only the trunk, at a quarter of the edge, is held and run whole. `strips.py`
does so here, and `web/stages.js` in a browser.

    encode1   image -> statistics of norm 1
    encode2   image, norm 1 -> statistics of norm 2
    encode3   image, norms 1 and 2 -> map, statistics of norm 3
    trunk     map, norm 3 -> map
    decode1   map -> statistics of norm 4
    decode2   map, norm 4 -> statistics of norm 5
    decode3   map, norms 4 and 5 -> stylized

A strip is of whole rows. `image` has the rows and columns around it already; the columns of maps
are padded in the graph, their rows by `rowsK`, which says which rows of map K the next convolution
reads: those beyond the image's edge are ones inside.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import cast

from onnx import TensorProto

from fast_style.errors import UserError
from fast_style.export.graph import Graph, GraphForm, Kind, Name
from fast_style.export.onnx import (
    add_first_convolution,
    add_head,
    add_residual_blocks,
    add_upsampling,
    as_planes,
    upsampling_border,
)
from fast_style.networks.patch import PatchNet
from fast_style.networks.transformer import ConvBlock, InstanceNorm, TransformerNet, UpsampleBlock

# The axes of pixels.
_ROWS, _COLUMNS = 2, 3


def stage_bytes(
    network: TransformerNet, *, half: bool = False, about: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """Return the graphs of the chain by name, in the order in which they run.

    `half` is that of `GraphForm`; `about` goes into each file. Raises UserError for a network with
    transposed convolutions, or of the fast family.
    """
    if isinstance(network, PatchNet):
        raise UserError("a network of the fast family has no stages: export it whole")
    if network.upsampling != "nearest":
        raise UserError("a network with transposed convolutions has no stages: export it whole")
    form = GraphForm(half=half)
    stages: dict[str, Callable[[_Stage], None]] = {
        "encode1": partial(_encode, depth=1),
        "encode2": partial(_encode, depth=2),
        "encode3": partial(_encode, depth=3),
        "trunk": _trunk,
        "decode1": partial(_decode, depth=1),
        "decode2": partial(_decode, depth=2),
        "decode3": partial(_decode, depth=3),
    }
    files = {}
    for name, build in stages.items():
        stage = _Stage(network, form)
        build(stage)
        files[name] = stage.graph.serialized(
            stage.inputs, stage.outputs, {**(about or {}), "stage": name}
        )
    return files


class _Stage:
    """One graph in the making, with its inputs and outputs."""

    def __init__(self, network: TransformerNet, form: GraphForm) -> None:
        self.network = network
        self.graph = Graph(form)
        self.inputs: dict[str, Kind] = {}
        self.outputs: dict[str, Kind] = {}
        # nn.Sequential does not say what it holds.
        self.encoder = list(cast(Iterable[ConvBlock], network.encoder))
        self.decoder = list(cast(Iterable[UpsampleBlock], network.decoder))

    def image(self) -> Name:
        self.inputs["image"] = TensorProto.UINT8, [1, "rows", "columns", 3]
        return as_planes(self.graph, "image")

    def map(self) -> Name:
        self.inputs["map"] = TensorProto.FLOAT, [1, 4 * self.network.width, "rows", "columns"]
        return "map"

    def normalized(self, x: Name, number: int, norm: InstanceNorm) -> Name:
        """Normalize by the statistics that the graph is given, and rectify."""
        moments = [f"mean{number}", f"variance{number}"]
        for name in moments:
            self.inputs[name] = TensorProto.FLOAT, [len(norm.weight)]
        return self.graph.add("Relu", self.graph.normalize(x, f"norm{number}", norm, moments))

    def rows(self, x: Name, number: int) -> Name:
        """Take the rows that the next convolution reads."""
        name = f"rows{number}"
        self.inputs[name] = TensorProto.INT64, [name]
        return self.graph.add("Gather", x, name, axis=_ROWS)

    def give(self, x: Name, name: str, kind: Kind) -> None:
        """Make `x` an output."""
        self.graph.add("Identity", x)
        self.graph.nodes[-1].output[0] = name
        self.outputs[name] = kind

    def give_statistics(self, x: Name, channels: int) -> None:
        """Make the mean and variance of each channel outputs."""
        mean = self._mean(x)
        apart = self.graph.add("Sub", x, mean)
        variance = self._mean(self.graph.add("Mul", apart, apart))
        for name, value in (("mean", mean), ("variance", variance)):
            flat = self.graph.add("Reshape", value, self.graph.integers([-1]))
            self.give(flat, name, (TensorProto.FLOAT, [channels]))

    def _mean(self, x: Name) -> Name:
        # Row by row first: a sum in float32 of a million pixels at once would lose digits.
        for axis in (_COLUMNS, _ROWS):
            x = self.graph.add("ReduceMean", x, axes=[axis], keepdims=1)
        return x


def _encode(stage: _Stage, *, depth: int) -> None:
    graph, blocks = stage.graph, stage.encoder
    x = add_first_convolution(graph, stage.image(), blocks[0].conv.weight)
    for i in range(1, depth):
        x = stage.rows(stage.normalized(x, i, blocks[i - 1].norm), i)
        x = graph.pad(x, (0, 1, 0, 1))
        x = graph.convolve(x, f"encoder.{i}.conv", blocks[i].conv.weight, stride=2)
    channels = stage.network.width << (depth - 1)
    if depth == len(blocks):
        stage.give(x, "stage", (TensorProto.FLOAT, [1, channels, "rows3", "columns3"]))
    stage.give_statistics(x, channels)


def _trunk(stage: _Stage) -> None:
    x = stage.normalized(stage.map(), 3, stage.encoder[-1].norm)
    x = add_residual_blocks(stage.graph, x, stage.network)
    stage.give(x, "stage", (TensorProto.FLOAT, [1, 4 * stage.network.width, "rows", "columns"]))


def _decode(stage: _Stage, *, depth: int) -> None:
    graph, network, blocks = stage.graph, stage.network, stage.decoder
    border = upsampling_border(network)
    x = stage.map()
    for i in range(min(depth, len(blocks))):
        if i:
            x = stage.rows(stage.normalized(x, 3 + i, blocks[i - 1].norm), 3 + i)
        x = graph.pad(x, (0, 1, 0, 1), mode=border)
        x = add_upsampling(graph, x, f"decoder.{i}.conv", blocks[i])
    if depth <= len(blocks):
        stage.give_statistics(x, network.width << (2 - depth))
        return
    x = stage.normalized(x, 3 + len(blocks), blocks[-1].norm)
    for name in ("starts", "ends", "size"):
        stage.inputs[name] = TensorProto.INT64, [2]
    x = add_head(graph, graph.cut(x, "starts", "ends"), network, "size")
    stage.give(x, "stage", (TensorProto.UINT8, [1, "height", "width", 3]))
