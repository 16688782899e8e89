"""Putting a clip together: the encoded video, and the sound and subtitles of the source.

What is not video goes over packet for packet, untouched.
"""

import contextlib
import heapq
import io
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fast_style.video.coding import Container
from fast_style.video.encoding import Picture
from fast_style.video.reading import open_input, require_av
from fast_style.video.segments import Segments

if TYPE_CHECKING:
    from av.container import OutputContainer

_COPIED = ("audio", "subtitle", "attachment")
# What describes the file that it was in, not the clip.
_NOT_KEPT = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder"))


def copied_streams(path: Path, container: Container) -> tuple[list[int], list[str]]:
    """Return the streams of a file that can be copied into a format, and notes of the others.

    Tried, not looked up: FFmpeg's muxers know best what they take.
    """
    kept, notes = [], []
    with contextlib.closing(open_input(path)) as source:
        videos = 0
        for stream in source.streams:
            if stream.type == "video":
                videos += 1
                continue
            if stream.type in _COPIED and _fits(stream, container):
                kept.append(stream.index)
                continue
            context = stream.codec_context
            name = f" ({context.name})" if context is not None else ""
            notes.append(
                f"its {stream.type} track{name} is left out: {container.name} has none of that kind"
            )
        if videos > 1:
            notes.append("only the first of its video tracks is stylized; the others are left out")
    return kept, notes


def _fits(stream: Any, container: Container) -> bool:
    av = require_av()
    # PyAV wants a stream that it can open an encoder for, whatever the format.
    video = "libvpx-vp9" if container.name == "webm" else "libx264"
    try:
        with av.open(io.BytesIO(), "w", format=container.name) as trial:
            added = trial.add_stream(video, rate=25)
            added.width = added.height = 64
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError, OSError):
        return False
    return True


def join(
    segments: Segments,
    picture: Picture,
    output: Path,
    *,
    container: Container,
    source: Path | None,
    copied: Sequence[int],
    loop: int,
    last_duration: Fraction,
) -> None:
    """Write the finished file under its name: whole, or not at all."""
    av = require_av()
    scratch = segments.scratch(output.suffix)
    options = dict(container.options)
    if container.name in ("gif", "webp"):
        # GIF's muxer says -1 for a clip that plays once.
        options["loop"] = str(-1 if container.name == "gif" and loop == 1 else loop)
    if container.name == "gif":
        options["final_delay"] = str(max(1, round(last_duration * 100)))
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(
            av.open(str(scratch), "w", format=container.name, options=options)
        )
        video = target.add_stream(picture.codec.encoder, rate=picture.rate)
        picture.set_up(video.codec_context)
        video.time_base = picture.time_base
        if container.name in ("mp4", "mov") and picture.codec.encoder == "libx265":
            video.codec_context.codec_tag = "hvc1"  # the one that QuickTime plays
        others: Iterator[tuple[float, Any]] = iter(())
        if source is not None:
            original = stack.enter_context(contextlib.closing(open_input(source)))
            metadata = {k: v for k, v in original.metadata.items() if k not in _NOT_KEPT}
            target.metadata.update(metadata)
            others = _copies(original, target, copied)
            if container.name in ("mp4", "mov", "matroska"):
                target.set_chapters(original.chapters())
        target.start_encoding()
        frames = _packets(segments, picture, video)
        for _, packet in heapq.merge(frames, others, key=lambda item: item[0]):
            target.mux_one(packet)
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(output)


def _packets(segments: Segments, picture: Picture, stream: Any) -> Iterator[tuple[float, Any]]:
    av = require_av()
    for record in segments.read():
        packet = av.Packet(record.data)
        packet.stream = stream
        packet.time_base = picture.time_base
        packet.pts, packet.dts, packet.duration = record.pts, record.dts, record.duration
        packet.is_keyframe = record.is_key
        yield float(record.dts * picture.time_base), packet


def _copies(
    source: Any, target: "OutputContainer", indices: Sequence[int]
) -> Iterator[tuple[float, Any]]:
    """Add the streams, and return their packets as they come."""
    streams = {}
    for index in indices:
        original = source.streams[index]
        copy = target.add_stream_from_template(original)
        copy.metadata.update(original.metadata)
        copy.disposition = original.disposition
        if original.type != "attachment":
            streams[index] = copy
    return _read_copies(source, streams)


def _read_copies(source: Any, streams: dict[int, Any]) -> Iterator[tuple[float, Any]]:
    av = require_av()
    if not streams:
        return
    packets = source.demux([source.streams[index] for index in streams])
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError, ValueError):
            return  # reading the frames has told of the damage
        if packet.dts is None:
            continue
        time = float(packet.dts * packet.time_base)
        packet.stream = streams[packet.stream.index]
        yield time, packet
