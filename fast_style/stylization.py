"""Stylizing: one forward pass of a trained network over any photo, of any size.

What a person may want to vary, how strong, which colours, how large the strokes, is done here,
strip by strip like the network itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fast_style.checkpoint import find_model, load_model
from fast_style.devices import Precision, available_memory, resolve_device, resolve_precision
from fast_style.images import (
    Picture,
    fill_transparent,
    format_of,
    from_float,
    from_linear_light,
    read_picture,
    resize,
    resize_long_edge,
    set_depth,
    to_float,
    to_linear_light,
    write_picture,
)
from fast_style.networks.streaming import StreamingTransformer
from fast_style.networks.transformer import TransformerNet

Tile = Literal["auto", "off"] | int
PreserveColor = Literal["off", "luma", "histogram"]

# Bytes a pixel and channel of width, float32, that the maps at full resolution take when held.
_HELD_BYTES = 8
# Holding them saves an eighth of the time; above so many bytes, memory is worth more.
_MOST_HELD = 1 << 30
# BT.601, in which JPEG separates luma from chroma.
_LUMA = (0.299, 0.587, 0.114)


class Stylizer:
    """Applies a trained network to images: `Stylizer.load("wave")(image)`.

    `tile`: "auto" holds all feature maps of images to some megapixels and little more than 64 bytes
    a pixel above, "off" runs the whole image at once, a number is the height of a strip in pixels.
    All give the same picture.
    `strength` blends with the photo, in linear light; 1 is the stylized image alone.
    `preserve_color`: "luma" keeps the photo's chroma; "histogram" gives the result the photo's mean
    colour and covariance (Gatys et al. 2016, arXiv:1606.05897, section 4).
    `size` stylizes (and returns) the image at this long edge. `stroke_scale` S makes strokes S
    times larger: it stylizes at 1/S of the size and carries the result up along the photo's edges.
    Raises ValueError for an impossible value.
    """

    def __init__(
        self,
        network: TransformerNet,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        tile: Tile = "auto",
        strength: float = 1.0,
        preserve_color: PreserveColor = "off",
        size: int | None = None,
        stroke_scale: float = 1.0,
    ) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength} is impossible: it must be between 0 and 1")
        if preserve_color not in ("off", "luma", "histogram"):
            raise ValueError(f"preserve_color {preserve_color!r}: use off, luma or histogram")
        if not 0.1 <= stroke_scale <= 64:
            raise ValueError(f"stroke_scale {stroke_scale} is impossible: use 0.1 to 64")
        if size is not None and size < 1:
            raise ValueError(f"size {size} is impossible: it must be at least 1")
        if tile not in ("auto", "off") and not (isinstance(tile, int) and tile >= 1):
            raise ValueError(f"tile {tile!r}: use auto, off, or a strip's height in pixels")
        self.device = resolve_device(device)
        dtype = resolve_precision(precision, self.device)
        self._network = StreamingTransformer(network, dtype=dtype, device=self.device)
        self._bytes_per_pixel = _HELD_BYTES * network.width * dtype.itemsize / 4
        self._tile: Tile = tile
        self._strength = strength
        self._preserve_color = preserve_color
        self._size = size
        self._stroke_scale = stroke_scale

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        tile: Tile = "auto",
        strength: float = 1.0,
        preserve_color: PreserveColor = "off",
        size: int | None = None,
        stroke_scale: float = 1.0,
    ) -> "Stylizer":
        """Build one from a model's path or name (see `find_model`). Raises CheckpointError."""
        return cls(
            load_model(find_model(model)).network,
            device=device,
            precision=precision,
            tile=tile,
            strength=strength,
            preserve_color=preserve_color,
            size=size,
            stroke_scale=stroke_scale,
        )

    def __call__(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] -> the same shape in [0, 1], or that of `size`."""
        images = image.reshape(-1, *image.shape[-3:])
        stylized = torch.stack([self._stylize(one.float()) for one in images])
        return stylized.reshape(*image.shape[:-2], *stylized.shape[-2:])

    def stylize_pixels(self, pixels: Tensor) -> Tensor:
        """(3, H, W) uint8 or uint16 -> the same type; where the size stays, in place.

        Integers take a quarter of the memory of floats: it is the way for large files.
        """
        return self._stylize(pixels)

    @torch.inference_mode()
    def _stylize(self, image: Tensor) -> Tensor:
        if self._size is not None and max(image.shape[-2:]) != self._size:
            as_float = image if image.is_floating_point() else to_float(image)
            image = _like(resize_long_edge(as_float, self._size), image)
        recolor = _Recolor(image) if self._preserve_color == "histogram" else None
        # Histogram matching comes back to the photo when the whole result is known.
        in_place = not image.is_floating_point() and recolor is None
        output = image if in_place else torch.empty_like(image)
        for first, strip in self._strips(image):
            rows = slice(first, first + strip.shape[-2])
            content = image[:, rows]
            content = content if content.is_floating_point() else to_float(content)
            strip = strip.to(content.device)
            output[:, rows] = _like(self._finish(content, strip), image)
        if recolor:
            recolor.apply(output, image, self._blend)
        return output

    def _finish(self, content: Tensor, stylized: Tensor) -> Tensor:
        stylized = stylized.clamp(0, 1)
        if self._preserve_color == "histogram":
            return stylized
        if self._preserve_color == "luma":
            stylized = _with_luma_of(stylized, content)
        return self._blend(content, stylized)

    def _blend(self, content: Tensor, stylized: Tensor) -> Tensor:
        if self._strength == 1:
            return stylized
        both = to_linear_light(content), to_linear_light(stylized)
        return from_linear_light(torch.lerp(*both, self._strength))

    def _strips(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Stylize at the size that the strokes ask for; yield strips at the image's own."""
        if self._stroke_scale == 1:
            yield from self._run(image)
            return
        height, width = image.shape[-2:]
        small = [max(1, round(edge / self._stroke_scale)) for edge in (height, width)]
        content = resize(image if image.is_floating_point() else to_float(image), *small)
        stylized = torch.cat([strip.to(image.device) for _, strip in self._run(content)], 1)
        yield from _upsample_along_edges(stylized, content, image)

    def _run(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        rows, columns = image.shape[-2:]
        if isinstance(self._tile, int):
            return self._network.strips(image, height=self._tile, recompute=True)
        if self._tile == "off":
            return self._network.strips(image, height=rows)
        held = rows * columns * self._bytes_per_pixel
        most = min(_MOST_HELD, available_memory(self.device) / 2)
        return self._network.strips(image, recompute=held > most)


def stylize_picture(stylizer: Stylizer, picture: Picture) -> Picture:
    """Stylize what an image file holds; its transparency stays. `picture` is used up.

    Invisible pixels are first given colors of the visible ones around them.
    """
    if picture.alpha is not None:
        fill_transparent(picture.pixels, picture.alpha)
    pixels = stylizer.stylize_pixels(picture.pixels)
    alpha = picture.alpha
    if alpha is not None and alpha.shape != pixels.shape[-2:]:
        alpha = from_float(resize(to_float(alpha)[None], *pixels.shape[-2:])[0], alpha.dtype)
    return replace(picture, pixels=pixels, alpha=alpha)


def stylize_file(
    stylizer: Stylizer,
    path: str | Path,
    output: str | Path,
    *,
    quality: int = 95,
    depth: Literal[8, 16] | None = None,
    keep_metadata: bool = False,
) -> Path:
    """Stylize an image file into another: any size, with its depth and transparency.

    `depth` is in bits a channel; by default a 16-bit file stays one where its format can (see
    `write_picture` for the rest). Raises ImageError.
    """
    output = Path(output)
    file_format = format_of(output)
    picture = read_picture(path)
    if depth:
        picture = set_depth(picture, depth)
    stylized = stylize_picture(stylizer, picture)
    write_picture(
        stylized, output, file_format=file_format, quality=quality, keep_metadata=keep_metadata
    )
    return output


def _like(values: Tensor, image: Tensor) -> Tensor:
    """Give floats in [0, 1] the type of `image`."""
    return values if image.is_floating_point() else from_float(values, image.dtype)


def _with_luma_of(stylized: Tensor, content: Tensor) -> Tensor:
    """Give the content's chroma the stylized image's luma.

    Adding the same to R, G and B changes luma alone.
    """
    weights = stylized.new_tensor(_LUMA)[:, None, None]
    change = ((stylized - content) * weights).sum(-3, keepdim=True)
    return (content + change).clamp(0, 1)


class _Recolor:
    """Linear colour transfer: gives an image the mean and covariance of another's pixels."""

    def __init__(self, content: Tensor) -> None:
        self._mean, self._covariance = _color_moments(content)

    def apply(
        self, output: Tensor, content: Tensor, blend: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        mean, covariance = _color_moments(output)
        transform = _square_root(self._covariance) @ _square_root(covariance, inverse=True)
        offset = self._mean - transform @ mean
        for rows in torch.arange(output.shape[-2]).split(256):
            span = slice(int(rows[0]), int(rows[-1]) + 1)
            pixels, photo = (
                part if part.is_floating_point() else to_float(part)
                for part in (output[:, span], content[:, span])
            )
            moved = torch.einsum("ij,jhw->ihw", transform.float(), pixels)
            moved = (moved + offset.float()[:, None, None]).clamp(0, 1)
            output[:, span] = _like(blend(photo, moved), output)


def _color_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """(3, H, W) -> mean (3) and covariance (3, 3) of its pixels, float64."""
    total, products = torch.zeros(3).double(), torch.zeros(3, 3).double()
    for rows in image.split(256, dim=-2):
        pixels = (rows if rows.is_floating_point() else to_float(rows)).flatten(1).cpu().double()
        total += pixels.sum(1)
        products += pixels @ pixels.T
    count = image.shape[-1] * image.shape[-2]
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


def _square_root(covariance: Tensor, *, inverse: bool = False) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=1e-6).sqrt()
    return vectors @ torch.diag(1 / values if inverse else values) @ vectors.T


def _upsample_along_edges(
    stylized: Tensor, content: Tensor, image: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Carry (3, h, w) up to the size of `image`, whose small version is `content`, in strips.

    A guided filter (He & Sun 2015, arXiv:1505.00996): where the small image is fitted, in each
    small window, as a linear function of the small photo's luma, the same function of the large
    photo's luma has its edges.
    """
    weights = content.new_tensor(_LUMA)[:, None, None]
    guide = (content * weights).sum(0, keepdim=True)
    slope, intercept = _fit_locally(guide, stylized)
    height, width = image.shape[-2:]
    small = stylized.shape[-2]
    for first in range(0, height, 256):
        last = min(first + 256, height)
        # Bilinear upsampling of these rows reads the small rows around their centres.
        ratio = small / height
        top = max(0, int((first + 0.5) * ratio - 0.5) - 1)
        bottom = min(small, int((last + 0.5) * ratio - 0.5) + 3)
        rows = torch.arange(first, last, device=stylized.device)
        y = ((rows + 0.5) * ratio - 0.5 - top).clamp(0, bottom - top - 1)
        photo = image[:, first:last]
        photo = photo if photo.is_floating_point() else to_float(photo)
        luma = (photo * weights).sum(0, keepdim=True)
        maps = torch.cat([slope, intercept])[:, top:bottom]
        across = torch.nn.functional.interpolate(
            maps[None], (bottom - top, width), mode="bilinear", align_corners=False
        )[0]
        above = y.floor().long().clamp(max=bottom - top - 1)
        below = (above + 1).clamp(max=bottom - top - 1)
        maps = torch.lerp(across[:, above], across[:, below], (y - above)[None, :, None])
        yield first, maps[:3] * luma + maps[3:]


def _fit_locally(
    guide: Tensor, image: Tensor, *, radius: int = 4, eps: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Fit image = slope * guide + intercept by least squares in windows of 2 radius + 1 pixels."""

    def mean(x: Tensor) -> Tensor:
        window = 2 * radius + 1
        return torch.nn.functional.avg_pool2d(
            x[None], window, stride=1, padding=radius, count_include_pad=False
        )[0]

    guide_mean, image_mean = mean(guide), mean(image)
    covariance = mean(guide * image) - guide_mean * image_mean
    variance = mean(guide * guide) - guide_mean.square()
    slope = covariance / (variance + eps)
    return mean(slope), mean(image_mean - slope * guide_mean)
