from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from clock import Clock
from torch import Tensor

from fast_style.checkpoints.files import find_states, load_state
from fast_style.config import Config, TrainingConfig
from fast_style.objective.losses import Losses
from fast_style.training import Result, train
from fast_style.training.monitors import NullMonitor
from fast_style.training.pace import Pace
from fast_style.training.schedule import Plan, learning_rate_at, work_after
from fast_style.training.trainee import Trainee

MakeConfig = Callable[..., Config]


def test_the_learning_rate_is_held_then_falls_to_a_tenth() -> None:
    config = TrainingConfig(learning_rate=0.01)
    rates = [learning_rate_at(config, Plan(steps=300).progress_at(step)) for step in range(301)]
    assert [rates[step] for step in (0, 100, 200)] == [0.01] * 3
    assert rates[250] == pytest.approx(0.0055)
    assert rates[300] == pytest.approx(0.001)
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_constant_learning_rate_is_constant() -> None:
    config = TrainingConfig(learning_rate=0.01, schedule="constant")
    assert {learning_rate_at(config, step / 30) for step in range(31)} == {0.01}


def test_a_plan_that_changes_while_the_learning_rate_is_held_is_as_if_known_from_the_start() -> (
    None
):
    assert Plan(steps=100).changed(300, after=60) == Plan(steps=300)
    assert Plan(steps=100).changed(91, after=60) == Plan(steps=91)


@pytest.mark.parametrize(("before", "steps", "after"), [(100, 70, 60), (100, 1000, 80)])
def test_a_plan_that_changes_later_goes_on_from_where_it_is(
    before: int, steps: int, after: int
) -> None:
    plan = Plan(steps=before)
    changed = plan.changed(steps, after=after)
    assert changed.progress_at(after) == plan.progress_at(after)
    progress = [changed.progress_at(step) for step in range(after, steps + 1)]
    assert progress[-1] == 1
    gains = [later - earlier for earlier, later in pairwise(progress)]
    assert gains == pytest.approx([gains[0]] * len(gains))


def test_a_plan_may_end_at_once() -> None:
    assert Plan(steps=100).changed(80, after=80).progress_at(80) == 1


def pace_of(clock: Clock, *, seconds: float) -> Pace:
    """Return the pace after ten steps of `seconds` each, and a report of 3 seconds at step 4."""
    pace = Pace(0, {"validation": 4})
    for step in range(1, 11):
        clock.now += 100 if step <= 2 else seconds  # it warms up
        if step == 4:
            with pace.timing("validation", step):
                clock.now += 3
        pace.mark(step, 40)
    return pace


def test_the_time_left_counts_the_steps_and_the_reports(clock: Clock) -> None:
    pace = pace_of(clock, seconds=2)
    assert pace.is_known
    # After step 10: the reports of steps 12, 16 and 17, the last.
    assert pace.seconds_left(17) == pytest.approx(7 * 2 + 3 * 3)
    assert pace.seconds_left(16) == pytest.approx(6 * 2 + 2 * 3)
    # To end now takes the last report.
    assert pace.seconds_left(10) == pytest.approx(3)


def test_the_steps_that_fit_into_a_time(clock: Clock) -> None:
    pace = pace_of(clock, seconds=2)
    for steps in range(10, 40):
        assert pace.steps_within(pace.seconds_left(steps), maximum=50) == steps
    assert pace.steps_within(1e9, maximum=50) == 50
    assert pace.steps_within(-5, maximum=50) == 10


def test_the_pace_is_that_of_the_last_steps(clock: Clock) -> None:
    pace = pace_of(clock, seconds=2)
    pace.memory = 30
    for step in range(11, 40):
        clock.now += 5
        assert pace.mark(step, 40) == pytest.approx(1 / 5)
    assert pace.seconds_left(40) == pytest.approx(5 + 3, rel=0.02)


def test_steps_with_small_crops_are_known_to_be_cheaper(
    clock: Clock, tiny_config: MakeConfig
) -> None:
    config = tiny_config(
        {"training.image_size": 96, "training.first_size": 32, "training.first_share": 0.6}
    ).training
    pace = Pace(0, {}, work=partial(work_after, config))
    for step in range(1, 17):
        clock.now += 1 if step <= 12 else 9
        assert pace.mark(step, 20) == pytest.approx(1 if step <= 12 else 1 / 9)
        if step > 2:
            assert pace.seconds_left(20) == pytest.approx(max(12 - step, 0) + 9 * min(20 - step, 8))
        if 2 < step <= 12:  # of twice as many steps, twice as many are small
            assert pace.seconds_left(40) == pytest.approx(24 - step + 9 * 16)


def test_mixed_sizes_cost_their_mean(tiny_config: MakeConfig) -> None:
    config = tiny_config({"training.mixed_sizes": [32, 64]}).training
    assert work_after(config, 10, 20) == 10 * (32**2 + 64**2) / 2


def test_nothing_is_known_of_the_pace_before_the_warm_up_is_over(clock: Clock) -> None:
    pace = Pace(7, {"validation": 4})
    for step in (8, 9):
        clock.now += 100
        pace.mark(step, 40)
    assert not pace.is_known
    pace.mark(9, 40)
    assert not pace.is_known


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_an_impossible_limit_is_refused(
    tiny_config: MakeConfig, tmp_path: Path, minutes: float
) -> None:
    with pytest.raises(ValueError, match="max_minutes: "):
        train(tiny_config(), tmp_path / "run", device="cpu", max_minutes=minutes)
    assert not (tmp_path / "run").exists()


class Watcher(NullMonitor):
    """Keeps what a run reports of its end, by step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.planned: dict[int, float] = {}
        self.left: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.rates: dict[int, float] = {}
        self.steps = 0

    def start(self, step: int, steps: int, config: str) -> None:
        self.steps = step

    def advance(self, step: int) -> None:
        self.steps = step

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if "run/planned_steps" in values:
            self.planned[step] = values["run/planned_steps"]
        if "run/learning_rate" in values:
            self.rates[step] = values["run/learning_rate"]
        if "run/minutes_left" in values:
            self.left[step] = values["run/minutes_left"]
            self.ends[step] = self.clock.now / 60 + self.left[step]


@pytest.fixture
def slow(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Steps take half a second, after the first, which takes 5; twice that from step 60 on.

    A validation takes 2 seconds.
    """
    update, validate = Trainee.update, Trainee.validate

    def slow_update(self: Trainee, content: Tensor) -> tuple[Losses, Tensor]:
        clock.now += 5 if self.step == 0 else 0.5 if self.step < 60 else 1
        return update(self, content)

    def slow_validate(self: Trainee) -> dict[str, float]:
        clock.now += 2
        return validate(self)

    monkeypatch.setattr(Trainee, "update", slow_update)
    monkeypatch.setattr(Trainee, "validate", slow_validate)
    return clock


LONG = {
    "training.steps": 10_000,
    "training.log_every": 10,
    "training.validate_every": 20,
    "training.preview_every": 20,
    "training.checkpoint_every": 20,
    "training.learning_rate": 1e-4,
}


def limited(config: Config, run_dir: Path, minutes: float, **options: object) -> Result:
    return train(config, run_dir, device="cpu", max_minutes=minutes, **options)


def test_a_run_with_a_limit_ends_in_time_with_the_whole_schedule(
    tiny_config: MakeConfig, tmp_path: Path, slow: Clock
) -> None:
    start, watcher = slow.now, Watcher(slow)
    result = limited(tiny_config(LONG), tmp_path, 2, monitors=[watcher])
    assert result.finished
    # Twice as slow from the middle on, it still ends in time: at most 2 %, or two steps, early.
    assert 0.96 * 120 <= slow.now - start <= 120
    # The learning rate never rises, is held first, and ends at its tenth.
    rates = list(watcher.rates.values())
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert rates[:3] == [1e-4] * 3
    assert rates[-1] == pytest.approx(1e-5, rel=0.2)
    # Nothing is planned on the strength of the first steps.
    assert min(watcher.planned) == 4
    assert watcher.planned[max(watcher.planned)] == result.step == result.steps


def test_the_time_left_is_honest(tiny_config: MakeConfig, tmp_path: Path, slow: Clock) -> None:
    watcher = Watcher(slow)
    train(tiny_config(LONG | {"training.steps": 60}), tmp_path, device="cpu", monitors=[watcher])
    assert min(watcher.ends) == 20
    for step, end in watcher.ends.items():
        left = slow.now / 60 - (end - watcher.left[step])
        assert watcher.left[step] == pytest.approx(left, rel=0.15, abs=0.01), step


def test_a_limit_that_allows_all_steps_changes_none(
    tiny_config: MakeConfig, tmp_path: Path, slow: Clock
) -> None:
    config = tiny_config(LONG | {"training.steps": 40})
    assert limited(config, tmp_path / "limited", 100).step == 40
    train(config, tmp_path / "free", device="cpu")
    limited_state, free_state = (
        load_state(find_states(tmp_path / name)[-1]) for name in ("limited", "free")
    )
    for key, value in free_state["network"].items():
        assert value.equal(limited_state["network"][key]), key


def test_a_limited_run_that_was_stopped_goes_on_with_the_rest_of_its_time(
    tiny_config: MakeConfig, tmp_path: Path, slow: Clock
) -> None:
    config = tiny_config(LONG)
    start, watcher = slow.now, Watcher(slow)
    first = limited(
        config, tmp_path, 1, monitors=[watcher], should_stop=lambda: watcher.steps >= 30
    )
    assert (first.step, first.finished) == (30, False)
    slow.now += 1e6  # while it does not run
    second = limited(config, tmp_path, 1)
    assert second.finished
    assert 0.94 * 60 <= slow.now - start - 1e6 <= 60
    # It is finished for good.
    before = slow.now
    again = limited(config, tmp_path, 1)
    assert again == second
    assert slow.now == before
    # A longer limit adds to it; without one, the run goes to its config's end.
    assert limited(config, tmp_path, 1.5).step > second.step
    longer = tiny_config(LONG | {"training.steps": 150})
    assert train(longer, tmp_path, device="cpu").step == 150
