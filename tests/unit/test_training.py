import logging
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recorder import Killed, KilledAfter, Recorder
from runs import assert_equal_bits, run, weights_of
from synthetic import photo, write_photos

from fast_style.checkpoints.files import (
    CheckpointError,
    find_states,
    load_model,
    load_state,
    save_model,
    save_state,
)
from fast_style.config import Config, ConfigError, config_from_dict
from fast_style.data import DataError
from fast_style.networks.transformer import TransformerNet
from fast_style.objective.weights import WeightsError
from fast_style.training import default_run_dir, pace, train
from fast_style.training.inputs import prepare
from fast_style.training.run_folder import RunFolder
from fast_style.training.trainee import Trainee

MakeConfig = Callable[..., Config]


def stop_after(step: int) -> tuple[Recorder, Callable[[], bool]]:
    recorder = Recorder()
    return recorder, lambda: step in recorder.steps


def test_the_losses_fall(tiny_config: MakeConfig, tmp_path: Path) -> None:
    recorder = Recorder()
    config = tiny_config({"training.steps": 80, "training.learning_rate": 1e-2})
    run(config, tmp_path, monitors=[recorder])
    validation = recorder.values["loss_validation/total"]
    assert validation[80] < 0.7 * validation[0]
    totals = list(recorder.values["loss/total"].values())
    assert sum(totals[-10:]) < 0.7 * sum(totals[:10])


def test_a_run_leaves_a_model_two_states_and_its_config(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config()
    result = run(config, tmp_path / "run")
    assert (result.model, result.step, result.finished) == (tmp_path / "run/tiny.pth", 12, True)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["config.yaml", "state-00000009.pt", "state-00000012.pt", "tiny.pth"]
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config_from_dict(written) == config
    metadata = load_model(result.model).metadata
    assert (metadata["name"], metadata["step"]) == ("tiny", 12)
    assert config_from_dict(metadata["config"]) == config


def test_the_run_folder_is_named_after_the_config(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config({"training.steps": 1})
    assert train(config, device="cpu").model == Path("checkpoints/tiny/tiny.pth")
    assert default_run_dir(config) == Path("checkpoints/tiny")
    assert (tmp_path / "checkpoints/tiny/tiny.pth").is_file()


def test_monitors_see_steps_values_and_pictures(tiny_config: MakeConfig, tmp_path: Path) -> None:
    recorder = Recorder()
    config = tiny_config(
        {
            "training.steps": 7,
            "training.log_every": 2,
            "training.validate_every": 3,
            "training.preview_every": 4,
        }
    )
    run(config, tmp_path, monitors=[recorder])
    ((step, steps, text),) = recorder.started
    assert (step, steps) == (0, 7)
    assert config_from_dict(yaml.safe_load(text)) == config
    assert recorder.steps == list(range(1, 8))
    terms = ("content", "style", "tv", "total")
    for tag in (*(f"loss/{term}" for term in terms), "run/learning_rate", "run/images_per_second"):
        assert list(recorder.values[tag]) == [1, 2, 4, 6, 7], tag
    for term in terms:
        assert list(recorder.values[f"loss_validation/{term}"]) == [0, 3, 6, 7]
    values = {term: recorder.values[f"loss/{term}"][4] for term in terms}
    assert values["total"] == pytest.approx(sum(values[term] for term in terms[:3]))
    assert all(value > 0 for value in values.values())
    ((name, content),) = prepare(config, device="cpu").previews.items()
    assert set(recorder.images) == {"style", f"preview/{name}"}
    shown = recorder.images[f"preview/{name}"]
    assert list(shown) == [4, 7]
    beside, stylized = shown[7].chunk(2, dim=-1)
    assert torch.equal(beside, content)
    assert stylized.dtype == torch.float32
    assert not torch.equal(stylized, content)
    assert recorder.closed == 1


def test_two_runs_of_one_config_are_equal_bit_for_bit(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        run(tiny_config({"training.steps": 4}), tmp_path / name)
        torch.rand(3)  # what else draws random numbers has no part in it
    assert_equal_bits(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"))


def test_another_seed_gives_other_weights(tiny_config: MakeConfig, tmp_path: Path) -> None:
    for seed in (0, 1):
        run(tiny_config({"training.steps": 1, "training.seed": seed}), tmp_path / str(seed))
    one, two = (weights_of(tmp_path / name)["head.weight"] for name in "01")
    assert not torch.equal(one, two)


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_to_equal_weights(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config()
    run(config, tmp_path / "unbroken")
    recorder, should_stop = stop_after(4)
    result = run(config, tmp_path / "stopped", monitors=[recorder], should_stop=should_stop)
    assert (result.step, result.finished) == (4, False)
    assert find_states(tmp_path / "stopped")[-1].name == "state-00000004.pt"
    assert load_model(result.model).metadata["step"] == 4
    assert run(config, tmp_path / "stopped").finished
    assert_equal_bits(weights_of(tmp_path / "stopped"), weights_of(tmp_path / "unbroken"))


def test_a_killed_run_goes_on_from_its_last_state(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    run(config, tmp_path / "unbroken")
    with pytest.raises(Killed):
        run(config, tmp_path / "killed", monitors=[KilledAfter(8)])
    recorder = Recorder()
    run(config, tmp_path / "killed", monitors=[recorder])
    assert recorder.started[0][0] == 6
    assert recorder.steps == list(range(7, 13))
    assert_equal_bits(weights_of(tmp_path / "killed"), weights_of(tmp_path / "unbroken"))


def test_monitors_are_closed_when_a_run_breaks(tiny_config: MakeConfig, tmp_path: Path) -> None:
    killer = KilledAfter(2)
    with pytest.raises(Killed):
        run(tiny_config(), tmp_path, monitors=[killer])
    assert killer.closed == 1


def test_a_finished_run_may_be_made_longer(tiny_config: MakeConfig, tmp_path: Path) -> None:
    def config(steps: int, **intervals: int) -> Config:
        changes = {f"training.{name}": value for name, value in intervals.items()}
        return tiny_config({"training.steps": steps, "training.schedule": "constant"} | changes)

    run(config(8), tmp_path / "whole")
    run(config(5), tmp_path / "longer")
    longer = config(8, log_every=3, validate_every=2, preview_every=5, checkpoint_every=7)
    assert run(longer, tmp_path / "longer").step == 8
    assert_equal_bits(weights_of(tmp_path / "longer"), weights_of(tmp_path / "whole"))


def test_a_finished_run_is_left_alone(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config({"training.steps": 2})
    model = run(config, tmp_path).model
    before = {path: path.stat().st_mtime_ns for path in (model, *find_states(tmp_path))}
    recorder = Recorder()
    assert run(config, tmp_path, monitors=[recorder]).finished
    assert recorder.steps == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_model_that_was_removed_is_written_again(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config({"training.steps": 2})
    model = run(config, tmp_path).model
    weights = weights_of(tmp_path)
    model.unlink()
    assert run(config, tmp_path).model.is_file()
    assert_equal_bits(weights_of(tmp_path), weights)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss.style_weight", 2.0),
        ("training.learning_rate", 0.5),
        ("training.seed", 1),
        ("network.width", 5),
        ("data.min_crop", 0.5),
        ("loss.style_layers", {"relu1_2": 1.0}),
    ],
)
def test_a_changed_config_is_refused_with_the_keys_name(
    tiny_config: MakeConfig, tmp_path: Path, key: str, value: object
) -> None:
    run(tiny_config({"training.steps": 1}), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError) as caught:
        run(tiny_config({"training.steps": 1, key: value}), tmp_path)
    assert str(caught.value).startswith(key)
    assert str(tmp_path) in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_photos_that_changed_are_told_and_trained_on(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", 8)
    where = {"data.train": str(tmp_path / "photos")}
    config = tiny_config({**where, "training.steps": 6})
    recorder, should_stop = stop_after(4)
    run(config, tmp_path / "run", monitors=[recorder], should_stop=should_stop)
    photos[3].unlink()
    recorder = Recorder()
    assert run(config, tmp_path / "run", monitors=[recorder]).finished
    ((step, text),) = recorder.messages
    assert step == 4
    assert "the photos changed since the last state was saved" in text
    # Told once: from here on they are the photos of the run.
    recorder = Recorder()
    run(
        tiny_config({"data.train": str(tmp_path / "photos"), "training.steps": 7}), tmp_path / "run"
    )
    assert recorder.messages == []


def test_another_picture_under_the_style_images_name_is_refused(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    style = tmp_path / "style.bmp"
    photo(1, 40, 40).save(style)
    before = style.read_bytes()
    config = tiny_config({"style.image": str(style), "training.steps": 2})
    run(config, tmp_path / "run")
    photo(2, 40, 40).save(style)
    with pytest.raises(ConfigError, match=r"style\.image: .* is another picture than the one with"):
        run(config, tmp_path / "run")
    style.write_bytes(before)
    assert run(config, tmp_path / "run").finished


def test_what_says_nothing_of_the_result_may_change(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    recorder = Recorder()
    run(tiny_config({"training.steps": 2}), tmp_path / "run")
    changed = {"data.description": "mine", "data.workers": 1, "data.cache": str(tmp_path / "cache")}
    config = tiny_config({"training.steps": 3, "training.compile": False, **changed})
    assert run(config, tmp_path / "run", monitors=[recorder]).step == 3
    assert recorder.messages == []


def test_a_state_of_an_older_version_is_gone_on_with(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config({"training.steps": 6})
    run(config, tmp_path / "unbroken")
    run(tiny_config({"training.steps": 3}), tmp_path / "old")
    (path,) = find_states(tmp_path / "old")
    state = load_state(path)
    for key in ("format", "step", "fingerprint", "style", "time_limit"):
        state.pop(key)
    for section, key in (("data", "cache"), ("data", "description"), ("training", "compile")):
        del state["config"][section][key]
    state["config"]["training"]["steps"] = 6
    save_state(tmp_path / "old", 3, state)
    recorder = Recorder()
    run(config, tmp_path / "old", monitors=[recorder])
    assert recorder.started[0][0] == 3
    assert recorder.messages == []


def test_a_damaged_newest_state_is_passed_over_aloud(
    tiny_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config({"training.steps": 6})
    run(config, tmp_path)
    weights, newest = weights_of(tmp_path), find_states(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    recorder = Recorder()
    run(config, tmp_path, monitors=[recorder])
    assert recorder.started[0][0] == 3
    assert any(str(newest) in message for message in caplog.messages)
    assert_equal_bits(weights_of(tmp_path), weights)


def test_a_run_none_of_whose_states_can_be_read_is_not_begun_anew(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config({"training.steps": 6})
    run(config, tmp_path)
    for path in find_states(tmp_path):
        path.write_bytes(b"damaged")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="none of its training states can be read"):
        run(config, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def write_broken_photos(tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    for path in write_photos(folder, 6)[:4]:
        path.write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"style.image": "gone.jpg"}, ConfigError, "gone.jpg: no such image file"),
        ({"style.image": "package:no_such_package/a.jpg"}, ConfigError, "style.image"),
        ({"data.train": "gone"}, DataError, "gone: no such folder of photos"),
        ({"data.validation": "gone"}, DataError, "gone: no such folder of photos"),
        ({"data.train": "broken"}, DataError, "4 of 6 content images are unreadable"),
        ({"loss.weights": "gone.pth"}, WeightsError, "gone.pth: no such weights file"),
        ({"loss.style_layers": ["relu9_9"]}, ConfigError, "loss: vgg16 has no layer 'relu9_9'"),
        (
            {"loss.style_layers": ["relu1_2", "block1_conv2"]},
            ConfigError,
            "loss: 'relu1_2' and 'block1_conv2' are the same layer",
        ),
        ({"loss.content_layers": ["relu3_1"]}, WeightsError, "features.10.weight is missing"),
        ({"style.size": 1}, ConfigError, "style.image"),
        (
            {"training.init_from": "wave", "data.cache": "cache"},
            ConfigError,
            "network.width: is 4, but training.init_from, wave, has 16",
        ),
    ],
)
def test_inputs_that_fail_leave_nothing_behind(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    error: type[Exception],
    part: str,
) -> None:
    write_broken_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    recorder = Recorder()
    with pytest.raises(error) as caught:
        train(tiny_config(changes), device="cpu", monitors=[recorder])
    assert part in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert recorder.started == []


@pytest.mark.parametrize("strength", [None, 1.0])
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"loss.style_layers": ["relu9_9"]}, "loss: vgg16 has no layer 'relu9_9'"),
        ({"loss.weights": "gone.pth"}, "gone.pth: no such weights file"),
        ({"loss.weights": "broken.pth"}, "broken.pth: "),
        ({"style.size": 1}, "style.image: "),
        ({"style.image": "gone.jpg"}, "gone.jpg: no such image file"),
        ({"training.init_from": "gone"}, "no model 'gone'"),
    ],
)
def test_what_is_cheap_to_find_is_told_before_any_photo_is_looked_for(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    part: str,
    strength: float | None,
) -> None:
    reached: list[str] = []
    for name in ("find_images", "scan_images"):
        monkeypatch.setattr(
            f"fast_style.training.inputs.{name}", lambda *a, n=name: reached.append(n)
        )
    monkeypatch.chdir(tmp_path)
    Path("broken.pth").write_bytes(b"no weights")
    if strength:
        changes = {**changes, "loss.strength": strength, "loss.style_weight": 5.0}
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        train(tiny_config(changes), device="cpu")
    assert part in str(caught.value)
    assert reached == []


def test_a_network_without_a_width_has_that_of_the_model_it_begins_with(
    tiny_config: MakeConfig, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    begin = save_model(tmp_path / "begin.pth", tiny_network)
    changes = {"training.steps": 1, "training.init_from": str(begin)}
    config = tiny_config({**changes, "network": {"num_residual_blocks": 1}})
    assert config.network.width is None
    model = run(config, tmp_path / "run").model
    assert load_model(model).network.width == 4
    assert load_state(find_states(tmp_path / "run")[-1])["config"]["network"]["width"] == 4
    # A run that was begun with the width goes on without it, and the other way round.
    assert run(tiny_config({**changes, "training.steps": 2}), tmp_path / "run").step == 2
    longer = tiny_config({**changes, "training.steps": 3, "network": {"num_residual_blocks": 1}})
    assert run(longer, tmp_path / "run").step == 3


def test_paths_are_kept_as_they_were_written(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    photo(1000, 40, 40).save(tmp_path / "style.png")
    write_photos(tmp_path / "photos", 8)
    tiny = tiny_config()
    assert tiny.loss.weights is not None
    (tmp_path / "vgg.pth").write_bytes(tiny.loss.weights.read_bytes())
    written = {
        "style.image": "~/style.png",
        "data.train": ["~/photos"],
        "loss.weights": "~/vgg.pth",
        "data.cache": "~/cache",
    }
    config = tiny_config({**written, "training.steps": 1})
    run(config, tmp_path / "run")
    state = load_state(find_states(tmp_path / "run")[-1])["config"]
    metadata = load_model(tmp_path / "run" / "tiny.pth").metadata["config"]
    for dotted, value in written.items():
        section, key = dotted.split(".")
        assert state[section][key] == metadata[section][key] == value
    assert (tmp_path / "cache").is_dir()
    assert run(tiny_config({**written, "training.steps": 2}), tmp_path / "run").step == 2


class Clock:
    """A clock on which every look takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds

    def perf_counter(self) -> float:
        self.now += self.seconds
        return self.now


@pytest.mark.parametrize(("seconds", "most"), [(0.001, None), (2.0, 40), (40.0, 15)])
def test_states_are_saved_by_the_clock_too_and_change_no_weight(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    most: int | None,
) -> None:
    config = tiny_config({"training.steps": 60, "training.checkpoint_every": 1000})
    run(config, tmp_path / "unbroken")
    monkeypatch.setattr(pace, "time", Clock(seconds))
    saved: list[int] = []
    honest = RunFolder.save

    def save(self: RunFolder, step: int, *arguments: Any, **options: Any) -> None:
        saved.append(step)
        honest(self, step, *arguments, **options)

    monkeypatch.setattr(RunFolder, "save", save)
    run(config, tmp_path / "run")
    assert saved[-1] == 60
    if most is None:
        assert saved == [60]
    else:
        gaps = [later - earlier for earlier, later in pairwise([0, *saved])]
        assert len(saved) > 3
        assert max(gaps) <= most
    assert_equal_bits(weights_of(tmp_path / "run"), weights_of(tmp_path / "unbroken"))


def test_a_short_run_is_looked_at_ten_times(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = {"training.steps": 120, "training.checkpoint_every": 1000}
    rare = {"training.validate_every": 500, "training.preview_every": 500}
    recorder = Recorder()
    run(tiny_config(config | rare), tmp_path / "run", monitors=[recorder])
    assert list(recorder.values["loss_validation/total"]) == [0, *range(12, 121, 12)]
    (tag,) = set(recorder.images) - {"style"}
    assert list(recorder.images[tag]) == list(range(12, 121, 12))
    # Who does not want it says so, and it changes no weight.
    recorder = Recorder()
    run(tiny_config(config | rare), tmp_path / "two", monitors=[recorder], minimum_reports=1)
    assert list(recorder.values["loss_validation/total"]) == [0, 120]
    assert_equal_bits(weights_of(tmp_path / "run"), weights_of(tmp_path / "two"))


def test_a_finished_run_says_so_at_once_and_begins_nothing(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny_config({"training.steps": 2})
    first = run(config, tmp_path)
    monkeypatch.setattr("fast_style.training.run.prepare_together", None)
    recorder = Recorder()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert run(config, tmp_path, monitors=[recorder]) == first
    assert recorder.started == []
    (message,) = caplog.messages
    assert message == (
        f"finished: {first.model} has all its 2 steps; a higher training.steps goes on"
    )


def test_a_run_that_is_not_planned_yet_has_no_goal(tiny_config: MakeConfig, tmp_path: Path) -> None:
    recorder = Recorder()
    run(tiny_config({"training.steps": 30}), tmp_path, monitors=[recorder], max_minutes=60)
    assert recorder.started[0][:2] == (0, 0)
    assert recorder.values["run/planned_steps"][4] == 30


def test_a_run_folder_that_cannot_be_made_is_named(tiny_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="file: cannot be written"):
        run(tiny_config(), tmp_path / "file")


def test_an_unknown_device_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown device 'gpu': use auto, cpu"):
        train(tiny_config(), tmp_path, device="gpu")


def test_without_averaging_the_model_is_the_last_network(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    run(tiny_config({"training.steps": 3, "training.ema_decay": 0}), tmp_path)
    state = load_state(find_states(tmp_path)[-1])
    assert_equal_bits(state["average"], state["network"])
    assert_equal_bits(weights_of(tmp_path), state["network"])


def test_with_averaging_the_model_lags_behind_the_network(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    run(tiny_config({"training.steps": 3}), tmp_path)
    state = load_state(find_states(tmp_path)[-1])
    assert_equal_bits(weights_of(tmp_path), state["average"])
    assert not torch.equal(state["average"]["head.weight"], state["network"]["head.weight"])


def test_held_out_images_are_validated_on_and_not_trained_on(tiny_config: MakeConfig) -> None:
    config = tiny_config({"data.held_out": 1})
    inputs = prepare(config, device="cpu")
    (preview,) = inputs.previews
    assert inputs.validation.shape == (1, 3, 32, 32)
    assert len(inputs.images) == 7
    assert not any(preview in path for path in inputs.images.paths)


def test_a_validation_folder_leaves_all_photos_to_training(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    write_photos(tmp_path / "validation", 3)
    config = tiny_config({"data.validation": str(tmp_path / "validation")})
    inputs = prepare(config, device="cpu")
    assert len(inputs.images) == 8
    assert inputs.validation.shape == (3, 3, 32, 32)
    assert list(inputs.previews) == ["photo-000", "photo-001", "photo-002"]


def test_training_in_bf16_gives_float32_weights_and_finite_losses(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    recorder = Recorder()
    config = tiny_config({"training.steps": 3, "training.precision": "bf16"})
    run(config, tmp_path, monitors=[recorder])
    assert all(math.isfinite(value) for value in recorder.values["loss/total"].values())
    assert {value.dtype for value in weights_of(tmp_path).values()} == {torch.float32}
    assert recorder.messages == []


def test_fp16_on_a_cpu_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        run(tiny_config({"training.precision": "fp16"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_previews_with_artefacts_raise_the_alarm(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = torch.full((1, 3, 1, 1), 0.5)
    monkeypatch.setattr(Trainee, "stylize", lambda self, image: flat.expand_as(image))
    recorder = Recorder()
    run(tiny_config({"training.preview_every": 6}), tmp_path, monitors=[recorder])
    assert {step for step, _ in recorder.alarms} == {6, 12}
    assert all("flat: its standard deviation, 0.000" in text for _, text in recorder.alarms)
    scores = {tag: values for tag, values in recorder.values.items() if "watch/" in tag}
    assert set(scores) == {"watch/deviation", "watch/grid", "watch/hot_pixels"}
    assert all(set(values) == {6, 12} for values in scores.values())
