"""The shelf of a clip's segments: what a killed run left there, and what none may go on with."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fast_style.video import remove_leftovers
from fast_style.video.segments import Record, Segments

KEY = {"input": "a"}


def shelf(folder: Path, *, states: bool = True) -> contextlib.closing[Segments]:
    return contextlib.closing(Segments(folder, KEY, states=states))


def finished(folder: Path, *, states: bool = True) -> int:
    with shelf(folder, states=states) as segments:
        return segments.count


def add(segments: Segments) -> None:
    with segments.writing() as write:
        write(Record(b"frame", 0, 0, 1, True))
        segments.save_state(torch.full((3, 4, 4), segments.count, dtype=torch.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three finished segments."""
    folder = tmp_path / ".out.mp4.parts"
    with shelf(folder) as segments:
        for _ in range(3):
            add(segments)
    return folder


def test_finished_segments_are_gone_on_with(folder: Path) -> None:
    with shelf(folder) as segments:
        assert segments.count == 3
        assert len(list(segments.read())) == 3
        state = segments.state()
    assert state is not None
    assert state.unique().tolist() == [2]


def test_a_removal_that_was_killed_leaves_nothing_to_go_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def killed(path: Path, **options: Any) -> None:
        if path.suffix == ".packets":
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as context:
        context.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt), shelf(folder) as segments:
            segments.remove()
    assert (folder / "00001.packets").exists()
    assert finished(folder) == 0


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_bytes(b"torn")])
def test_a_run_whose_last_look_is_lost_begins_again(folder: Path, lost: object) -> None:
    assert callable(lost)
    lost(folder / "00003.png")
    assert finished(folder) == 0
    assert finished(folder, states=False) == 3


def test_what_a_run_left_of_a_finished_clip_is_removed_and_no_more(folder: Path) -> None:
    output = folder.with_name("out.mp4")
    output.write_bytes(b"of an earlier run")
    os.utime(output, ns=(0, 0))
    remove_leftovers(output)
    assert finished(folder) == 3  # of a run that was overwriting it
    os.utime(output)
    remove_leftovers(output)
    assert list(folder.parent.iterdir()) == [output]
    remove_leftovers(output)
