"""The page in a real browser: what its tests share."""

import fcntl
import functools
import http.server
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import page as page_script
import pytest
from benchmarks.page import chromium_path
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

STYLES = ("wave", "ink")
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
]
# A machine that does other things too.
PATIENCE_MS = 120_000


def chromium() -> str:
    """Where the browser is: CI installs it."""
    path = chromium_path()
    if path is None:
        assert not os.environ.get("CI"), "there is no browser: .ci/run installs chromium"
        pytest.skip("there is no browser: apt install chromium")
    return path


def make_page(folder: Path) -> Path:
    """Make the page once, for all of the tests' processes."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        output = folder / "web"
        if not (output / "styles.json").is_file():
            models = [word for name in STYLES for word in ("--model", name)]
            assert page_script.main(["-o", str(output), *models]) == 0
    return output


@contextmanager
def browser(flags: Sequence[str] = ()) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium(), args=[*FLAGS, *flags], chromium_sandbox=False
        )
        yield launched
        launched.close()


class _Plain(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served_plainly(folder: Path) -> Iterator[str]:
    """As a static host serves it: without any headers of ours."""
    handler = functools.partial(_Plain, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Visit:
    """The page, opened, and what one does with it."""

    def __init__(self, context: BrowserContext, address: str, settings: str = "") -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.received = 0
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("requestfinished", self._count)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.address = address
        self.page.goto(address + settings)
        self.page.wait_for_selector(".card")

    def _count(self, request: object) -> None:
        self.received += request.sizes()["responseBodySize"]  # type: ignore[attr-defined]

    def open(self, image: Image.Image, *, name: str = "in.png") -> None:
        data = io.BytesIO()
        image.save(data, format="JPEG" if name.endswith("jpg") else "PNG", exif=image.getexif())
        self.open_bytes(data.getvalue(), name=name)
        self.page.wait_for_selector("#picture:not([hidden])")

    def open_bytes(self, data: bytes, *, name: str, media_type: str = "image/png") -> None:
        media_type = "image/jpeg" if name.endswith("jpg") else media_type
        file = {"name": name, "mimeType": media_type, "buffer": data}
        self.page.set_input_files("#file", files=file)

    def choose(self, style: str) -> None:
        self.page.locator(f".card input[value={style}]").check(force=True)

    def paint(self, style: str) -> None:
        """Choose a style, and wait for the picture."""
        self.page.evaluate("delete document.body.dataset.seconds")
        self.choose(style)
        self.painted()

    def painted(self) -> None:
        self.page.wait_for_selector("body[data-seconds]")
        self.page.wait_for_selector("#busy", state="hidden")

    def wait_until(self, expression: str) -> None:
        """Wait for something to be so; the driver's own way is against the page's policy."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def download(self) -> tuple[str, Image.Image]:
        with self.page.expect_download() as download:
            self.page.click("#download")
        return download.value.suggested_filename, Image.open(download.value.path())

    def message(self) -> str:
        self.page.wait_for_selector("#message:not([hidden])")
        return self.page.inner_text("#message p")

    def engine(self) -> str:
        return self.page.inner_text("#engine")


def assert_nearly_equal(found: Image.Image, expected: np.ndarray, *, share: float = 0.01) -> None:
    """At most 1/255 apart, in at most `share` of the pixels."""
    pixels = np.asarray(found.convert("RGB"))
    assert pixels.shape == expected.shape
    apart = np.abs(pixels.astype(int) - expected.astype(int)).max(-1)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= share
