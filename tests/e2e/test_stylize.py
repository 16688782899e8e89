"""The program as a person runs it: interrupted, killed, on a full disk, cold."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
from PIL import Image
from synthetic import write_photos

from fast_style.checkpoints.files import save_model
from fast_style.networks.transformer import TransformerNet

COUNT = 24


@pytest.fixture
def command(tmp_path: Path, repository: Path, tiny_network: TransformerNet) -> list[str]:
    """The command line that stylizes the folder `in` into `out`."""
    (tmp_path / "in").mkdir()
    write_photos(tmp_path / "in", COUNT, height=600, width=800)
    model = save_model(tmp_path / "wave.pth", tiny_network)
    script = str(repository / "scripts" / "stylize.py")
    return [sys.executable, script, "--model", str(model), "in", "-o", "out"]


def wait_for_outputs(process: "processes.Process | subprocess.Popen[str]", folder: Path) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.png"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_folder_goes_on(tmp_path: Path, command: list[str], number: int) -> None:
    with (tmp_path / "said.txt").open("w") as file:
        process = processes.start(command, cwd=tmp_path, stderr=file)
    wait_for_outputs(process, tmp_path / "out")
    process.send_signal(number)
    process.wait(timeout=60)
    said = (tmp_path / "said.txt").read_text()
    if number == signal.SIGINT:
        assert (process.returncode, said) == (130, "interrupted\n")
        assert not list((tmp_path / "out").glob(".*"))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert 2 <= len(finished) < COUNT
    again = processes.run(command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"{COUNT - len(finished)} stylized, {len(finished)} already there" in again.stderr
    assert len(list((tmp_path / "out").iterdir())) == COUNT
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            image.load()


def run_in_processes(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return processes.run(
        [*launcher, "--nproc-per-node", "2", *command[1:]],
        cwd=folder,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_share_a_folder(tmp_path: Path, command: list[str]) -> None:
    # The first process fails at once, and must not take the second one with it.
    (tmp_path / "in/aaa.png").write_bytes(b"")
    (tmp_path / "m.json").write_text("left by an earlier run\n")
    run = run_in_processes([*command, "--manifest", "m.json"], tmp_path)
    assert run.returncode == 1
    assert run.stderr.count("error: in/aaa.png: is empty\n") == 1
    assert run.stderr.count(f"{COUNT} stylized, 1 failed\n") == 1
    assert len(list((tmp_path / "out").iterdir())) == COUNT
    entries = [json.loads(line) for line in (tmp_path / "m.json").read_text().splitlines()]
    photos = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "in").iterdir())
    assert sorted(entry["input"] for entry in entries) == photos
    assert [entry["input"] for entry in entries if entry["error"]] == ["in/aaa.png"]

    (tmp_path / "in/aaa.png").unlink()
    (tmp_path / "out/photo-003.wave.png").unlink()
    run = run_in_processes([*command, "--json"], tmp_path)
    assert run.returncode == 0
    entries = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(entries) == COUNT
    assert [entry["input"] for entry in entries if "skipped" not in entry] == ["in/photo-003.png"]
    assert run.stderr.count(f"1 stylized, {COUNT - 1} already there, skipped, --overwrite") == 1


def test_several_processes_tell_a_mistake_once(tmp_path: Path, command: list[str]) -> None:
    run = run_in_processes([*command, "--quality", "0"], tmp_path)
    assert run.returncode == 1
    assert run.stderr.count("error: --quality 0 is impossible") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "wave.pth"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full, (tmp_path / "in/photo-000.png").open("rb") as photo:
        run = processes.run([*command[:4], "-"], cwd=tmp_path, stdin=photo, stdout=full)
    expected = "error: output stream: cannot be written: No space left on device"
    assert run.stderr.splitlines()[0] == expected
    assert run.returncode == 1


@pytest.mark.skipif(not processes.FORKS, reason="limits are for Linux")
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff", "bmp"])
def test_a_file_cut_short_is_an_error(tmp_path: Path, command: list[str], extension: str) -> None:
    command[4:] = ["in/photo-000.png", "--size", "100", "-o", f"cut.{extension}"]
    run = processes.run(command, cwd=tmp_path, largest_file=1000)
    assert (
        run.stderr.splitlines()[0] == f"error: cut.{extension}: cannot be written: File too large"
    )
    assert run.returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "wave.pth"]


def test_nothing_heavy_is_imported(tmp_path: Path, command: list[str], repository: Path) -> None:
    """Beside PyTorch, Pillow and NumPy no package of other people is: a start stays quick."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from fast_style.commands.stylize import main\n"
        f"assert main({[*command[2:4], 'in/photo-000.png']!r}) == 0\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env=processes.environment(repository),
    )  # fmt: skip
    assert set(run.stdout.splitlines()[-1].split()) <= {"PIL", "fast_style", "numpy", "torch"}
