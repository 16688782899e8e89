"""The page in headless Chromium: its pictures are the program's, and it bears what people do."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import Visit, assert_nearly_equal, browser, make_page, served_plainly
from PIL import Image
from playwright.sync_api import Browser
from synthetic import photo

from fast_style.serving.desk import Desk
from fast_style.serving.server import Limits, Server
from fast_style.stylization import Stylizer

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the browser's driver

Visiting = Callable[..., Visit]
_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    # With several of the tests' processes each has a folder of its own in a common one.
    return make_page((base.parent if base.name.startswith("popen-") else base) / "page")


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The page as `fast-style serve` serves it."""
    desk = Desk(["wave"], workers=1, waiting=1, most_pixels=10**6)
    server = Server(("127.0.0.1", 0), desk, page=site, limits=Limits())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    desk.close(seconds=1)
    server.server_close()


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser(_CAMERA) as launched:
        yield launched


@pytest.fixture
def visit(chrome: Browser, address: str) -> Iterator[Visiting]:
    """Open the page; at the end nothing has gone wrong in it, and nothing left its origin."""
    visits: list[Visit] = []
    contexts = []

    def begin(settings: str = "", **options: object) -> Visit:
        context = chrome.new_context(viewport={"width": 1280, "height": 800})
        if options:
            context.close()
            context = chrome.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        visits.append(Visit(context, address, settings))
        return visits[-1]

    yield begin
    for one in visits:
        assert one.errors == []
        origins = {urlsplit(url).netloc for url in one.requests if not url.startswith("blob:")}
        assert origins <= {urlsplit(address).netloc, ""}
    for context in contexts:
        context.close()


def program(image: Image.Image, **options: object) -> np.ndarray:
    return np.asarray(Stylizer("wave", **options)(image.convert("RGB")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "settings"),
    [((333, 255), ""), ((61, 83), "?threads=1"), ((150, 203), "?whole=0&strip=4000")],
    ids=["at once", "one thread", "in stages"],
)
def test_the_picture_is_the_programs(visit: Visiting, size: tuple[int, int], settings: str) -> None:
    page = visit(settings)
    image = photo(1, *size)
    page.open(image)
    page.paint("wave")
    name, picture = page.download()
    assert name == "in.wave.png"
    assert_nearly_equal(picture, program(image))


def test_strength_blends_as_the_program_does(visit: Visiting) -> None:
    page, image = visit(), photo(2, 90, 70)
    page.open(image)
    page.paint("wave")
    page.page.locator("#strength").fill("60")
    assert page.page.inner_text("#strength-said") == "60 %"
    # Both are rounded once more than the program's.
    assert_nearly_equal(page.download()[1], program(image, strength=0.6), share=0.5)


def test_a_picture_keeps_its_transparency_and_its_format(visit: Visiting) -> None:
    page, image = visit(), photo(3, 64, 48).convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 20, 20))
    image.putalpha(alpha)
    page.open(image)
    page.paint("wave")
    name, picture = page.download()
    assert picture.mode == "RGBA"
    assert picture.getchannel("A").tobytes() == alpha.tobytes()
    page.open(photo(3, 64, 48), name="holiday.photo.jpg")
    page.page.wait_for_selector("#busy", state="hidden")
    name, picture = page.download()
    assert (name, picture.format) == ("holiday.photo.wave.jpg", "JPEG")


def test_a_photo_that_lies_on_its_side_is_painted_upright(visit: Visiting) -> None:
    page, image = visit(), photo(4, 40, 80)
    image.getexif()[0x0112] = 6
    page.open(image, name="a.jpg")
    page.paint("wave")
    assert page.download()[1].size == (40, 80)


def test_a_first_picture_takes_five_megabytes(visit: Visiting) -> None:
    page = visit()
    page.page.click("#sample")
    page.page.wait_for_selector("#picture:not([hidden])")
    page.paint("wave")
    assert any(url.endswith(".wasm") for url in page.requests)
    assert not any("webgpu" in url for url in page.requests)
    for _ in range(200):  # the browser tells of what has come a moment later
        if page.received > 4_000_000:
            break
        page.page.wait_for_timeout(50)
    assert 4_000_000 < page.received <= 5_000_000


def test_the_page_answers_while_it_paints(visit: Visiting) -> None:
    page = visit("?threads=1&whole=0&strip=30000")
    page.open(photo(5, 400, 300))
    page.page.evaluate(
        """() => { window.long = 0; new PerformanceObserver((list) => {
            window.long = Math.max(window.long, ...list.getEntries().map(task => task.duration))
        }).observe({type: "longtask"}) }"""
    )
    page.paint("wave")
    # 100 ms on a machine of its own.
    assert page.page.evaluate("window.long") <= 300


def test_progress_grows_and_painting_can_be_cancelled_and_done_again(visit: Visiting) -> None:
    page = visit("?threads=1&whole=0&strip=3000")
    page.page.evaluate(
        """() => { window.shares = []; const bar = document.querySelector("#busy progress");
            new MutationObserver(() => { if (bar.hasAttribute("value")) shares.push(bar.value) })
                .observe(bar, {attributes: true}) }"""
    )
    image = photo(6, 260, 200)
    page.open(image)
    page.choose("wave")
    page.wait_until("window.shares.length > 3")
    page.page.click("#cancel")
    page.page.wait_for_selector("#busy", state="hidden")
    shares = page.page.evaluate("window.shares")
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1
    assert page.page.is_disabled("#download")
    page.paint("wave")
    assert_nearly_equal(page.download()[1], program(image))


def test_a_photo_that_comes_while_another_is_painted_takes_its_place(visit: Visiting) -> None:
    page = visit("?threads=1&whole=0&strip=3000")
    page.open(photo(6, 260, 200))
    page.choose("wave")
    page.wait_until("document.querySelector('#busy progress').hasAttribute('value')")
    image = photo(7, 90, 70)
    page.open(image, name="next.png")
    page.wait_until("document.querySelector('#before').width === 70")
    page.painted()
    page.page.wait_for_timeout(300)  # for whatever would be told of the first one
    assert not page.page.is_visible("#message")
    name, picture = page.download()
    assert name == "next.wave.png"
    assert_nearly_equal(picture, program(image))


def test_everything_can_be_done_with_the_keyboard(visit: Visiting) -> None:
    page = visit()
    keyboard, focused = page.page.keyboard, "document.activeElement.id"

    def tab_to(name: str) -> None:
        for _ in range(12):
            keyboard.press("Tab")
            if page.page.evaluate(f"{focused} || document.activeElement.value") == name:
                return
        raise AssertionError(f"{name} cannot be reached")

    tab_to("choose")
    tab_to("sample")
    keyboard.press("Enter")
    page.page.wait_for_selector("#picture:not([hidden])")
    tab_to("wave")
    keyboard.press("Space")
    page.painted()
    keyboard.press("Shift+Tab")
    assert page.page.evaluate(focused) == "divider"
    for _ in range(10):
        keyboard.press("ArrowRight")
    assert (
        page.page.evaluate(
            "getComputedStyle(document.querySelector('.frame')).getPropertyValue('--at')"
        )
        == "60%"
    )
    tab_to("strength")
    keyboard.press("ArrowLeft")
    assert page.page.inner_text("#strength-said") == "95 %"
    tab_to("download")
    with page.page.expect_download() as download:
        keyboard.press("Enter")
    assert download.value.suggested_filename == "sample.wave.jpg"


def test_a_screen_reader_is_told_everything(visit: Visiting) -> None:
    page = visit()
    page.open(photo(7, 50, 60))
    page.wait_until("document.querySelector('#said').textContent.includes('60 by 50')")
    page.paint("wave")
    told = page.page.locator("body").aria_snapshot()
    for expected in (
        'radio "Wave" [checked]',
        'radio "Ink"',
        'slider "Strength',
        'slider "Where the photo ends and the painting begins"',
        'img "The photo painted in the style Wave"',
        'combobox "Size"',
        'button "Download"',
        "Painted in the style Wave",
    ):
        assert expected in told, told
    unnamed = "button, input, select, canvas, progress"
    names = page.page.locator(unnamed).evaluate_all(
        """all => all.filter(e => e.checkVisibility())
            .filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
            .map(e => e.outerHTML)"""
    )
    assert names == []


def test_a_narrow_screen_needs_no_scrolling_sideways(visit: Visiting) -> None:
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    wide = "document.scrollingElement.scrollWidth"
    assert page.page.evaluate(wide) == 360
    page.open(photo(8, 160, 90))
    page.paint("wave")
    assert page.page.evaluate(wide) == 360
    for name in ("#download", "#another", "#size", "#divider"):
        box = page.page.locator(name).bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 40


def test_nothing_moves_for_those_who_asked_for_that(visit: Visiting) -> None:
    page = visit("?threads=1", reduced_motion="reduce")
    page.page.click("#sample")
    page.choose("wave")
    page.page.wait_for_selector("#busy:not([hidden])")
    assert page.page.evaluate("document.getAnimations().length") == 0
    page.painted()


def test_what_is_no_photo_is_told_and_the_page_goes_on(visit: Visiting) -> None:
    page = visit()
    page.open_bytes(b"not a photo at all", name="notes.png")
    assert page.message() == "notes.png is not a photo that this browser can read."
    page.page.click("#dismiss")
    assert not page.page.is_visible("#message")
    page.page.evaluate(
        """() => { const data = new DataTransfer(); data.setData("text/plain", "words");
            const paste = new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
            document.dispatchEvent(paste) }"""
    )
    assert page.message() == "There is no photo in what you pasted."
    page.open(photo(9, 40, 30))
    assert not page.page.is_visible("#message")
    page.paint("wave")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photo_may_be_pasted_or_dropped(visit: Visiting, way: str) -> None:
    page = visit()
    data = io.BytesIO()
    photo(10, 40, 50).save(data, format="PNG")
    page.page.evaluate(
        """([bytes, way]) => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "there.png", {type: "image/png"}));
            const options = {bubbles: true, cancelable: true};
            document.dispatchEvent(way === "paste"
                ? new ClipboardEvent("paste", {clipboardData: data, ...options})
                : new DragEvent("drop", {dataTransfer: data, ...options})) }""",
        [list(data.getvalue()), way],
    )
    page.page.wait_for_selector("#picture:not([hidden])")
    page.paint("wave")
    name, picture = page.download()
    assert (name, picture.size) == ("there.wave.png", (50, 40))


def test_the_camera_takes_a_photo(visit: Visiting) -> None:
    page = visit()
    page.page.click("#shoot")
    page.wait_until("document.querySelector('#camera video').videoWidth > 0")
    page.page.click("#snap")
    page.page.wait_for_selector("#picture:not([hidden])")
    assert not page.page.is_visible("#camera")
    assert "camera" not in page.page.locator("#message").inner_text()


def test_a_photo_too_large_is_shrunk_only_with_consent(visit: Visiting) -> None:
    page = visit("?most=3000")
    data = io.BytesIO()
    photo(11, 75, 100).save(data, format="PNG")
    page.open_bytes(data.getvalue(), name="large.png")
    page.page.wait_for_selector("#consent[open]")
    assert "shrunk to 63 × 47" in page.page.inner_text("#consent-text")
    page.page.click("#refuse")
    assert page.page.is_visible("#empty")
    page.open_bytes(data.getvalue(), name="large.png")
    page.page.click("#agree")
    page.page.wait_for_selector("#picture:not([hidden])")
    page.paint("wave")
    assert page.download()[1].size == (63, 47)


def test_too_little_memory_is_told_with_its_cure(visit: Visiting, chrome: Browser) -> None:
    page = visit("?threads=2&whole=100000000")

    def starve(route: object) -> None:
        # The runtime's memory ends at 64 MB instead of 4 GB.
        response = route.fetch()  # type: ignore[attr-defined]
        assert "maximum:65536" in response.text()
        text = response.text().replace("maximum:65536", "maximum:1024")
        route.fulfill(response=response, body=text)  # type: ignore[attr-defined]

    page.page.route("**/ort-wasm-simd-threaded.mjs", starve)
    page.page.reload()
    page.page.wait_for_selector(".card")
    page.open(photo(12, 600, 700))
    page.choose("wave")
    assert page.message() == "Not enough memory for 700 × 600 pixels."
    # The worker is a new one, which has to be given the photo again.
    page.page.click("#dismiss")
    page.choose("ink")
    assert page.message() == "Not enough memory for 700 × 600 pixels."
    page.page.click("#cure")
    page.painted()
    assert page.download()[1].size == (350, 300)


def test_without_the_headers_one_thread_paints(site: Path, chrome: Browser) -> None:
    image = photo(13, 80, 60)
    with served_plainly(site) as address:
        context = chrome.new_context()
        page = Visit(context, address)
        assert page.engine() == "1 thread"
        page.open(image)
        page.paint("wave")
        assert_nearly_equal(page.download()[1], program(image))
        assert page.errors == []
        context.close()


def test_with_the_headers_all_cores_paint(visit: Visiting) -> None:
    page = visit()
    cores = page.page.evaluate("navigator.hardwareConcurrency")
    assert page.page.evaluate("self.crossOriginIsolated")
    assert page.engine() == ("1 thread" if cores == 1 else f"{min(cores, 8)} threads")
