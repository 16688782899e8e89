"""What an accelerator does is what the CPU does: `pytest -m gpu`, where there is one."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recorder import Recorder
from synthetic import photo

from fast_style import Stylizer
from fast_style.config import Config
from fast_style.devices import is_memory_error, release_cached_memory
from fast_style.images import image_to_tensor, to_float
from fast_style.networks.transformer import TransformerNet
from fast_style.training import run as running
from fast_style.training import train
from fast_style.training.inputs import prepare
from fast_style.training.trainee import Trainee

pytestmark = pytest.mark.gpu

MakeConfig = Callable[..., Config]
SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"
# Accelerators multiply float32 with fewer bits, and add up in no fixed order.
TOLERANCE = 1e-2


def test_a_step_agrees_with_the_cpu(gpu: torch.device, tiny_config: MakeConfig) -> None:
    content = torch.rand(5, 2, 3, 32, 32)
    config = tiny_config({"training.learning_rate": 1e-4})
    totals, averages = [], []
    for device in ("cpu", gpu.type):
        trainee = Trainee(config, prepare(config, device=device))
        losses = [trainee.update(images.to(device))[0].total.item() for images in content]
        totals.append(losses)
        averages.append(trainee.state()["average"])
        assert trainee.stylize(content[0]).device.type == device
    assert totals[1] == pytest.approx(totals[0], rel=TOLERANCE)
    ours, theirs = averages
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        # Where a gradient is rounding alone, the five updates may differ by twice the rate.
        torch.testing.assert_close(theirs[key], value, rtol=0, atol=1e-3)


@pytest.mark.parametrize("goes_on_with_the_cpu", [False, True])
def test_a_stopped_run_goes_on(
    gpu: torch.device, tiny_config: MakeConfig, tmp_path: Path, goes_on_with_the_cpu: bool
) -> None:
    config = tiny_config()
    unbroken, first, second = Recorder(), Recorder(), Recorder()
    assert train(config, tmp_path / "whole", device=gpu.type, monitors=[unbroken]).finished
    stopped = train(
        config,
        tmp_path / "run",
        device=gpu.type,
        monitors=[first],
        should_stop=lambda: 7 in first.steps,
    )
    assert (stopped.step, stopped.finished) == (7, False)
    device = "cpu" if goes_on_with_the_cpu else gpu.type
    assert train(config, tmp_path / "run", device=device, monitors=[second]).finished
    assert second.started[0][0] == 7
    for tag in ("loss/total", "loss_validation/total"):
        values = {**first.values[tag], **second.values[tag]}
        assert values.keys() == unbroken.values[tag].keys()
        expected = [unbroken.values[tag][step] for step in values]
        assert list(values.values()) == pytest.approx(expected, rel=TOLERANCE), tag


@pytest.mark.parametrize("tile", ["off", 64])
@pytest.mark.parametrize("looks", [{}, {"strength": 0.6, "preserve_color": "luma"}])
def test_a_picture_agrees_with_the_cpus(
    gpu: torch.device, tiny_network: TransformerNet, tile: str | int, looks: dict[str, object]
) -> None:
    image = to_float(image_to_tensor(photo(5, 190, 170)))
    keywords = {"tile": tile, **looks}
    expected = Stylizer(tiny_network, device="cpu", **keywords)(image)  # type: ignore[arg-type]
    found = Stylizer(tiny_network, device=gpu.type, **keywords)(image)  # type: ignore[arg-type]
    assert found.shape == image.shape
    assert (expected - image).abs().mean() > 0.02, "the network changes nothing"
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=2 * TOLERANCE)


@pytest.fixture
def cuda(gpu: torch.device) -> torch.device:
    if gpu.type != "cuda":
        pytest.skip("this is asked of CUDA alone")
    return gpu


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_update_waits_for_nothing(
    cuda: torch.device, tiny_config: MakeConfig, precision: str
) -> None:
    config = tiny_config({"training.precision": precision, "training.compile": False})
    trainee = Trainee(config, prepare(config, device="cuda"))
    content = torch.rand(2, 3, 32, 32, device=cuda)
    trainee.update(content)  # the first makes the optimiser's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainee.update(content)
        trainee.snapshot()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_non_finite_update_is_found_at_a_later_report_and_taken_back(
    cuda: torch.device, tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = running.to_float, iter(range(1000))

    def to_float(pixels: torch.Tensor) -> torch.Tensor:
        return honest(pixels) * (float("nan") if next(calls) == 4 else 1)

    monkeypatch.setattr(running, "to_float", to_float)
    recorder = Recorder()
    config = tiny_config({"training.steps": 40, "training.log_every": 2})
    assert train(config, tmp_path, device="cuda", monitors=[recorder]).finished
    ((step, text),) = recorder.messages
    assert step == 5
    assert "back to the last good weights" in text
    # Each logging step's losses are reported, none at another step.
    assert list(recorder.values["loss/total"]) == [1, *range(2, 41, 2)]


def test_float32_pictures_are_the_cpus_but_for_the_order_of_sums(
    cuda: torch.device, tiny_network: TransformerNet
) -> None:
    image = to_float(image_to_tensor(photo(5, 190, 170)))
    expected = Stylizer(tiny_network, device="cpu")(image)
    found = Stylizer(tiny_network, device="cuda")(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)  # TF32 would make it 1e-2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_updates_have_the_losses_of_eager_ones(
    cuda: torch.device, tiny_config: MakeConfig
) -> None:
    content = torch.rand(5, 2, 3, 32, 32, device=cuda)
    totals = []
    for compiles in (False, True):
        config = tiny_config({"training.compile": compiles, "training.learning_rate": 1e-4})
        trainee = Trainee(config, prepare(config, device="cuda"))
        totals.append([trainee.update(images)[0].total.item() for images in content])
    assert totals[1] == pytest.approx(totals[0], rel=TOLERANCE)


def test_an_update_that_does_not_fit_is_a_memory_error_and_leaves_the_weights(
    cuda: torch.device, tiny_config: MakeConfig
) -> None:
    config = tiny_config()
    trainee = Trainee(config, prepare(config, device="cuda"))
    before = trainee.state()["network"]
    free = torch.cuda.mem_get_info()[0]
    edge = math.isqrt(free // (3 * 4)) // 4 * 4  # the images alone would fill it
    with pytest.raises(RuntimeError) as caught:
        trainee.update(torch.zeros(1, 1, 1, 1, device=cuda).expand(2, 3, edge, edge))
    assert is_memory_error(caught.value)
    release_cached_memory(cuda)
    after = trainee.state()["network"]
    assert all(torch.equal(after[key], value) for key, value in before.items())
    trainee.update(torch.rand(2, 3, 32, 32, device=cuda))


@pytest.mark.slow
def test_24_megapixels_are_the_same_in_few_strips_and_in_many(cuda: torch.device) -> None:
    image = torch.randint(0, 256, (3, 4000, 6000), dtype=torch.uint8)
    network = TransformerNet(16, 5).eval()
    torch.cuda.reset_peak_memory_stats()
    whole = Stylizer(network, device="cuda").stylize_pixels(image.clone())
    assert torch.cuda.max_memory_allocated() < 16 << 30
    strips = Stylizer(network, device="cuda", tile=64).stylize_pixels(image.clone())
    difference = (whole.int() - strips.int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.02


def test_the_benchmark_of_training_prints_its_table(gpu: torch.device) -> None:
    arguments = ["train", "--runs", "1", "--size", "32", "--batch-size", "2", "--width", "4"]
    # A process of its own: after a fork, CUDA does not start again.
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--device", gpu.type],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    for row in ("batch 2, 32x32", "plain", "ours float32", "network backward"):
        assert row in result.stdout
