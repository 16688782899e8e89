"""A crowd at `fast-style serve`: how many photos it answers, what fails, how its memory grows."""

import argparse
import http.client
import io
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from benchmarks.resident import resident
from fast_style.commands.options import count

# Memory is that of a warm server: these requests come before.
_WARM_UP = 100
_EDGES = (96, 160, 256, 200, 320)


@dataclass(kw_only=True, slots=True)
class Report:
    """How many requests were answered, put off (429) and failed, and each answer's seconds."""

    answered: int = 0
    put_off: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=count, default=30, help="length of it (default: 30)")
    parser.add_argument("--model", default="wave", help="style to ask for (default: wave)")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=count, default=cores, help="(default: one a core)")
    parser.add_argument("--queue", type=count, default=8, help="(default: 8)")


def run(options: argparse.Namespace) -> int:
    """Run a server in a process of its own, and a client for each of its places."""
    arguments = ["--model", options.model]
    arguments += ["--workers", str(options.workers), "--queue", str(options.queue)]
    server, port = start_server(*arguments)
    clients = options.workers + options.queue
    photos = [_photo(edge) for edge in _EDGES]
    try:
        load(port, options.model, *photos, seconds=600, clients=clients, answers=_WARM_UP)
        before = resident(server.pid)
        report = load(port, options.model, *photos, seconds=options.seconds, clients=clients)
        after = resident(server.pid)
    finally:
        server.terminate()
        code = server.wait(timeout=60)
    latency = sorted(report.seconds) or [0.0]
    print(
        f"{clients} clients, {options.workers} workers, {options.seconds} s: "
        f"{report.answered} answered ({report.answered / options.seconds:.1f} a second), "
        f"{report.put_off} put off, {report.failed} failed; "
        f"median {latency[len(latency) // 2]:.2f} s, worst {latency[-1]:.2f} s; "
        f"memory {before / 1e6:.0f} MB after {_WARM_UP} photos, then {(after - before) / 1e6:+.1f} "
        f"MB; exit {code}"
    )
    return 0 if report.failed == 0 and code == 0 else 1


def start_server(*arguments: str) -> tuple["subprocess.Popen[str]", int]:
    """Start `fast-style serve`; return it, and its port."""
    server = subprocess.Popen(
        [sys.executable, "-m", "fast_style", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    return server, int(server.stderr.readline().split(":")[2].split("/")[0])


def load(
    port: int, style: str, *photos: bytes, seconds: float, clients: int, answers: int | None = None
) -> Report:
    """Let clients ask for photo after photo, for some seconds or until there were `answers`.

    Return what they saw together.
    """
    end = time.monotonic() + seconds
    reports = [Report() for _ in range(clients)]

    def ask(number: int) -> None:
        turn = number
        while time.monotonic() < end and (
            answers is None or sum(report.answered for report in reports) < answers
        ):
            _ask(port, style, photos[turn % len(photos)], reports[number])
            turn += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Report(
        answered=sum(report.answered for report in reports),
        put_off=sum(report.put_off for report in reports),
        failed=sum(report.failed for report in reports),
        seconds=[value for report in reports for value in report.seconds],
    )


def _ask(port: int, style: str, photo: bytes, report: Report) -> None:
    begun = time.monotonic()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", f"/stylize?style={style}", photo, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
    except (OSError, http.client.HTTPException):
        report.failed += 1
        return
    if answer.status == 200 and content[:2] == b"\xff\xd8":
        report.answered += 1
        report.seconds.append(time.monotonic() - begun)
    elif answer.status == 429:
        report.put_off += 1
        time.sleep(0.05)
    else:
        report.failed += 1


def _photo(edge: int) -> bytes:
    noise = np.random.default_rng(edge).integers(0, 256, (edge * 3 // 4, edge, 3), np.uint8)
    output = io.BytesIO()
    Image.fromarray(noise).save(output, "JPEG")
    return output.getvalue()
