"""Photos that a Ray cluster shares out: the files, the report and a worker that is killed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from synthetic import photo

from fast_style.checkpoints.files import CheckpointError, save_model
from fast_style.commands.stylize import main
from fast_style.errors import UserError
from fast_style.integrations.ray import _named, _photos_at_once, _RowWorker, _start_here
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.stylization.jobs import Job

PROGRAM = """
import io, os, signal, threading, time
from pathlib import Path
import ray
from PIL import Image
from fast_style.commands.stylize import main
from fast_style.integrations.ray import stylize

def workers():
    for process in Path("/proc").iterdir():
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::MapWorker(MapBatches"):
                yield int(process.name)
        except (OSError, ValueError):
            pass

def kill_one():
    while not list(Path("out").glob("*.wave.png")):
        time.sleep(0.01)
    victim = max(workers())
    os.kill(victim, signal.SIGKILL)
    print("killed", victim)

for _ in range(4):  # Ray gives up after 30 seconds, which on a busy machine are too few
    try:
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=100 << 20,
            log_to_driver=False, logging_level="ERROR",
        )
        break
    except Exception as error:
        print(error)
        ray.shutdown()
killer = threading.Thread(target=kill_one)
killer.start()
arguments = ["--model", "wave.pth", "in", "-o", "out", "--ray", "auto", "--manifest", "m.json"]
print("code", main(arguments))
killer.join()
files = [{"bytes": Path("in/00.png").read_bytes()}, {"bytes": b"nothing"}]
for row in stylize(
    ray.data.from_items(files), model="wave.pth", column="bytes", actors=1
).take_all():
    if row["error"]:
        print(row["error"])
    else:
        assert Image.open(io.BytesIO(row["stylized"])).size == (96, 64)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")
def test_a_cluster_makes_the_files_of_one_process_though_a_worker_is_killed(
    tmp_path: Path,
    tiny_network: TransformerNet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # 240 MB, and slow to start: it is not installed for every change.
    pytest.importorskip("ray", reason="pip install 'fast-style[ray]'")
    save_model(tmp_path / "wave.pth", tiny_network)
    (tmp_path / "in").mkdir()
    for seed in range(20):
        photo(seed, 64, 96).save(tmp_path / f"in/{seed:02}.png")
    (tmp_path / "in/bad.png").write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "wave.pth", "in", "-o", "plain"]) == 1
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "code 1" in run.stdout
    assert "killed" in run.stdout
    assert "input stream: " in run.stdout
    assert run.stderr.count("error: in/bad.png: ") == 1
    assert "20 stylized, 1 failed" in run.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    entries = [json.loads(line) for line in (tmp_path / "m.json").read_text().splitlines()]
    assert sorted(entry["input"] for entry in entries) == sorted(
        f"in/{path.name}" for path in (tmp_path / "in").iterdir()
    )
    assert main(["--model", "wave.pth", "in", "-o", "out"]) == 1
    assert "20 already there, skipped, 1 failed" in capsys.readouterr().err


def test_a_row_of_a_pipeline_gets_what_a_stylizer_makes_of_it(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    model = _named(save_model(tmp_path / "wave.pth", tiny_network))
    worker = _RowWorker(model=model, settings={"strength": 0.5}, column="image", into="new")
    image = numpy.asarray(photo(1, 20, 30))
    row = worker({"image": image, "label": 3})
    assert row["label"] == 3
    assert (row["new"] == Stylizer(tiny_network, strength=0.5)(image)).all()


def test_a_worker_refuses_another_model_of_the_same_name(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    model = _named(save_model(tmp_path / "wave.pth", tiny_network))
    save_model(tmp_path / "wave.pth", TransformerNet(4, 1))
    with pytest.raises(CheckpointError, match="is another model here"):
        model.load({})


@pytest.mark.parametrize(
    ("photos", "size", "at_once"),
    [(5000, 4_000, 64), (300, 4_000, 18), (5000, 8 << 20, 2), (5000, 1 << 30, 1), (7, 10, 1)],
)
def test_an_actor_takes_many_small_photos_at_once_and_few_large_ones(
    tmp_path: Path, photos: int, size: int, at_once: int
) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(size)
    jobs = [Job(tmp_path / "a.jpg", tmp_path / "b.jpg")] * photos
    assert _photos_at_once(jobs, actors=2) == at_once
    assert _photos_at_once([Job(tmp_path / "gone.jpg", tmp_path / "b.jpg")], actors=2) == 1


class BusyRay:
    """What starts a cluster on a machine that is busy for a while, or has some other fault."""

    def __init__(self, *errors: str) -> None:
        self._errors = list(errors)

    def init(self, **settings: object) -> None:
        if self._errors:
            raise Exception(self._errors.pop(0))

    def shutdown(self) -> None:
        pass


def test_a_cluster_that_does_not_start_in_time_is_started_again() -> None:
    late = "The current node timed out during startup. This could happen because"
    _start_here(BusyRay(late, late))
    with pytest.raises(UserError, match="--ray auto: Ray did not start on this machine: The curr"):
        _start_here(BusyRay(*[late] * 9))
    with pytest.raises(UserError, match="no space left"):
        _start_here(BusyRay("no space left"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in", "--ray", "auto", "--sheet", "s.png"), "--ray does nothing for a --sheet"),
        (("-", "--ray", "auto"), "--ray reads and writes files"),
    ],
)
def test_what_a_cluster_cannot_do_is_one_line(
    tmp_path: Path,
    tiny_network: TransformerNet,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(tmp_path / "wave.pth", tiny_network)
    (tmp_path / "in").mkdir()
    photo(0, 16, 16).save(tmp_path / "in/a.png")
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "wave.pth", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
