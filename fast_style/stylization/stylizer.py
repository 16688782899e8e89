"""Stylizing: one forward pass of a trained network over any photo, of any size.

What a person may want to vary, how strong, which colours, how large the strokes, is done here,
strip by strip like the network itself.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fast_style.checkpoints.files import Model, find_model, load_model
from fast_style.devices import (
    Arriving,
    Precision,
    available_memory,
    is_memory_error,
    release_cached_memory,
    resolve_device,
    resolve_precision,
)
from fast_style.errors import UserError
from fast_style.images import (
    Picture,
    check_fits,
    fill_transparent,
    format_of,
    from_float,
    from_linear_light,
    read_picture,
    resize,
    scaled_size,
    set_depth,
    to_float,
    to_linear_light,
    write_picture,
)
from fast_style.networks.streaming import EDGE_PIXELS, Edge, StreamingTransformer, Wrap
from fast_style.networks.strips import on_device
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization.arrays import (
    Given,
    from_array,
    from_pillow,
    from_tensor,
    refusal,
    to_array,
    to_pillow,
    to_tensor,
)
from fast_style.stylization.looks import Recolor, in_bands, like, upsample_along_edges, with_luma_of
from fast_style.stylization.masks import blended, fitted
from fast_style.stylization.wrapping import anchor, joined_size, resize_around, rolled, unrolled

if TYPE_CHECKING:
    from typing_extensions import Self

# Whatever a network can be taken from.
Source = TransformerNet | Model | str | Path | bytes | BinaryIO
Tile = Literal["auto", "off"] | int
PreserveColor = Literal["off", "luma", "histogram"]

# Bytes a pixel and channel of width, float32, that the maps at full resolution take when held.
_HELD_BYTES = 8
# The most bytes of such maps that are held on a CPU, which saves an eighth of the time.
_MOST_HELD = 1 << 30
# The rows of a strip after an image has not fit into memory.
_FEWEST_ROWS = 64

log = logging.getLogger(__name__)


class Stylizer:
    """Applies a trained network to images: `Stylizer("wave")(image)`.

    `network` may be a network, a model that is loaded, its path or name (see `find_model`), or the
    bytes or the binary stream of its file.
    `tile`: "auto" holds all feature maps of images to some megapixels and little more than 64 bytes
    a pixel above, "off" runs the whole image at once, a number is the height of a strip in pixels.
    The picture is the same.
    `strength` blends with the photo, in linear light; 1 is the stylized image alone.
    `preserve_color`: "luma" keeps the photo's chroma; "histogram" gives the result the photo's mean
    colour and covariance (Gatys et al. 2016, arXiv:1606.05897, section 4).
    `size` stylizes (and returns) the image at this long edge. `stroke_scale` S makes strokes S
    times larger: it stylizes at 1/S of the size, enlarges the result, and sharpens the photo's
    edges again.
    `edge`: "reflect" mirrors the image around itself before the network and cuts that off after, so
    that no frame is drawn; "none" leaves the network's own edges.
    `wrap`: "x" joins the left and the right, as in a panorama of 360 degrees, "xy" the top and the
    bottom too, as in a texture: no seam is seen where they meet. An image that is rolled by a
    multiple of 4 pixels gives the rolled result, to the bit.
    Raises ValueError for an impossible value, CheckpointError for a model that cannot be loaded.
    """

    def __init__(
        self,
        network: Source,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        tile: Tile = "auto",
        strength: float = 1.0,
        preserve_color: PreserveColor = "off",
        size: int | None = None,
        stroke_scale: float = 1.0,
        edge: Edge = "reflect",
        wrap: Wrap = "off",
    ) -> None:
        if not _is_between(strength, 0, 1):
            raise UserError(f"strength {strength!r} is impossible: it must be between 0 and 1")
        if preserve_color not in ("off", "luma", "histogram"):
            raise UserError(f"preserve_color {preserve_color!r}: use off, luma or histogram")
        if not _is_between(stroke_scale, 0.1, 64):
            raise UserError(f"stroke_scale {stroke_scale!r} is impossible: use 0.1 to 64")
        if size is not None and not _is_between(size, 1, sys.maxsize):
            raise UserError(f"size {size!r} is impossible: it must be at least 1")
        if tile not in ("auto", "off") and not (isinstance(tile, int) and tile >= 1):
            raise UserError(f"tile {tile!r}: use auto, off, or a strip's height in pixels")
        if edge not in get_args(Edge):
            raise UserError(f"edge {edge!r}: use reflect or none")
        if wrap not in get_args(Wrap):
            raise UserError(f"wrap {wrap!r}: use off, x or xy")
        self.device = resolve_device(device)
        dtype = resolve_precision(precision, self.device)
        loaded = _load(network)
        self._network = StreamingTransformer(
            loaded, dtype=dtype, device=self.device, edge=edge, wrap=wrap
        )
        self._bytes_per_pixel = _HELD_BYTES * loaded.width * dtype.itemsize / 4
        self._name = _name(network, loaded)
        self._precision = precision
        self._edge = edge
        self._wrap: Wrap = wrap
        self._tile: Tile = tile
        self._strength = strength
        self._preserve_color = preserve_color
        self._size = size
        self._stroke_scale = stroke_scale

    @classmethod
    def load(cls, network: Source, **keywords: Any) -> "Self":
        """Return `cls(network, **keywords)`, as when the class, or a subclass, is called."""
        return cls(network, **keywords)

    def __repr__(self) -> str:
        parts = [self._name, f"device={str(self.device)!r}"]
        for name, keyword in signature(Stylizer).parameters.items():
            # The network and the device are named already.
            value = getattr(self, f"_{name}", keyword.default)
            if name != "network" and value != keyword.default:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __call__(self, image: Given, *, mask: Tensor | None = None) -> Given:
        """Stylize an image, and return the same kind: its size, or that of `size`.

        A tensor (..., 3, H, W) or a numpy array (..., H, W, 3), uint8, uint16, or float in [0, 1];
        a batch is stylized one by one. Or a Pillow image, whose alpha is kept; it becomes RGB or
        RGBA, and is taken as it lies: `PIL.ImageOps.exif_transpose` turns it, files are turned as
        they are read. `mask` (h, w) in [0, 1], of the image's size or scaled to it, is 1 where the
        style is wanted and 0 where the photo stays, to the bit. Raises TypeError or ValueError for
        what is no such image, MaskError for a mask of other proportions.
        """
        if isinstance(image, Image.Image):
            return to_pillow(stylize_picture(self, from_pillow(image), mask=mask), like=image)
        if isinstance(image, np.ndarray):
            return to_array(self._stylize_all(from_array(image), mask), like=image)
        if isinstance(image, Tensor):
            return to_tensor(self._stylize_all(from_tensor(image), mask), like=image)
        raise refusal(image)

    def _stylize_all(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        images = pixels.reshape(-1, *pixels.shape[-3:])
        # Integers would be stylized in place.
        stylized = torch.stack(
            [self._stylize(one if one.is_floating_point() else one.clone(), mask) for one in images]
        )
        return stylized.reshape(*pixels.shape[:-2], *stylized.shape[-2:])

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the output's (height, width) for an input of `height` x `width`."""
        return scaled_size(height, width, long_edge=self._size or 0)

    def stylize_pixels(self, pixels: Tensor) -> Tensor:
        """(3, H, W) uint8 or uint16 -> the same type; where the size stays, in place.

        Integers take a quarter of the memory of floats, which matters for large files.
        """
        return self._stylize(pixels)

    @torch.inference_mode()
    def begin(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Iterator[slice]]:
        """Return the output of `stylize_pixels`, and spans of its rows, from the top, as they end.

        The rows are stylized while the spans are iterated over. `mask`: see `__call__`.
        """
        size = self.output_size(*image.shape[-2:])
        weights = None if mask is None else fitted(mask, image.shape[-2:], size)
        if image.shape[-2:] != size:
            image = like(self._resize(to_float(image), *size), image)
        shift = (0, 0)
        if self._wrap != "off":
            shift = anchor(image, rows=self._wrap == "xy")
            image = rolled(image, shift)
            weights = None if weights is None else rolled(weights, shift)
        # Histogram matching comes back to the photo when the whole result is known.
        in_place = not image.is_floating_point() and self._preserve_color != "histogram"
        output = image if in_place else torch.empty_like(image)
        if self.device.type == "cpu":
            rows = self._rows(image, output, weights)
        else:
            rows = self._rows_from_device(image, output, weights)
        return output, unrolled(output, rows, shift)

    @torch.inference_mode()
    def _rows(self, image: Tensor, output: Tensor, mask: Tensor | None) -> Iterator[slice]:
        """Stylize `image` into `output`, which is where it is; yield spans of rows as they end."""
        recolor = Recolor(image) if self._preserve_color == "histogram" else None
        for first, strip in self._strips(image):
            rows = slice(first, first + strip.shape[-2])
            weights = None if mask is None else mask[rows]
            finished = self._finish(image[:, rows], strip.to(image.device), weights)
            output[:, rows] = like(finished, image)
            if not recolor:
                yield rows
        if recolor:
            recolor.apply(output, image, self._blend, mask)
            yield slice(0, output.shape[-2])

    @torch.inference_mode()
    def _rows_from_device(
        self, image: Tensor, output: Tensor, mask: Tensor | None
    ) -> Iterator[slice]:
        """Do what `_rows` does on a GPU: the photo goes there once, the rows come back finished."""
        photo = on_device(image, self.device)
        weights = None if mask is None else on_device(mask, self.device)
        there = torch.empty_like(photo)
        arriving: list[tuple[slice, Arriving]] = []
        for rows in self._rows(photo, there, weights):
            if image.device.type == "cpu":
                arriving.append((rows, Arriving(there[:, rows])))
            else:
                output[:, rows] = like(there[:, rows], output)
                yield rows
            if len(arriving) > 1:  # while the GPU works at the next rows
                yield self._arrived(*arriving.pop(0), output)
        for rows, strip in arriving:
            yield self._arrived(rows, strip, output)

    def _arrived(self, rows: slice, strip: Arriving, output: Tensor) -> slice:
        output[:, rows] = like(strip.wait(), output)
        return rows

    def _stylize(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        output, rows = self.begin(image, mask)
        for _ in rows:
            pass
        return output

    def _finish(self, photo: Tensor, stylized: Tensor, mask: Tensor | None) -> Tensor:
        """Return the stylized image in [0, 1] with the colours and the strength asked for."""
        stylized = stylized.clamp(0, 1)
        if self._preserve_color == "histogram":
            return stylized
        if self._preserve_color == "luma":
            stylized = with_luma_of(stylized, to_float(photo))
        return self._blend(photo, stylized, mask)

    def _blend(self, photo: Tensor, stylized: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return blended(to_float(photo), stylized, mask * self._strength)
        if self._strength == 1:
            return stylized
        both = to_linear_light(to_float(photo)), to_linear_light(stylized)
        return from_linear_light(torch.lerp(*both, self._strength))

    def _resize(self, image: Tensor, height: int, width: int) -> Tensor:
        if self._wrap == "off":
            return resize(image, height, width)
        return resize_around(image, height, width, rows=self._wrap == "xy")

    def _strips(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Stylize at the size that `stroke_scale` asks for; yield strips at the image's size."""
        height, width = image.shape[-2:]
        small = [max(1, round(edge / self._stroke_scale)) for edge in (height, width)]
        if self._wrap != "off":
            # The network's own steps have to meet where the picture does.
            small = joined_size(*small, rows=self._wrap == "xy")
        if self._stroke_scale == 1 and small == [height, width]:
            yield from self._run(image)
            return
        content = self._resize(to_float(image), *small)
        stylized = torch.empty_like(content)
        for first, strip in self._run(content):
            stylized[:, first : first + strip.shape[1]] = strip.clamp(0, 1)
        if self._stroke_scale > 1:
            yield from upsample_along_edges(stylized, content, image, wrap=self._wrap)
        else:  # then the stylized image is the larger one, and lacks no detail of the photo
            yield from in_bands(self._resize(stylized, height, width))

    def _run(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Run the network; where memory does not suffice, once more with less of it."""
        strips = self._network.strips(image, **self._most(image))
        first = None
        try:
            first = next(strips)
        except Exception as error:
            if isinstance(self._tile, int) or not is_memory_error(error):
                raise
        # Only here, outside of `except`, is what the error refers to gone.
        if first is None:
            release_cached_memory(self.device)
            log.info("too little memory for the image at once: it is stylized in narrower strips")
            strips = self._network.strips(image, height=_FEWEST_ROWS, recompute=True)
            first = next(strips)
        yield first
        yield from strips

    def _most(self, image: Tensor) -> dict[str, Any]:
        """Return how to run the network: in what strips, and whether to compute maps again."""
        rows, columns = image.shape[-2:]
        if isinstance(self._tile, int):
            return {"height": self._tile, "recompute": True}
        if self._tile == "off":
            return {"height": rows + 2 * EDGE_PIXELS}
        held = rows * columns * self._bytes_per_pixel
        most = available_memory(self.device) / 2
        if self.device.type == "cpu":
            most = min(_MOST_HELD, most)
        return {"recompute": held > most}


def _is_between(value: object, least: float, most: float) -> bool:
    return isinstance(value, Real) and least <= float(value) <= most


def _load(source: Source) -> TransformerNet:
    if isinstance(source, TransformerNet):
        return source
    if isinstance(source, str | Path):
        source = find_model(source)
    return (source if isinstance(source, Model) else load_model(source)).network


def _name(source: Source, network: TransformerNet) -> str:
    """Return a network's name for messages: as it was named, or a description of it."""
    if isinstance(source, str | Path):
        return repr(str(source))
    if isinstance(source, Model) and "name" in source.metadata:
        return f"<model {source.metadata['name']!r}>"
    return f"<{type(network).__name__} of width {network.width}>"


def stylize_picture(stylizer: Stylizer, picture: Picture, *, mask: Tensor | None = None) -> Picture:
    """Stylize a picture, whose transparency stays; `picture` itself may be overwritten.

    Invisible pixels first take the colours of the visible ones around them. `mask`: see `Stylizer`.
    """
    stylized, rows = begin_picture(stylizer, picture, mask=mask)
    for _ in rows:
        pass
    return stylized


def begin_picture(
    stylizer: Stylizer, picture: Picture, *, mask: Tensor | None = None
) -> tuple[Picture, Iterator[slice]]:
    """Return the output of `stylize_picture`, and spans of its rows: see `Stylizer.begin`."""
    if picture.alpha is not None:
        fill_transparent(picture.pixels, picture.alpha)
    pixels, rows = stylizer.begin(picture.pixels, mask)
    alpha = picture.alpha
    if alpha is not None and alpha.shape != pixels.shape[-2:]:
        alpha = from_float(resize(to_float(alpha)[None], *pixels.shape[-2:])[0], alpha.dtype)
    return replace(picture, pixels=pixels, alpha=alpha), rows


def stylize_file(
    stylizer: Stylizer,
    path: str | Path,
    output: str | Path,
    *,
    quality: int = 95,
    depth: Literal[8, 16] | None = None,
    keep_metadata: bool = False,
    mask: Tensor | None = None,
) -> Path:
    """Stylize an image file into another: any size, with its depth and transparency.

    `depth` is in bits a channel; by default a 16-bit file stays one where its format can (see
    `write_picture` for the rest). `mask`: see `Stylizer`; `load_mask` reads one. Raises ImageError.
    """
    output = Path(output)
    file_format = format_of(output)
    picture = read_picture(path)
    check_fits(output, file_format, *stylizer.output_size(*picture.pixels.shape[-2:]))
    if depth:
        picture = set_depth(picture, depth)
    stylized, rows = begin_picture(stylizer, picture, mask=mask)
    write_picture(
        stylized,
        output,
        file_format=file_format,
        quality=quality,
        keep_metadata=keep_metadata,
        ready=rows,
    )
    return output
