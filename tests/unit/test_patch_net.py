"""The fast family: its network, its files, its strips, and what a trained network teaches it."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import write_photos

from fast_style.checkpoints.files import load_model, save_model
from fast_style.commands import main
from fast_style.config import Config, ConfigError
from fast_style.data import ContentImages
from fast_style.export.program import ExportableNet
from fast_style.networks.building import build_network
from fast_style.networks.patch import PatchNet, grown_from
from fast_style.networks.streaming import Edge, StreamingTransformer
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.training.distillation import distill
from fast_style.training.faults import TrainingError
from fast_style.training.inputs import initial_network, with_start

MakeConfig = Callable[..., Config]


def network(width: int = 4, blocks: int = 2) -> PatchNet:
    """A network whose norms have scales of both signs and of zero, as training can make them."""
    torch.manual_seed(0)
    net = PatchNet(width, blocks)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter += 0.5 * torch.randn_like(parameter)
        net.head.weight *= 8
        net.encoder[0].norm.weight[0] = 0
        net.encoder[0].norm.weight[1] = -0.7
        net.decoder[0].norm.weight[2] = -0.1
    return net.eval()


def whole(engine: StreamingTransformer, image: torch.Tensor, **options: object) -> torch.Tensor:
    return torch.cat([strip for _, strip in engine.strips(image, **options)], dim=1)


def test_has_the_parameters_that_its_docstring_counts() -> None:
    assert sum(parameter.numel() for parameter in PatchNet(16).parameters()) == 426_540


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (8, 8), (33, 47), (64, 64)])
def test_keeps_the_size_of_any_image(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert network()(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_is_the_textbook_layers_in_a_row() -> None:
    net, image = network(blocks=1), torch.rand(1, 3, 32, 40)

    def normed(x: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
        return F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)

    (patches,), (block,), (up,) = net.encoder, net.residual_blocks, net.decoder
    with torch.no_grad():
        x = F.pad(image - 0.5, (4, 4, 4, 4), mode="reflect")
        x = F.relu(normed(F.conv2d(x, patches.conv.weight, patches.conv.bias, 4), patches.norm))
        y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), block.conv1.weight, block.conv1.bias)
        y = F.pad(F.relu(normed(y, block.norm1)), (1, 1, 1, 1), mode="reflect")
        x = x + normed(F.conv2d(y, block.conv2.weight, block.conv2.bias), block.norm2)
        x = F.pad(F.interpolate(x, scale_factor=2), (1, 1, 1, 1), mode="reflect")
        x = F.relu(normed(F.conv2d(x, up.conv.weight, up.conv.bias), up.norm))
        x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), net.head.weight, net.head.bias)
        # Channels (a, b, colour) are pixel (a, b) of a square.
        squares = x.view(1, 2, 2, 3, 16, 20).permute(0, 3, 4, 1, 5, 2).reshape(1, 3, 32, 40)
        torch.testing.assert_close(net(image), squares / 32 + 0.5, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2))
def test_strips_equal_the_network_for_any_size(height: int, width: int, blocks: int) -> None:
    net = network(blocks=blocks)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(image[None])[0]
    result = whole(StreamingTransformer(net, edge="none"), image)
    assert result.shape == image.shape
    if min(height, width) > 2:
        assert (result - expected).abs().max() <= 1e-3 * expected.std()


@pytest.mark.parametrize("edge", ["reflect", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1100, 333), (700, 601)])
def test_strips_of_any_height_give_the_same_bits(
    size: tuple[int, int], dtype: torch.dtype, edge: Edge
) -> None:
    engine = StreamingTransformer(network(), dtype=dtype, edge=edge)
    image = torch.rand(3, *size)
    expected = whole(engine, image, height=10_000)
    for height, recompute in ((1, True), (256, False)):
        assert torch.equal(whole(engine, image, height=height, recompute=recompute), expected)


def test_a_model_file_rebuilds_it(tmp_path: Path) -> None:
    net, image = network(), torch.rand(1, 3, 24, 24)
    path = save_model(tmp_path / "fast.pth", net)
    loaded = load_model(path).network
    assert type(loaded) is PatchNet
    assert build_network(net.spec()).spec() == loaded.spec()
    with torch.no_grad():
        assert torch.equal(loaded(image), net.to(memory_format=torch.channels_last)(image))
    picture = Stylizer(path)(image[0])
    assert picture.shape == image.shape[1:]


def test_takes_over_the_blocks_of_a_trained_network(tiny_network: TransformerNet) -> None:
    grown = grown_from(tiny_network)
    assert (grown.width, grown.num_residual_blocks) == (4, 1)
    for name, weights in tiny_network.residual_blocks.state_dict().items():
        assert torch.equal(grown.residual_blocks.state_dict()[name], weights)
    with pytest.raises(ValueError, match="is of kind patch itself"):
        grown_from(grown)
    with pytest.raises(ValueError, match="upsamples by transposed convolutions"):
        grown_from(TransformerNet(4, 1, upsampling="transposed"))


def test_distilling_comes_nearer_to_the_teacher_and_is_the_same_each_time(
    tiny_network: TransformerNet, photos: Path
) -> None:
    images = ContentImages(sorted(photos.iterdir()), 32)
    losses: list[float] = []
    first = distill(
        tiny_network, images, steps=60, on_step=lambda step, loss: losses.append(loss)
    ).state_dict()
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    again = distill(tiny_network, images, steps=60).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_command_writes_a_model_that_says_who_taught_it(
    tiny_network: TransformerNet, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = {"config": {"name": "t", "network": {"width": 4}}, "quality": [1]}
    teacher = save_model(tmp_path / "teacher.pth", tiny_network, metadata=metadata)
    output = tmp_path / "fast.pth"
    arguments = ["--images", str(photos), "--steps", "2", "--crop", "32", "--device", "cpu"]
    assert main(["distill", "--model", str(teacher), "-o", str(output), *arguments]) == 0
    assert capsys.readouterr().out == f"{output}: kind patch, width 4, taught by teacher\n"
    model = load_model(output)
    assert model.network.kind == "patch"
    assert model.metadata["distilled_from"] == "teacher"
    assert model.metadata["config"]["network"]["kind"] == "patch"
    assert "quality" not in model.metadata
    # It cannot teach in its turn, nor be overwritten by what it teaches.
    for source, problem in ((output, "is of kind patch itself"), (teacher, "is the teacher")):
        command = ["distill", "--model", str(source), "-o", str(teacher), *arguments]
        assert main(command) == 2
        assert problem in capsys.readouterr().err


def test_a_network_that_diverges_is_not_written(
    tiny_network: TransformerNet, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 3)
    images = ContentImages(sorted((tmp_path / "photos").iterdir()), 32)
    with pytest.raises(TrainingError, match="NaN or infinite in step"):
        distill(tiny_network, images, steps=4, learning_rate=1e30)


def test_training_goes_on_with_one_of_its_own_kind_only(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    fast = save_model(tmp_path / "fast.pth", network(4, 1))
    changes = {"training.init_from": str(fast), "network.kind": "patch"}
    assert initial_network(tiny_config(changes)).kind == "patch"
    with pytest.raises(ConfigError, match=r"network\.kind: is residual, but .* has patch"):
        initial_network(tiny_config({"training.init_from": str(fast)}))
    auto = with_start(tiny_config({**changes, "training.init_from": "auto"}))
    assert auto.training.init_from is None


def test_its_program_and_its_safetensors_give_its_picture(tmp_path: Path) -> None:
    net, stylizer = network(), Stylizer(network(), device="cpu")
    path = save_model(tmp_path / "fast.pth", net)
    output = tmp_path / "hub" / "model.safetensors"
    output.parent.mkdir()
    assert main(["export", "--model", str(path), "-o", str(output)]) == 0
    assert type(load_model(output).network) is PatchNet
    assert "kind patch, width 4, 2 residual blocks" in (output.parent / "README.md").read_text()
    for size in ((1, 3, 5, 7), (2, 3, 40, 33)):
        image = torch.rand(size)
        with torch.no_grad():
            picture = ExportableNet(net)(image)
        assert (picture - stylizer(image)).abs().max() <= 0.02 / 255
        assert torch.equal(Stylizer(output, device="cpu")(image), stylizer(image))


def test_its_export_in_strips_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'fast-style[export]'")
    path, output = save_model(tmp_path / "fast.pth", network()), tmp_path / "fast.onnx"
    assert main(["export", "--model", str(path), "-o", str(output), "--strips"]) == 2
    assert "a network of the fast family has no stages: export it whole" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("wrap", ["x", "xy"])
def test_a_picture_that_goes_around_may_be_rolled(wrap: Literal["x", "xy"]) -> None:
    engine, image = StreamingTransformer(network(), wrap=wrap), torch.rand(3, 48, 64)
    shift, axes = ((8, 20), (1, 2)) if wrap == "xy" else ((20,), (2,))
    picture = whole(engine, image)
    rolled = whole(engine, image.roll(shift, axes)).roll([-one for one in shift], axes)
    assert (rolled - picture).abs().max() <= 1e-4 * picture.std()
