"""Several processes that train as one does: real ones, which torchrun starts, over gloo."""

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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_style.checkpoints.files import find_states, load_model, load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are those of Linux"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch is without gloo"),
]

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
# Small steps: rounding that differs must not grow with them.
CHANGES = {
    "training.batch_size": 4,
    "training.learning_rate": 3e-5,
    "training.checkpoint_every": 4,
    "training.validate_every": 10,
    "training.preview_every": 20,
}

# In the process of rank 1, the photos of step 5 are NaN.
NAN_DRIVER = """
import os, sys
import torch
from fast_style.training import run as training
from fast_style.commands.train import main

honest, count = training.to_float, 0

def to_float(pixels):
    global count
    count += 1
    return honest(pixels) * (float("nan") if (os.environ["RANK"], count) == ("1", 5) else 1)

training.to_float = to_float
sys.exit(main(sys.argv[1:]))
"""


# The process of rank 1 computes wrongly: its weights are others after step 3.
OTHER_WEIGHTS_DRIVER = """
import os, sys
import torch
from fast_style.commands.train import main
from fast_style.training.trainee import Trainee

honest = Trainee.update

def update(trainee, content):
    result = honest(trainee, content)
    if (os.environ["RANK"], trainee.step) == ("1", 3):
        with torch.no_grad():
            trainee.network.head.bias[0] += 1e-6
    return result

Trainee.update = update
sys.exit(main(sys.argv[1:]))
"""


class Job:
    """One process, or torchrun with several; it is ended with the test."""

    def __init__(
        self, count: int, script: Path, arguments: list[str], *, cwd: Path, cold: bool
    ) -> None:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        launcher = [*torchrun, str(count)] if count > 1 else []
        start = subprocess.Popen if cold else processes.start
        self.outputs = cwd / "stdout.txt", cwd / "stderr.txt"
        with self.outputs[0].open("w") as stdout, self.outputs[1].open("w") as stderr:
            self._popen = start(
                [sys.executable, *launcher, str(script), *arguments],
                cwd=cwd,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def wait(self) -> int:
        return self._popen.wait(timeout=300)

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    @property
    def stdout(self) -> str:
        return self.outputs[0].read_text()

    @property
    def stderr(self) -> str:
        return self.outputs[1].read_text()

    def tell(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill everything at once."""
        for pid in (self._popen.pid, *self._workers().values()):
            os.kill(pid, signal.SIGKILL)
        self.wait()
        while self._workers():  # each takes a moment to give back its memory, and the run's lock
            time.sleep(0.01)

    def kill_rank(self, rank: int) -> None:
        os.kill(self._workers()[rank], signal.SIGKILL)

    def _workers(self) -> dict[int, int]:
        """Map ranks to process numbers."""
        children = processes.children_of(self._popen.pid)
        return {int(environment["RANK"]): pid for pid, environment in children.items()}


Start = Callable[..., Job]


@pytest.fixture
def start(tiny_yaml: Callable[..., Path], tmp_path: Path) -> Start:
    """Return the function that starts a training with `count` processes; cold ones import anew."""

    def make(
        count: int,
        *,
        run: str = "run",
        script: Path = TRAIN,
        cold: bool = False,
        **changes: object,
    ) -> Job:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        config = tiny_yaml({"training.steps": 20, **CHANGES, **dotted})
        arguments = ["--config", config.name, "--run-dir", run, "--device", "cpu"]
        return Job(count, script, arguments, cwd=tmp_path, cold=cold)

    return make


def finish(job: Job) -> Job:
    assert job.wait() == 0, job.stderr
    return job


def wait_for(condition: Callable[[], object], job: Job) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert not job.has_ended, job.stderr
        assert time.monotonic() < deadline, "the run does not get there"
        time.sleep(0.01)


def newest_step(run: Path) -> int:
    states = find_states(run)
    return int(states[-1].stem.removeprefix("state-")) if states else 0


def losses_of(run: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = (f"{part}/{name}" for part in ("loss", "loss_validation") for name in ("style", "total"))
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}


def assert_equal_losses(run: Path, other: Path, *, steps: int) -> None:
    ours, theirs = losses_of(run), losses_of(other)
    assert list(theirs["loss/total"]) == list(range(1, steps + 1))
    for tag in theirs:
        assert list(ours[tag]) == list(theirs[tag]), tag
        assert list(ours[tag].values()) == pytest.approx(list(theirs[tag].values()), rel=1e-5), tag


def test_two_processes_have_the_losses_of_one(start: Start, tmp_path: Path) -> None:
    # A strength is measured before training: by all, or by one for all.
    loss = {"loss__strength": 1.0, "loss__style_weight": 5.0}
    finish(start(1, run="one", **loss))
    job = finish(start(2, run="two", cold=True, data__workers=1, **loss))
    assert_equal_losses(tmp_path / "two", tmp_path / "one", steps=20)
    one, two = (load_model(tmp_path / run / "tiny.pth") for run in ("one", "two"))
    assert two.metadata["config"]["loss"] == one.metadata["config"]["loss"], "to the bit"
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():  # weights before a norm may differ: only rounding moves them
        torch.testing.assert_close(two.network(image), one.network(image), rtol=0, atol=1e-4)
    # One of them speaks.
    assert job.stdout == "two/tiny.pth\n"
    assert job.stderr.count("loss network:") == 1


def test_two_processes_disturb_crops_as_one_does(start: Start, tmp_path: Path) -> None:
    changes = {"loss__stability_weight": 10.0, "training__steps": 6}
    for count in (1, 2):
        finish(start(count, run=str(count), **changes))
    assert_equal_losses(tmp_path / "2", tmp_path / "1", steps=6)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_a_killed_job_goes_on_with_any_number_of_processes(
    start: Start, tmp_path: Path, before: int, after: int
) -> None:
    job = start(before, training__steps=60)
    wait_for(lambda: newest_step(tmp_path / "run") >= 8, job)
    job.kill()
    killed_at = newest_step(tmp_path / "run")
    assert 8 <= killed_at < 60
    job = finish(start(after, training__steps=60))
    assert f"resuming after step {killed_at} of 60" in job.stderr
    finish(start(1, run="unbroken", training__steps=60))
    assert_equal_losses(tmp_path / "run", tmp_path / "unbroken", steps=60)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_process_ends_the_run_with_a_line(
    start: Start, tmp_path: Path, rank: int
) -> None:
    job = start(2, training__steps=100_000)
    wait_for(lambda: newest_step(tmp_path / "run") >= 4, job)
    job.kill_rank(rank)
    assert job.wait() != 0
    assert f"error: process {1 - rank} of 2 has lost another one" in job.stderr
    assert "fast_style" not in job.stderr, "a traceback"
    assert "terminate called" not in job.stderr
    assert load_state(find_states(tmp_path / "run")[-1])["step"] >= 4
    assert load_model(tmp_path / "run" / "tiny.pth").metadata["step"] >= 4


def test_a_job_that_is_told_to_stop_saves_and_goes_on(start: Start, tmp_path: Path) -> None:
    job = start(2, training__steps=60)
    wait_for(lambda: newest_step(tmp_path / "run") >= 4, job)
    job.tell(signal.SIGTERM)
    assert job.wait() != 0
    stopped = newest_step(tmp_path / "run")
    assert 4 <= stopped < 60
    assert job.stderr.count(f"stopped after step {stopped} of 60") == 1
    assert "error:" not in job.stderr
    job = finish(start(2, training__steps=60))
    assert f"resuming after step {stopped} of 60" in job.stderr


def test_all_go_back_when_one_meets_nan(start: Start, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(NAN_DRIVER)
    job = finish(start(2, script=driver, training__steps=8, training__batch_size=2))
    (message,) = (line for line in job.stderr.splitlines() if "step 5: " in line)
    assert "learning rate halved" in message
    assert message.count("photo-00") == 2, "the photos of both are named"
    state = load_state(find_states(tmp_path / "run")[-1])
    assert (state["last_fault"], state["learning_rate_scale"]) == (5, 0.5)
    assert all(torch.isfinite(value).all() for value in state["network"].values())


def test_processes_with_other_weights_save_nothing_and_say_so(start: Start, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(OTHER_WEIGHTS_DRIVER)
    job = start(2, script=driver)
    assert job.wait() != 0
    said = (
        "error: after step 4 process 1 has other weights than process 0, so that nothing was saved"
    )
    assert job.stderr.count(said) == 1
    assert newest_step(tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"training__batch_size": 3}, "training.batch_size: 3 images cannot be shared equally"),
        ({"data__train": "gone"}, "gone: no such folder of photos"),
        ({"training__step": 3}, "training.step: unknown key"),
    ],
)
def test_a_mistake_is_told_once(
    start: Start, tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    job = start(2, **changes)
    assert job.wait() != 0
    (error,) = (line for line in job.stderr.splitlines() if "error: " in line)
    assert part in error
    assert not (tmp_path / "run").exists()
