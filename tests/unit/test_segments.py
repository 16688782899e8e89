"""The shelf of a clip's segments: what a killed run left there, and what none may go on with."""

import shutil
from pathlib import Path

import pytest
import torch

from fast_style.video.segments import Record, Segments

KEY = {"input": "a"}


def shelf(folder: Path) -> Segments:
    return Segments(folder, KEY, states=True)


def add(segments: Segments) -> None:
    with segments.writing() as write:
        write(Record(b"frame", 0, 0, 1, True))
        segments.save_state(torch.full((3, 4, 4), segments.count, dtype=torch.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three finished segments."""
    folder = tmp_path / ".out.mp4.parts"
    segments = shelf(folder)
    for _ in range(3):
        add(segments)
    return folder


def test_finished_segments_are_gone_on_with(folder: Path) -> None:
    segments = shelf(folder)
    assert segments.count == 3
    assert len(list(segments.read())) == 3
    state = segments.state()
    assert state is not None
    assert state.unique().tolist() == [2]


def test_a_removal_that_was_killed_leaves_nothing_to_go_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, **options: object) -> None:
        (folder / "00002.packets").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            shelf(folder).remove()
    assert (folder / "00001.packets").exists()
    assert shelf(folder).count == 0


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_bytes(b"torn")])
def test_a_run_whose_last_look_is_lost_begins_again(folder: Path, lost: object) -> None:
    assert callable(lost)
    lost(folder / "00003.png")
    segments = shelf(folder)
    assert segments.count == 0
    assert Segments(folder, KEY).count == 3
