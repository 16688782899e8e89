"""What an accelerator does is what the CPU does: `pytest -m gpu`, where there is one."""

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
from fast_style.images import image_to_tensor, to_float
from fast_style.networks.transformer import TransformerNet
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
