"""Photos, pictures, models and runs in an S3 server on this machine, as a user has them."""

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import torch
import yaml
from benchmarks.s3 import server
from synthetic import photo, tiny_config_data, write_photos

from fast_style.checkpoints.files import save_model
from fast_style.networks.transformer import TransformerNet

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto", reason="pip install 'moto[server]'")
pytest.importorskip("s3fs", reason="pip install 'fast-style[remote]'")

SECRET = "do-not-show-this-secret"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket, and what programs have to know of it."""
    with server(secret=SECRET) as known:
        yield known


@pytest.fixture
def bucket(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The bucket `photos`, empty, as another program sees it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    resource = boto3.resource("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    bucket = resource.Bucket("photos")
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def run(*arguments: object, cwd: Path, code: int = 0) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fast_style", *map(str, arguments)]
    result = processes.run(command, cwd=cwd, env=dict(os.environ))
    assert result.returncode == code, result.stderr
    assert SECRET not in result.stdout + result.stderr
    return result


def test_a_bucket_is_stylized_to_the_bytes_of_a_folder_and_goes_on(
    bucket: object, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    model = save_model(tmp_path / "wave.pth", tiny_network)
    bucket.upload_file(str(model), "models/wave.pth")
    (tmp_path / "in").mkdir()
    for seed in range(4):
        photo(seed, 16, 20).save(tmp_path / f"in/{seed}.jpg")
        bucket.upload_file(str(tmp_path / f"in/{seed}.jpg"), f"in/{seed}.jpg")
    bucket.put_object(Key="in/bad.jpg", Body=b"nothing")
    run("stylize", "--model", "wave.pth", "in", "-o", "out", cwd=tmp_path)
    far = ("stylize", "--model", "s3://photos/models/wave.pth", "s3://photos/in/")
    to = ("-o", "s3://photos/out/", "--manifest", "m.json")
    result = run(*far, *to, cwd=tmp_path, code=1)
    assert "error: s3://photos/in/bad.jpg: " in result.stderr
    made = {
        o.key: o.get()["Body"].read()
        for o in bucket.objects.filter(Prefix="out/")
        if ".fast-style" not in o.key
    }
    plain = {f"out/{path.name}": path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert made == plain
    manifest = (tmp_path / "m.json").read_text()
    assert SECRET not in manifest
    assert len([json.loads(line) for line in manifest.splitlines()]) == 5
    bucket.delete_objects(Delete={"Objects": [{"Key": "out/2.wave.jpg"}, {"Key": "in/bad.jpg"}]})
    result = run(*far, *to, cwd=tmp_path)
    assert "1 stylized, 3 already there, skipped" in result.stderr
    assert {o.key for o in bucket.objects.filter(Prefix="out/")} > set(plain)


def test_a_bucket_that_is_not_there_is_one_line(
    bucket: object, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    save_model(tmp_path / "wave.pth", tiny_network)
    result = run(
        *("stylize", "--model", "wave.pth", "s3://nowhere/in/", "-o", "out"), cwd=tmp_path, code=2
    )
    assert result.stderr.startswith("error: s3://nowhere/in: holds no images")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_training_from_shards_in_a_bucket_killed_at_random_moments_has_the_bits_of_a_folders(
    bucket: object, tmp_path: Path, vgg_file: Path
) -> None:
    photos = write_photos(tmp_path / "photos", 6)
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for path in photos[3 * number :][:3]:
                tar.add(path, path.name)
        bucket.upload_file(str(tmp_path / f"{number}.tar"), f"shards/{number}.tar")
    style = tmp_path / "photos/photo-000.png"
    data = tiny_config_data(photos=tmp_path / "photos", style=style, weights=vgg_file)
    data["training"].update(steps=20, checkpoint_every=2)
    (tmp_path / "near.yaml").write_text(yaml.safe_dump(data))
    data["data"]["train"] = "s3://photos/shards/"
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(data))
    command = ("train", "--device", "cpu", "--config")
    run(*command, tmp_path / "near.yaml", "--run-dir", "whole", cwd=tmp_path)
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    far = [sys.executable, "-m", "fast_style", *command, "../far.yaml", "--run-dir"]
    killed_at = []
    for machine in ("one", "two", "one"):  # each goes on from what is newest anywhere
        (tmp_path / machine).mkdir(exist_ok=True)
        begun = states_of(bucket)
        with (tmp_path / "log.txt").open("w") as log:
            process = processes.start(
                [*far, "s3://photos/run/"], cwd=tmp_path / machine, stdout=log, stderr=log
            )
        # At any moment from the start on, or at one soon after another state.
        if moments.random() < 0.7:
            while process.poll() is None and states_of(bucket) == begun:
                time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        # Near its end the last of them may have been faster.
        code = process.wait()
        assert code in ((-signal.SIGKILL, 0) if killed_at else (-signal.SIGKILL,)), log_of(tmp_path)
        killed_at.append(states_of(bucket)[-1:])
    print(f"seed {seed}: killed at {killed_at}")
    run(*command, "../far.yaml", "--run-dir", "s3://photos/run/", cwd=tmp_path / "two")
    assert "shards/fast-style-index.json" in {o.key for o in bucket.objects.all()}
    bucket.download_file("run/tiny.pth", str(tmp_path / "far.pth"))
    assert SECRET.encode() not in (tmp_path / "far.pth").read_bytes()
    weights = [
        torch.load(path, weights_only=True)
        for path in (tmp_path / "whole/tiny.pth", tmp_path / "far.pth")
    ]
    assert [one["metadata"]["step"] for one in weights] == [20, 20]
    for key, value in weights[0]["weights"].items():
        assert torch.equal(weights[1]["weights"][key], value)


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def states_of(bucket: object) -> list[str]:
    """Return the states of the run that the bucket holds now."""
    return sorted(o.key for o in bucket.objects.filter(Prefix="run/state-"))
