"""Other projects' checkpoints, each against a plain statement of that project's network."""

import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_style.checkpoints.files import CheckpointError, load_model
from fast_style.commands import main
from fast_style.networks.streaming import StreamingTransformer

W = 4  # the projects' own width is 32
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
ENCODER = ((3, W, 9, 1), (W, 2 * W, 3, 2), (2 * W, 4 * W, 3, 2))
DECODER = ((4 * W, 2 * W), (2 * W, W))


class Net(nn.Module):
    """Layers in the order in which they are named; a ReLU after each norm."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in leaves(self):
            x = layer(x)
            if isinstance(layer, (nn.InstanceNorm2d, ScaleAndShift)):
                x = F.relu(x)
        return x


class Residual(nn.Module):
    """Pad, convolution, norm, ReLU, pad, convolution, norm; then the input, once or twice."""

    def __init__(self, layers: dict[str, nn.Module], *, times: int = 1) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        pad1, conv1, norm1, pad2, conv2, norm2 = leaves(self)
        return norm2(conv2(pad2(F.relu(norm1(conv1(pad1(x))))))) + self.times * x


class ScaleAndShift(nn.Module):
    """abhiskk's instance norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-9)
        return x * self.scale[:, None, None] + self.shift[:, None, None]


def leaves(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, Residual) or not list(child.children()):
            yield child
        else:
            yield from leaves(child)


def named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


def conv(name: str, c: int, d: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A padded convolution, which is called `name`."""
    return named(pad=nn.ReflectionPad2d(kernel // 2), **{name: nn.Conv2d(c, d, kernel, stride)})


def upsampled(layer: nn.Module, **name: str) -> nn.Sequential:
    """Upsampling before a layer, which gets a name of its own if there is one."""
    up = nn.Upsample(scale_factor=2, mode="nearest")
    if name:
        return named(up=up, **{name["name"]: layer})
    assert isinstance(layer, nn.Sequential)
    return named(up=up, **dict(layer.named_children()))


def examples(
    up: str = "deconv{}",
    *,
    nested: bool = False,
    times: int = 1,
    make_norm: Callable[[int], nn.Module] = norm,
) -> Net:
    """pytorch/examples, and the three that grew from it."""
    layers: dict[str, nn.Module] = {}
    for i, (c, d, kernel, stride) in enumerate(ENCODER, 1):
        layers |= {f"conv{i}": conv("conv2d", c, d, kernel, stride), f"in{i}": make_norm(d)}
    for i in range(1, 6):
        block: dict[str, nn.Module] = {}
        for j in (1, 2):
            block[f"conv{j}"] = conv("conv2d", 4 * W, 4 * W, 3)
            block[f"in{j}"] = make_norm(4 * W)
        layers[f"res{i}"] = Residual(block, times=times)
    for i, (c, d) in enumerate(DECODER, 1):
        layer = conv("conv2d", c, d, 3)
        layers[up.format(i)] = upsampled(layer, name="conv2d") if nested else upsampled(layer)
        layers[f"in{i + 3}"] = make_norm(d)
    layers[up.format(3)] = conv("conv2d", W, 3, 9)
    return Net(layers)


def eriklindernoren() -> Net:
    def block(c: int, d: int, kernel: int, stride: int = 1, *, up: bool = False) -> nn.Sequential:
        padded = nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(c, d, kernel, stride))
        layer = named(block=padded, norm=norm(d))
        return upsampled(layer) if up else layer

    def residual() -> Residual:
        return Residual({"block": nn.Sequential(*(block(4 * W, 4 * W, 3) for _ in range(2)))})

    head = named(block=nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(W, 3, 9)))
    return Net(
        {
            "model": nn.Sequential(
                *(block(*sizes) for sizes in ENCODER),
                *(residual() for _ in range(5)),
                *(block(c, d, 3, up=True) for c, d in DECODER),
                head,
            )
        }
    )


def igreat() -> Net:
    layers: list[nn.Module] = []
    for c, d, kernel, stride in ENCODER:
        layers += [conv("conv", c, d, kernel, stride), norm(d), nn.ReLU()]
    for _ in range(5):
        block: dict[str, nn.Module] = {}
        for j in (1, 2):
            block[f"conv{j}"] = conv("conv", 4 * W, 4 * W, 3)
            block[f"instance_norm{j}"] = norm(4 * W)
        layers.append(Residual(block))
    for c, d in DECODER:
        layers += [upsampled(conv("conv", c, d, 3), name="conv"), norm(d), nn.ReLU()]
    return Net({"layers": nn.Sequential(*layers, conv("conv", W, 3, 9))})


def pystiche() -> Net:
    def layer(c: int, d: int, kernel: int, stride: int = 1) -> nn.Sequential:
        return named(**dict(conv("conv", c, d, kernel, stride).named_children()), norm=norm(d))

    def residual() -> Residual:
        return Residual({f"conv{j}": layer(4 * W, 4 * W, 3) for j in (1, 2)})

    encoder = nn.Sequential(*(layer(*sizes) for sizes in ENCODER), *(residual() for _ in range(5)))
    ups = (upsampled(layer(c, d, 3)) for c, d in DECODER)
    return Net({"encoder": encoder, "decoder": nn.Sequential(*ups, conv("conv", W, 3, 9))})


def rrmina() -> Net:
    def layer(c: int, d: int, kernel: int, stride: int = 1) -> nn.Sequential:
        return named(
            **dict(conv("conv_layer", c, d, kernel, stride).named_children()), norm_layer=norm(d)
        )

    def up(c: int, d: int) -> nn.Sequential:
        transposed = nn.ConvTranspose2d(c, d, 3, 2, padding=1, output_padding=1)
        return named(conv_transpose=transposed, norm_layer=norm(d))

    encoder = [module for sizes in ENCODER for module in (layer(*sizes), nn.ReLU())]
    decoder = [module for sizes in DECODER for module in (up(*sizes), nn.ReLU())]
    blocks = [Residual({f"conv{j}": layer(4 * W, 4 * W, 3) for j in (1, 2)}) for _ in range(5)]
    return Net(
        {
            "ConvBlock": nn.Sequential(*encoder),
            "ResidualBlock": nn.Sequential(*blocks),
            "DeconvBlock": nn.Sequential(*decoder, conv("conv_layer", W, 3, 9)),
        }
    )


@dataclass(frozen=True)
class Project:
    make: Callable[[], Net]
    to_theirs: Callable[[Tensor], Tensor]
    from_theirs: Callable[[Tensor], Tensor]


def in_255(make: Callable[[], Net]) -> Project:
    return Project(make, lambda x: 255 * x, lambda y: y / 255)


def in_imagenet(make: Callable[[], Net]) -> Project:
    return Project(make, lambda x: (x - MEAN) / STD, lambda y: y * STD + MEAN)


PROJECTS = {
    "pytorch/examples": in_255(examples),
    "abhiskk": Project(
        lambda: examples(make_norm=ScaleAndShift),
        lambda x: 255 * x.flip(1),
        lambda y: y.flip(1) / 255,
    ),
    "yakhyo": in_255(lambda: examples("upsample_conv{}", times=2)),
    "gordicaleksa": in_imagenet(lambda: examples("up{}", nested=True)),
    "eriklindernoren": in_imagenet(eriklindernoren),
    "igreat": in_imagenet(igreat),
    "pystiche": in_255(pystiche),
    "rrmina": Project(rrmina, lambda x: 255 * x.flip(1), lambda y: y.flip(1) / 255),
}


def trained(project: Project) -> Net:
    """A network whose weights are not those of an init, and whose pictures have contrast."""
    net = project.make()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        convs = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
        for layer in convs[1:-1]:  # so small that the norms' epsilon matters
            layer.weight *= 0.01
            layer.bias *= 0.01
        convs[-1].weight *= 0.2 * project.to_theirs(torch.ones(1, 3, 1, 1)).max()
    return net.eval()


def expected(project: Project, net: Net, image: Tensor) -> Tensor:
    with torch.no_grad():
        return project.from_theirs(net.double()(project.to_theirs(image.double())))


def save(path: Path, content: object, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def message_for(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("name", PROJECTS)
def test_a_converted_network_gives_the_projects_own_pictures(tmp_path: Path, name: str) -> None:
    project = PROJECTS[name]
    net = trained(project)
    model = load_model(save(tmp_path / "a.pth", net.state_dict()))
    assert model.metadata == {"imported_from": name}
    assert (model.network.width, model.network.num_residual_blocks) == (W, 5)
    assert not model.network.training
    assert not any(p.requires_grad for p in model.network.parameters())
    for height, width in ((8, 12), (32, 32), (64, 40)):
        image = torch.rand(2, 3, height, width)
        right = expected(project, net, image)
        tolerance = 1e-4 * float(right.max() - right.min())
        with torch.no_grad():
            found = model.network(image)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), right, rtol=0, atol=tolerance)
        strips = [
            strip for _, strip in StreamingTransformer(model.network, edge="none").strips(image[0])
        ]
        torch.testing.assert_close(torch.cat(strips, 1).double(), right[0], rtol=0, atol=tolerance)


def test_the_old_statistics_that_were_never_used_are_dropped(tmp_path: Path) -> None:
    net = trained(PROJECTS["pytorch/examples"])
    state = net.state_dict()
    plain = load_model(save(tmp_path / "plain.pth", state)).network.state_dict()
    for key, value in list(state.items()):
        if key.rpartition(".")[0].rpartition(".")[2].startswith("in") and key.endswith("weight"):
            prefix = key.removesuffix("weight")
            state[f"{prefix}running_mean"] = torch.rand_like(value)
            state[f"{prefix}running_var"] = torch.rand_like(value)
    assert len(state) == 62 + 30
    path = save(tmp_path / "old.pth", state, zipped=False)  # as PyTorch 0.3 wrote files
    old = load_model(path).network.state_dict()
    assert all(torch.equal(plain[key], old[key]) for key in plain)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"model": state},
        lambda state: {"epoch": 1, "model_state_dict": state, "loss": torch.tensor(3.0)},
        lambda state: {
            "commit_hash": "0a1b",
            "content_weight": 1.0,
            "style_weight": 4e5,
            "tv_weight": 0,
            "num_of_datapoints": 82000,
            "state_dict": state,
            "optimizer_state": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-3}]},
        },
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {key: nn.Parameter(value) for key, value in state.items()},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
)
@pytest.mark.parametrize("name", ["gordicaleksa", "eriklindernoren"])
def test_weights_are_found_where_they_are(
    tmp_path: Path, name: str, wrap: Callable[[dict[str, Tensor]], object]
) -> None:
    state = PROJECTS[name].make().state_dict()
    path = save(tmp_path / "a.pth", wrap(state))
    plain = load_model(save(tmp_path / "plain.pth", state)).network.state_dict()
    model = load_model(path)
    assert model.metadata == {"imported_from": name}
    assert all(torch.equal(plain[key], value) for key, value in model.network.state_dict().items())


def test_an_unknown_file_is_told_what_was_found_and_what_is_supported(tmp_path: Path) -> None:
    weights = {"stem.weight": torch.zeros(8, 3, 7, 7), "stem.bias": torch.zeros(8)}
    message = message_for(save(tmp_path / "a.pth", {"epoch": 3, "state_dict": weights}))
    assert "found 2 keys (epoch, state_dict ...) and 2 tensors" in message
    assert "stem.weight (8, 3, 7, 7), stem.bias (8,)" in message
    assert all(name in message for name in PROJECTS)


@pytest.mark.parametrize("change", ["missing", "more", "tracked"])
def test_a_file_that_lacks_a_key_or_has_one_more_is_unknown(tmp_path: Path, change: str) -> None:
    state = examples().state_dict()
    if change == "missing":
        del state["res3.in2.bias"]
    else:
        key = "in1.num_batches_tracked" if change == "tracked" else "res6.conv1.conv2d.weight"
        state[key] = torch.tensor(1)
    assert "not a fast-style/1 model: found" in message_for(save(tmp_path / "a.pth", state))


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("conv1.conv2d.weight", torch.zeros(W, 3, 7, 7), "is (4, 3, 7, 7) instead of (4, 3, 9, 9)"),
        ("deconv3.conv2d.bias", torch.zeros(1), "is (1,) instead of (3,)"),
        ("in1.weight", torch.zeros(0), "conv1.conv2d.weight is (4, 3, 9, 9) instead of"),
        ("in5.bias", torch.zeros(W, dtype=torch.int64), "is torch.int64"),
        pytest.param(
            *("in5.bias", torch.zeros(W).to_sparse(), "torch.sparse_coo"),
            marks=pytest.mark.filterwarnings("ignore:Validating sparse"),
        ),
    ],
)
def test_a_weight_that_does_not_fit_is_named(
    tmp_path: Path, key: str, value: Tensor, what: str
) -> None:
    path = save(tmp_path / "a.pth", {**examples().state_dict(), key: value})
    message = message_for(path)
    assert "has the names of a pytorch/examples checkpoint, but" in message
    assert what in message


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("encoder.4.residual.0.0.weight", "a pystiche_papers checkpoint: pads once"),
    ],
)
def test_an_architecture_that_cannot_be_run_is_refused_by_name(
    tmp_path: Path, key: str, what: str
) -> None:
    message = message_for(save(tmp_path / "a.pth", {key: torch.zeros(1)}))
    assert what in message
    assert message.endswith("which this version cannot run")


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_beside_good_weights_never_runs(tmp_path: Path, zipped: bool) -> None:
    witness = tmp_path / "witness"
    content = {"state_dict": examples().state_dict(), "args": Hostile(witness)}
    path = save(tmp_path / "a.pth", content, zipped=zipped)
    assert "refused" in message_for(path)
    assert main(["convert", str(path), str(tmp_path / "b.pth")]) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_convert_writes_a_model_of_this_program(tmp_path: Path, repository: Path) -> None:
    source = save(tmp_path / "a.model", examples("upsample_conv{}", times=2).state_dict())
    before = source.read_bytes()
    output = tmp_path / "b.pth"
    done = subprocess.run(
        [sys.executable, repository / "scripts" / "convert.py", source, output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: from yakhyo, width {W}\n"
    assert torch.load(output, weights_only=True)["format"] == "fast-style/1"
    direct, written = load_model(source), load_model(output)
    assert written.metadata["imported_from"] == "yakhyo"
    ours = written.network.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in direct.network.state_dict().items())
    assert source.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [source, output]


def test_convert_refuses_in_one_line_and_leaves_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(tmp_path / "a.pth", examples().state_dict())
    link = tmp_path / "link.pth"
    link.symlink_to(source)
    unknown = save(tmp_path / "unknown.pth", {"a": torch.zeros(1)})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, what in (
        ((source, source), "is the input"),
        ((source, link), "is the input"),
        ((source, tmp_path), "is a folder"),
        ((source, tmp_path / "gone" / "b.pth"), "there is no folder"),
        ((tmp_path / "gone.pth", tmp_path / "b.pth"), "no such file"),
        ((unknown, source), "not a fast-style/1 model"),
    ):
        assert main(["convert", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert what in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "a.pth", examples().state_dict())
    output = tmp_path / "b.pth"
    output.write_bytes(b"mine")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert main(["convert", str(source), str(output)]) == 2
    assert output.read_bytes() == b"mine"
    assert sorted(tmp_path.iterdir()) == [source, output]
