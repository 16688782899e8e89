"""A run that is killed at any instant, and started again, ends as if nothing had happened.

All of it with real processes and the command as a user gives it; they have two threads.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
import torch

from fast_style.checkpoints.files import find_states, load_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
STEPS = 40
CHANGES = {
    "training.steps": STEPS,
    "training.checkpoint_every": 4,
    "training.log_every": 5,
    "training.validate_every": 20,
    "training.preview_every": 20,
}

# Runs the same command, but the process kills itself at the n-th rename: before it, or after it and
# before the folder is flushed; or it meets a fault of the program there. Renames are, in this
# order: config.yaml, then the model and the state of each checkpoint in turn.
KILLING_DRIVER = """
import os, signal, sys
from pathlib import Path

from fast_style.commands.train import main

when, number = sys.argv[1], int(sys.argv[2])
rename, renames = Path.replace, 0

def replace(self, target):
    global renames
    renames += 1
    if renames == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if renames == number and when == "crash":
        raise KeyError("a fault of the program")
    rename(self, target)
    if renames == number:
        os.kill(os.getpid(), signal.SIGKILL)

Path.replace = replace
sys.exit(main(sys.argv[3:]))
"""


class Process:
    """A running command. Its output goes to a file: workers may outlive it and hold a pipe open."""

    def __init__(self, command: list[str], *, cwd: Path, log: Path, cold: bool) -> None:
        self.log = log
        start = subprocess.Popen if cold else processes.start
        with log.open("w") as file:
            self._popen = start(
                command,
                cwd=cwd,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "2"},
            )
        self.pid = self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def wait(self) -> int:
        return self._popen.wait(timeout=120)

    def output(self) -> str:
        return self.log.read_text()


Start = Callable[..., Process]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The final weights of the run that nothing interrupts, once it has been run."""
    return {}


@pytest.fixture
def start(tiny_yaml: Callable[..., Path], tmp_path: Path) -> Start:
    """Start the training command, or the driver around it, in `tmp_path`."""

    def make(*driver: str, workers: int = 0, run: str = "run", cold: bool = False) -> Process:
        config = tiny_yaml({**CHANGES, "data.workers": workers})
        command = ["-c", KILLING_DRIVER, *driver] if driver else [str(TRAIN)]
        arguments = ["--config", config.name, "--run-dir", run, "--device", "cpu"]
        return Process(
            [sys.executable, *command, *arguments],
            cwd=tmp_path,
            log=tmp_path / "log.txt",
            # In a fork of the tests' own process SIGTERM to the group ended the workers.
            cold=cold or workers > 0,
        )

    return make


def finish(process: Process) -> str:
    """Wait for a run's end, which must be a good one."""
    assert process.wait() == 0, process.output()
    return process.output()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    model = load_model(run / "tiny.pth")
    assert model.metadata["step"] == STEPS
    return model.network.state_dict()


def assert_as_unbroken(
    run: Path, start: Start, unbroken: dict[str, dict[str, torch.Tensor]]
) -> None:
    if not unbroken:
        finish(start(run="unbroken", cold=True))
        unbroken["weights"] = weights_of(run.with_name("unbroken"))
    weights, expected = weights_of(run), unbroken["weights"]
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert not list(run.glob("*.tmp")), "what a killed write left is still there"
    assert not list(run.glob(".*"))


def wait_for(condition: Callable[[], object], process: Process) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert not process.has_ended, process.output()
        assert time.monotonic() < deadline, "the run does not get there"
        time.sleep(0.002)


def newest_step(run: Path) -> int:
    states = find_states(run)
    return int(states[-1].stem.removeprefix("state-")) if states else 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_again_and_again_ends_with_equal_bits(
    start: Start, tmp_path: Path, unbroken: dict[str, dict[str, torch.Tensor]], workers: int
) -> None:
    run = tmp_path / "run"

    # Inside the write of the first model: the run has neither model nor state.
    process = start("before", "2", workers=workers)
    assert process.wait() == -signal.SIGKILL, process.output()
    assert not (run / "tiny.pth").exists()
    assert len(list(run.glob(".*"))) == 1, "the kill was not inside a write"

    # Between the model and its state.
    process = start("after", "2", workers=workers)
    assert process.wait() == -signal.SIGKILL, process.output()
    assert (run / "tiny.pth").exists()
    assert newest_step(run) == 0

    # Inside the write of the second state.
    process = start("before", "5", workers=workers)
    assert process.wait() == -signal.SIGKILL, process.output()
    assert newest_step(run) == 4
    assert len(list(run.glob(".*"))) == 1, "the kill was not inside a write"

    # Just after the rename of the next state.
    process = start("after", "3", workers=workers)
    assert process.wait() == -signal.SIGKILL, process.output()
    assert newest_step(run) == 8

    # From outside, wherever it happens to be.
    process = start(workers=workers)
    wait_for(lambda: newest_step(run) >= 16, process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.output()
    assert 16 <= newest_step(run) < STEPS

    finish(start(workers=workers))
    assert_as_unbroken(run, start, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_run_that_is_told_to_stop_saves_and_goes_on(
    start: Start,
    tmp_path: Path,
    unbroken: dict[str, dict[str, torch.Tensor]],
    number: signal.Signals,
    workers: int,
) -> None:
    run = tmp_path / "run"
    process = start(workers=workers)
    wait_for(lambda: newest_step(run) >= 4, process)
    # As Ctrl-C, `timeout` and batch systems do: to every process of the group.
    os.killpg(process.pid, number)
    assert process.wait() == 128 + number, process.output()
    assert "Traceback" not in process.output()
    stopped = newest_step(run)
    assert 4 <= stopped < STEPS
    last_line = process.output().strip().splitlines()[-1]
    assert f"stopped after step {stopped} of {STEPS}" in last_line
    assert "the same command goes on from there" in last_line
    assert f"resuming after step {stopped}" in finish(start(workers=workers))
    assert_as_unbroken(run, start, unbroken)


@pytest.mark.slow
def test_a_crash_ends_the_process_and_its_workers(start: Start, tmp_path: Path) -> None:
    process = start("crash", "2", workers=2)
    assert process.wait() == 70
    assert "KeyError: 'a fault of the program'" in process.output()


@pytest.mark.slow
def test_a_run_told_to_stop_before_its_first_step_saves_and_goes_on(
    start: Start, tmp_path: Path, unbroken: dict[str, dict[str, torch.Tensor]]
) -> None:
    run = tmp_path / "run"
    process = start()
    wait_for(lambda: (run / "config.yaml").exists(), process)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143, process.output()
    finish(start())
    assert_as_unbroken(run, start, unbroken)
