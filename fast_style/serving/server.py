"""The HTTP side: GET for the page, /styles and /health, POST /stylize.

A browser lets any web page send requests to this computer. So a request is answered only where its
Host is one of this server's names (a name of somebody else's may lead here too) and its Origin, if
it has one, is this server itself.
"""

import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from fast_style.errors import UserError
from fast_style.serving.desk import BusyError, ClosingError, Desk, TooLargeError, Wish
from fast_style.serving.site import ISOLATION, PLAIN, find_file
from fast_style.version import __version__

logger = logging.getLogger(__name__)

_JSON = "application/json"
# A client that stops sending keeps its place no longer.
_SILENCE_SECONDS = 20
_CHUNK = 1 << 16
# How much of a refused photo is still read, so that whoever sends it gets to reading the answer.
_LEFTOVER = 1 << 26
_DIGITS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What is taken: bytes of a body, and names by which the server may be called."""

    body: int = 64 << 20
    names: tuple[str, ...] = ()


class Server(ThreadingHTTPServer):
    """Answers until it is shut down; `page` is the folder that `make web` wrote."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], desk: Desk, *, page: Path | None, limits: Limits):
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.desk = desk
        self.page = page
        self.limits = limits
        port = self.server_address[1]
        names = {"localhost", "127.0.0.1", "[::1]", *limits.names}
        # Browsers write names in small letters, however they were typed.
        self.hosts = {f"{name}:{port}".lower() for name in names}
        if port == 80:
            self.hosts |= {name.lower() for name in names}

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away; log everything else with its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            logger.exception("a request could not be answered")


class _RefusalError(Exception):
    def __init__(self, status: HTTPStatus, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_SECONDS
    server: Server

    def do_GET(self) -> None:
        self._answer(self._get)

    do_HEAD = do_GET  # noqa: N815 (the standard library's name)

    def do_POST(self) -> None:
        self._answer(self._stylize)

    def _get(self) -> None:
        path = urlsplit(self.path).path
        if any(name in self.headers for name in ("Content-Length", "Transfer-Encoding")):
            self.close_connection = True  # or a body, which nobody reads, were the next request
        if path == "/health":
            self._refuse_when_closing()
            self._send_json({"status": "ok", "version": __version__})
        elif path == "/styles":
            self._send_json({"styles": _described(self.server.desk)})
        else:
            self._send_file(path)

    def _stylize(self) -> None:
        url = urlsplit(self.path)
        if url.path != "/stylize":
            raise _RefusalError(HTTPStatus.NOT_FOUND, f"{url.path}: there is no such place")
        wish = _wish(url.query)
        length = self._length()
        with self.server.desk.place():
            photo = self.rfile.read(length)
            if len(photo) < length:
                raise _RefusalError(HTTPStatus.BAD_REQUEST, "the photo was cut short")
            answer = self.server.desk.stylize(photo, wish)
            # Within the place, so that closing waits for it.
            self._send(HTTPStatus.OK, answer.content, answer.media_type)

    def _answer(self, answer: Callable[[], None]) -> None:
        """Answer whoever may ask, and turn what is raised into an answer of one line."""
        try:
            self._check_caller()
            answer()
        except _RefusalError as refusal:
            self._send_error(refusal.status, str(refusal), refusal.headers)
        except BusyError as error:
            self._send_error(
                HTTPStatus.TOO_MANY_REQUESTS, str(error), {"Retry-After": str(error.seconds)}
            )
        except ClosingError as error:
            self._send_error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except TooLargeError as error:
            self._send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
        except UserError as error:
            self._send_error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except (ConnectionError, TimeoutError):  # whoever asked has gone
            self.close_connection = True
        except Exception:
            logger.exception("a request could not be answered")
            self._send_error(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed at this, and its log says how"
            )

    def _check_caller(self) -> None:
        host = self.headers.get("Host", "")
        if host.lower() not in self.server.hosts:
            raise _RefusalError(
                HTTPStatus.FORBIDDEN, f"this server is not called {host!r}: start it with --name"
            )
        origin = self.headers.get("Origin")
        from_elsewhere = self.headers.get("Sec-Fetch-Site") == "cross-site"
        # A link to the page may be followed from anywhere.
        if from_elsewhere and self.command == "GET":
            from_elsewhere = self.headers.get("Sec-Fetch-Mode") != "navigate"
        if (origin and origin.lower() != f"http://{host.lower()}") or from_elsewhere:
            raise _RefusalError(
                HTTPStatus.FORBIDDEN, "pages of other origins may not use this server"
            )

    def _refuse_when_closing(self) -> None:
        if self.server.desk.closing:
            raise ClosingError("the server is shutting down")

    def _length(self) -> int:
        """Return the photo's length in bytes, of a body that may be read."""
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if not media_type.startswith("image/") and media_type != "application/octet-stream":
            raise _RefusalError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type {media_type!r}: send a photo's bytes, as image/jpeg",
            )
        text = self.headers.get("Content-Length", "")
        if not text.isascii() or not text.isdecimal() or "Transfer-Encoding" in self.headers:
            raise _RefusalError(
                HTTPStatus.LENGTH_REQUIRED,
                "Content-Length is missing: chunks (Transfer-Encoding) are not taken",
            )
        # Python makes no number of thousands of digits: the first ones say that it is too large.
        length = int(text.lstrip("0")[:_DIGITS] or "0")
        if length > self.server.limits.body:
            most = self.server.limits.body / (1 << 20)
            raise TooLargeError(f"{length:,} bytes are too many: at most {most:g} MiB are taken")
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        return length

    # What the standard library would answer before the body's rules are known.
    def handle_expect_100(self) -> bool:
        return True

    def _send_file(self, path: str) -> None:
        accepts = "gzip" in self.headers.get("Accept-Encoding", "")
        folder = self.server.page
        if folder is None and path == "/":
            self._send(HTTPStatus.OK, PLAIN.encode(), "text/html; charset=utf-8")
            return
        file = find_file(folder, path, accepts_gzip=accepts) if folder else None
        if file is None:
            raise _RefusalError(HTTPStatus.NOT_FOUND, f"{path}: there is no such place")
        headers = {"Vary": "Accept-Encoding"}
        if file.compressed:
            headers["Content-Encoding"] = "gzip"
        self._send(HTTPStatus.OK, file.path.read_bytes(), file.media_type, headers)

    def _send_json(self, value: object) -> None:
        self._send(HTTPStatus.OK, (json.dumps(value) + "\n").encode(), _JSON)

    def _send_error(
        self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        # A photo that nobody reads may still be on its way.
        self.close_connection = True
        body = (json.dumps({"error": text}) + "\n").encode()
        with contextlib.suppress(OSError):
            self._send(status, body, _JSON, {**(headers or {}), "Connection": "close"})
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            left = _LEFTOVER
            while left > 0 and (chunk := self.rfile.read1(_CHUNK)):
                left -= len(chunk)

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**ISOLATION, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return f"fast-style/{__version__}"

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("%s %s", self.client_address[0], format % args)


def _wish(query: str) -> Wish:
    """Read ?style=&strength=&size=. Raises UserError."""
    given = parse_qs(query, keep_blank_values=True)
    if unknown := given.keys() - {"style", "strength", "size"}:
        raise UserError(f"{min(unknown)}: the settings are style, strength and size")
    values = {name: texts[-1] for name, texts in given.items()}
    if not values.get("style"):
        raise UserError("style is missing: POST /stylize?style=wave")
    strength, size = values.get("strength") or "1", values.get("size")
    try:
        number = float(strength)
    except ValueError:
        raise UserError(f"strength {strength!r} is not a number from 0 to 1") from None
    if size and not (size.isascii() and size.isdecimal() and len(size) < 9 and int(size) > 0):
        raise UserError(f"size {size!r} is not a number of pixels, from 1 on")
    return Wish(style=values["style"], strength=number, size=int(size) if size else None)


def _described(desk: Desk) -> list[dict[str, object]]:
    return [
        {"name": name, "steps": model.metadata.get("step"), "width": model.network.width}
        for name, model in desk.styles.items()
    ]
