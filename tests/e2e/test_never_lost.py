"""What can end a long run at night: each is one line, and what was trained is on the disk."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import processes
import pytest
import torch
from synthetic import write_photos
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_style.checkpoints.files import find_states, load_model, load_state

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and limits")

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
# Runs the training command; what its first argument names happens before the sixth update. The
# last saved state is that of step 4 then, and the next would be that of step 8.
DRIVER = """
import multiprocessing.synchronize, os, resource, shutil, signal, sys, time

from fast_style.commands.train import main
from fast_style.training.trainee import Trainee

def disk_full():
    # Not a byte more fits into any file: writing fails as on a full disk, with another number.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

def disk_full_later():
    os.fsync = no_space

def no_space(handle):
    raise OSError(28, os.strerror(28))

def run_folder_gone():
    os.rename("run", "gone")  # at once: a log may be written meanwhile

def photos_gone():
    shutil.rmtree("photos")

def worker_killed():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

def workers_killed_at_a_lock():
    # One of them holds the lock of the Event that they look at, if they look at one.
    time.sleep(0.3)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)

def is_set_slowly(self):
    with self._cond:
        time.sleep(0.1)
        return not self._flag._semlock._is_zero()

if sys.argv[1] == "workers_killed_at_a_lock":
    multiprocessing.synchronize.Event.is_set = is_set_slowly

update, accident = Trainee.update, globals()[sys.argv[1]]

def disturbed(self, content):
    if self.step == 5:
        accident()
    return update(self, content)

Trainee.update = disturbed
sys.exit(main(sys.argv[2:]))
"""

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(tiny_yaml: Callable[..., Path], tmp_path: Path) -> Run:
    """Train in `tmp_path`, with an accident on the way or without; photos are in `photos`."""
    write_photos(tmp_path / "photos", 8)

    def make(accident: str | None = None, *, workers: int = 0) -> "CompletedProcess[str]":
        config = tiny_yaml(
            {"data.train": "photos", "data.workers": workers, "training.checkpoint_every": 4}
        )
        driver = ["-c", DRIVER, accident] if accident else [str(TRAIN)]
        return processes.run(
            [sys.executable, *driver, "--config", config.name, "--run-dir", "run"],
            cwd=tmp_path,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    return make


def assert_one_line(result: "CompletedProcess[str]", *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (error,) = (line for line in result.stderr.splitlines() if "error: " in line)
    assert result.stderr.splitlines()[-1] == error
    for part in parts:
        assert part in error


def assert_good(run_dir: Path, *, step: int) -> None:
    state = load_state(find_states(run_dir)[-1])
    assert state["step"] == step
    assert all(torch.isfinite(value).all() for value in state["network"].values())
    assert load_model(run_dir / "tiny.pth").metadata["step"] >= step
    assert not list(run_dir.glob(".*")), "an unfinished file"


def assert_goes_on(run: Run, run_dir: Path) -> None:
    result = run()
    assert result.returncode == 0, result.stderr
    assert "resuming after step 4 of 12" in result.stderr
    assert_good(run_dir, step=12)


@pytest.mark.slow
@pytest.mark.parametrize("accident", ["disk_full", "disk_full_later"])
def test_a_full_disk(run: Run, tmp_path: Path, accident: str) -> None:
    assert_one_line(run(accident), "tiny.pth: cannot be written", "what was there before")
    assert_good(tmp_path / "run", step=4)
    assert_goes_on(run, tmp_path / "run")


@pytest.mark.slow
def test_photos_that_are_gone(run: Run, tmp_path: Path) -> None:
    result = run("photos_gone")
    assert_one_line(result, "photos: was removed after step", "goes on from the last state")
    assert_good(tmp_path / "run", step=4)
    write_photos(tmp_path / "photos", 8)
    assert_goes_on(run, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("accident", ["worker_killed", "workers_killed_at_a_lock"])
def test_a_killed_worker(run: Run, tmp_path: Path, accident: str) -> None:
    result = run(accident, workers=2)
    assert_one_line(result, "a process that loads photos died", "data.workers")
    assert_good(tmp_path / "run", step=4)
    assert_goes_on(run, tmp_path / "run")


@pytest.mark.slow
def test_a_run_folder_that_was_removed_is_made_anew(run: Run, tmp_path: Path) -> None:
    result = run("run_folder_gone")
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if "was removed" in line)
    assert "step 8: run was removed; it is made anew" in line
    assert_good(tmp_path / "run", step=12)
    assert (tmp_path / "run" / "config.yaml").is_file()
    # TensorBoard goes on, too.
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == [9, 10, 11, 12]
