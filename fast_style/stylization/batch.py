"""Stylizing many image files, while the next one is read and the last one is written."""

import io
import os
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import torch
from torch import Tensor

from fast_style.devices import is_memory_error
from fast_style.images import (
    ImageError,
    Picture,
    check_fits,
    format_of,
    nearest_format,
    read_picture,
    rowwise,
    set_depth,
    write_picture,
)
from fast_style.memory import available_ram
from fast_style.remote import is_remote, shown
from fast_style.stylization import Stylizer, begin_picture
from fast_style.stylization.jobs import STREAM, Job
from fast_style.stylization.masks import MaskError, load_mask
from fast_style.stylization.outputs import Result, Saving, made_of

# A picture on its way, which is None once it has failed, and its mask.
_Stage = tuple[Picture | None, Tensor | None, Result]
# What a thread beside a GPU may hold: a picture of 100 megapixels, decoded and encoded.
_BYTES_A_THREAD = 1 << 30


def run_jobs(
    stylizer: Stylizer, jobs: Sequence[Job], saving: Saving
) -> Generator[Result, None, None]:
    """Stylize in order, and yield a result for each; one that fails does not stop the rest.

    A picture is written while its last rows are stylized, where its format allows, and while the
    next is. At most three are held on a CPU; beside a GPU, which `_threads` serve, one more for
    each further thread. Closing the generator, or Ctrl-C, waits for the files that are being
    written.
    """
    if not jobs:
        return
    beside = _threads(stylizer.device)
    # The first is read and the last written here, not in threads: there is little work to overlap,
    # and what a thread frees, glibc keeps for that thread alone.
    stage = _read(jobs[0], saving)
    unread = iter(jobs[1:])
    reading: deque[Future[_Stage]] = deque()
    writing: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(beside) as reader, ThreadPoolExecutor(beside) as writer:
        reading.extend(reader.submit(_read, job, saving) for job in islice(unread, beside))
        while reading:
            writing.append(_stylize(stylizer, *stage, saving, writer))
            if len(writing) > beside:
                yield writing.popleft().result()
            stage = reading.popleft().result()
            reading.extend(reader.submit(_read, job, saving) for job in islice(unread, 1))
        last = _stylize(stylizer, *stage, saving, None)
        for written in writing:
            yield written.result()
    yield last.result()


def _threads(device: torch.device) -> int:
    """Return the number of threads that read, and of those that write.

    One of each keeps up with a CPU. A GPU is faster than a core decodes and encodes, so all cores
    share that work, as far as there is memory for two large pictures a thread.
    """
    if device.type == "cpu":
        return 1
    return max(1, min((os.cpu_count() or 1) // 2, available_ram() // _BYTES_A_THREAD, 8))


class _Rows:
    """Spans of a picture's rows on their way from the network to the writer's thread.

    A context manager: at its end, whatever ends it, the reader ends too.
    """

    def __init__(self) -> None:
        self._spans: SimpleQueue[slice | _NetworkError | None] = SimpleQueue()
        self.begun = self.ended = time.perf_counter()

    def put(self, span: slice) -> None:
        self._spans.put(span)

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ended = time.perf_counter()
        self._spans.put(_NetworkError() if kind else None)

    def __iter__(self) -> Iterator[slice]:
        while (span := self._spans.get()) is not None:
            if isinstance(span, _NetworkError):
                raise span
            yield span


class _NetworkError(Exception):
    """The network did not get to the end of a picture."""


def _read(job: Job, saving: Saving) -> _Stage:
    start = time.perf_counter()
    result = Result(job=job)
    try:
        source = io.BytesIO(sys.stdin.buffer.read()) if job.input == STREAM else job.input
        picture = read_picture(source)
        if saving.depth:
            picture = set_depth(picture, saving.depth)
    except (ImageError, MemoryError) as error:
        return None, None, replace(result, error=_reason(job.input, error))
    except Exception as error:  # of this photo: the others go on
        reason = f"{shown(job.input)}: cannot be read: {_text(error)}"
        return None, None, replace(result, error=reason)
    try:
        mask = None if job.mask is None else load_mask(job.mask)
    except (ImageError, MemoryError) as error:
        reason = f"{shown(job.input)}: its mask: {_reason(job.mask or job.input, error)}"
        return None, None, replace(result, error=reason)
    except Exception as error:
        reason = f"{shown(job.input)}: its mask cannot be read: {_text(error)}"
        return None, None, replace(result, error=reason)
    result = replace(result, seconds=time.perf_counter() - start, notes=picture.notes)
    return picture, mask, result


def _stylize(
    stylizer: Stylizer,
    picture: Picture | None,
    mask: Tensor | None,
    result: Result,
    saving: Saving,
    writer: ThreadPoolExecutor | None,
) -> Future[Result]:
    """Stylize here, and write in the writer's thread, or here too where there is none."""
    if picture is None:
        return _finished(result)
    try:
        height, width = stylizer.output_size(*picture.pixels.shape[-2:])
        file_format = _format(picture, result.job, saving)
        check_fits(_destination(result.job), file_format, height, width)
        result = replace(result, size=(width, height))
        with _Rows() as rows:
            stylized, spans = begin_picture(stylizer, picture, mask=mask)
            if writer is None:
                result = _write(stylized, result, saving, spans)
                seconds = result.seconds + time.perf_counter() - rows.begun
                return _finished(replace(result, seconds=seconds))
            writing = writer.submit(_write_beside, stylized, result, saving, rows)
            for span in spans:
                rows.put(span)
    except MaskError as error:
        return _finished(replace(result, size=None, error=f"{shown(result.job.input)}: {error}"))
    except ImageError as error:
        return _finished(replace(result, error=str(error)))
    except Exception as error:  # of this photo: the others go on
        cure = "out of memory: try --tile 64 or a smaller --size"
        reason = cure if is_memory_error(error) else f"cannot be stylized: {_text(error)}"
        return _finished(replace(result, size=None, error=f"{shown(result.job.input)}: {reason}"))
    return writing


def _finished(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def _write(picture: Picture, result: Result, saving: Saving, ready: Iterable[slice]) -> Result:
    path = result.job.output
    try:
        if path != STREAM and not is_remote(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        lost = write_picture(
            picture,
            _destination(result.job),
            file_format=_format(picture, result.job, saving),
            quality=saving.quality,
            keep_metadata=saving.keep_metadata,
            ready=ready,
            made_with=made_of(result.job, saving.made_with),
        )
    except _NetworkError:
        raise  # it is reported where it happened
    except Exception as error:  # of this photo: the others go on
        return replace(result, size=None, error=_reason(path, error))
    return replace(result, notes=(*result.notes, *lost))


def _write_beside(picture: Picture, result: Result, saving: Saving, rows: _Rows) -> Result:
    """Write in a thread; the result's time includes what follows the end of the network."""
    start = time.perf_counter()
    result = _write(picture, result, saving, rows)
    after = time.perf_counter() - max(start, rows.ended)
    return replace(result, seconds=result.seconds + rows.ended - rows.begun + after)


def _destination(job: Job) -> Path | BinaryIO:
    return sys.stdout.buffer if job.output == STREAM else job.output


def _format(picture: Picture, job: Job, saving: Saving) -> str:
    if job.output != STREAM:
        return format_of(job.output)
    if saving.file_format:
        return saving.file_format
    nearest = nearest_format(picture)
    return "PNG" if saving.depth == 16 and nearest not in rowwise.formats() else nearest


def _reason(path: Path, error: Exception) -> str:
    """Return one line with the file and what is wrong with it."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{shown(path)}: out of memory"
    return f"{shown(path)}: cannot be written: {_text(error)}"


def _text(error: Exception) -> str:
    """Return the message of an exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).splitlines()[:1]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
