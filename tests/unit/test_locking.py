"""One training at a time in a run's folder. Another one is another process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import processes
import pytest
from runs import run

from fast_style.checkpoints.files import CheckpointError
from fast_style.commands import main
from fast_style.config import Config
from fast_style.training.locking import RunLock

HOLDER = """
import os, sys, time
from pathlib import Path
from fast_style.training.locking import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
if os.fork() == 0:  # as the processes that load photos
    time.sleep(60)
print(os.getpid(), flush=True)
time.sleep(60)
"""

Holding: TypeAlias = "processes.Process | subprocess.Popen[str]"
Holder = Callable[[Path], Holding]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the holder forks")


@pytest.fixture
def hold() -> Iterator[Holder]:
    """Start a process that trains in a folder, with one of its own; both end with the test."""
    holders = []

    def start(folder: Path) -> Holding:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        reading, writing = os.pipe()
        holder = processes.start(command, stdout=writing, start_new_session=True)
        holders.append(holder)
        os.close(writing)
        with os.fdopen(reading) as output:
            assert output.readline().strip() == str(holder.pid)
        return holder

    yield start
    for holder in holders:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_a_second_training_in_a_folder_is_refused_until_the_first_has_gone(
    hold: Holder, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config({"training.steps": 1})
    run(config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    holder = hold(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        run(tiny_config({"training.steps": 2}), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: another training (pid {holder.pid}) is writing here: wait for it, stop it, "
        "or give another --run-dir"
    )
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.pop(tmp_path / "training.lock") == f"{holder.pid}\n".encode()
    assert after == before
    os.kill(holder.pid, signal.SIGKILL)  # the process that it has started lives on
    holder.wait()
    assert run(tiny_config({"training.steps": 2}), tmp_path).step == 2
    assert not (tmp_path / "training.lock").exists()


@pytest.mark.usefixtures("signal_handlers_restored")
def test_a_dry_run_says_so_too(
    hold: Holder,
    tiny_yaml: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    holder = hold(tmp_path / "run")
    options = ["--run-dir", str(tmp_path / "run"), "--dry-run"]
    assert main(["train", "--config", str(tiny_yaml()), *options]) == 2
    assert f"another training (pid {holder.pid}) is writing here" in capsys.readouterr().err
    assert (tmp_path / "run" / "training.lock").exists()


def test_a_lock_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "training.lock").write_text("12345\n")
    lock = RunLock(tmp_path)
    lock.check()
    lock.take()
    lock.take()  # a held one stays held
    assert (tmp_path / "training.lock").read_text() == f"{os.getpid()}\n"
    lock.close()
    lock.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_anew_is_locked_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = RunLock(folder)
    lock.take()
    lock.path.unlink()
    lock.take()
    assert lock.path.exists()
    lock.path.unlink()
    lock.close()
    assert list(folder.iterdir()) == []


def test_checking_leaves_a_folder_as_it_is(tmp_path: Path) -> None:
    RunLock(tmp_path / "gone").check()
    RunLock(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
