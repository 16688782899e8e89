"""Made-up clips for the tests, written with PyAV; import it after `pytest.importorskip("av")`."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

Pixels = npt.NDArray[np.uint8]

_EXACT = (
    Interpolation.BILINEAR
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
)


def moving(count: int, *, height: int = 48, width: int = 64, step: int = 3) -> list[Pixels]:
    """Draw frames of a smooth pattern that pans, and a square that moves over it."""
    y, x = np.mgrid[0:height, 0:width]
    frames = []
    for i in range(count):
        at = x + step * i
        waves = [np.sin(at * 0.21 + y * 0.1), np.cos(at * 0.13 - y * 0.17), np.sin(y * 0.3)]
        frame = 127.5 + 90 * np.stack(waves, -1)
        left = (2 * i) % (width - 12)
        frame[height // 3 : height // 3 + 12, left : left + 12] = (250, 40, 20)
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return frames


def write_clip(
    path: Path,
    frames: Sequence[Pixels],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: Fraction = Fraction(25),
    time_base: Fraction | None = None,
    times: Sequence[int] | None = None,
    sound: bool = False,
    subtitles: Path | None = None,
    tags: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames, shown at `times` in `time_base`, with a sine as sound if wanted."""
    time_base = time_base or 1 / rate
    tags = tags or {}
    with av.open(str(path), "w") as file:
        video: Any = file.add_stream(codec, rate=rate, options=options or {"crf": "12"})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixel_format
        video.codec_context.time_base = time_base
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        audio: Any = None
        if sound:
            audio = file.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
        words = av.open(str(subtitles)) if subtitles else None
        copy = file.add_stream_from_template(words.streams.subtitles[0]) if words else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
                format=pixel_format,
                dst_colorspace=tags.get("colorspace", 5),
                dst_color_range=tags.get("color_range", 1),
                interpolation=_EXACT,
            )
            frame.pts = times[index] if times else index
            frame.time_base = time_base
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio is not None:
            seconds = (times[-1] if times else len(frames)) * time_base
            _encode_sine(file, audio, round(48000 * seconds))
        if words is not None:
            for packet in words.demux():
                if packet.dts is not None:
                    packet.stream = copy
                    file.mux(packet)
            words.close()
    return path


def _encode_sine(file: Any, stream: Any, samples: int) -> None:
    resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48000)
    wave = np.sin(np.arange(samples) * 0.05).astype(np.float32)[None] * 0.3
    sound = av.AudioFrame.from_ndarray(wave, "flt", "mono")
    sound.sample_rate, sound.pts, sound.time_base = 48000, 0, Fraction(1, 48000)
    fifo = av.AudioFifo()
    for frame in resampler.resample(sound):
        fifo.write(frame)
    while (frame := fifo.read(stream.codec_context.frame_size or 960, partial=True)) is not None:
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def read_clip(path: Path) -> tuple[list[Fraction], list[Pixels]]:
    """Return the times in seconds and the upright RGB pixels of a file's frames."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        times = [frame.pts * stream.time_base for frame in frames]
        rgb = [frame.reformat(format="rgb24", interpolation=_EXACT) for frame in frames]
        return times, [frame.to_ndarray() for frame in rgb]


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """Return the packets of the first stream of a kind, with their times in seconds."""
    with av.open(str(path)) as file:
        stream = next(stream for stream in file.streams if stream.type == kind)
        return [
            (bytes(packet), packet.pts * packet.time_base)
            for packet in file.demux(stream)
            if packet.dts is not None
        ]


def turn(path: Path, degrees: int) -> None:
    """Write a rotation, clockwise, into the track header of an MP4, as phones do."""
    one = 1 << 16
    matrices = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}
    a, b, c, d = matrices[degrees]
    data = bytearray(path.read_bytes())
    unturned = b"".join(
        n.to_bytes(4, "big", signed=True) for n in (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    )
    place = data.index(unturned, data.index(b"tkhd"))
    data[place : place + 36] = b"".join(
        n.to_bytes(4, "big", signed=True) for n in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    )
    path.write_bytes(data)


def scene(
    background: Pixels, things: Sequence[Pixels], count: int, *, height: int, width: int
) -> list[Pixels]:
    """Draw a camera that pans to and fro over a photo, things that cross it, light and noise.

    Every thing moves on a path of its own, round at its edges; the camera moves by parts of pixels,
    as cameras do. A cut, to the photo mirrored, is in the middle.
    """
    random = np.random.RandomState(0)
    room = background.shape[0] - height - 1, background.shape[1] - width - 1
    frames = []
    for i in range(count):
        at = [(1 - np.cos(2 * np.pi * i / period)) / 2 for period in (190, 260)]
        top, left = at[0] * room[0], at[1] * room[1]
        frame = _window(background, top, left, height, width)
        frame = frame[:, ::-1] if i >= count // 2 else frame
        frame = frame * (1 + 0.04 * np.sin(i / 20))
        for k, thing in enumerate(things):
            y = (height - thing.shape[0]) * (1 + np.sin(i / (17 + 6 * k) + k)) / 2
            x = (1.5 + 0.7 * k) * i % (width + thing.shape[1]) - thing.shape[1]
            _paste(frame, thing, round(y), round(x))
        frame = frame + 1.5 * random.standard_normal((height, width, 1))
        frames.append(frame.clip(0, 255).round().astype(np.uint8))
    return frames


def _window(photo: Pixels, top: float, left: float, height: int, width: int) -> Any:
    """Return a part of a photo that begins between its pixels."""
    y, x = int(top), int(left)
    part = photo[y : y + height + 1, x : x + width + 1].astype(np.float32)
    part = part[:-1] + (top - y) * (part[1:] - part[:-1])
    return part[:, :-1] + (left - x) * (part[:, 1:] - part[:, :-1])


def _paste(frame: Any, thing: Pixels, top: int, left: int) -> None:
    """Put an ellipse of `thing` into a frame, as far as it is inside."""
    height, width = thing.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    ellipse = ((2 * y / (height - 1) - 1) ** 2 + (2 * x / (width - 1) - 1) ** 2) <= 1
    first, last = max(0, -left), min(width, frame.shape[1] - left)
    if first < last:
        place = frame[top : top + height, left + first : left + last]
        place[ellipse[:, first:last]] = thing[:, first:last][ellipse[:, first:last]]
