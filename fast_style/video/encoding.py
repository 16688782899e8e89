"""Frames -> packets of an encoder."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from fast_style.video.clips import UNSPECIFIED, Colors
from fast_style.video.coding import Codec
from fast_style.video.reading import SCALING, matrix_of, require_av
from fast_style.video.segments import Record

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext

_GLOBAL_HEADER = 1 << 22
_GIF_TABLE = 13 + 3 * 256
_TRANSPARENT = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What a video stream's frames have in common: what an encoder must know before the first.

    `width` and `height` are those that are stored: even where they must be.
    """

    codec: Codec
    pixel_format: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    quality: int
    colors: Colors
    pixel_aspect: Fraction | None = None
    keyframe_every: int = 250

    def set_up(self, context: "VideoCodecContext") -> None:
        """Give an encoder its settings; it must not be open yet."""
        context.width, context.height = self.width, self.height
        context.pix_fmt = self.pixel_format
        context.time_base = self.time_base
        context.framerate = self.rate
        context.thread_count = 1
        context.gop_size = self.keyframe_every
        context.options = self.codec.options(self.quality)
        if self.pixel_aspect:
            context.sample_aspect_ratio = self.pixel_aspect
        if self.is_yuv:
            context.color_primaries = self.colors.primaries
            context.color_trc = self.colors.transfer
            context.colorspace = self.colors.matrix
            context.color_range = 2 if self.colors.full_range else 1

    @property
    def is_yuv(self) -> bool:
        """Whether the matrix and the range of the colours mean anything."""
        return self.pixel_format.startswith(("yuv", "nv", "gray"))


def stored_colors(colors: Colors) -> Colors:
    """Return the tags of the result: those of the clip, where they can be those of YUV."""
    matrix = colors.matrix if colors.matrix != 0 else UNSPECIFIED
    return Colors(
        primaries=colors.primaries,
        transfer=colors.transfer,
        matrix=matrix,
        full_range=bool(colors.full_range) and colors.matrix != 0,
    )


class Encoder:
    """Encodes the frames of one segment."""

    def __init__(self, picture: Picture, *, first: bool) -> None:
        av = require_av()
        self._picture = picture
        self._context = av.CodecContext.create(picture.codec.encoder, "w")
        picture.set_up(self._context)
        self._context.flags |= _GLOBAL_HEADER
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._durations: dict[int, int] = {}
        # A GIF's table of colours for all frames is that of an encoder's first frame, which each
        # segment would have its own of: so that is a black one, of which the file keeps the header.
        self._prefix = b""
        if picture.pixel_format == "pal8":
            header = self._black()
            self._prefix = header[:_GIF_TABLE] if first else b""

    def add(self, pixels: Tensor, alpha: Tensor | None, *, pts: int, duration: int) -> list[Record]:
        """(3, H, W) uint8: encode a frame; return the packets that are ready."""
        self._durations[pts] = duration
        frame = self._frame(pixels, alpha)
        frame.pts, frame.time_base = pts, self._picture.time_base
        return self._records(self._context.encode(frame))

    def end(self) -> list[Record]:
        """Return the packets that are left."""
        return self._records(self._context.encode(None))

    def _records(self, packets: "list[Packet[Any]]") -> list[Record]:
        records = []
        for packet in packets:
            assert packet.pts is not None
            data, self._prefix = self._prefix + bytes(packet), b""
            records.append(
                Record(
                    data,
                    packet.pts,
                    packet.pts if packet.dts is None else packet.dts,
                    self._durations.pop(packet.pts, 0),
                    packet.is_keyframe,
                )
            )
        return records

    def _frame(self, pixels: Tensor, alpha: Tensor | None) -> Any:
        av = require_av()
        picture = self._picture
        array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        height, width = array.shape[:2]
        if (width, height) != (picture.width, picture.height):
            extra = (0, picture.height - height), (0, picture.width - width)
            array = np.pad(array, (*extra, (0, 0)), mode="edge")
        if picture.pixel_format == "pal8":
            return av.VideoFrame.from_ndarray(_with_palette(array, alpha), "pal8")
        if alpha is not None and picture.pixel_format == picture.codec.alpha:
            array = np.concatenate([array, alpha.numpy()[..., None]], -1)
        frame = av.VideoFrame.from_ndarray(array, "rgba" if array.shape[-1] == 4 else "rgb24")
        if not picture.is_yuv:
            return self._reformatter.reformat(frame, format=picture.pixel_format, threads=1)
        return self._reformatter.reformat(
            frame,
            format=picture.pixel_format,
            dst_colorspace=matrix_of(picture.colors, picture.height),
            dst_color_range=2 if picture.colors.full_range else 1,
            interpolation=SCALING,
            threads=1,
        )

    def _black(self) -> bytes:
        av = require_av()
        picture = self._picture
        palette = np.zeros((256, 4), np.uint8)
        palette[:, 0] = 255
        black = np.zeros((picture.height, picture.width), np.uint8)
        frame = av.VideoFrame.from_ndarray((black, palette), "pal8")
        frame.pts, frame.time_base = -1, picture.time_base
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


def _with_palette(
    array: np.ndarray[Any, Any], alpha: Tensor | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return indices, and the frame's own table of (alpha, R, G, B)."""
    image = Image.fromarray(array).quantize(
        _TRANSPARENT, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG
    )
    colors = np.array(image.getpalette(), np.uint8).reshape(-1, 3)[:_TRANSPARENT]
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(colors), 1:] = colors
    palette[:, 0] = 255
    indices = np.array(image)
    if alpha is not None:
        indices[alpha.numpy() < 128] = _TRANSPARENT
        palette[_TRANSPARENT] = 0
    return indices, palette
