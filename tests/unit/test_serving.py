"""The server: what it takes, what it refuses and how, and that it bears a crowd."""

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import processes
import pytest
from benchmarks.serve import load
from PIL import Image
from synthetic import photo

from fast_style.checkpoints.files import save_model
from fast_style.commands import main
from fast_style.errors import UserError
from fast_style.networks.transformer import TransformerNet
from fast_style.serving.desk import BusyError, Desk
from fast_style.serving.server import Limits, Server
from fast_style.serving.site import find_file
from fast_style.stylization import Stylizer

Ask = Callable[..., "tuple[int, dict[str, str], bytes]"]


@contextmanager
def running(desk: Desk, **options: object) -> Iterator[int]:
    """A server on a free port."""
    options = {"page": None, "limits": Limits(body=1 << 20), **options}
    server = Server(("127.0.0.1", 0), desk, **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    thread.join()
    desk.close(seconds=10)
    server.server_close()


@pytest.fixture
def model(tmp_path: Path, tiny_network: TransformerNet) -> Path:
    path = tmp_path / "sea.pth"
    save_model(path, tiny_network, metadata={"name": "sea", "step": 3})
    return path


@pytest.fixture
def desk(model: Path) -> Desk:
    return Desk([str(model)], workers=2, waiting=2, most_pixels=100_000)


@pytest.fixture
def port(desk: Desk) -> Iterator[int]:
    with running(desk) as port:
        yield port


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return the answer's status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def stylize(port: int, body: bytes, query: str = "style=sea", **headers: str) -> tuple[int, bytes]:
    status, _, content = ask(
        port, "POST", f"/stylize?{query}", body, **{"Content_Type": "image/png", **headers}
    )
    return status, content


def encoded(image: Image.Image, file_format: str = "PNG") -> bytes:
    data = io.BytesIO()
    image.save(data, format=file_format)
    return data.getvalue()


def problem(content: bytes) -> str:
    return str(json.loads(content)["error"])


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("style=sea", {}),
        ("style=sea&strength=0.5", {"strength": 0.5}),
        ("style=sea&size=24&strength=", {"size": 24}),
    ],
)
def test_the_answer_is_the_programs_picture(
    port: int, tiny_network: TransformerNet, query: str, options: dict[str, float]
) -> None:
    image = photo(1, 30, 41)
    status, content = stylize(port, encoded(image), query)
    assert status == 200
    expected = Stylizer(tiny_network, **options)(image)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(expected))


@pytest.mark.parametrize(
    ("sent", "answered"),
    [("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WEBP"), ("BMP", "PNG"), ("TIFF", "PNG")],
)
def test_the_answer_has_the_photos_format(port: int, sent: str, answered: str) -> None:
    status, headers, content = ask(
        port,
        "POST",
        "/stylize?style=sea",
        encoded(photo(2, 20, 30), sent),
        Content_Type="application/octet-stream",
    )
    assert status == 200
    assert headers["Content-Type"] == f"image/{answered.lower()}"
    assert Image.open(io.BytesIO(content)).format == answered


def test_styles_and_health_are_told(port: int) -> None:
    status, headers, content = ask(port, "GET", "/styles")
    assert status == 200
    assert json.loads(content) == {"styles": [{"name": "sea", "steps": 3, "width": 4}]}
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert json.loads(ask(port, "GET", "/health")[2])["status"] == "ok"
    assert b"make web" in ask(port, "GET", "/")[2]
    assert ask(port, "HEAD", "/styles")[2] == b""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "style is missing: POST /stylize?style=wave"),
        ("style=sky", "style 'sky' is not there: the styles are sea"),
        ("style=sea&strength=2", "strength 2.0 is impossible: it must be between 0 and 1"),
        ("style=sea&strength=much", "strength 'much' is not a number from 0 to 1"),
        ("style=sea&strength=nan", "strength nan is impossible: it must be between 0 and 1"),
        ("style=sea&size=-4", "size '-4' is not a number of pixels, from 1 on"),
        ("style=sea&colour=red", "colour: the settings are style, strength and size"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(port: int, query: str, expected: str) -> None:
    status, content = stylize(port, encoded(photo(3, 20, 20)), query)
    assert (status, problem(content)) == (422, expected)


def test_what_is_no_photo_is_refused(port: int) -> None:
    image = encoded(photo(4, 40, 40))
    assert stylize(port, b"words", Content_Type="text/plain")[0] == 415
    assert stylize(port, b"words")[0] == 422
    assert stylize(port, b"")[0] == 422
    assert stylize(port, image[: len(image) // 2])[0] == 422
    assert stylize(port, image)[0] == 200
    assert ask(port, "POST", "/elsewhere", b"", Content_Type="image/png")[0] == 404
    assert ask(port, "GET", "/stylize")[0] == 404


def png_of(width: int, height: int) -> bytes:
    """The header of a PNG, and a few compressed bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        whole = name + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("edge", [400, 20_000, 50_000])
def test_a_bomb_is_refused_before_it_is_decoded(port: int, edge: int) -> None:
    before = memory()
    status, content = stylize(port, png_of(edge, edge))
    assert status == 413
    assert f"{edge}" in problem(content)
    assert memory() - before < 50 << 20


def test_a_picture_that_would_become_too_large_is_refused(port: int) -> None:
    status, content = stylize(port, encoded(photo(5, 20, 20)), "style=sea&size=5000")
    assert (status, "5000x5000" in problem(content)) == (413, True)


def test_too_many_bytes_are_refused_without_being_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /stylize?style=sea HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        body = "Content-Type: image/png\r\nContent-Length: 99999999\r\n\r\n"
        connection.sendall((head + body).encode())
        assert b" 413 " in connection.recv(100)
    assert stylize(port, bytes(2 << 20))[0] == 413  # all of it sent, and the answer still read


def test_a_length_is_needed(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", "/stylize?style=sea")
    connection.putheader("Content-Type", "image/png")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()


def raw(port: int, text: str) -> bytes:
    """Send what a client of the standard library would not, and return all of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text.format(port=port).replace("\n", "\r\n").encode())
        with connection.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (f"Content-Length: {'9' * 5000}\n\n", 413),
        ("Content-Length: 11\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n", 411),
        ("Content-Length: -5\n\n", 411),
    ],
)
def test_an_odd_length_gets_an_answer(port: int, request_head: str, status: int) -> None:
    head = "POST /stylize?style=sea HTTP/1.1\nHost: 127.0.0.1:{port}\nContent-Type: image/png\n"
    assert f" {status} ".encode() in raw(port, head + request_head)[:20]


def test_the_body_of_a_get_is_not_the_next_request(port: int) -> None:
    body = "GET /styles HTTP/1.1\nHost: 127.0.0.1:{port}\nConnection: close\n\n"
    head = "GET /health HTTP/1.1\nHost: 127.0.0.1:{port}\nContent-Length: 70\n\n"
    assert raw(port, head + body).count(b"HTTP/1.1 200") == 1


def test_a_name_is_known_in_any_case(desk: Desk) -> None:
    with running(desk, limits=Limits(names=("Toms-Mac.local",))) as port:
        assert ask(port, "GET", "/health", Host=f"toms-mac.local:{port}")[0] == 200


def test_refusals_and_clients_that_go_away_are_not_logged_as_failures(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(port, "GET", "/styles", Host="evil.example")[0] == 403
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"GET /hea")
    # It ends with a reset, as a browser's does that is closed.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_for_threads()
    assert caplog.text == ""


def test_what_the_server_fails_at_is_answered_and_logged(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(desk, page=tmp_path) as port:
        assert ask(port, "GET", f"/{'a' * 300}.js")[0] == 404
        desk._pool.shutdown()  # as if a programmer had
        status, content = stylize(port, encoded(photo(4, 40, 40)))
    assert (status, "log" in problem(content)) == (500, True)
    assert "cannot schedule new futures" in caplog.text


def test_too_little_memory_is_told_with_the_cure(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("fast_style.serving.desk.stylize_picture", full)
    status, content = stylize(port, encoded(photo(4, 40, 40)))
    assert (status, "ask for a smaller size" in problem(content)) == (413, True)


def test_two_models_of_one_name_are_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(model.read_bytes())
    with pytest.raises(UserError, match=r"other\.pth: another one has its name, sea"):
        Desk([str(model), str(other)], workers=1, waiting=1, most_pixels=100)


def wait_for_threads() -> None:
    """Wait for what a server does with the requests that it has."""
    deadline = time.monotonic() + 20
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a request has no end"
        time.sleep(0.01)


def test_pages_of_other_origins_cannot_use_the_server(port: int) -> None:
    image = encoded(photo(6, 20, 20))
    own = f"http://127.0.0.1:{port}"
    assert stylize(port, image, Origin=own)[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert stylize(port, image, **headers)[0] == 403, headers
    assert ask(port, "GET", "/styles", Sec_Fetch_Site="cross-site")[0] == 403
    # A link may be followed.
    follow = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(port, "GET", "/", **follow)[0] == 200


def test_the_pages_files_are_served_and_nothing_else(desk: Desk, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "vendor").mkdir(parents=True)
    (site / "index.html").write_text("the page")
    (site / "vendor/a.wasm").write_bytes(b"plain")
    (site / "vendor/a.wasm.gz").write_bytes(b"packed")
    (tmp_path / "secret.js").write_text("secret")
    (site / "link.js").symlink_to(tmp_path / "secret.js")
    with running(desk, page=site) as port:
        assert ask(port, "GET", "/")[2] == b"the page"
        status, headers, content = ask(port, "GET", "/vendor/a.wasm", Accept_Encoding="gzip, br")
        assert (status, content, headers["Content-Encoding"]) == (200, b"packed", "gzip")
        assert headers["Content-Type"] == "application/wasm"
        assert ask(port, "GET", "/vendor/a.wasm")[2] == b"plain"
        for path in ("/../secret.js", "/%2e%2e/secret.js", "/link.js", "/vendor", "/none.js"):
            assert ask(port, "GET", path)[0] == 404, path
    assert find_file(site, "/\0.js", accepts_gzip=False) is None


def test_one_too_many_is_told_when_to_come_again(desk: Desk) -> None:
    with running(desk) as port, desk.place(), desk.place(), desk.place():
        assert stylize(port, encoded(photo(7, 20, 20)))[0] == 200
        with desk.place():
            status, headers, content = ask(
                port, "POST", "/stylize?style=sea", b"x" * 500_000, Content_Type="image/png"
            )
            assert status == 429
            assert 1 <= int(headers["Retry-After"]) <= 10
            assert "all workers are busy" in problem(content)
            with pytest.raises(BusyError), desk.place():
                pass


def test_closing_waits_for_the_photos_in_work_and_takes_no_more(desk: Desk) -> None:
    with running(desk) as port:
        place = desk.place()
        place.__enter__()
        closing = threading.Thread(target=desk.close, kwargs={"seconds": 20})
        closing.start()
        while not desk.closing:
            pass
        assert stylize(port, encoded(photo(8, 20, 20)))[0] == 503
        assert ask(port, "GET", "/health")[0] == 503
        assert closing.is_alive()
        place.__exit__(None, None, None)
        closing.join(timeout=10)
        assert not closing.is_alive()


def test_a_client_that_goes_away_leaves_no_trace(port: int, desk: Desk) -> None:
    for _ in range(6):  # more than there are places
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            head = f"POST /stylize?style=sea HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            body = "Content-Type: image/png\r\nContent-Length: 5000\r\n\r\nabc"
            connection.sendall((head + body).encode())
    with ThreadPoolExecutor(2) as pool:
        photos = [encoded(photo(9, 20, 20))] * 2
        assert [status for status, _ in pool.map(lambda p: stylize(port, p), photos)] == [200, 200]


def test_the_program_serves_until_it_is_told_to_stop(model: Path, tmp_path: Path) -> None:
    arguments = ["serve", "--port", "0", "--model", str(model), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "fast_style", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=processes.environment(Path(__file__).parents[2]),
    )
    assert server.stderr is not None
    line = server.stderr.readline()
    assert "1 styles, 1 workers" in line
    port = int(line.split(":")[2].split("/")[0])
    assert stylize(port, encoded(photo(10, 20, 20)))[0] == 200
    report = load(port, "sea", encoded(photo(11, 24, 24), "JPEG"), seconds=2, clients=4)
    assert report.failed == 0
    assert report.answered > 0
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0
    assert "shutting down" in server.stderr.read()
    server.stderr.close()


def test_a_server_that_cannot_begin_says_why(
    model: Path, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["serve", "--model", str(model)]
    assert main([*begin, "--port", str(port)]) == 2
    assert "cannot be listened on" in capsys.readouterr().err
    assert main([*begin, "--web", str(tmp_path)]) == 2
    assert "has no page: make web" in capsys.readouterr().err


def memory() -> int:
    """This process's memory, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
