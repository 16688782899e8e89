"""Losses, gradients and photos that are not finite: nothing of them reaches the weights."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder import Killed, KilledAfter, Recorder
from runs import assert_equal_bits, run, weights_of
from torch import Tensor

from fast_style.checkpoints.files import find_states, load_state
from fast_style.config import Config
from fast_style.images import to_float
from fast_style.objective.losses import Losses, PerceptualLoss
from fast_style.training import faults
from fast_style.training import run as training
from fast_style.training.faults import Guard, TrainingError
from fast_style.training.inputs import prepare
from fast_style.training.trainee import Trainee

MakeConfig = Callable[..., Config]


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the losses of some updates non-finite, by number of the update in this process."""
    honest = PerceptualLoss.__call__

    def make(*updates: int, value: float = math.nan) -> None:
        count = 0

        def call(
            self: PerceptualLoss, stylized: Tensor, targets: Mapping[str, Tensor], **others: Any
        ) -> Losses:
            nonlocal count
            losses = honest(self, stylized, targets, **others)
            if not stylized.requires_grad:
                return losses
            count += 1
            if count not in updates:
                return losses
            return Losses(content=losses.content * value, style=losses.style, tv=losses.tv)

        monkeypatch.setattr(PerceptualLoss, "__call__", call)

    return make


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_update_is_not_applied_and_said(
    tiny_config: MakeConfig, tmp_path: Path, inject: Callable[..., None], value: float
) -> None:
    config = tiny_config({"training.steps": 5, "data.held_out": 1})
    inject(5, value=value)
    recorder = Recorder()
    result = run(config, tmp_path, monitors=[recorder])
    assert result.finished
    ((step, text),) = recorder.messages
    assert step == 5
    assert "back to the last good weights" in text
    assert "learning rate halved" in text
    assert "photo-00" in text
    # The last good weights are those of the state of step 3.
    good, final = (load_state(path) for path in find_states(tmp_path))
    assert (good["step"], final["step"]) == (3, 5)
    assert_equal_bits(final["network"], good["network"])
    assert_equal_bits(final["average"], good["average"])
    assert (final["learning_rate_scale"], final["last_fault"]) == (0.5, 5)


def test_a_fault_before_any_state_goes_back_to_the_first_weights(
    tiny_config: MakeConfig, tmp_path: Path, inject: Callable[..., None]
) -> None:
    config = tiny_config({"training.steps": 2})
    inject(2)
    first = Trainee(config, prepare(config, device="cpu")).state()["network"]
    run(config, tmp_path)
    assert_equal_bits(load_state(find_states(tmp_path)[-1])["network"], first)


def test_after_a_fault_the_learning_rate_is_halved(
    tiny_config: MakeConfig, tmp_path: Path, inject: Callable[..., None]
) -> None:
    inject(3)
    recorder = Recorder()
    config = tiny_config({"training.steps": 6, "training.schedule": "constant"})
    run(config, tmp_path, monitors=[recorder])
    rates = list(recorder.values["run/learning_rate"].values())
    assert rates == [1e-3] * 3 + [5e-4] * 3


@pytest.mark.parametrize("saved", [True, False])
def test_a_second_fault_soon_after_stops_with_both_steps_and_the_files(
    tiny_config: MakeConfig, tmp_path: Path, inject: Callable[..., None], saved: bool
) -> None:
    inject(4, 7)
    config = tiny_config({"training.checkpoint_every": 3 if saved else 100})
    with pytest.raises(TrainingError) as caught:
        run(config, tmp_path)
    message = str(caught.value)
    assert "NaN or infinite at step 4 and again at step 7" in message
    assert "photo-00" in message
    assert "training.learning_rate" in message
    state = tmp_path / "state-00000006.pt"
    assert state.exists() == saved
    assert (str(state) in message) == saved


def test_a_second_fault_long_after_does_not_stop(
    tiny_config: MakeConfig,
    tmp_path: Path,
    inject: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "_FAULT_FREE_STEPS", 3)
    inject(2, 7)
    recorder = Recorder()
    assert run(tiny_config(), tmp_path, monitors=[recorder]).finished
    assert [step for step, _ in recorder.messages] == [2, 7]
    assert load_state(find_states(tmp_path)[-1])["learning_rate_scale"] == 0.25


def test_a_killed_run_meets_a_fault_as_an_unbroken_one(
    tiny_config: MakeConfig, tmp_path: Path, inject: Callable[..., None]
) -> None:
    config = tiny_config()
    inject(8)
    run(config, tmp_path / "unbroken")
    with pytest.raises(Killed):
        run(config, tmp_path / "killed", monitors=[KilledAfter(7)])
    inject(2)  # step 8 again: the run goes on after step 6
    recorder = Recorder()
    run(config, tmp_path / "killed", monitors=[recorder])
    assert [step for step, _ in recorder.messages] == [8]
    assert_equal_bits(weights_of(tmp_path / "killed"), weights_of(tmp_path / "unbroken"))


def test_a_photo_that_is_not_finite_is_named_and_goes_no_further(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def damaged(pixels: Tensor) -> Tensor:
        nonlocal count
        count += 1
        image = to_float(pixels)
        if count == 4:
            image[1, 2, 3, 4] = math.nan
        return image

    monkeypatch.setattr(training, "to_float", damaged)
    recorder = Recorder()
    assert run(tiny_config(), tmp_path, monitors=[recorder]).finished
    ((step, text),) = recorder.messages
    assert step == 4
    assert text.count("photo-00") == 2, "both photos of the batch are named"
    assert "learning rate halved to 0.0005" in text
    assert all(torch.isfinite(value).all() for value in weights_of(tmp_path).values())
    assert all(math.isfinite(value) for value in list(recorder.values["loss/total"].values())[4:])


def overflow(trainee: Trainee) -> None:
    """Make the next gradient infinite, while the losses are finite."""
    parameter = next(trainee.network.parameters())
    handle = parameter.register_hook(lambda gradient: gradient * math.inf)
    parameter.register_post_accumulate_grad_hook(lambda _: handle.remove())


def test_an_infinite_gradient_goes_no_further(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Trainee.update

    def update(self: Trainee, content: Tensor) -> tuple[Losses, Tensor]:
        if self.step == 4:
            overflow(self)
        return honest(self, content)

    monkeypatch.setattr(Trainee, "update", update)
    recorder = Recorder()
    config = tiny_config({"training.steps": 5})
    run(config, tmp_path, monitors=[recorder])
    ((step, text),) = recorder.messages
    assert step == 5
    assert "learning rate halved" in text
    assert math.isfinite(recorder.values["loss/total"][5])
    good, final = (load_state(path) for path in find_states(tmp_path))
    assert (good["step"], final["step"]) == (3, 5)
    assert_equal_bits(final["network"], good["network"])


@pytest.fixture
def scaled(tiny_config: MakeConfig) -> Trainee:
    """A trainee whose losses are scaled, as in fp16."""
    trainee = Trainee(tiny_config(), prepare(tiny_config(), device="cpu"))
    trainee.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return trainee


def update(trainee: Trainee, guard: Guard, content: Tensor) -> tuple[int, str] | None:
    losses, gradient_norm = trainee.update(content)
    guard.watch(losses, gradient_norm, ["a.jpg"])
    return guard.check()


def test_an_overflow_of_fp16_is_the_scalers_to_mend(scaled: Trainee, tmp_path: Path) -> None:
    guard = Guard(scaled, tmp_path)
    content = torch.rand(2, 3, 32, 32)
    before = scaled.state()["network"]
    overflow(scaled)
    assert update(scaled, guard, content) is None
    assert_equal_bits(scaled.state()["network"], before)
    assert (scaled.scaler.get_scale(), scaled.learning_rate_scale) == (2.0, 1.0)
    assert update(scaled, guard, content) is None
    assert not torch.equal(scaled.state()["network"]["head.weight"], before["head.weight"])
    # Where a smaller scale does not help, it was no overflow of fp16.
    overflow(scaled)
    fault = update(scaled, guard, content)
    assert fault
    assert fault[0] == 3
    assert scaled.learning_rate_scale == 0.5


def test_losses_that_are_not_finite_are_no_overflow_that_scaling_mends(
    scaled: Trainee, tmp_path: Path
) -> None:
    fault = update(scaled, Guard(scaled, tmp_path), torch.full((2, 3, 32, 32), math.nan))
    assert fault
    assert "a.jpg" in fault[1]
