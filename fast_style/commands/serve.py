"""Serve the page and stylize photos over HTTP, for this computer.

POST /stylize?style=wave&strength=0.8&size=1024 with a photo as the body answers with the picture,
GET /styles with the styles, GET /health says that the server is up. The page, which `make web`
writes, works in the browser alone. A server that is full answers 429 and when to come again; Ctrl-C
or SIGTERM ends it after the photos in work.
"""

import logging
import os
import threading
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from fast_style.checkpoints.files import shipped_models
from fast_style.commands import catch_signals, run
from fast_style.commands.options import Parser, command_parser, count
from fast_style.errors import UserError
from fast_style.memory import share_one_heap
from fast_style.serving.desk import Desk
from fast_style.serving.server import Limits, Server

logger = logging.getLogger(__name__)

_PORT = 8734
_PAGE = Path("build/web")
# Longer than a large photo takes.
_CLOSING_SECONDS = 60
# Blocks above go back to the system at once: what many threads keep would add up.
_KEPT_BLOCK = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; exit 0 then, 2 with one line on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _serve(options), options=options, keep_up_to=_KEPT_BLOCK)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser("serve", __doc__, examples=("", "--port 8080 --model my.pth"))
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than 127.0.0.1 can be reached by other computers "
        "(default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=_PORT,
        metavar="N",
        help=f"port to listen on, 0 for a free one (default: {_PORT})",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="another name that this computer is called by, as in a browser's address; may be "
        "repeated (default: localhost, 127.0.0.1 and --host)",
    )
    parser.add_argument(
        "--web",
        type=Path,
        metavar="DIR",
        help=f"folder of the page, which make web writes (default: {_PAGE}, where it is)",
    )
    parser.add_argument(
        "--model",
        action="append",
        help="a style to offer, by its model's name or file; may be repeated (default: all that "
        "are shipped)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16"),
        default="float32",
        help="float32; bf16, which is faster where the CPU has it; or auto (default: float32)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="photos that are stylized at once, each on one core (default: %(default)s, the cores)",
    )
    limits.add_argument(
        "--queue",
        type=count,
        default=16,
        metavar="N",
        help="photos that may wait beside them (default: 16)",
    )
    limits.add_argument(
        "--most-megapixels",
        type=count,
        default=50,
        metavar="N",
        help="largest photo, and largest picture (default: 50)",
    )
    limits.add_argument(
        "--most-megabytes",
        type=count,
        default=64,
        metavar="N",
        help="largest photo file (default: 64)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port, from 0 to 65535")
    return int(text)


def _serve(options: Namespace) -> int:
    share_one_heap()
    workers = options.workers or os.cpu_count() or 1
    page = options.web or (_PAGE if (_PAGE / "index.html").is_file() else None)
    if page and not (page / "index.html").is_file():
        raise UserError(f"{page}: has no page: make web writes one into {_PAGE}")
    desk = Desk(
        options.model or [path.stem for path in shipped_models()],
        workers=workers,
        waiting=options.queue,
        most_pixels=options.most_megapixels * 1_000_000,
        precision=options.precision,
    )
    names = (*options.name, f"[{options.host}]" if ":" in options.host else options.host)
    limits = Limits(body=options.most_megabytes << 20, names=names)
    try:
        server = Server((options.host, options.port), desk, page=page, limits=limits)
    except OSError as error:
        raise UserError(
            f"{options.host}:{options.port}: cannot be listened on: {error.strerror or error}; "
            "try another --port"
        ) from None
    caught, stopped = catch_signals()
    serving = threading.Thread(target=server.serve_forever, name="serve", daemon=True)
    serving.start()
    shown = f"http://{names[-1]}:{server.server_address[1]}/"
    logger.info("%s: %d styles, %d workers; Ctrl-C ends it", shown, len(desk.styles), workers)
    while not stopped():
        serving.join(timeout=0.2)
    logger.info("shutting down: waiting for the photos in work")
    desk.close(seconds=_CLOSING_SECONDS)
    server.shutdown()
    server.server_close()
    assert caught
    return 0
