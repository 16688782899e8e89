"""What the server does with a photo: no HTTP here, so that its rules can be read in one place."""

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fast_style.checkpoints.files import Model, find_model, load_model
from fast_style.devices import Precision, is_memory_error
from fast_style.errors import UserError
from fast_style.images import read_picture, read_size, write_picture
from fast_style.images.decoding import TooManyPixelsError
from fast_style.stylization import Stylizer, stylize_picture

# What is answered in kind; other pictures are answered as PNG.
TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# Seconds that a picture takes, before the first one was timed.
_GUESS = 2.0


class BusyError(UserError):
    """As many photos wait as may; `seconds` is when to try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"all workers are busy: try again in {seconds} seconds")
        self.seconds = seconds


class ClosingError(UserError):
    """The server shuts down."""


class TooLargeError(UserError):
    """A photo has more pixels, or bytes, than the server takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a photo shall become: in a style, `strength` and `size` as in `Stylizer`."""

    style: str
    strength: float = 1.0
    size: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A picture's file, and its media type."""

    content: bytes
    media_type: str


class Desk:
    """Takes photos in, as many as `waiting` beside those in work, and gives them to `workers`.

    `styles` are names or files of models. Raises UserError for one that cannot be loaded, and for
    two of one name.
    """

    def __init__(
        self,
        styles: list[str],
        *,
        workers: int,
        waiting: int,
        most_pixels: int,
        precision: Precision = "float32",
    ) -> None:
        self._models = _load_all(styles)
        self._precision: Precision = precision
        self._most_pixels = most_pixels
        self._workers = workers
        self._places = workers + waiting
        self._taken = 0
        self._closing = False
        self._seconds = _GUESS
        self._changed = threading.Condition()
        # One thread computes one picture: several on one would wait for each other when it is busy.
        self._pool = ThreadPoolExecutor(
            workers, thread_name_prefix="stylize", initializer=torch.set_num_threads, initargs=(1,)
        )

    @property
    def styles(self) -> dict[str, Model]:
        """The models by their styles' names."""
        return self._models

    @property
    def closing(self) -> bool:
        return self._closing

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place, from before a photo is read. Raises BusyError and ClosingError."""
        with self._changed:
            if self._closing:
                raise ClosingError("the server is shutting down")
            if self._taken >= self._places:
                rounds = self._taken / self._workers
                raise BusyError(max(1, round(self._seconds * rounds)))
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def stylize(self, photo: bytes, wish: Wish) -> Answer:
        """Return the stylized photo, once a worker is free; call it within `place`.

        Raises UserError for what is no photo, TooLargeError for too many pixels, or more than the
        memory there is holds.
        """
        if wish.style not in self._models:
            known = ", ".join(self._models)
            raise UserError(f"style {wish.style!r} is not there: the styles are {known}")
        # Before any of it is decoded: a file of a few kilobytes can hold billions of pixels.
        height, width = _size_of(photo)
        if height * width > self._most_pixels:
            raise TooLargeError(_too_many(height, width, self._most_pixels))
        stylizer = Stylizer(
            self._models[wish.style],
            device="cpu",
            precision=self._precision,
            strength=wish.strength,
            size=wish.size,
        )
        rows, columns = stylizer.output_size(height, width)
        if rows * columns > self._most_pixels:
            raise TooLargeError(_too_many(rows, columns, self._most_pixels))
        try:
            return self._pool.submit(self._work, stylizer, photo).result()
        except Exception as error:
            if not is_memory_error(error):
                raise
            raise TooLargeError(
                f"{columns}x{rows} pixels are too many for the memory there is now: send a smaller "
                "photo, or ask for a smaller size"
            ) from None

    def close(self, *, seconds: float) -> None:
        """Take no more photos, and wait for those that were taken, at most so long."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: self._taken == 0, timeout=seconds)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, stylizer: Stylizer, photo: bytes) -> Answer:
        begun = time.monotonic()
        picture = stylize_picture(stylizer, read_picture(io.BytesIO(photo)))
        file_format = picture.file_format if picture.file_format in TYPES else "PNG"
        output = io.BytesIO()
        write_picture(picture, output, file_format=file_format)
        self._seconds += 0.2 * (time.monotonic() - begun - self._seconds)
        return Answer(content=output.getvalue(), media_type=TYPES[file_format])


def _load_all(styles: list[str]) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for style in styles:
        path = find_model(style)
        model = load_model(path)
        name = str(model.metadata.get("name") or Path(path).stem)
        if name in models:
            raise UserError(f"--model {style}: another one has its name, {name}: leave one out")
        models[name] = model
    return models


def _size_of(photo: bytes) -> tuple[int, int]:
    try:
        width, height = read_size(io.BytesIO(photo))
    except TooManyPixelsError as error:
        raise TooLargeError(str(error)) from None
    return height, width


def _too_many(height: int, width: int, most: int) -> str:
    return f"{width}x{height} pixels are too many: at most {most / 1e6:g} million are taken"
