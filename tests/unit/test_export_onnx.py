"""The ONNX graph: the network's picture in every form and at every size; and its gate."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_style.errors import UserError
from fast_style.networks.patch import PatchNet
from fast_style.networks.streaming import Edge
from fast_style.networks.transformer import TransformerNet, Upsampling
from fast_style.stylization import Stylizer

onnx = pytest.importorskip("onnx", reason="pip install 'fast-style[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'fast-style[export]'")

from benchmarks.textbook import textbook_bytes  # noqa: E402

from fast_style.export.gate import (  # noqa: E402
    ParityError,
    Tolerance,
    check_parity,
    onnxruntime_session,
)
from fast_style.export.onnx import OPSETS, GraphForm, Io, onnx_bytes  # noqa: E402
from fast_style.export.portable import openvino_core  # noqa: E402

SMALL = [(1, 1, 1), (1, 5, 7), (1, 34, 19), (3, 22, 21)]


def network(upsampling: Upsampling = "nearest", *, half: bool = False) -> TransformerNet:
    """A network whose norms have scales of both signs and of zero, as training can make them."""
    torch.manual_seed(0)
    net = TransformerNet(4, 2, upsampling=upsampling)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
            if half:
                parameter.copy_(parameter.half())
        net.head.weight *= 8
        net.encoder[0].norm.weight[0] = 0
        net.encoder[1].norm.weight[1] = -0.75
    return net.eval()


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("edge", ["reflect", "none"])
@pytest.mark.parametrize("io", ["uint8", "float"])
def test_a_graph_gives_the_networks_picture_at_any_size(
    io: Io, edge: Edge, upsampling: Upsampling
) -> None:
    net, form = network(upsampling), GraphForm(io=io, edge=edge)
    check_parity(onnxruntime_session(onnx_bytes(net, form, {})), net, form)


@pytest.mark.parametrize("edge", ["reflect", "none"])
def test_a_graph_gives_the_networks_picture_at_every_small_size(edge: Edge) -> None:
    net, form = network(), GraphForm(io="float", edge=edge)
    session = onnxruntime_session(onnx_bytes(net, form, {}))
    stylizer = Stylizer(net, device="cpu", edge=edge)

    @settings(max_examples=60)
    @given(st.integers(5, 41), st.integers(5, 41), st.integers(1, 2))
    def compare(height: int, width: int, count: int) -> None:
        generator = torch.Generator().manual_seed(height * width)
        images = torch.rand(count, 3, height, width, generator=generator)
        found = torch.from_numpy(session(images.numpy()))
        assert (found - stylizer(images)).abs().max() <= 0.02 / 255

    compare()


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (64, 48)])
@pytest.mark.parametrize("edge", ["reflect", "none"])
@pytest.mark.parametrize("io", ["uint8", "float"])
def test_a_graph_of_one_size_has_no_arithmetic_on_shapes(
    io: Io, edge: Edge, size: tuple[int, int]
) -> None:
    net, form = network(), GraphForm(io=io, edge=edge, size=size)
    content = onnx_bytes(net, form, {})
    check_parity(onnxruntime_session(content), net, form)
    operators = {node.op_type for node in onnx.load_from_string(content).graph.node}
    layers = {"Conv", "InstanceNormalization", "Relu", "Pad", "Add", "DepthToSpace", "Slice"}
    bytes_only = {"Cast", "Transpose", "Round"} if io == "uint8" else set()
    assert operators == layers | bytes_only | {"Clip"}


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_runs(opset: int) -> None:
    net, form = network(), GraphForm(opset=opset)
    content = onnx_bytes(net, form, {})
    assert onnx.load_from_string(content).opset_import[0].version == opset
    check_parity(onnxruntime_session(content), net, form, shapes=SMALL)


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("io", ["uint8", "float"])
def test_half_the_bytes_give_the_same_picture(io: Io, upsampling: Upsampling) -> None:
    net, form = network(upsampling, half=True), GraphForm(io=io, half=True)
    content = onnx_bytes(net, form, {})
    check_parity(onnxruntime_session(content), net, form, shapes=SMALL)
    wide = TransformerNet(16)
    for weights in wide.state_dict().values():
        weights.copy_(weights.half())
    whole = len(onnx_bytes(wide, GraphForm(io=io), {}))
    assert whole < 2_000_000
    assert len(onnx_bytes(wide, GraphForm(io=io, half=True), {})) < 0.52 * whole


def test_the_same_network_gives_the_same_bytes() -> None:
    metadata = {"style": "sea", "licence": "MIT"}
    contents = {onnx_bytes(network(), GraphForm(), metadata) for _ in range(3)}
    assert len(contents) == 1


def test_a_graph_says_what_it_is() -> None:
    content = onnx_bytes(network(), GraphForm(), {"style": "sea", "licence": "CC0"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"style": "sea", "licence": "CC0"}
    (image,), (stylized,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", "height", "width", 3])
    assert (stylized.name, stylized.shape) == ("stylized", ["batch", "height", "width", 3])


@pytest.mark.parametrize("size", [None, (20, 24)])
def test_a_runtime_loads_and_runs_a_graph_without_a_word(
    size: tuple[int, int] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    form = GraphForm(size=size, half=False)
    onnxruntime_session(onnx_bytes(network(), form, {}))(np.zeros((1, 20, 24, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


def openvino_session(content: bytes, shape: list[int] | None = None) -> Callable[..., np.ndarray]:
    pytest.importorskip("openvino", reason="pip install 'fast-style[openvino]'")
    core = openvino_core()
    model = core.read_model(content)
    if shape:
        model.reshape(shape)
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", precise)
    return lambda images: compiled(images)[0]


# Its convolutions sum in another order.
OPENVINO = Tolerance(floats=0.3, share=0.15)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("io", ["uint8", "float"])
def test_openvino_gives_the_networks_picture(io: Io, half: bool) -> None:
    net, form = network(half=half), GraphForm(io=io, half=half)
    run = openvino_session(onnx_bytes(net, form, {}))
    shapes = [(1, 5, 7), (1, 64, 64), (1, 101, 77), (1, 203, 130), (3, 64, 52)]
    check_parity(run, net, form, tolerance=OPENVINO, shapes=shapes)


@pytest.mark.parametrize("exported", ["any size", "one size"])
@pytest.mark.parametrize("size", [(64, 64), (101, 77), (181, 322)])
@pytest.mark.parametrize("io", ["uint8", "float"])
def test_openvino_compiled_for_one_size_gives_the_networks_picture(
    io: Io, size: tuple[int, int], exported: str
) -> None:
    net = network()
    form = GraphForm(io=io, size=size if exported == "one size" else None)
    shape = [1, *size, 3] if io == "uint8" else [1, 3, *size]
    run = openvino_session(onnx_bytes(net, form, {}), shape)
    check_parity(run, net, form, tolerance=OPENVINO, shapes=[(1, *size)])


@pytest.mark.parametrize("mistake", ["squares", "border", "weights"])
def test_the_gate_refuses_a_graph_that_is_nearly_right(mistake: str) -> None:
    net, form = network(), GraphForm()
    model = onnx.load_from_string(onnx_bytes(net, form, {}))
    for node in model.graph.node:
        for attribute in node.attribute:
            if mistake == "squares" and attribute.name == "mode" and attribute.s == b"DCR":
                attribute.s = b"CRD"
            if mistake == "border" and attribute.name == "mode" and attribute.s == b"reflect":
                attribute.s = b"edge"
    if mistake == "weights":
        kernel = next(t for t in model.graph.initializer if t.name == "head.weight")
        values = onnx.numpy_helper.to_array(kernel) * np.float32(1.05)
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    with pytest.raises(ParityError, match="the graph's picture differs from PyTorch's by up to"):
        check_parity(onnxruntime_session(model.SerializeToString()), net, form)


def test_the_gate_refuses_nan() -> None:
    net, form = network(), GraphForm(io="float")
    with pytest.raises(ParityError):
        check_parity(lambda images: images * np.float32(np.nan), net, form)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"opset": 12}, "opset 12: use 13 to 24"),
        ({"opset": 25}, "opset 25: use 13 to 24"),
        ({"io": "int8"}, "io 'int8': use uint8 or float"),
        ({"size": (15, 40)}, "size 15x40: a graph of one size needs at least 16 pixels a side"),
    ],
)
def test_an_impossible_form_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GraphForm(**wrong)


def test_the_textbooks_graph_that_ours_is_compared_with_is_the_network_too() -> None:
    net, form = network(), GraphForm()
    run = onnxruntime_session(textbook_bytes(net))
    check_parity(run, net, form, shapes=[(1, 64, 48), (3, 32, 36)])


def patch_network() -> PatchNet:
    """A network of the fast family, whose norms have scales of both signs and of zero."""
    torch.manual_seed(0)
    net = PatchNet(4, 2)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
        net.head.weight *= 8
        net.encoder[0].norm.weight[:2] = torch.tensor([0, -0.75])
    return net.eval()


@pytest.mark.parametrize("size", [None, (17, 30)])
@pytest.mark.parametrize("edge", ["reflect", "none"])
@pytest.mark.parametrize("io", ["uint8", "float"])
def test_a_graph_of_the_fast_family_gives_its_picture(
    io: Io, edge: Edge, size: tuple[int, int] | None
) -> None:
    net, form = patch_network(), GraphForm(io=io, edge=edge, size=size)
    check_parity(onnxruntime_session(onnx_bytes(net, form, {})), net, form)


@pytest.mark.parametrize("size", [None, (101, 77)])
def test_openvino_gives_the_picture_of_the_fast_family(size: tuple[int, int] | None) -> None:
    net, form = patch_network(), GraphForm(io="float", size=size)
    run = openvino_session(onnx_bytes(net, form, {}))
    shapes = [(1, *size)] if size else [(1, 5, 7), (1, 101, 77), (3, 64, 52)]
    check_parity(run, net, form, tolerance=OPENVINO, shapes=shapes)
