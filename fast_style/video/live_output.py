"""Where live pictures go: a window, a file, a virtual camera."""

import os
import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fast_style.video.clips import Colors, VideoError
from fast_style.video.coding import Coding, check_output, codec_of, container_of, pixel_format_of
from fast_style.video.encoding import Picture
from fast_style.video.reading import SCALING, matrix_of, require_av

if TYPE_CHECKING:
    from fast_style.video.live import Shown

# What keys ask for, for a person and for the window; the digits choose a style by its number.
KEYS = {
    "next": "n, right: next style",
    "previous": "p, left: the one before",
    "stronger": "up: stronger",
    "weaker": "down: weaker",
    "save": "s: save the picture",
    "quit": "q, Esc: quit",
}
_TICKS = Fraction(1, 1000)
_MARGIN, _LETTERS = 8, 20


def require_pygame() -> Any:
    """Return the module of pygame. Raises VideoError where it is not installed."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own use of old packages
            import pygame
    except ImportError:
        raise VideoError(
            "a window needs pygame: pip install 'fast-style[live]', or name a file as --output"
        ) from None
    return pygame


class WindowOutput:
    """A window, which may be resized, with a line of text in it. Raises VideoError."""

    def __init__(self, title: str) -> None:
        self._pygame = pygame = require_pygame()
        try:
            pygame.display.init()
            pygame.font.init()
            self._font = pygame.font.Font(None, _LETTERS)
        except pygame.error as error:
            raise VideoError(
                f"no window can be opened ({error}): name a file as --output instead"
            ) from None
        pygame.display.set_caption(title)
        self._screen: Any = None
        self._named = {
            pygame.K_n: "next",
            pygame.K_RIGHT: "next",
            pygame.K_p: "previous",
            pygame.K_LEFT: "previous",
            pygame.K_UP: "stronger",
            pygame.K_DOWN: "weaker",
            pygame.K_s: "save",
            pygame.K_q: "quit",
            pygame.K_ESCAPE: "quit",
        }

    def show(self, shown: "Shown", status: str) -> None:
        """Show a picture as large as the window, in its proportions, and the line below it."""
        pygame = self._pygame
        height, width = shown.pixels.shape[-2:]
        if self._screen is None:
            self._screen = pygame.display.set_mode((width, height), pygame.RESIZABLE)
        array = np.ascontiguousarray(shown.pixels.permute(1, 2, 0).numpy())
        picture = pygame.image.frombuffer(array.tobytes(), (width, height), "RGB")
        room = self._screen.get_size()
        scale = min(room[0] / width, room[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            picture = pygame.transform.smoothscale(picture, size)
        self._screen.fill((0, 0, 0))
        self._screen.blit(picture, [(room[i] - size[i]) // 2 for i in (0, 1)])
        self._write(status, room[1])
        pygame.display.flip()

    def wishes(self) -> list[str]:
        """Return what keys were pressed for."""
        pygame = self._pygame
        found = []
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                found.append("quit")
            elif event.type == pygame.KEYDOWN:
                digit = str(getattr(event, "unicode", ""))
                wish = self._named.get(event.key, digit if digit.isdecimal() else "")
                found += [wish] if wish else []
        return found

    def save_screenshot(self, path: Path) -> None:
        """Write what the window shows."""
        self._pygame.image.save(self._screen, str(path))

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()

    def _write(self, text: str, bottom: int) -> None:
        pygame = self._pygame
        letters = self._font.render(text, True, (255, 255, 255))
        back = pygame.Surface([side + _MARGIN for side in letters.get_size()])
        back.set_alpha(140)
        top = bottom - back.get_height() - _MARGIN
        self._screen.blit(back, (_MARGIN, top))
        self._screen.blit(letters, (_MARGIN + _MARGIN // 2, top + _MARGIN // 2))


class FileOutput:
    """A video file, in which pictures have the times at which they were taken.

    All have the size of the first one. The file gets its name when it is whole. Raises VideoError.
    """

    def __init__(self, path: Path, coding: Coding | None = None) -> None:
        self._path, self._coding = path, coding or Coding()
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


def key_lines() -> Iterable[str]:
    """Return what each key does, for a person."""
    return [*KEYS.values(), "1 to 9: a style by its number"]
