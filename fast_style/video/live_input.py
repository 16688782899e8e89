"""Where live frames come from: a camera, a file that is played at its pace, a test pattern."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fast_style.video.clips import VideoError
from fast_style.video.reading import SCALING, FileSource, require_av

CAMERA = "camera"
TEST_PATTERN = "test"
# FFmpeg's name for cameras, and how the first of them is called.
_CAMERAS = {
    "linux": ("v4l2", "/dev/video0"),
    "darwin": ("avfoundation", "0:none"),
    "win32": ("dshow", "video=Integrated Camera"),
}
_PATTERN = "testsrc2=size={width}x{height}:rate={rate}"


class CameraInput:
    """A camera, by FFmpeg's name for it; None is the first. Raises VideoError."""

    def __init__(self, name: str | None = None) -> None:
        kind, first = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
        self._name = name or first
        av = require_av()
        try:
            self._container = av.open(self._name, format=kind)
        except (OSError, ValueError) as error:  # PyAV's errors are OSErrors, too
            reason = getattr(error, "strerror", None) or error
            raise VideoError(
                f"{self._name}: no camera can be opened there ({reason}): name another as --input, "
                "or try --input test"
            ) from None

    def frames(self, edge: Callable[[], int]) -> Iterator[Tensor]:
        """Yield frames as they come."""
        with contextlib.closing(self._container) as container:
            for frame in container.decode(video=0):
                yield _fitted(frame, edge())


class FileInput:
    """A file, played once, at its own pace: frames that are late are dropped like a camera's.

    Raises VideoError.
    """

    def __init__(self, path: Path) -> None:
        self._source = FileSource(path)

    def frames(self, edge: Callable[[], int]) -> Iterator[Tensor]:
        """Yield frames at their times."""
        av = require_av()
        base = self._source.clip.time_base
        start: tuple[float, int] | None = None
        for frame in self._source.frames():
            start = start or (time.monotonic(), frame.pts)
            wait = start[0] + float((frame.pts - start[1]) * base) - time.monotonic()
            time.sleep(max(0.0, wait))
            if max(frame.pixels.shape[-2:]) <= edge():
                yield frame.pixels
            else:
                array = np.ascontiguousarray(frame.pixels.permute(1, 2, 0).numpy())
                yield _fitted(av.VideoFrame.from_ndarray(array, "rgb24"), edge())


class PatternInput:
    """FFmpeg's test pattern, which moves, `rate` frames a second. Raises VideoError."""

    def __init__(self, *, width: int = 640, height: int = 360, rate: int = 30) -> None:
        self._rate = rate
        self._pattern = _PATTERN.format(width=width, height=height, rate=rate)

    def frames(self, edge: Callable[[], int]) -> Iterator[Tensor]:
        """Yield frames at their times, without end."""
        av = require_av()
        with contextlib.closing(av.open(self._pattern, format="lavfi")) as container:
            start = time.monotonic()
            for number, frame in enumerate(container.decode(video=0)):
                time.sleep(max(0.0, start + number / self._rate - time.monotonic()))
                yield _fitted(frame, edge())


def open_live(name: str) -> CameraInput | FileInput | PatternInput:
    """Open what `--input` names: camera, test, a camera's device, or a file. Raises VideoError."""
    if name == TEST_PATTERN:
        return PatternInput()
    if name == CAMERA:
        return CameraInput()
    if Path(name).is_file():
        return FileInput(Path(name))
    if name.startswith("/dev/") or not Path(name).suffix:
        return CameraInput(name)
    raise VideoError(f"{name}: no such file; --input is camera, test, a camera's device or a file")


def _fitted(frame: Any, edge: int) -> Tensor:
    """Return a decoded frame as (3, H, W) uint8, its long edge at most `edge`."""
    scale = min(1.0, edge / max(frame.width, frame.height))
    size = [max(2, 2 * round(side * scale / 2)) for side in (frame.width, frame.height)]
    rgb = frame.reformat(
        width=size[0], height=size[1], format="rgb24", interpolation=SCALING, threads=1
    )
    return torch.from_numpy(np.ascontiguousarray(rgb.to_ndarray())).permute(2, 0, 1)
