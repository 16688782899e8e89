"""`scripts/benchmark.py gpu`: what a card must show, in under ten minutes and without a network.

One table: each check, what is expected (of an H100, where it is a speed) and what was seen. Photos
are drawn, and the loss network's weights are random where $FAST_STYLE_WEIGHTS names none: neither
numbers of kernels nor times depend on them. Exit 1 where something is not as expected.
"""

import argparse
import contextlib
import logging
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu_checks import CHECKS
from benchmarks.timing import device_name
from benchmarks.workshop import FULL, SMALL, Row, Workshop
from fast_style.devices import resolve_device
from fast_style.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--device", default="cuda", help="device to check: cuda or cuda:N (default: cuda)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=9.5,
        help="time after which no further check begins (default: 9.5)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="little of everything, to try the checks themselves, on a CPU too (default: all)",
    )


def run(options: argparse.Namespace) -> int:
    """Make every check, and print its rows as they come."""
    try:
        device = resolve_device(options.device)
    except UserError as error:
        raise UserError(f"the checks need a card: {error}") from None
    if device.type == "cpu" and not options.small:
        raise UserError("the checks need a card: --device cpu is for --small alone")
    logging.getLogger("fast_style").setLevel(logging.WARNING)  # the table is enough
    deadline = time.monotonic() + 60 * options.minutes
    print(f"{device_name(device)}; torch {torch.__version__}; {torch.get_num_threads()} threads")
    _print_row(Row(check="check", expected="expected", seen="seen"), "")
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        workshop = Workshop(Path(scratch), device, SMALL if options.small else FULL)
        for name, check in CHECKS.items():
            if time.monotonic() > deadline:
                _print_row(Row(check=name, expected="", seen="no time was left"), "-")
                continue
            start = time.monotonic()
            try:
                rows = check(workshop)
            except Exception as error:  # the other checks are worth making
                what = " ".join(f"{type(error).__name__}: {error}".split())
                rows = [Row(check=name, expected="no error", seen=what[:300], is_right=False)]
            if device.type == "cuda":
                with contextlib.suppress(RuntimeError):
                    torch.cuda.empty_cache()
            for row in rows:
                failed += row.is_right is False
                _print_row(row, {None: "", True: "yes", False: "NO"}[row.is_right])
            print(f"  ({name}: {time.monotonic() - start:.0f} s)", flush=True)
    print(f"not as expected: {failed}")
    return 1 if failed else 0


def _print_row(row: Row, verdict: str) -> None:
    print(f"{verdict:3} | {row.check:36} | {row.expected:34} | {row.seen}", flush=True)
