"""What codecs print by themselves, which names no file: a program of ours keeps it from its stderr.

What matters of it comes as an error or a note with the file's name. Codecs in C write to the
process's second file, Python's go through `warnings` and `logging`.
"""

import contextlib
import functools
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

_STDERR = 2
_LOGGERS = ("imagecodecs", "PIL", "tifffile")

_lock = threading.Lock()
# Whether Python's stderr is a file of its own, so that the codecs' can be turned away.
_apart = False
# How many wish silence now, and where the codecs' file led before the first did.
_wishes = 0
_before = -1


@contextlib.contextmanager
def kept_apart() -> Iterator[None]:
    """Keep the codecs' lines from this program's stderr: those in C while something is `hushed`.

    Python's stderr is a file of its own meanwhile. For programs, which own their stderr; a
    library's caller sees everything.
    """
    global _apart
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    stream, before = sys.stderr, _apart
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        if not _apart and _is_the_processs_own(stream):
            stream.flush()
            sys.stderr, _apart = _second_stderr(stream.encoding, stream.errors), True
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            sys.stderr, _apart = stream, before
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@functools.cache  # whoever logs keeps it
def _second_stderr(encoding: str, errors: str | None) -> TextIO:
    return os.fdopen(os.dup(_STDERR), "w", 1, encoding, errors, closefd=False)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Turn away what codecs in C print, of every thread, while any thread is in here."""
    if not _apart:
        yield
        return
    _wish()
    try:
        yield
    finally:
        _grant()


def _wish() -> None:
    global _wishes, _before
    with _lock:
        if _wishes == 0:
            _before = os.dup(_STDERR)
            with open(os.devnull, "wb") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), _STDERR)
        _wishes += 1


def _grant() -> None:
    global _wishes
    with _lock:
        _wishes -= 1
        if _wishes == 0:
            _restore()


def _restore() -> None:
    os.dup2(_before, _STDERR)
    os.close(_before)


def _is_the_processs_own(stream: object) -> bool:
    try:
        return stream.fileno() == _STDERR  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def _after_fork_in_child() -> None:
    """Begin anew: the threads that wished for silence are not in the child."""
    global _wishes
    if _wishes:
        _wishes = 0
        _restore()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_after_fork_in_child,
    )
