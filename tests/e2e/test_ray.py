"""Photos that a Ray cluster shares out: the files, the report and a worker that is killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import photo

from fast_style.checkpoints.files import save_model
from fast_style.networks.transformer import TransformerNet

pytest.importorskip("ray", reason="pip install 'fast-style[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc"),
]

PROGRAM = """
import io, json, os, signal, threading, time
from pathlib import Path
import numpy, ray
from PIL import Image
from fast_style import Stylizer
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

ray.init(
    num_cpus=2, include_dashboard=False, object_store_memory=100 << 20,
    log_to_driver=False, logging_level="ERROR",
)
killer = threading.Thread(target=kill_one)
killer.start()
arguments = ["--model", "wave.pth", "in", "-o", "out", "--ray", "auto", "--manifest", "m.json"]
print("codes", main(arguments), main(arguments))
killer.join()
photo = numpy.asarray(Image.open("in/00.png"))
rows = [{"image": photo}, {"image": photo[::-1].copy()}]
result = stylize(ray.data.from_items(rows), model="wave.pth", actors=1, strength=0.5).take_all()
alone = Stylizer("wave.pth", strength=0.5)
assert all((row["stylized"] == alone(row["image"])).all() for row in result)
files = [{"bytes": Path("in/00.png").read_bytes()}, {"bytes": b"nothing"}]
files = ray.data.from_items(files)
files = stylize(files, model="wave.pth", column="bytes", actors=1).take_all()
for row in files:
    if row["error"]:
        print(row["error"])
    else:
        assert Image.open(io.BytesIO(row["stylized"])).size == (96, 64)
"""


def test_a_cluster_makes_the_files_of_one_process_though_a_worker_is_killed(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    save_model(tmp_path / "wave.pth", tiny_network)
    (tmp_path / "in").mkdir()
    for seed in range(20):
        photo(seed, 64, 96).save(tmp_path / f"in/{seed:02}.png")
    (tmp_path / "in/bad.png").write_bytes(b"nothing")
    plain = [sys.executable, "-m", "fast_style", "stylize", "--model", "wave.pth", "in"]
    assert subprocess.run([*plain, "-o", "plain"], cwd=tmp_path, check=False).returncode == 1
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "codes 1 1" in run.stdout
    assert "killed" in run.stdout
    assert "input stream: " in run.stdout
    assert run.stderr.count("error: in/bad.png: ") == 2
    assert "20 stylized, 1 failed" in run.stderr
    assert "20 already there, skipped, 1 failed" in run.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    entries = [json.loads(line) for line in (tmp_path / "m.json").read_text().splitlines()]
    assert sorted(entry["input"] for entry in entries) == sorted(
        f"in/{path.name}" for path in (tmp_path / "in").iterdir()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in", "--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: no cluster is there"),
        (("in", "--ray", "auto", "--sheet", "s.png"), "--ray does nothing for a --sheet"),
        (("-", "--ray", "auto"), "--ray reads and writes files"),
    ],
)
def test_what_a_cluster_cannot_do_is_one_line(
    tmp_path: Path, tiny_network: TransformerNet, arguments: tuple[str, ...], message: str
) -> None:
    save_model(tmp_path / "wave.pth", tiny_network)
    (tmp_path / "in").mkdir()
    photo(0, 16, 16).save(tmp_path / "in/a.png")
    command = [sys.executable, "-m", "fast_style", "stylize", "--model", "wave.pth"]
    run = subprocess.run(
        [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(f"error: {message}")
