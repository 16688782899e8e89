"""The network as an ONNX graph as textbooks and other projects have it, to compare ours with."""

from collections.abc import Iterable
from typing import cast

import numpy as np
from onnx import TensorProto

from fast_style.export.graph import Graph, GraphForm, Kind
from fast_style.export.onnx import add_residual_blocks, as_planes
from fast_style.networks.streaming import EDGE_PIXELS
from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    ConvBlock,
    TransformerNet,
    UpsampleBlock,
)


def textbook_bytes(network: TransformerNet) -> bytes:
    """Return the graph: nearest upsampling by Resize, a 9x9 convolution to three channels.

    For sizes that are multiples of 4; the image goes on beyond its edges, as ours does.
    """
    graph = Graph(GraphForm())
    x = graph.pad(as_planes(graph, "image"), EDGE_PIXELS)
    # nn.Sequential does not say what it holds.
    for i, block in enumerate(cast(Iterable[ConvBlock], network.encoder)):
        kernel = block.conv.weight.double() / (255 if i == 0 else 1)
        bias = -kernel.sum((1, 2, 3)) * 127.5 if i == 0 else None
        x = graph.pad(x, kernel.shape[-1] // 2)
        x = graph.convolve(x, f"encoder.{i}", kernel, bias, stride=block.conv.stride[0])
        x = graph.add("Relu", graph.normalize(x, f"encoder.{i}.norm", block.norm))
    x = add_residual_blocks(graph, x, network)
    scales = graph._tensor("scales", np.array([1, 1, 2, 2], np.float32))
    for i, up in enumerate(cast(Iterable[UpsampleBlock], network.decoder)):
        x = graph.add(
            "Resize",
            x,
            "",
            scales,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
        x = graph.convolve(graph.pad(x, 1), f"decoder.{i}", up.conv.weight)
        x = graph.add("Relu", graph.normalize(x, f"decoder.{i}.norm", up.norm))
    assert network.head.bias is not None
    scale = OUTPUT_SCALE * 255
    bias = network.head.bias.double() * scale + 127.5
    x = graph.convolve(graph.pad(x, 4), "head", network.head.weight.double() * scale, bias)
    x = graph.cut(x, graph.integers([EDGE_PIXELS] * 2), graph.integers([-EDGE_PIXELS] * 2))
    x = graph.add("Clip", x, graph.number(0), graph.number(255))
    x = graph.add("Cast", graph.add("Round", x), to=TensorProto.UINT8)
    graph.add("Transpose", x, perm=[0, 2, 3, 1])
    graph.nodes[-1].output[0] = "stylized"
    kind: Kind = (TensorProto.UINT8, ["batch", "height", "width", 3])
    return graph.serialized({"image": kind}, {"stylized": kind}, {"width": str(network.width)})
