"""Reading clips that are pictures: animated GIF, WebP and PNG, and numbered sequences."""

import contextlib
import itertools
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fast_style.images import ImageError, image_to_tensor, open_rgb
from fast_style.memory import is_memory_error
from fast_style.video.clips import Clip, Frame, VideoError, pictures_of
from fast_style.video.reading import Damage

_MILLISECOND = Fraction(1, 1000)
# What browsers make of an animation's frame that says 0.
_DEFAULT_DURATION = 100


class AnimationSource:
    """The frames of an animated picture file. Raises VideoError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage = Damage()
        try:
            with Image.open(path) as image:
                count, self._is_cut = _count(image, path)
                total = 0
                for index in range(count):
                    with contextlib.suppress(Exception):  # decoding it tells, and holds another
                        image.seek(index)
                    total += _duration(image)
                # A GIF without the block that says how often it loops plays once.
                loop = int(image.info.get("loop", 1 if image.format == "GIF" else 0))
                self.clip = Clip(
                    path=path,
                    width=image.width,
                    height=image.height,
                    time_base=_MILLISECOND,
                    rate=Fraction(1000 * count, total).limit_denominator(1001),
                    frames=count,
                    seconds=total / 1000,
                    loop=loop,
                )
        except FileNotFoundError:
            raise VideoError(f"{path}: no such file") from None
        except Exception as error:  # decoders raise anything on damaged files
            if is_memory_error(error):
                raise
            raise VideoError(f"{path}: damaged: {error}") from None

    def frames(self, *, skip: int = 0, motion: bool = False) -> Generator[Frame, None, None]:
        """Decode from the start; yield all frames but the first `skip`. There is no motion."""
        self.damage = Damage(is_cut=self._is_cut)
        pts = 0
        last: tuple[Tensor, Tensor | None] | None = None
        with Image.open(self._path) as image:
            for index in range(self.clip.frames or 0):
                duration = _DEFAULT_DURATION
                try:
                    image.seek(index)
                    last = _pixels(image)
                    duration = _duration(image)
                except Exception as error:  # decoders raise anything on damaged files
                    if is_memory_error(error):
                        raise
                    self.damage.held += 1
                if last is None:
                    raise VideoError(f"{self._path}: no frame of it can be read")
                if index >= skip:
                    pixels, alpha = last
                    yield Frame(pixels=pixels, alpha=alpha, pts=pts, duration=duration)
                pts += duration


class SequenceSource:
    """Numbered pictures as the frames of a clip. Raises VideoError."""

    def __init__(self, pattern: Path, *, rate: Fraction) -> None:
        self.damage = Damage()
        self._paths = pictures_of(pattern)
        if not self._paths:
            raise VideoError(f"{pattern}: there is no picture with such a name")
        first = open_rgb(self._paths[0])
        self.clip = Clip(
            path=pattern,
            width=first.width,
            height=first.height,
            time_base=1 / rate,
            rate=rate,
            frames=len(self._paths),
            seconds=float(len(self._paths) / rate),
        )

    def frames(self, *, skip: int = 0, motion: bool = False) -> Generator[Frame, None, None]:
        """Decode all pictures but the first `skip`. There is no motion."""
        self.damage = Damage()
        last: Tensor | None = None
        for index, path in enumerate(self._paths):
            try:
                last = self._read(path)
            except ImageError as error:
                if isinstance(error, VideoError):
                    raise
                self.damage.held += 1
            if last is None:
                raise VideoError(f"{path}: cannot be read, and there is no frame before it")
            if index >= skip:
                yield Frame(pixels=last, pts=index, duration=1)

    def _read(self, path: Path) -> Tensor:
        width, height = self.clip.width, self.clip.height
        picture = open_rgb(path)
        if picture.size != (width, height):
            raise VideoError(
                f"{path}: is {picture.width}×{picture.height}, but the first picture of the "
                f"sequence {width}×{height}: make them one size"
            )
        return image_to_tensor(picture)


def _count(image: Image.Image, path: Path) -> tuple[int, bool]:
    """Return how many frames there are, and whether one more is begun that cannot be found."""
    try:
        return getattr(image, "n_frames", 1), False
    except Exception:  # of a GIF that is cut off: decoders raise anything
        with Image.open(path) as again, contextlib.suppress(Exception):
            for index in itertools.count(1):
                again.seek(index)
        return again.tell() + 1, True


def _duration(image: Image.Image) -> int:
    return round(float(image.info.get("duration", 0))) or _DEFAULT_DURATION


def _pixels(image: Image.Image) -> tuple[Tensor, Tensor | None]:
    """Return pixels and, where a part is transparent, alpha."""
    both = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)
    pixels, alpha = both[:3].contiguous(), both[3].contiguous()
    if bool((alpha == 255).all()):
        return pixels, None
    return pixels, alpha
