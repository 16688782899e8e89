"""The benchmarks run and name what they time; their results are not tested."""

import os
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (
            "data --runs 1 --images 8 --size 32 --workers 1",
            ("640x480", "usual", "decoded", "ours, cached", "ours, loader, 1 workers", "images/s"),
        ),
        (
            "stylize --runs 1 --sizes 33x32 --width 2 --batch 2 --device cpu",
            ("33x32", "plain", "ours float32", "one batch", "of peak"),
        ),
        (
            "scale --workers 1,3 --photos 8 --compute 0.01 --latency 0.005 --listed 50",
            ("listing and names", "what is finished", "report and manifest", "of linear"),
        ),
        (
            "train --runs 1 --size 16 --batch-size 2 --width 2 --device cpu",
            ("batch 2, 16x16", "plain", "ours float32", "VGG on the content", "network backward"),
        ),
    ],
)
def test_a_benchmark_prints_its_table(arguments: str, rows: tuple[str, ...]) -> None:
    command = [sys.executable, str(SCRIPT), *arguments.split()]
    # Each case starts an interpreter of its own: minutes, on a machine that does much else.
    result = processes.run(command, timeout=500)
    assert result.returncode == 0, result.stderr
    for row in rows:
        assert row in result.stdout


def test_a_benchmark_whose_extra_is_missing_says_so_and_stops_no_other() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("av", "ray", "playwright")))
from benchmarks import main
sys.exit(main(["clip", "--rounds", "1"]))
"""
    command = [sys.executable, "-c", code]
    path = {"PYTHONPATH": str(SCRIPT.parent)}
    result = subprocess.run(
        command, env={**os.environ, **path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr == "error: video needs PyAV: pip install 'fast-style[video]'\n"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_command_is_watched_killed_and_known_by_what_it_leaves(tmp_path: Path) -> None:
    from benchmarks.watched import Watched, end

    child = "import time; time.sleep(60)"
    program = f"""
import subprocess, sys, time
for actor in ("actor", "other"):
    subprocess.Popen([sys.executable, "-c", "{child}", actor], stdout=subprocess.DEVNULL)
for number in range(4):
    print(number, "of a picture", flush=True)
print("no word of one", flush=True)
time.sleep(60)
"""
    watched = Watched(
        [sys.executable, "-c", program],
        folder=tmp_path,
        environment=dict(os.environ),
        actor=f"{sys.executable}\0-c\0{child}\0actor".encode(),
        mark="picture",
    )
    deadline = time.monotonic() + 60
    while len(watched.times) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watched.kill_actor(5)
    while len(watched.left()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watched.is_running()
    assert not watched.kill_actor(0)
    assert watched.samples[-1].command > 1 << 20
    watched.kill()
    assert not watched.is_running()
    assert len(watched.left()) == 1
    end(watched.left())
    while watched.left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not watched.left()
    assert len(watched.times) == 4


def test_a_machine_without_a_card_is_told_in_a_line() -> None:
    for options in ([], ["--device", "cpu"]):
        result = processes.run([sys.executable, str(SCRIPT), "gpu", *options])
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: the checks need a card: ")


@pytest.mark.slow
def test_the_checks_of_a_card_pass_on_a_cpu_in_small() -> None:
    command = [sys.executable, str(SCRIPT), "gpu", "--device", "cpu", "--small"]
    result = processes.run(command, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "not as expected: 0"
    verdicts = {line.split("|")[1].strip(): line[:3] for line in lines if line.count("|") >= 3}
    for check in ("training runs", "its losses", "losses beside the CPU's, float32", "kill -9"):
        assert verdicts[check] == "yes", result.stdout
    for check in ("waits in an update", "out of memory", "compiled", "eager, batch 2"):
        assert verdicts[check] == "   ", result.stdout


def test_a_check_that_fails_is_a_row_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import gpu, main
    from benchmarks.workshop import Row

    def wrong(workshop: object) -> list[Row]:
        return [Row(check="speed", expected="fast", seen="slow", is_right=False)]

    def broken(workshop: object) -> list[Row]:
        raise RuntimeError("CUDA error:\nan illegal address")

    checks = {"wrong": wrong, "broken": broken}
    monkeypatch.setattr(gpu, "CHECKS", checks)
    monkeypatch.setattr(gpu, "Workshop", lambda *_: None)
    assert main(["gpu", "--device", "cpu", "--small"]) == 1
    printed = capsys.readouterr().out
    assert "NO  | speed" in printed
    assert "RuntimeError: CUDA error: an illegal address" in printed
    assert printed.endswith("not as expected: 2\n")
    assert main(["gpu", "--device", "cpu", "--small", "--minutes", "0"]) == 0
    assert capsys.readouterr().out.count("no time was left") == 2
