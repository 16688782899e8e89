"""Photos and pictures in a Google Cloud Storage server on this machine, as a user has them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from synthetic import photo

from fast_style.checkpoints.files import save_model
from fast_style.networks.transformer import TransformerNet

emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
pytest.importorskip("gcsfs", reason="pip install 'fast-style[remote]'")
requests = pytest.importorskip("requests")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket `photos`: the address under which its files are read and written."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    # The emulator does not have the call that tells one kind of bucket from another.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    server = emulator.create_server(host, int(port), in_memory=True, default_bucket="photos")
    server.start()
    yield f"http://{address}"
    server.stop()


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fast_style", *arguments]
    result = processes.run(command, cwd=cwd, env=dict(os.environ))
    assert result.returncode == 0, result.stderr
    return result


def test_a_bucket_is_stylized_to_the_bytes_of_a_folder_and_goes_on(
    bucket: str, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    def upload(path: Path, name: str) -> None:
        address = f"{bucket}/upload/storage/v1/b/photos/o?uploadType=media&name={name}"
        requests.post(address, data=path.read_bytes(), timeout=60).raise_for_status()

    upload(save_model(tmp_path / "wave.pth", tiny_network), "models/wave.pth")
    (tmp_path / "in").mkdir()
    for seed in range(3):
        photo(seed, 16, 20).save(tmp_path / f"in/{seed}.jpg")
        upload(tmp_path / f"in/{seed}.jpg", f"in/{seed}.jpg")
    run("stylize", "--model", "wave.pth", "in", "-o", "out", cwd=tmp_path)
    far = ("stylize", "--model", "gs://photos/models/wave.pth", "gs://photos/in/")
    run(*far, "-o", "gs://photos/out/", cwd=tmp_path)
    listed = requests.get(f"{bucket}/storage/v1/b/photos/o?prefix=out/", timeout=60).json()["items"]
    made = {
        item["name"]: requests.get(item["mediaLink"], timeout=60).content
        for item in listed
        if ".fast-style" not in item["name"]
    }
    assert made == {f"out/{p.name}": p.read_bytes() for p in (tmp_path / "out").iterdir()}
    again = run(*far, "-o", "gs://photos/out/", cwd=tmp_path)
    assert "3 already there, skipped" in again.stderr
