"""An S3 server on this machine, which forgets everything at its end."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from fast_style.errors import UserError

_SECONDS = 120


@contextlib.contextmanager
def server(*, secret: str = "nothing") -> Iterator[dict[str, str]]:
    """Run a server, and give what programs have to know of it. Raises UserError."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, port)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serving(bucket: str) -> Iterator[None]:
    """Serve an empty bucket; this process and those it starts know of it. Raises UserError."""
    with server() as environment:
        os.environ.update(environment)
        store().mkdir(bucket)
        yield


def store() -> Any:
    """Return the server's file system."""
    import fsspec

    return fsspec.filesystem("s3")


def _wait_for(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise UserError("the S3 server did not start: pip install 'moto[server]'")
