"""Reading the frames of a video file: upright, at their times, and as many as there should be.

Only one thread may use a source. What a decoder refuses does not shorten the clip: the frame before
it is held in its place, and counted.
"""

import contextlib
import heapq
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fast_style.video.clips import BLOCK, UNSPECIFIED, Clip, Colors, Frame, Motion, VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# The decoders of FFmpeg that export motion vectors.
_WITH_VECTORS = frozenset(
    ("h264", "mpeg4", "mpeg2video", "mpeg1video", "h263", "flv1", "msmpeg4v2", "msmpeg4v3", "wmv2")
)
_EXPORT_VECTORS = 1 << 28
_MATRIX_709, _MATRIX_601 = 1, 5
_RGB_MATRIX = 0
_HD_ROWS = 720
# Bilinear, with full chroma and exact rounding: a grey stays the grey that it is.
SCALING = 0x2 | 0x2000 | 0x4000 | 0x40000
# Below this, the ends of a file's streams differ anyway.
_MISSING_SECONDS = 0.5
_DEFAULT_RATE = Fraction(25)


def require_av() -> Any:
    """Return the module of PyAV. Raises VideoError where it is not installed."""
    try:
        import av
    except ImportError:
        raise VideoError("video needs PyAV: pip install 'fast-style[video]'") from None
    return av


def matrix_of(colors: Colors, height: int) -> int:
    """Return the matrix between RGB and YUV: where the file has none, what players assume."""
    if colors.matrix in (UNSPECIFIED, _RGB_MATRIX):
        return _MATRIX_709 if height >= _HD_ROWS else _MATRIX_601
    return colors.matrix


def open_input(path: Path) -> "InputContainer":
    """Open a file. Raises VideoError."""
    av = require_av()
    try:
        container: InputContainer = av.open(str(path), metadata_errors="replace")
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file") from None
    except (av.FFmpegError, ValueError):
        reason = "is no video that FFmpeg knows, or damaged"
        if path.suffix.lower() in (".mp4", ".mov", ".m4v"):
            reason += " (one that was cut off lacks its index, moov, and cannot be read at all)"
        raise VideoError(f"{path}: {reason}") from None
    return container


@dataclass(slots=True)
class Damage:
    """What of a clip could not be read: frames that others stand in for, and its end.

    Where the seconds that are missing are not known, it only `is_cut`.
    """

    held: int = 0
    missing_seconds: float = 0.0
    is_cut: bool = False
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.held or self.missing_seconds or self.is_cut)

    def __str__(self) -> str:
        parts = []
        if self.held:
            these = "frames could not be read: those before them are held"
            one = "frame could not be read: the one before it is held"
            parts.append(f"{self.held} {one if self.held == 1 else these}")
        if self.missing_seconds:
            parts.append(f"the last {self.missing_seconds:.1f} s are missing")
        if self.is_cut:
            parts.append("what comes after its last frame could not be read")
        return "; ".join(parts) + (f" ({self.reason})" if self.reason else "")


class FileSource:
    """The frames of a video file's first video stream. Raises VideoError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage = Damage()
        with contextlib.closing(open_input(path)) as container:
            stream = _video_of(container, path)
            self.clip, self._turns = _described(path, container, stream)
        if name := self.clip.colors.hdr:
            raise VideoError(
                f"{path}: is HDR ({name}), which a network trained on ordinary photos misreads: "
                "make it SDR first, as with ffmpeg -i IN -vf zscale=t=linear:npl=100,"
                "format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,"
                "format=yuv420p OUT.mp4"
            )

    def frames(self, *, skip: int = 0, motion: bool = False) -> Generator[Frame, None, None]:
        """Decode from the start; yield all frames but the first `skip`, with motion if asked."""
        av = require_av()
        self.damage = Damage()
        reformatter = av.video.reformatter.VideoReformatter()
        last = -(1 << 62)
        with contextlib.closing(open_input(self._path)) as container:
            stream = _video_of(container, self._path)
            if motion and self.clip.has_motion:
                stream.codec_context.flags2 |= _EXPORT_VECTORS
            for index, (frame, pts) in enumerate(self._timed(container, stream)):
                pts = max(pts, last + 1)
                last = pts
                if index >= skip:
                    yield self._frame(frame, pts, reformatter, motion)

    def _timed(
        self, container: "InputContainer", stream: "VideoStream"
    ) -> Iterator[tuple["VideoFrame", int]]:
        """Yield decoded frames with their times, and the last one again for each that is lost."""
        pending: list[int] = []  # times of packets whose frames have not come yet
        unmatched = 0
        last: VideoFrame | None = None
        last_pts = 0
        for frame in self._decoded(container, stream, pending):
            pts = self._pts(frame, last_pts, first=last is None)
            while pending and pending[0] < pts:
                lost = heapq.heappop(pending)
                if last is None:
                    continue  # frames that refer to what is before the file's beginning
                if unmatched:
                    unmatched -= 1
                    continue
                self.damage.held += 1
                yield last, lost
            if pending and pending[0] == pts:
                heapq.heappop(pending)
            else:
                unmatched += 1
            last, last_pts = frame, pts
            yield frame, pts
        if last is None:
            raise VideoError(f"{self._path}: no frame of it can be read")
        while pending:
            lost = heapq.heappop(pending)
            if lost > last_pts and not unmatched:
                self.damage.held += 1
                yield last, lost

    def _decoded(
        self, container: "InputContainer", stream: "VideoStream", pending: list[int]
    ) -> Iterator["VideoFrame"]:
        av = require_av()
        streams = [stream, *container.streams.audio]
        end, audio_end = 0.0, 0.0
        packets = container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError, ValueError) as error:
                self.damage.reason = str(getattr(error, "strerror", None) or error)
                break
            if packet.stream is not stream:
                audio_end = max(audio_end, _end(packet))
                continue
            end = max(end, _end(packet))
            if packet.pts is not None and not packet.is_discard:
                heapq.heappush(pending, packet.pts)
            with contextlib.suppress(av.FFmpegError):  # its frame will be missed
                yield from stream.codec_context.decode(packet)
        with contextlib.suppress(av.FFmpegError, EOFError):
            yield from stream.codec_context.decode(None)
        self._note_missing(container, stream, end, audio_end)

    def _note_missing(
        self, container: "InputContainer", stream: "VideoStream", end: float, audio_end: float
    ) -> None:
        """Compare where the packets ended with where the file says that it ends."""
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        if stream.duration and stream.time_base:
            missing = start + float(stream.duration * stream.time_base) - end
        elif length := _seconds(stream.metadata.get("DURATION", "")):
            missing = length - end
        elif container.duration:
            missing = (container.duration + max(container.start_time or 0, 0)) / 1e6
            missing -= max(end, audio_end)
        else:
            return
        if missing > _MISSING_SECONDS:
            self.damage.missing_seconds = missing

    def _pts(self, frame: "VideoFrame", last: int, *, first: bool) -> int:
        if frame.pts is not None:
            return int(frame.pts)
        return 0 if first else last + self._step()

    def _step(self) -> int:
        return max(1, round(1 / (self.clip.rate * self.clip.time_base)))

    def _frame(self, frame: "VideoFrame", pts: int, reformatter: Any, motion: bool) -> Frame:
        matrix = matrix_of(self.clip.colors, self.clip.height)
        # Where the size changes on the way, as in a broadcast, all frames get that of the first.
        width, height = (self.clip.width, self.clip.height)[:: -1 if self._turns % 2 else 1]
        same = (frame.width, frame.height) == (width, height)
        rgb = reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=None if frame.format.is_rgb else matrix,
            interpolation=SCALING,
            threads=1,
        )
        pixels = np.rot90(rgb.to_ndarray(), self._turns)
        moves = motion and self.clip.has_motion and same
        vectors = _motion(frame, self._turns) if moves else None
        return Frame(
            pixels=torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1),
            pts=pts,
            duration=int(frame.duration or 0) or self._step(),
            motion=vectors,
        )


def _video_of(container: "InputContainer", path: Path) -> "VideoStream":
    av = require_av()
    attached = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & attached and stream.codec_context is not None:
            # The network takes all cores; and a decoder with frame threads tells of errors late.
            stream.codec_context.thread_count = 1
            return stream
    raise VideoError(f"{path}: holds no video")


def _described(path: Path, container: "InputContainer", stream: "VideoStream") -> tuple[Clip, int]:
    """Return what the file says of its clip, and quarter turns that make its frames upright."""
    context = stream.codec_context
    frame = _first_frame(container, stream)
    if frame is None:
        raise VideoError(f"{path}: no frame of it can be read")
    turns = round(frame.rotation / 90) % 4
    width, height = (frame.width, frame.height)[:: -1 if turns % 2 else 1]
    aspect = stream.sample_aspect_ratio
    if aspect and turns % 2:
        aspect = 1 / aspect
    time_base = stream.time_base or Fraction(1, 1000)
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
    seconds = float(stream.duration * time_base) if stream.duration else None
    if seconds is None and container.duration:
        seconds = container.duration / 1e6
    ranges = {1: False, 2: True}
    return (
        Clip(
            path=path,
            width=width,
            height=height,
            time_base=time_base,
            rate=rate,
            frames=stream.frames or (round(seconds * rate) if seconds else None),
            seconds=seconds,
            colors=Colors(
                primaries=int(context.color_primaries),
                transfer=int(context.color_trc),
                matrix=int(context.colorspace),
                full_range=ranges.get(int(context.color_range)),
            ),
            pixel_aspect=aspect or None,
            has_motion=context.codec.name in _WITH_VECTORS,
        ),
        turns,
    )


def _first_frame(container: "InputContainer", stream: "VideoStream") -> "VideoFrame | None":
    av = require_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError, OSError, ValueError):
            return None
        with contextlib.suppress(av.FFmpegError):
            for frame in packet.decode():
                return frame


def _end(packet: Any) -> float:
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _seconds(text: str) -> float:
    """Return the seconds of Matroska's "00:00:05.000000000"; 0 for anything else."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return hours * 3600 + minutes * 60 + seconds


def _motion(frame: "VideoFrame", turns: int) -> Motion | None:
    """Return where each block of a frame was in the frame before; None for a keyframe."""
    data = frame.side_data.get("MOTION_VECTORS")
    if data is None:
        return None
    vectors = data.to_ndarray()
    vectors = vectors[vectors["source"] < 0]
    if not len(vectors):
        return None
    rows, columns = -(-frame.height // BLOCK), -(-frame.width // BLOCK)
    field = np.full((rows, columns, 2), np.nan, np.float32)
    scale = np.maximum(vectors["motion_scale"], 1).astype(np.float32)
    step = np.stack([vectors["motion_x"] / scale, vectors["motion_y"] / scale], -1)
    # `dst` is the middle of the block; blocks of 16 pixels cover two of ours a side.
    left = vectors["dst_x"].astype(int) - vectors["w"] // 2
    top = vectors["dst_y"].astype(int) - vectors["h"] // 2
    for dx in (0, BLOCK):
        for dy in (0, BLOCK):
            inside = (vectors["w"] > dx) & (vectors["h"] > dy)
            x, y = (left[inside] + dx) // BLOCK, (top[inside] + dy) // BLOCK
            known = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
            field[y[known], x[known]] = step[inside][known]
    field = np.rot90(field, turns)
    for _ in range(turns):  # counterclockwise by 90 degrees: what went right goes up
        field = np.stack([field[..., 1], -field[..., 0]], -1)
    return np.ascontiguousarray(field)
