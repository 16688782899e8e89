"""What a clip is, its size, times and colours, and what one of its frames is."""

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fast_style.images import ImageError
from fast_style.images.table import CLIPS

# (rows, columns, 2): for each block of `BLOCK` pixels a side, where it was in the frame before,
# as (x, y) in pixels from where it is; NaN where the stream does not say.
Motion = npt.NDArray[np.float32]
BLOCK = 8

# Numbers of ITU-T H.273.
UNSPECIFIED = 2
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

_ANIMATIONS = frozenset((".gif", ".webp", ".png", ".apng"))
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif"))
_PATTERN = re.compile(r"%(0\d+)?d")


class VideoError(ImageError):
    """A clip cannot be read, or not be written as it is wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Colors:
    """How numbers mean colours, by ITU-T H.273; `full_range` is None where nothing says so."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool | None = None

    @property
    def hdr(self) -> str | None:
        """The name of the HDR transfer function, if it is one."""
        return _HDR_TRANSFERS.get(self.transfer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip as it is seen: upright. `frames` and `seconds` are what the file says of itself.

    `rate` is its mean. `has_motion` says that its stream holds motion vectors that can be read.
    """

    path: Path
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    frames: int | None = None
    seconds: float | None = None
    colors: Colors = Colors()
    pixel_aspect: Fraction | None = None
    has_motion: bool = False
    loop: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """(3, H, W) uint8 pixels and (H, W) uint8 alpha, shown at `pts` times the clip's time base."""

    pixels: Tensor
    pts: int
    duration: int
    alpha: Tensor | None = None
    motion: Motion | None = None


def is_pattern(path: Path) -> bool:
    """Return whether a path names a sequence of pictures, as `frames/%04d.png` does."""
    return _PATTERN.search(path.name) is not None and path.suffix.lower() in _PICTURES


def numbered(pattern: Path, number: int) -> Path:
    """Return the path of one picture of a sequence."""
    return pattern.with_name(_PATTERN.sub(lambda found: found[0] % number, pattern.name, count=1))


def pictures_of(pattern: Path) -> list[Path]:
    """Return the pictures of a sequence that are there, by their numbers."""
    before, _, after = _PATTERN.sub("\0", pattern.name, count=1).partition("\0")
    name = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    found = {}
    if pattern.parent.is_dir():
        for path in pattern.parent.iterdir():
            if match := name.fullmatch(path.name):
                found[int(match[1])] = path
    return [found[number] for number in sorted(found) if numbered(pattern, number) == found[number]]


def is_animation(path: Path) -> bool:
    """Return whether a file is of a picture format that may hold several frames."""
    return path.suffix.lower() in _ANIMATIONS


def is_clip(source: str, output: str | None = None) -> bool:
    """Return whether an input is a clip rather than a photo: by its name, and its output's.

    A GIF, WebP or PNG is one where it moves and its output's format can; else its first frame is
    a photo. A GIF that becomes a GIF is one in any case: no photo is written so.
    """
    path = Path(source)
    if path.suffix.lower() in CLIPS or (is_pattern(path) and not path.exists()):
        return True
    if not is_animation(path) or output is None or not _may_move(Path(output)):
        return False
    if not path.is_file():
        return False
    return Path(output).suffix.lower() == path.suffix.lower() == ".gif" or _moves(path)


def _may_move(output: Path) -> bool:
    suffix = output.suffix.lower()
    return suffix in CLIPS or suffix in (".gif", ".webp") or is_pattern(output)


def _moves(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.seek(1)
            return True
    except Image.DecompressionBombError:
        return True  # as a photo it would be read, and its frames are too many pixels
    except Exception:  # there is one frame, or decoders raise anything: reading it tells
        return False
