"""What the program asks of a GPU, counted on one that is not there (`fake_cuda`).

An update must not make the host wait, must not launch more than it did, must not mix devices, and
must leave float64 to devices that have it. Each of these tests is shown to fail, at the end.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, Account, fake_cuda, needs_cuda_build
from recorder import Recorder
from torch import Tensor

from fast_style.baseline.optimization import optimize_image
from fast_style.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizationConfig,
    StyleConfig,
    TrainingConfig,
)
from fast_style.data import ContentImages
from fast_style.devices import resolve_precision
from fast_style.images import to_float
from fast_style.networks import streaming, transformer
from fast_style.networks.transformer import TransformerNet
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import PerceptualLoss
from fast_style.stylization import looks
from fast_style.stylization import stylizer as stylizing
from fast_style.stylization.stylizer import Stylizer
from fast_style.training import trainee as training
from fast_style.training.faults import Guard
from fast_style.training.inputs import Inputs
from fast_style.training.reports import Reports
from fast_style.training.styles import StyleImages
from fast_style.training.trainee import Trainee

pytestmark = needs_cuda_build

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
# Operations of one kernel or more: of an update of the canonical run, and of a picture.
MOST_LAUNCHES = {"bf16": 690, "float32": 623}
MOST_LAUNCHES_OF_A_PICTURE = 620
LOOKS: list[dict[str, Any]] = [
    {},
    {"strength": 0.5},
    {"preserve_color": "luma"},
    {"preserve_color": "histogram"},
    {"stroke_scale": 2.0},
    {"size": 40, "tile": 64},
]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for module in (stylizing,):
        monkeypatch.setattr(module, "resolve_device", lambda name: CUDA)
    with fake_cuda(monkeypatch) as account:
        yield account


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the device one without float64."""
    for module in (streaming, looks):
        monkeypatch.setattr(module, "exact_device", lambda device: torch.device("cpu"))


def make_criterion(*, stability_weight: float = 0.0) -> PerceptualLoss:
    return PerceptualLoss(
        VGGFeatures("vgg16", LAYERS).to(CUDA),
        torch.rand(1, 3, 512, 512, device=CUDA),
        content_layers={"relu2_2": 1.0},
        style_layers=dict.fromkeys(LAYERS, 1.0),
        tv_weight=0.1,
        stability_weight=stability_weight,
        grid_weight=3000,
        contrast_weight=2,
        frame_weight=40,
    )


def make_trainee(
    precision: str = "bf16", *, stability_weight: float = 0.0, parts: int = 1
) -> Trainee:
    options = TrainingConfig(precision=precision, accumulate=parts)  # type: ignore[arg-type]
    config = Config(
        name="fake",
        style=StyleConfig(image=Path("style.jpg")),
        data=DataConfig(train=(Path("photos"),)),
        training=options,
    )
    inputs = Inputs(
        device=CUDA,
        dtype=resolve_precision(options.precision, CUDA),
        network=TransformerNet(32),
        styles=StyleImages(images=(torch.rand(1, 3, 512, 512, device=CUDA),), shares=(1.0,)),
        criterion=make_criterion(stability_weight=stability_weight),
        loss=LossConfig(),
        images=ContentImages([Path("a.jpg")], 256),
        validation=torch.zeros(4, 3, 256, 256, dtype=torch.uint8),
        previews={"a": torch.rand(3, 64, 48)},
    )
    return Trainee(config, inputs)


def update(trainee: Trainee, guard: Guard | None = None) -> Any:
    pixels = torch.zeros(4, 3, 256, 256, dtype=torch.uint8)
    losses, norm = trainee.update(to_float(pixels.to(CUDA, non_blocking=True)))
    if guard:
        guard.watch(losses, norm, ["a.jpg"])
    return losses


def check_an_update(account: Account, precision: str) -> None:
    trainee = make_trainee(precision)
    guard = Guard(trainee, Path("nowhere"))
    update(trainee, guard)  # the first makes the optimiser's state
    account.clear()
    update(trainee, guard)
    print(f"an update in {precision}: {account}")
    assert not account.waits
    assert not account.float64
    assert account.count <= MOST_LAUNCHES[precision]
    assert account.count > 300, "nothing was counted"


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_an_update_waits_for_nothing_and_is_launched_in_few_operations(
    account: Account, precision: str
) -> None:
    check_an_update(account, precision)


def test_a_steady_update_in_parts_waits_for_nothing_either(account: Account) -> None:
    trainee = make_trainee(stability_weight=1.0, parts=2)
    update(trainee)
    account.clear()
    update(trainee)
    assert not account.waits
    assert not account.float64


def test_between_logging_steps_the_host_never_waits(account: Account) -> None:
    trainee = make_trainee()
    guard, recorder = Guard(trainee, Path("nowhere")), Recorder()
    reports = Reports(trainee.config, [recorder], step=0, times=1, memory=1.0)
    update(trainee, guard)
    account.clear()
    for step in (10, 20, 30):
        losses = update(trainee, guard)
        assert guard.check(waits=False) is None
        reports.losses(step, 100, losses, 1e-3, waits=False)
        guard.keep()
    # What is read is on the CPU by then.
    assert not account.waits
    assert list(recorder.values["loss/total"]) == [10, 20]
    reports.arrived()
    assert list(recorder.values["loss/total"]) == [10, 20, 30]


def test_a_snapshot_is_a_few_launches_and_stays_on_the_device(account: Account) -> None:
    trainee = make_trainee()
    update(trainee)
    account.clear()
    snapshot = trainee.snapshot()
    assert not account.waits
    assert account.count <= 5
    assert all(weight.is_cuda for weight in snapshot["network"].values())
    assert all(not weight.is_cuda for weight in trainee.state()["network"].values())


def test_layers_keep_the_layout_of_their_maps(account: Account) -> None:
    maps = torch.rand(2, 8, 16, 12, device=CUDA).contiguous(memory_format=torch.channels_last)
    network = TransformerNet(4, 1).to(CUDA)
    for layer in (
        lambda x: transformer.reflect(x, 1),
        lambda x: transformer.reflect(x, 4),
        transformer.replicate_one,
        network.encoder[1].norm,
        lambda x: transformer.upsample_conv2d(x, torch.rand(4, 8, 3, 3, device=CUDA), None),
    ):
        assert layer(maps).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("place", ["cpu", "cuda"])
@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_every_look_is_made_where_the_network_is(
    account: Account, apple: None, look: dict[str, Any], place: str
) -> None:
    check_a_look(account, look, place)


def check_a_look(account: Account, look: dict[str, Any], place: str) -> None:
    stylizer = Stylizer(TransformerNet(4, 1).eval(), **look)
    for dtype in (torch.uint8, torch.float32):
        image = torch.zeros(3, 64, 48, dtype=dtype, device=place)
        result = stylizer.stylize_pixels(image)
        assert (result.device.type, result.dtype) == (place, dtype)
    assert not account.float64


def test_a_picture_is_few_launches_and_the_host_waits_once(account: Account) -> None:
    stylizer = Stylizer(TransformerNet(32).eval())
    for size in ((1024, 1024), (2000, 3000)):
        pixels = torch.zeros(3, *size, dtype=torch.uint8)
        account.clear()
        stylizer.stylize_pixels(pixels)
        print(f"a picture of {size[1]}×{size[0]}: {account}")
        assert account.count <= MOST_LAUNCHES_OF_A_PICTURE
        # For the photo to be copied; and for the result, which is no operation.
        assert sum(account.waits.values()) <= 1


def test_training_and_the_baseline_have_no_float64_on_apples_gpus(
    account: Account, apple: None
) -> None:
    trainee = make_trainee("float32")
    update(trainee)
    trainee.validate()
    trainee.stylize(torch.rand(1, 3, 64, 48))
    trainee.state()
    criterion, content = make_criterion(), torch.rand(1, 3, 64, 64, device=CUDA)
    for method in ("lbfgs", "adam", "gradient"):
        options = OptimizationConfig(method=method, steps=2)  # type: ignore[arg-type]
        optimize_image(criterion, content, initial=content, options=options)
    assert not account.float64


def constant_from_the_host(patch: pytest.MonkeyPatch) -> None:
    honest = transformer._upsample_kernel_on_device

    def kernel(weight: Tensor, upsampling: Any) -> Tensor:
        return honest(weight * weight.new_tensor([1.0]), upsampling)

    patch.setattr(transformer, "_upsample_kernel_on_device", kernel)


def number_read_in_the_step(patch: pytest.MonkeyPatch) -> None:
    honest = training.descend

    def descend(*arguments: Any, **keywords: Any) -> Any:
        losses, norm = honest(*arguments, **keywords)
        assert losses.total.item() < 1e9
        return losses, norm

    patch.setattr(training, "descend", descend)


def twice_as_many_averages(patch: pytest.MonkeyPatch) -> None:
    honest = torch._foreach_lerp_

    def one_by_one(averages: list[Tensor], weights: list[Tensor], share: float) -> None:
        for average, weight in zip(averages, weights, strict=True):
            honest([average], [weight], share)

    patch.setattr(torch, "_foreach_lerp_", one_by_one)


@pytest.mark.parametrize(
    "fault", [constant_from_the_host, number_read_in_the_step, twice_as_many_averages]
)
def test_a_fault_in_an_update_is_seen(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_an_update(account, "bf16")


def test_float64_on_apples_gpus_is_seen(
    account: Account, apple: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "exact_device", lambda device: device)
    with pytest.raises(AssertionError):
        check_a_look(account, {}, "cpu")


def test_a_tensor_on_another_device_in_a_look_is_seen(
    account: Account, apple: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_luma_weights", lambda image: torch.ones(3, 1, 1))
    with pytest.raises(RuntimeError, match="device"):
        check_a_look(account, {"preserve_color": "luma"}, "cpu")
