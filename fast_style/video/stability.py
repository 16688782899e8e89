"""How steady a model is: the flicker of its strokes under three motions that are known.

A window pans over a photo by (3, 1) pixels a frame; a photo stands still under a sensor's noise of
2 of 255; a photo stands still while its light changes by 6 %. Each clip goes through a video file
on its way in and on its way out, as a user's does. The score is the mean difference of successive
frames in 1/255, after the one has been moved onto the other; the input's own is beside it.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fast_style.images import resize, to_uint8
from fast_style.stylization import Stylizer
from fast_style.video.clips import Colors
from fast_style.video.coding import CODECS
from fast_style.video.encoding import Picture
from fast_style.video.reading import FileSource, require_av
from fast_style.video.stylizing import stylize_clip

_HEIGHT, _WIDTH, _FRAMES = 160, 208, 11
_PAN = (3, 1)
_NOISE = 2 / 255
_LIGHT = 0.06
# The network sees beyond the edge what it makes up; and the first frames are not yet steadied.
_RIM = 24
_SETTLING = 4

# Each motion, and by how many pixels, in x and y, a frame is moved.
MOTIONS: dict[str, tuple[int, int]] = {
    "pan (3, 1)": _PAN,
    "still, noise 2": (0, 0),
    "still, light ±6 %": (0, 0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability:
    """Flicker in 1/255 under one motion: of the clip, of its stylized frames, of steadied ones.

    `sharpness` is that of the steadied frames, in parts of what it is without.
    """

    motion: str
    clip: float
    stylized: float
    steadied: float
    sharpness: float


def measure_stability(
    stylizer: Stylizer,
    photos: Iterable[Tensor],
    *,
    on_photo: Callable[[int], None] = lambda done: None,
) -> list[Stability]:
    """(3, H, W) photos in [0, 1] -> the mean scores for each motion. Raises VideoError."""
    scores: dict[str, list[list[float]]] = {motion: [] for motion in MOTIONS}
    with tempfile.TemporaryDirectory() as folder:
        for index, photo in enumerate(photos):
            for motion, frames in _clips(photo, seed=index).items():
                scores[motion].append(_scores(stylizer, frames, MOTIONS[motion], Path(folder)))
            on_photo(index + 1)
    means = {motion: np.mean(found, 0) for motion, found in scores.items()}
    return [
        Stability(
            motion=motion,
            clip=float(mean[0]),
            stylized=float(mean[1]),
            steadied=float(mean[2]),
            sharpness=float(mean[3]),
        )
        for motion, mean in means.items()
    ]


def format_stability(results: Sequence[Stability]) -> str:
    """Return a table in Markdown."""
    lines = [
        "| motion | input | stylized | steadied | sharpness kept |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.motion} | {one.clip:.1f} | {one.stylized:.1f} | {one.steadied:.1f} "
        f"| {one.sharpness:.2f} |"
        for one in results
    ]
    return "\n".join(lines)


def _clips(photo: Tensor, *, seed: int) -> dict[str, list[Tensor]]:
    """Return the frames of each motion, (3, h, w) uint8."""
    height, width = _HEIGHT + _PAN[1] * _FRAMES, _WIDTH + _PAN[0] * _FRAMES
    scale = max(height / photo.shape[-2], width / photo.shape[-1])
    photo = resize(photo, *(int(np.ceil(edge * scale)) for edge in photo.shape[-2:]))
    still = photo[:, :_HEIGHT, :_WIDTH]
    generator = torch.Generator().manual_seed(seed)
    panned = [
        photo[:, _PAN[1] * i : _PAN[1] * i + _HEIGHT, _PAN[0] * i : _PAN[0] * i + _WIDTH]
        for i in range(_FRAMES)
    ]
    noisy = [still + _NOISE * torch.randn(still.shape, generator=generator) for _ in range(_FRAMES)]
    lit = [still * (1 + _LIGHT * np.sin(2 * np.pi * i / 8)) for i in range(_FRAMES)]
    clips = zip(MOTIONS, (panned, noisy, lit), strict=True)
    return {motion: [to_uint8(frame) for frame in frames] for motion, frames in clips}


def _scores(
    stylizer: Stylizer, frames: Sequence[Tensor], step: tuple[int, int], folder: Path
) -> list[float]:
    source = folder / "clip.mp4"
    _write(source, frames)
    seen = [_pixels(source)]
    for steady in (False, True):
        output = folder / "stylized.mp4"
        stylize_clip(stylizer, source, output, steady=steady)
        seen.append(_pixels(output))
    _, stylized, steadied = seen
    sharpness = _detail(steadied) / max(_detail(stylized), 1e-9)
    return [*(_flicker(one, step) for one in seen), sharpness]


def _write(path: Path, frames: Sequence[Tensor]) -> None:
    av = require_av()
    picture = Picture(
        codec=CODECS["h264"],
        pixel_format="yuv420p",
        width=_WIDTH,
        height=_HEIGHT,
        time_base=Fraction(1, 25),
        rate=Fraction(25),
        quality=95,
        colors=Colors(),
    )
    with av.open(str(path), "w") as file:
        stream = file.add_stream(picture.codec.encoder, rate=picture.rate)
        picture.set_up(stream.codec_context)
        for index, pixels in enumerate(frames):
            array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
            frame = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, picture.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _pixels(path: Path) -> list[Tensor]:
    return [frame.pixels.float() for frame in FileSource(path).frames()]


def _flicker(frames: Sequence[Tensor], step: tuple[int, int]) -> float:
    """Return how much frames differ from those before, moved by `step` in x and y, in 1/255."""
    x, y = step
    differences = []
    for before, after in itertools.pairwise(frames[_SETTLING:]):
        height, width = after.shape[-2:]
        moved = before[:, y:, x:] - after[:, : height - y, : width - x]
        differences.append(moved[:, _RIM:-_RIM, _RIM:-_RIM].abs().mean().item())
    return float(np.mean(differences))


def _detail(frames: Sequence[Tensor]) -> float:
    """Return the mean gradient."""
    across = [(frame[..., 1:] - frame[..., :-1]).abs().mean() for frame in frames[_SETTLING:]]
    down = [(frame[:, 1:] - frame[:, :-1]).abs().mean() for frame in frames[_SETTLING:]]
    return float(torch.stack([*across, *down]).mean())
