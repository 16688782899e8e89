"""The page on a GPU: it is trusted only after it has painted what WASM paints."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import Visit, assert_nearly_equal, browser, served_plainly
from playwright.sync_api import Browser
from synthetic import photo
from test_page import site as site

from fast_style.stylization import Stylizer

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the browser's driver

# WebGPU in software: right, and slow.
_FLAGS = (
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
    "--use-webgpu-adapter=swiftshader",
    "--use-vulkan=swiftshader",
)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser(_FLAGS) as launched:
        yield launched


def test_a_gpu_that_computes_the_same_is_used(site: Path, chrome: Browser) -> None:
    with served_plainly(site) as address:
        page = Visit(chrome.new_context(), address, "?gpu=any")
        page.open(photo(1, 61, 83))
        page.paint("wave")
        page.page.wait_for_selector("body[data-gpu]")
        assert page.page.evaluate("document.body.dataset.gpu") == "proved"
        page.paint("ink")
        assert page.engine() == "GPU"
        expected = np.asarray(Stylizer("ink")(photo(1, 61, 83)))
        assert_nearly_equal(page.download()[1], expected)


def test_a_gpu_that_fails_is_not_used(site: Path, chrome: Browser) -> None:
    with served_plainly(site) as address:
        context = chrome.new_context()
        context.route("**/*asyncify.wasm", lambda route: route.abort())
        page = Visit(context, address, "?gpu=any")
        page.open(photo(2, 40, 30))
        page.paint("wave")
        page.page.wait_for_selector("body[data-gpu]")
        assert page.page.evaluate("document.body.dataset.gpu") == "refused"
        page.paint("ink")
        assert page.engine() == "1 thread"
