import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_style.training.monitors import (
    MetricsMonitor,
    Monitor,
    NullMonitor,
    ProgressMonitor,
    TensorBoardMonitor,
)


def read_events(run_dir: Path) -> EventAccumulator:
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def texts(events: EventAccumulator, tag: str) -> list[str]:
    return [
        event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{tag}/text_summary")
    ]


def test_tensorboard_shows_scalars_images_and_texts(tmp_path: Path) -> None:
    monitor = TensorBoardMonitor(tmp_path)
    monitor.start(0, 10, "name: sea\n")
    monitor.advance(1)
    monitor.scalars(1, {"loss/style": 2.5, "run/learning_rate": 0.5})
    monitor.scalars(2, {"loss/style": 1.5})
    image = torch.tensor([0.0, 0.5, 1.7])[:, None, None].expand(3, 5, 7)
    monitor.image(2, "preview/a", image)
    monitor.message(3, "the losses are NaN")
    monitor.close()

    events = read_events(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("loss/style")] == [(1, 2.5), (2, 1.5)]
    assert [(e.step, e.value) for e in events.Scalars("run/learning_rate")] == [(1, 0.5)]
    (shown,) = events.Images("preview/a")
    assert (shown.step, shown.height, shown.width) == (2, 5, 7)
    (tmp_path / "shown.png").write_bytes(shown.encoded_image_string)
    pixels = np.asarray(Image.open(tmp_path / "shown.png"))
    assert (pixels == [0, 128, 255]).all()
    assert "name: sea" in texts(events, "config")[0]
    assert texts(events, "messages") == ["the losses are NaN"]


def test_a_resumed_run_replaces_what_the_killed_one_wrote_after_its_state(tmp_path: Path) -> None:
    killed = TensorBoardMonitor(tmp_path)
    killed.start(0, 10, "")
    for step in range(1, 6):
        killed.scalars(step, {"loss/total": 100.0 + step})
    killed.close()
    resumed = TensorBoardMonitor(tmp_path)
    resumed.start(3, 10, "")
    for step in range(4, 7):
        resumed.scalars(step, {"loss/total": 200.0 + step})
    resumed.close()
    values = [(e.step, e.value) for e in read_events(tmp_path).Scalars("loss/total")]
    assert values == [(1, 101), (2, 102), (3, 103), (4, 204), (5, 205), (6, 206)]


def test_tensorboard_writes_nothing_before_the_run_starts(tmp_path: Path) -> None:
    monitor = TensorBoardMonitor(tmp_path / "run")
    monitor.scalars(1, {"loss/total": 1.0})
    monitor.close()
    assert list(tmp_path.iterdir()) == []


def test_the_progress_bar_shows_steps_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = ProgressMonitor()
    monitor.start(2, 5, "")
    for step in (3, 4, 5):
        monitor.scalars(step, {"loss/content": 1.23456, "loss/total": 7.5, "run/learning_rate": 1})
        monitor.advance(step)
    monitor.close()
    captured = capsys.readouterr()
    assert "5/5" in captured.err
    assert "content=1.235" in captured.err
    assert "total=7.5" in captured.err
    assert "learning_rate" not in captured.err
    assert captured.out == ""


def test_a_message_of_the_run_is_logged_with_its_step(caplog: pytest.LogCaptureFixture) -> None:
    monitor = ProgressMonitor()
    monitor.start(0, 5, "")
    with caplog.at_level(logging.WARNING):
        monitor.message(3, "the losses are NaN")
    monitor.close()
    assert "step 3: the losses are NaN" in caplog.text


def test_a_progress_bar_that_never_started_closes() -> None:
    ProgressMonitor().close()


def losses(section: str, total: float) -> dict[str, float]:
    return {f"{section}/{name}": total / 4 for name in ("content", "style", "tv")} | {
        f"{section}/total": total
    }


def test_the_table_has_a_row_for_each_report_and_none_twice_after_a_resumption(
    tmp_path: Path,
) -> None:
    killed = MetricsMonitor(tmp_path)
    killed.start(0, 10, "")
    killed.scalars(0, losses("loss_validation", 40.0))
    for step in (1, 2, 3):
        pace = {"run/learning_rate": 0.5, "run/images_per_second": 2.0, "run/minutes_left": 3.0}
        killed.scalars(step, losses("loss", 10.0 * step) | pace)
    killed.scalars(3, {"run/planned_steps": 10, "watch/grid": 1.0})
    killed.close()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,trai")  # killed within a write
    resumed = MetricsMonitor(tmp_path)
    resumed.start(2, 10, "")
    resumed.scalars(3, losses("loss", 5.0))
    assert path.read_text().splitlines() == [
        "step,part,content,style,tv,total,learning_rate,images_per_second",
        "0,validation,10.0,10.0,10.0,40.0,,",
        "1,training,2.5,2.5,2.5,10.0,0.5,2.0",
        "2,training,5.0,5.0,5.0,20.0,0.5,2.0",
        "3,training,1.25,1.25,1.25,5.0,,",
    ]
    anew = MetricsMonitor(tmp_path)
    anew.start(0, 10, "")
    assert len(path.read_text().splitlines()) == 1


def test_a_table_that_cannot_be_written_ends_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = MetricsMonitor(tmp_path / "gone")
    monitor.scalars(1, losses("loss", 1.0))  # before the run starts
    monitor.start(0, 10, "")
    monitor.scalars(1, losses("loss", 1.0))
    (message,) = caplog.messages
    assert "metrics.csv: the table of losses ends: No such file" in message


def test_the_bar_has_a_goal_once_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = ProgressMonitor()
    monitor.start(86, 0, "")
    monitor.advance(87)
    assert "/129" not in capsys.readouterr().err
    monitor.scalars(88, {"run/planned_steps": 129})
    monitor.advance(88)
    monitor.close()
    assert "88/129" in capsys.readouterr().err


def test_a_null_monitor_is_a_monitor_that_does_nothing() -> None:
    monitor: Monitor = NullMonitor()
    monitor.start(0, 1, "")
    monitor.advance(1)
    monitor.scalars(1, {})
    monitor.image(1, "a", torch.zeros(3, 1, 1))
    monitor.message(1, "a")
    monitor.close()
