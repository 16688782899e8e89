import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder import Recorder
from runs import run
from torch.utils.flop_counter import FlopCounterMode

from fast_style.commands.train import _timed_pace
from fast_style.config import Config
from fast_style.data import content_batches
from fast_style.data.photos import Skipped
from fast_style.training.inputs import prepare
from fast_style.training.trainee import Trainee
from fast_style.training.usage import flops_per_pixel, peak_flops, peak_memory

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize("stability", [0.0, 1.0])
def test_the_operations_of_a_step_are_those_that_it_makes(
    tiny_config: MakeConfig, stability: float
) -> None:
    config = tiny_config({"loss.stability_weight": stability})
    trainee = Trainee(config, prepare(config, device="cpu"))
    before = {key: value.clone() for key, value in trainee.network.state_dict().items()}
    counted = flops_per_pixel(trainee)
    for key, value in trainee.network.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in trainee.network.parameters())
    content = torch.rand(2, 3, 96, 96)
    trainee.update(content)
    with FlopCounterMode(display=False) as counter:
        trainee.update(content)
    assert counted * 2 * 96**2 == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_devices_rate_and_memory_are_those_of_a_computer() -> None:
    cpu = torch.device("cpu")
    assert 1e8 < peak_flops(cpu, torch.float32) < 1e15
    block = torch.ones(100 << 20, dtype=torch.uint8)
    assert block.numel() < peak_memory(cpu) < 1e12


def test_a_run_of_some_length_reports_what_it_uses(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    run(tiny_config({"training.steps": 6}), tmp_path / "short", monitors=[recorder])
    assert "run/utilization" not in recorder.values
    monkeypatch.setattr("fast_style.training.run.MATTERS_AFTER", 0)
    with caplog.at_level(logging.INFO):
        run(tiny_config({"training.steps": 6}), tmp_path / "long", monitors=[recorder])
    rates = recorder.values["run/teraflops_per_second"]
    shares = recorder.values["run/utilization"]
    assert rates.keys() == shares.keys()
    assert max(rates) == 6
    assert all(0 < share < 1 for share in shares.values())
    assert max(recorder.values["run/peak_memory_gigabytes"].values()) > 0.05
    (told,) = (message for message in caplog.messages if "TFLOP/s" in message)
    assert "of a matrix product's in float32" in told
    assert told.endswith("% of the time waiting for photos")


def test_a_dry_run_loads_photos_as_the_run_does(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        asked.append(options["workers"])
        return content_batches(*arguments, **{**options, "workers": 0})

    monkeypatch.setattr("fast_style.commands.train.content_batches", spy)
    config = tiny_config({"data.workers": "auto"})
    pace = _timed_pace(config, prepare(config, device="cpu"), Skipped())
    assert asked == [2]
    assert pace.is_known
