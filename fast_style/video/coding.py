"""How a clip is encoded: the formats, their codecs, and what `quality` means to each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fast_style.video.clips import VideoError, is_pattern
from fast_style.video.reading import require_av


@dataclass(frozen=True, kw_only=True, slots=True)
class Coding:
    """What may be chosen: `codec` by its plain name (`CODECS`), quality 1 to 100, pixel format."""

    codec: str | None = None
    quality: int = 95
    pixel_format: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """An encoder of FFmpeg, its usual pixel format, and its options at a quality.

    `odd` says that it takes odd sizes though colours are stored at half of them, `alpha` is the
    pixel format that keeps transparency.
    """

    encoder: str
    pixel_format: str
    options: Callable[[int], dict[str, str]]
    odd: bool = False
    alpha: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """A file format: FFmpeg's name, the codecs that it may hold, the first by default."""

    name: str
    codecs: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)


def _scale(best: int, worst: int, slope: float) -> Callable[[int], str]:
    """Return the map from quality to a constant rate factor, where less is better."""
    return lambda quality: str(min(worst, round(best + slope * (100 - quality))))


_H264, _H265 = _scale(16, 51, 0.6), _scale(18, 51, 0.6)
_VP9, _AV1 = _scale(22, 63, 0.7), _scale(24, 63, 0.7)

# Encoders run on one thread: they take a twentieth of the time of the network, and give the same
# bits in every run. For that, x264's and x265's looking ahead at what is referred to (mbtree,
# cutree) is off: with AVX-512, its result is another one from time to time.
CODECS: dict[str, Codec] = {
    "h264": Codec(
        encoder="libx264",
        pixel_format="yuv420p",
        options=lambda quality: {
            # Of stylized frames it makes what "veryfast" makes, in half the time.
            "preset": "superfast",
            "crf": _H264(quality),
            "x264-params": "mbtree=0",
        },
    ),
    "hevc": Codec(
        encoder="libx265",
        pixel_format="yuv420p",
        options=lambda quality: {
            "preset": "veryfast",
            "crf": _H265(quality),
            "x265-params": "log-level=none:pools=none:frame-threads=1:cutree=0",
        },
    ),
    "vp9": Codec(
        encoder="libvpx-vp9",
        pixel_format="yuv420p",
        options=lambda quality: {
            "crf": _VP9(quality),
            "b": "0",
            "deadline": "good",
            "cpu-used": "5",
        },
        odd=True,
    ),
    "av1": Codec(
        encoder="libsvtav1",
        pixel_format="yuv420p",
        options=lambda quality: {"preset": "9", "crf": _AV1(quality), "svtav1-params": "lp=1"},
    ),
    "prores": Codec(
        encoder="prores_ks", pixel_format="yuv422p10le", options=lambda _: {"profile": "hq"}
    ),
    "ffv1": Codec(encoder="ffv1", pixel_format="bgr0", options=lambda _: {"level": "3"}),
    "gif": Codec(
        encoder="gif",
        pixel_format="pal8",
        # Every frame is whole: in a stylized clip, all of it moves.
        options=lambda _: {"gifflags": "-offsetting-transdiff"},
        odd=True,
        alpha="pal8",
    ),
    "webp": Codec(
        encoder="libwebp",
        pixel_format="yuv420p",
        options=lambda quality: {"quality": str(quality)},
        odd=True,
        alpha="yuva420p",
    ),
}

_MP4 = Container(
    name="mp4", codecs=("h264", "hevc", "av1", "vp9"), options={"movflags": "+faststart"}
)
CONTAINERS: dict[str, Container] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(
        name="mov", codecs=("h264", "hevc", "prores"), options={"movflags": "+faststart"}
    ),
    ".mkv": Container(name="matroska", codecs=("h264", "hevc", "av1", "vp9", "prores", "ffv1")),
    ".webm": Container(name="webm", codecs=("vp9", "av1")),
    ".gif": Container(name="gif", codecs=("gif",)),
    ".webp": Container(name="webp", codecs=("webp",)),
}


def container_of(output: Path) -> Container:
    """Return the format that an output's name asks for. Raises VideoError."""
    found = CONTAINERS.get(output.suffix.lower())
    if found is None:
        known = ", ".join(sorted(CONTAINERS))
        raise VideoError(
            f"{output}: cannot write a clip as {output.suffix or 'a file without ending'}: "
            f"use {known}, or pictures as in frames/%05d.png"
        )
    return found


def codec_of(output: Path, coding: Coding) -> Codec:
    """Return the codec for an output. Raises VideoError for one that its format does not hold."""
    names = container_of(output).codecs
    name = coding.codec or names[0]
    if name not in CODECS:
        raise VideoError(f"unknown codec {name!r}: use one of {', '.join(CODECS)}")
    if name not in names:
        homes = ", ".join(suffix for suffix, home in CONTAINERS.items() if name in home.codecs)
        raise VideoError(
            f"{output}: holds {' or '.join(names)}, not {name}: "
            f"leave --codec out, or name a file that ends in {homes}"
        )
    return CODECS[name]


def pixel_format_of(output: Path, coding: Coding, *, alpha: bool) -> str:
    """Return the pixel format of an output. Raises VideoError for one that its codec lacks."""
    codec = codec_of(output, coding)
    if coding.pixel_format is None:
        return codec.alpha if alpha and codec.alpha else codec.pixel_format
    av = require_av()
    known = [one.name for one in av.Codec(codec.encoder, "w").video_formats or ()]
    if coding.pixel_format not in known:
        raise VideoError(
            f"--pixel-format {coding.pixel_format}: {codec.encoder} has {', '.join(known)}"
        )
    return coding.pixel_format


def padding_of(
    output: Path, coding: Coding, pixel_format: str, width: int, height: int
) -> tuple[int, int]:
    """Return how many columns and rows must be added, where colours are stored at half the size."""
    av = require_av()
    if codec_of(output, coding).odd:
        return 0, 0
    layout = av.VideoFormat(pixel_format, 2, 2)
    chroma = layout.chroma_width(2), layout.chroma_height(2)
    return (
        width % 2 if chroma[0] == 1 else 0,
        height % 2 if chroma[1] == 1 else 0,
    )


def check_output(output: Path, coding: Coding) -> None:
    """Raise VideoError for an output that could not be written as it is wanted."""
    if not 1 <= coding.quality <= 100:
        raise VideoError(f"--quality {coding.quality} is impossible: it must be 1 to 100")
    if not is_pattern(output):
        pixel_format_of(output, coding, alpha=False)
        return
    for option, value in (("codec", coding.codec), ("pixel-format", coding.pixel_format)):
        if value:
            raise VideoError(f"--{option} {value}: {output} is pictures, which have none")
