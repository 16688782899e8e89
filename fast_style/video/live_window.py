"""The window that shows live pictures, and its keys; pygame is imported when one is opened."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fast_style.video.clips import VideoError

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
