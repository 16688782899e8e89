"""The page in a real browser: seconds by the number of threads, blocks, memory, and the pixels."""

import argparse
import contextlib
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import page as page_script
from PIL import Image

from benchmarks.exported import photo
from benchmarks.resident import resident
from benchmarks.serve import start_server
from fast_style.commands.options import count
from fast_style.errors import UserError
from fast_style.stylization import Stylizer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_THREADS = (1, 2)
_SMALL = (512, 512)
_LARGE = (4000, 3000)
_PATIENCE_MS = 600_000
# The longest task of the page's own thread since it was asked last.
_WATCH = """() => { window.longest = 0; new PerformanceObserver((list) => {
    window.longest = Math.max(window.longest, ...list.getEntries().map(task => task.duration))
}).observe({type: "longtask"}) }"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="wave", help="(default: wave)")
    parser.add_argument("--runs", type=count, default=3, help="pictures of each page (default: 3)")
    parser.add_argument("--rounds", type=count, default=3, help="pages of each (default: 3)")
    parser.add_argument("--large", action="store_true", help="12 megapixels, too")


def run(options: argparse.Namespace) -> int:
    """Serve the page, open it in Chromium, and paint in it."""
    path = chromium_path()
    if path is None:
        raise UserError("there is no browser: apt install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise UserError("this benchmark needs pip install playwright") from None
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        assert page_script.main(["-o", f"{scratch}/web", "--model", options.model]) == 0
        server, port = start_server(
            "--model", options.model, "--web", f"{scratch}/web", "--workers", "1"
        )
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox"], chromium_sandbox=False
            )
            address = f"http://127.0.0.1:{port}/"
            _compare_threads(browser, address, options)
            if options.large:
                _paint_large(browser, address, options)
            browser.close()
        finally:
            server.terminate()
            server.wait()
    return 0


def chromium_path() -> str | None:
    """Return where the browser is, if there is one."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def _compare_threads(browser: "Browser", address: str, options: argparse.Namespace) -> None:
    """Paint a small photo with one thread and with two, in turn, each in a page of its own."""
    given = _photo(*_SMALL)
    seconds: dict[int, list[float]] = {threads: [] for threads in _THREADS}
    blocks: dict[int, float] = dict.fromkeys(_THREADS, 0.0)
    apart: dict[int, str] = {}
    for _ in range(options.rounds):
        for threads in _THREADS:
            page = _open(browser, f"{address}?threads={threads}&gpu=off")
            _give(page, given)
            _paint(page, options.model)
            page.evaluate(_WATCH)
            seconds[threads] += [_paint(page, options.model) for _ in range(options.runs)]
            blocks[threads] = max(blocks[threads], page.evaluate("window.longest"))
            apart[threads] = _apart(_download(page), given, options.model)
            page.context.close()
    print(
        "| 512×512, threads | seconds | longest block of its own thread | the program's picture |"
    )
    print("|---|---|---|---|")
    for threads, times in seconds.items():
        block = f"{blocks[threads]:.0f} ms"
        print(f"| {threads} | {median(times):.2f} | {block} | {apart[threads]} |")
    one, two = (median(seconds[threads]) for threads in _THREADS)
    print(f"two threads are {one / two:.2f} times as fast as one")


def _paint_large(browser: "Browser", address: str, options: argparse.Namespace) -> None:
    page = _open(browser, f"{address}?gpu=off")
    given = _photo(*_LARGE)
    _give(page, given)
    page.evaluate(_WATCH)
    seconds = _paint(page, options.model)
    block = page.evaluate("window.longest")
    apart = _apart(_download(page), given, options.model)
    print(
        f"4000×3000: {seconds:.0f} s, longest block {block:.0f} ms, {apart}; a renderer took "
        f"{_most_memory() / 1e9:.2f} GB"
    )


def _open(browser: "Browser", address: str) -> "Page":
    page = browser.new_context(accept_downloads=True).new_page()
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector(".card")
    return page


def _give(page: "Page", image: Image.Image) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "photo.png")  # by its path: bytes may be 50 MB
        image.save(path, compress_level=1)
        page.set_input_files("#file", path)
        page.wait_for_selector("#picture:not([hidden])")


def _paint(page: "Page", style: str) -> float:
    """Return the seconds that the page says it took."""
    page.evaluate("delete document.body.dataset.seconds")
    page.locator(f".card input[value={style}]").dispatch_event("change")
    page.wait_for_selector("body[data-seconds]")
    page.wait_for_selector("#busy", state="hidden")
    return float(page.evaluate("document.body.dataset.seconds"))


def _download(page: "Page") -> Image.Image:
    with page.expect_download() as download:
        page.click("#download")
    return Image.open(download.value.path()).convert("RGB")


def _photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(photo(height, width))


def _apart(found: Image.Image, image: Image.Image, model: str) -> str:
    """Compare the page's picture with the program's."""
    expected = np.asarray(Stylizer(model, device="cpu")(image)).astype(np.int16)
    apart = np.abs(np.asarray(found).astype(np.int16) - expected).max(-1)
    return f"at most {apart.max()}/255 from it, in {(apart > 0).mean():.2%} of the pixels"


def _most_memory() -> int:
    """Return the most bytes that a renderer of the browser has held."""
    renderers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if b"--type=renderer" in (folder / "cmdline").read_bytes():
                renderers.append(folder.name)
    return max((resident(process, most=True) for process in renderers), default=0)
