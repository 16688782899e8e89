"""Stylizing a clip, from file to file: planned, made segment by segment, and joined."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch

from fast_style.images import Picture as Still
from fast_style.images import write_picture
from fast_style.locking import HeldError
from fast_style.stylization import Stylizer
from fast_style.video.clips import (
    Clip,
    Frame,
    VideoError,
    is_animation,
    is_pattern,
    numbered,
    pictures_of,
)
from fast_style.video.coding import (
    CONTAINERS,
    Coding,
    check_output,
    codec_of,
    container_of,
    padding_of,
    pixel_format_of,
)
from fast_style.video.encoding import Encoder, Picture, stored_colors
from fast_style.video.joining import copied_streams, join
from fast_style.video.overlap import stylized_frames, worker_count
from fast_style.video.pictures import AnimationSource, SequenceSource
from fast_style.video.reading import Damage, FileSource, require_av
from fast_style.video.segments import Record, Segments
from fast_style.video.steadying import Steadier

# Seconds of a segment of small frames, and the least; when a run is killed, about the work for so
# many pixels is lost.
_SEGMENT_SECONDS = 10
_LEAST_SEGMENT_SECONDS = 2
_SEGMENT_PIXELS = 10 * 30 * 640 * 360


class Source(Protocol):
    """Where frames come from."""

    clip: Clip
    damage: Damage

    def frames(self, *, skip: int = 0, motion: bool = False) -> Generator[Frame, None, None]:
        """Read from the start; yield all frames but the first `skip`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StylizedClip:
    """What became of a clip: its frames, and how many of them an earlier run had made."""

    frames: int
    resumed: int
    seconds: float
    size: tuple[int, int]
    steadied: bool
    damage: Damage


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """How a clip will be made: `picture` is None for an output that is a sequence of pictures."""

    size: tuple[int, int]
    steady: bool
    segment: int
    picture: Picture | None
    copied: tuple[int, ...]
    notes: tuple[str, ...]


def open_source(path: Path, *, rate: Fraction = Fraction(25)) -> Source:
    """Open a video file, an animation, or a sequence, which is shown at `rate`."""
    if is_pattern(path) and not path.exists():
        return SequenceSource(path, rate=rate)
    return AnimationSource(path) if is_animation(path) else FileSource(path)


def stylize_clip(
    stylizer: Stylizer,
    path: Path,
    output: Path,
    *,
    coding: Coding | None = None,
    steady: bool | None = None,
    workers: int | None = None,
    rate: Fraction = Fraction(25),
    on_note: Callable[[str], None] = lambda note: None,
    on_frame: Callable[[int, int | None], None] = lambda done, total: None,
) -> StylizedClip:
    """Stylize a clip into another, whole or not at all; what an earlier run began goes on.

    The output has the frames and the times of the input, and its sound and subtitles as they are.
    `steady` is by default on where the file has motion vectors. `workers` frames are in work at
    once, by default as many as PyTorch has threads; their number changes no bit. A sequence is
    shown at `rate`. `on_note` is told, before the work, what the output will lack; `on_frame` how
    many frames are done, and of how many if that is known. Raises VideoError.
    """
    coding = coding or Coding()
    check_output(output, coding)
    start = time.perf_counter()
    source = open_source(path, rate=rate)
    plan = _plan(stylizer, source, path, output, coding, steady)
    for note in plan.notes:
        on_note(note)
    key = _key(stylizer, source, path, plan, coding)
    try:
        segments = Segments(_parts(output), key, states=plan.steady)
    except HeldError as error:
        raise VideoError(
            f"{output}: is being made by another process (pid {error.holder}): wait for it, stop "
            "it, or name another --output"
        ) from None
    resumed = sum(1 for _ in segments.read(data=False))
    count = workers or worker_count(stylizer, source.clip.width * source.clip.height)
    try:
        frames = _make(stylizer, source, output, plan, segments, coding, count, on_frame)
        _finish(source, path, output, plan, segments)
    except require_av().FFmpegError as error:
        raise VideoError(f"{output}: cannot be written: {error.strerror or error}") from None
    finally:
        segments.close()
    return StylizedClip(
        frames=frames,
        resumed=resumed,
        seconds=time.perf_counter() - start,
        size=plan.size,
        steadied=plan.steady,
        damage=source.damage,
    )


def is_finished(output: Path) -> bool:
    """Return whether an output is there, whole."""
    there = numbered(output, 1) if is_pattern(output) else output
    return there.exists() and not (is_pattern(output) and _parts(output).exists())


def remove_leftovers(output: Path) -> None:
    """Remove what a run that was killed at its very end has left of a finished output.

    Segments that are newer than the output stay: they are those of a run that overwrites it.
    """
    parts = _parts(output)
    with contextlib.suppress(OSError, HeldError):
        newest = max((path.stat().st_mtime_ns for path in parts.iterdir()), default=0)
        if output.stat().st_mtime_ns >= newest:
            Segments(parts, {}).remove()


def read_files(path: Path) -> list[Path]:
    """Return the files that an input is read from: itself, or the pictures of a sequence."""
    return pictures_of(path) if is_pattern(path) and not path.exists() else [path]


def written_files(output: Path) -> list[Path]:
    """Return the files that are there and may be written over: itself, or numbered pictures."""
    if is_pattern(output):
        return pictures_of(output)
    return [output] if output.exists() else []


def named_output(source: str, model: str, output: str | None) -> Path:
    """Return where a clip goes: `output`, a name of its own in that folder, or one beside it."""
    path = Path(source)
    ending = path.suffix
    if not is_pattern(path) and ending.lower() not in CONTAINERS:
        ending = ".mkv"  # it holds whatever the clip has
    name = f"{path.stem}.{model}{ending}"
    if output is None:
        return path.with_name(name)
    is_folder = Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix
    return Path(output) / name if is_folder else Path(output)


def _parts(output: Path) -> Path:
    """Return where an output's segments are while it is made."""
    return output.with_name(f".{output.name}.parts")


def _plan(
    stylizer: Stylizer,
    source: Source,
    path: Path,
    output: Path,
    coding: Coding,
    steady: bool | None,
) -> _Plan:
    """Decide how the output is made, and note what it will lack."""
    clip = source.clip
    height, width = stylizer.output_size(clip.height, clip.width)
    plan = _Plan(
        size=(width, height),
        steady=clip.has_motion if steady is None else steady,
        segment=_segment_length(clip, width * height),
        picture=None,
        copied=(),
        notes=(),
    )
    notes: list[str] = []
    if is_pattern(output):
        return replace(plan, notes=tuple(notes))
    container = container_of(output)
    has_alpha = isinstance(source, AnimationSource)
    pixel_format = pixel_format_of(output, coding, alpha=has_alpha)
    extra = padding_of(output, coding, pixel_format, width, height)
    stored = width + extra[0], height + extra[1]
    if any(extra):
        notes.append(
            f"{width}×{height} becomes {stored[0]}×{stored[1]}, its edge repeated: {pixel_format} "
            "has even sizes only (--pixel-format yuv444p has all, but plays in fewer places)"
        )
    copied: list[int] = []
    if isinstance(source, FileSource):
        copied, lost = copied_streams(path, container)
        notes += lost
    picture = Picture(
        codec=codec_of(output, coding),
        pixel_format=pixel_format,
        width=stored[0],
        height=stored[1],
        time_base=Fraction(1, 100) if container.name == "gif" else clip.time_base,
        rate=clip.rate,
        quality=coding.quality,
        colors=stored_colors(clip.colors),
        pixel_aspect=clip.pixel_aspect,
        keyframe_every=plan.segment,
    )
    return replace(plan, picture=picture, copied=tuple(copied), notes=tuple(notes))


def _segment_length(clip: Clip, pixels: int) -> int:
    longest, least = _SEGMENT_SECONDS * clip.rate, _LEAST_SEGMENT_SECONDS * clip.rate
    return max(1, min(round(longest), max(round(least), _SEGMENT_PIXELS // pixels)))


def _key(
    stylizer: Stylizer, source: Source, path: Path, plan: _Plan, coding: Coding
) -> dict[str, object]:
    """Return all that a segment depends on."""
    return {
        "format": 1,
        "input": _digest(path),
        "rate": source.clip.rate,
        "look": _fingerprint(stylizer),
        "coding": asdict(coding),
        "picture": plan.picture and plan.picture.pixel_format,
        "steady": plan.steady,
        "segment": plan.segment,
        "size": plan.size,
    }


def _digest(path: Path) -> str:
    digest = sha256()
    for one in read_files(path):
        with one.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _fingerprint(stylizer: Stylizer) -> str:
    """Return a digest of what the stylizer makes of one picture: its model, its look, all of it."""
    generator = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 256, (3, 40, 56), generator=generator, dtype=torch.uint8)
    return sha256(stylizer.stylize_pixels(photo).cpu().contiguous().numpy().tobytes()).hexdigest()


def _make(
    stylizer: Stylizer,
    source: Source,
    output: Path,
    plan: _Plan,
    segments: Segments,
    coding: Coding,
    workers: int,
    on_frame: Callable[[int, int | None], None],
) -> int:
    """Make the segments that are missing; return how many frames there are in all."""
    index = sum(1 for _ in segments.read(data=False))
    steadier = None
    if plan.steady:
        steadier = Steadier(segments.state(), matching=not source.clip.has_motion)
    frames = source.frames(skip=index, motion=plan.steady)
    with contextlib.closing(stylized_frames(stylizer, frames, workers=workers)) as stylized:
        for first in stylized:
            if steadier is not None:
                steadier.forget_motion()
            with segments.writing() as write:
                sink = _sink(output, plan, source.clip, coding, write, index)
                for frame, picture in itertools.chain(
                    [first], itertools.islice(stylized, plan.segment - 1)
                ):
                    if steadier is not None:
                        look = steadier.add(frame.pixels, picture.pixels, frame.motion)
                        picture = replace(picture, pixels=look)
                    sink.add(picture, frame)
                    index += 1
                    on_frame(index, source.clip.frames)
                sink.end()
                if steadier is not None:
                    segments.save_state(steadier.state)
    return index


class _Sink(Protocol):
    """What takes the frames of one segment."""

    def add(self, picture: Still, frame: Frame) -> None: ...

    def end(self) -> None: ...


class _PacketSink:
    """Encodes frames."""

    def __init__(
        self, picture: Picture, clip: Clip, write: Callable[[Record], None], index: int
    ) -> None:
        self._write = write
        self._encoder = Encoder(picture, first=index == 0)
        self._scale = clip.time_base / picture.time_base
        self._next = -(1 << 62)

    def add(self, picture: Still, frame: Frame) -> None:
        pts = max(round(frame.pts * self._scale), self._next)
        self._next = pts + 1
        duration = max(1, round(frame.duration * self._scale))
        self._put(self._encoder.add(picture.pixels, picture.alpha, pts=pts, duration=duration))

    def end(self) -> None:
        self._put(self._encoder.end())

    def _put(self, records: list[Record]) -> None:
        for record in records:
            self._write(record)


class _PictureSink:
    """Writes frames as numbered pictures; of a segment only the times are kept."""

    def __init__(
        self, output: Path, coding: Coding, write: Callable[[Record], None], index: int
    ) -> None:
        self._output, self._quality, self._write, self._index = output, coding.quality, write, index

    def add(self, picture: Still, frame: Frame) -> None:
        self._index += 1  # people count from one
        write_picture(picture, numbered(self._output, self._index), quality=self._quality)
        self._write(Record(b"", frame.pts, frame.pts, frame.duration, True))

    def end(self) -> None:
        pass


def _sink(
    output: Path,
    plan: _Plan,
    clip: Clip,
    coding: Coding,
    write: Callable[[Record], None],
    index: int,
) -> _Sink:
    if plan.picture is None:
        return _PictureSink(output, coding, write, index)
    return _PacketSink(plan.picture, clip, write, index)


def _finish(source: Source, path: Path, output: Path, plan: _Plan, segments: Segments) -> None:
    if plan.picture is not None:
        last = max(segments.read(data=False), key=lambda record: record.pts)
        join(
            segments,
            plan.picture,
            output,
            container=container_of(output),
            source=path if isinstance(source, FileSource) else None,
            copied=plan.copied,
            loop=source.clip.loop,
            last_duration=last.duration * plan.picture.time_base,
        )
    segments.remove()
