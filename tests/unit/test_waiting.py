"""Waiting for photos: how many processes load them, what a run says of its waiting."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from clock import Clock
from recorder import Recorder
from runs import run

from fast_style.config import Config, ConfigError, DataConfig, config_from_dict, to_dict
from fast_style.data import workers as workers_module
from fast_style.data.workers import cure_for_waiting, number_of_workers
from fast_style.objective.losses import Losses
from fast_style.training.monitors import ProgressMonitor
from fast_style.training.reports import Reports
from fast_style.training.run_folder import load_resumable

MakeConfig = Callable[..., Config]


def train_for(
    clock: Clock, training: Config, *, steps: int, waits: float, works: float, cure: str = "more"
) -> Recorder:
    """Report steps that wait for photos and work for so many seconds each."""
    recorder = Recorder()
    reports = Reports(
        training.training, [recorder], step=0, times=10, memory=60, cure_for_waiting=cure
    )
    zero = torch.zeros(())
    losses = Losses(content=zero, style=zero, tv=zero)
    for step in range(1, steps + 1):
        with reports.pace.waiting():
            clock.now += waits
        clock.now += works
        with reports.pace.timing("validation", step):
            clock.now += 5  # is no part of a step
        reports.losses(step, steps, losses, 1e-3)
    return recorder


def test_the_share_of_the_time_spent_waiting_is_reported_and_told_once(
    clock: Clock, tiny_config: MakeConfig
) -> None:
    recorder = train_for(clock, tiny_config(), steps=40, waits=0.5, works=1.5)
    shares = recorder.values["run/waited_for_data"]
    assert min(shares) == 3  # not of the first steps, which start the processes
    assert set(shares.values()) == {0.25}
    assert recorder.messages == [(18, "25% of the time goes into waiting for photos: more")]


@pytest.mark.parametrize(("waits", "works", "cure"), [(0.1, 1, "more"), (1, 1, "")])
def test_nothing_is_told_where_little_is_waited_or_nobody_asked(
    clock: Clock, tiny_config: MakeConfig, waits: float, works: float, cure: str
) -> None:
    recorder = train_for(clock, tiny_config(), steps=60, waits=waits, works=works, cure=cure)
    assert recorder.messages == []


def test_a_short_run_is_not_bothered(clock: Clock, tiny_config: MakeConfig) -> None:
    assert train_for(clock, tiny_config(), steps=20, waits=1, works=0.1).messages == []


def test_the_progress_bar_shows_the_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = ProgressMonitor()
    monitor.start(0, 5, "")
    monitor.scalars(3, {"loss/total": 7.5, "run/waited_for_data": 0.234})
    monitor.advance(3)
    monitor.close()
    assert "waiting=23%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "device", "cores", "here", "expected"),
    [
        ("auto", "cpu", 16, 1, 2),
        ("auto", "mps", 16, 1, 2),
        ("auto", "cuda", 1, 1, 1),
        ("auto", "cuda", 8, 1, 7),
        ("auto", "cuda", 64, 1, 12),
        ("auto", "cuda", 16, 4, 3),
        ("auto", "cuda", 4, 8, 1),
        (5, "cuda", 4, 8, 5),
        (0, "cpu", 16, 1, 0),
    ],
)
def test_as_many_processes_load_photos_as_feed_the_device(
    monkeypatch: pytest.MonkeyPatch,
    wanted: int | str,
    device: str,
    cores: int,
    here: int,
    expected: int,
) -> None:
    monkeypatch.setattr(workers_module, "cores", lambda: cores)
    monkeypatch.setattr("fast_style.distributed.processes_here", lambda: here)
    assert number_of_workers(wanted, device) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cores", "cache", "expected"),
    [
        (16, None, "raise data.workers (2 now, with 16 cores) or name a folder in data.cache"),
        (16, Path("c"), "raise data.workers (2 now, with 16 cores)"),
        (3, None, "name a folder in data.cache"),
        (3, Path("c"), "smaller photo files, or a faster disk, would help"),
    ],
)
def test_the_cure_is_one_that_is_left(
    monkeypatch: pytest.MonkeyPatch, cores: int, cache: Path | None, expected: str
) -> None:
    monkeypatch.setattr(workers_module, "cores", lambda: cores)
    assert cure_for_waiting(DataConfig(train=(), cache=cache), 2) == expected


def of_workers(value: object) -> Mapping[str, object]:
    return {"name": "a", "style": {"image": "s.jpg"}, "data": {"train": "p", "workers": value}}


def test_a_config_names_a_number_of_workers_or_leaves_it_to_the_program() -> None:
    assert DataConfig(train=()).workers == "auto"
    for value in (0, 7, "auto"):
        config = config_from_dict(of_workers(value))
        assert config.data.workers == value
        assert config_from_dict(to_dict(config)) == config
    assert config_from_dict(of_workers("3")).data.workers == 3


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("many", "data.workers: is 'many' (a text), expected a whole number or auto"),
        (1.5, "data.workers: is 1.5 (a number), expected a whole number or auto"),
        (None, "data.workers: is empty, expected a whole number or auto"),
        (-1, "data.workers: -1 is impossible: it must be at least 0 and at most 256"),
    ],
)
def test_any_other_number_of_workers_is_refused(value: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(of_workers(value))
    assert told in str(caught.value)


def test_a_run_that_was_begun_with_a_number_of_workers_goes_on_without_one(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    run(tiny_config({"training.steps": 2, "data.workers": 0}), tmp_path)
    state = load_resumable(tiny_config({"training.steps": 4, "data.workers": "auto"}), tmp_path)
    assert state is not None
    assert state["step"] == 2
