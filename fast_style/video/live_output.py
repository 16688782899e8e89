"""Where live pictures go without a window: a file, a virtual camera."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fast_style.video.clips import Colors, VideoError, is_pattern
from fast_style.video.coding import Coding, check_output, codec_of, container_of, pixel_format_of
from fast_style.video.encoding import Picture
from fast_style.video.reading import SCALING, matrix_of, require_av

if TYPE_CHECKING:
    from fast_style.video.live import Shown

_TICKS = Fraction(1, 1000)


class FileOutput:
    """A video file, in which pictures have the times at which they were taken.

    All have the size of the first one. The file gets its name when it is whole. Raises VideoError.
    """

    def __init__(self, path: Path, coding: Coding | None = None) -> None:
        self._path, self._coding = path, coding or Coding()
        if is_pattern(path) or path.suffix.lower() == ".gif":
            raise VideoError(f"{path}: live pictures go into a video: name a .mp4, .mkv or .webm")
        check_output(path, self._coding)
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._file: Any = None
        self._stream: Any = None
        self._picture: Picture | None = None
        self._begin = self._last = 0.0

    def show(self, shown: "Shown", status: str) -> None:
        """Encode a picture."""
        av = require_av()
        try:
            if self._file is None:
                self._open(shown)
            assert self._picture is not None
            pts = round((shown.taken - self._begin) / _TICKS)
            if self._last and pts <= self._last:
                return
            self._last = pts
            frame = as_frame(shown, self._picture)
            frame.pts, frame.time_base = pts, _TICKS
            self._file.mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            reason = error.strerror or error
            raise VideoError(f"{self._path}: cannot be written: {reason}") from None

    def wishes(self) -> list[str]:
        """Return nothing: a file has no keys."""
        return []

    def close(self) -> None:
        """Finish the file; without a picture there is none."""
        if self._file is None:
            return
        self._file.mux(self._stream.encode(None))
        self._file.close()
        self._unfinished.replace(self._path)
        self._file = None

    def _open(self, shown: "Shown") -> None:
        av = require_av()
        height, width = (side + side % 2 for side in shown.pixels.shape[-2:])
        container = container_of(self._path)
        self._picture = Picture(
            codec=codec_of(self._path, self._coding),
            pixel_format=pixel_format_of(self._path, self._coding, alpha=False),
            width=width,
            height=height,
            time_base=_TICKS,
            rate=Fraction(30),
            quality=self._coding.quality,
            colors=Colors(),
        )
        self._begin = shown.taken
        self._file = av.open(
            str(self._unfinished), "w", format=container.name, options=container.options
        )
        self._stream = self._file.add_stream(self._picture.codec.encoder, rate=self._picture.rate)
        self._picture.set_up(self._stream.codec_context)
        self._stream.time_base = _TICKS


class DeviceOutput:
    """A virtual camera of Linux (v4l2loopback), for other programs. Raises VideoError."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._file: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        if not Path(device).exists():
            raise VideoError(f"{device}: no such device: modprobe v4l2loopback makes one, on Linux")

    def show(self, shown: "Shown", status: str) -> None:
        """Send a picture."""
        av = require_av()
        height, width = shown.pixels.shape[-2:]
        try:
            if self._file is None:
                self._size = width, height
                self._file = av.open(self._device, "w", format="v4l2")
                self._stream = self._file.add_stream("rawvideo", rate=30)
                self._stream.width, self._stream.height = self._size
                self._stream.pix_fmt = "yuv420p"
            array = np.ascontiguousarray(shown.pixels.permute(1, 2, 0).numpy())
            frame = av.VideoFrame.from_ndarray(array, "rgb24").reformat(
                width=self._size[0], height=self._size[1], format="yuv420p"
            )
            self._file.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise VideoError(f"{self._device}: takes no pictures ({reason})") from None

    def wishes(self) -> list[str]:
        """Return nothing: a device has no keys."""
        return []

    def close(self) -> None:
        """Let go of the device."""
        if self._file is not None:
            self._file.close()


def as_frame(shown: "Shown", picture: Picture) -> Any:
    """Return a frame for an encoder that was set up for `picture`."""
    av = require_av()
    array = np.ascontiguousarray(shown.pixels.permute(1, 2, 0).numpy())
    frame = av.VideoFrame.from_ndarray(array, "rgb24")
    return frame.reformat(
        width=picture.width,
        height=picture.height,
        format=picture.pixel_format,
        dst_colorspace=matrix_of(picture.colors, picture.height),
        dst_color_range=1,
        interpolation=SCALING,
        threads=1,
    )
