"""The transformer network over an image of any size: exact, in bounded memory, and fast.

An instance norm needs the mean and variance of the whole feature map before the next layer can
begin, so tiles that are stylized apart differ from the whole image. Here each layer runs over the
whole image before the next one does, in strips of rows: a convolution over a strip and the rows
around it has the very numbers of a convolution over the image, and statistics are merged from
chunks of rows. What must be held is the trunk, the feature maps at a quarter of the edge, twice:
64 bytes an input pixel in float32, 32 in bfloat16 (at width 32). The maps at full resolution need
not be held: their strips can be computed again where they are needed.

The algebra is rewritten where that is exact. With `a` and `b` the scale and the shift of an
instance norm on its input, norm and ReLU are

    relu(a x + b) = a (max(x, t) - t),    t = -b / a,    for a > 0

so a single `max` is all that a strip goes through: `a` moves into the next convolution's kernel and
`t` into its bias. (A negative `a` is made positive by negating the convolution before it.) On the
residual stream `a (x - t)` is added as `a x`; the missing constant `-a t` is added to the bias of
the next convolution.

A trained network draws a frame, a bright or dark line along the image's edge. So the image goes on
beyond its edges, mirrored, and what the network makes of those rows and columns is cut off, and the
frame with them. The border is only looked up: no padded image is made.

A picture that goes around, a panorama or a texture, has no edge there: every layer reads on at the
other side instead, in place of the border that it would make.

`strips` cuts the image, `strip_math` computes on a strip, `maps` holds what all strips become.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fast_style.devices import available_memory, exact_device, items_with_tf32
from fast_style.networks.maps import Layer, Maps, Normalization, ResidualStream
from fast_style.networks.patch import PatchNet
from fast_style.networks.strip_math import Border, channels_last, convolve, like, to_space
from fast_style.networks.strips import Around, Chunks, ImageRows, Plan, Strip
from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    TransformerNet,
    UpsampleBlock,
    stride_padding,
    two_by_two_kernel,
    upsample_kernel,
)

# The fewest pixels of a strip. Smaller ones would save no memory worth having, and libraries choose
# other convolution kernels for them, which round differently; the maps of much larger ones do not
# stay in a CPU's cache from one operation to the next.
_STRIP_PIXELS = 1 << 17
# In images of more than _HUGE_PIXELS a strip's maps have _HUGE_BYTES: blocks of that size go back
# to the system at once (`memory.keep_freed_memory`); in the heap, between the maps that are held,
# they would leave holes of a tenth of it.
_HUGE_PIXELS = 1 << 26
_HUGE_BYTES = 1 << 25
# A GPU has no such cache, and each operation is a launch that costs the same for any size: its
# strips have this many pixels, or fewer where half of its free memory would not hold six float32
# maps of a strip, which are about what there is between two held ones.
_GPU_STRIP_PIXELS = 1 << 23
_GPU_STRIP_MAPS = 6

# How far an image goes on beyond its edges: 16 pixels do no better.
EDGE_PIXELS = 8

Edge = Literal["reflect", "none"]
Wrap = Literal["off", "x", "xy"]


class StreamingTransformer:
    """Applies a trained `TransformerNet` to one image of any size, strip by strip.

    `dtype` is that of the feature maps; the first convolution is float32 and statistics are merged
    in float64, on the CPU where the device has none. `edge`: "none" yields the network's own result
    up to rounding; "reflect" its result for the image with 8 mirrored pixels around it, which are
    cut off again. `wrap`: "x" joins the left and the right of the image, "xy" the top and the
    bottom too; an edge that is joined must be a multiple of 4, and at least 8.
    """

    def __init__(
        self,
        network: TransformerNet,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        edge: Edge = "reflect",
        wrap: Wrap = "off",
    ) -> None:
        self.dtype = dtype
        beyond = EDGE_PIXELS if edge == "reflect" else 0
        self._around = Around(rows="y" in wrap, columns="x" in wrap)
        # Rows above and below the image, and columns beside it, that are cut off again.
        self._edges = (
            0 if self._around.rows else beyond,
            0 if self._around.columns else beyond,
        )
        self.device = device or torch.device("cpu")
        self._exact = exact_device(self.device)
        self._width = network.width
        # nn.Sequential is not annotated with what it holds.
        encoder = cast(Iterable[ConvBlock], network.encoder)
        residual_blocks = cast(Iterable[ResidualBlock], network.residual_blocks)
        decoder = cast(Iterable[UpsampleBlock], network.decoder)
        self._encoder = [self._layer(block.conv, block.norm) for block in encoder]
        self._residual_blocks = [
            (self._layer(block.conv1, block.norm1), self._layer(block.conv2, block.norm2))
            for block in residual_blocks
        ]
        upsampling = network.upsampling
        self._decoder_border: Border = "replicate" if upsampling == "nearest" else "zeros"
        rewrite = partial(upsample_kernel, upsampling=upsampling)
        self._decoder = [self._layer(block.conv, block.norm, rewrite) for block in decoder]
        # Both heads give squares of 2x2 pixels: from a map at full resolution, or at half of it.
        if isinstance(network, PatchNet):
            self._head = self._layer(network.head, None)
        else:
            self._head = self._layer(network.head, None, two_by_two_kernel, stride=2)

    def strips(
        self, image: Tensor, *, height: int | None = None, recompute: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, (3, h, W) float32 RGB, about [0, 1]) from the top to the bottom.

        `image` is (3, H, W): floats in [0, 1], or integers as a file holds them. It is not read any
        more once the first strip has come, so its rows may then be overwritten. `height` is that of
        a strip in rows of the image and of what is around it, rounded up to 131,072 pixels (32 MB
        of maps in huge images) and whole chunks; it changes no number on a CPU. By default it is
        the least there, and on a GPU what its memory allows. `recompute` computes the maps at full
        resolution twice instead of holding them.
        """
        strips = self._strips(image, height, recompute)
        return items_with_tf32(strips, self.device, allowed=False)

    @torch.inference_mode()
    def _strips(
        self, image: Tensor, height: int | None, recompute: bool
    ) -> Iterator[tuple[int, Tensor]]:
        edge, side = self._edges
        rows, columns = image.shape[-2] + 2 * edge, image.shape[-1] + 2 * side
        for size, joined in ((rows, self._around.rows), (columns, self._around.columns)):
            if joined and stride_padding(size)[0]:
                raise ValueError(f"an edge of {size} pixels is joined: use a multiple of 4, from 8")
        plan = Plan(rows, columns, height, least=self._least_pixels(rows * columns, height))
        chunks = Chunks.of(plan, self._exact)
        trunk = self._residual(self._encode(image, plan, chunks, recompute))
        for i, strip in enumerate(self._decode(trunk, recompute)):
            first, last = plan.rows(i)
            # A strip of a wide image may hold nothing but what is around it.
            top, bottom = max(first, edge), min(last, rows - edge)
            if top < bottom:
                visible = strip[top - first : bottom - first, side : columns - side]
                yield top - edge, visible.permute(2, 0, 1)

    def _least_pixels(self, pixels: int, height: int | None) -> int:
        """Return the fewest pixels of a strip, for an image of `pixels`."""
        if self.device.type != "cpu":
            if height is not None:
                return _STRIP_PIXELS
            most = available_memory(self.device) // (2 * _GPU_STRIP_MAPS * 4 * self._width)
            return max(_STRIP_PIXELS, min(_GPU_STRIP_PIXELS, most))
        if pixels > _HUGE_PIXELS:
            return max(_STRIP_PIXELS, _HUGE_BYTES // (self._width * self.dtype.itemsize))
        return _STRIP_PIXELS

    def _layer(
        self,
        conv: nn.Conv2d,
        norm: InstanceNorm | None,
        rewrite: Callable[[Tensor], Tensor] = lambda kernel: kernel,
        *,
        stride: int | None = None,
    ) -> "Layer":
        kernel = conv.weight.detach().to(self._exact, torch.float64)
        if norm is None:
            assert conv.bias is not None
            bias = conv.bias.detach().to(self._exact, torch.float64)
            kernel = channels_last(rewrite(kernel * OUTPUT_SCALE)).to(self.device)
            return Layer(kernel=kernel, stride=stride or 1, bias=bias * OUTPUT_SCALE)
        gamma = norm.weight.detach().to(self._exact, torch.float64)
        beta = norm.bias.detach().to(self._exact, torch.float64)
        kernel = kernel * torch.where(gamma < 0, -1.0, 1.0)[:, None, None, None]
        return Layer(
            kernel=channels_last(rewrite(kernel)).to(self.device),
            stride=conv.stride[0],
            # A channel whose scale is 0 takes part in the algebra with a tiny one.
            gamma=gamma.abs().clamp(min=1e-8),
            beta=beta,
            eps=norm.eps,
        )

    def _encode(
        self, image: Tensor, plan: "Plan", chunks: "Chunks", recompute: bool
    ) -> "ResidualStream":
        """Run the encoder; return the residual stream at a quarter of the edge."""
        first, *others = self._encoder
        rows = ImageRows(image, plan, self.device, edges=self._edges, around=self._around)
        # A first layer that is the only one makes the trunk, which is held in the maps' type.
        dtype = torch.float32 if others else self.dtype
        maps = Maps(
            lambda i: convolve(rows.strip(i), first.kernel, stride=first.stride).to(dtype),
            len(plan),
            around=self._around,
            chunks=chunks.times(1 / first.stride),
            hold=not (recompute and others),
        )
        norm = maps.normalization(first)
        for layer in others:
            maps = self._after(maps, norm, layer, margin=(1, 0))
            norm = maps.normalization(layer)
        return ResidualStream.from_maps(maps, norm, around=self._around)

    def _residual(self, stream: "ResidualStream") -> "ResidualStream":
        """Run the residual blocks; each branch is added while the next block reads the stream."""
        for layer1, layer2 in self._residual_blocks:
            kernel, bias = layer1.folded(stream.offset, self.dtype)
            read = partial(_read, stream, kernel, bias)
            branch = Maps(read, len(stream), around=self._around, chunks=stream.chunks)
            norm = branch.normalization(layer1)
            branch = self._after(branch, norm, layer2, margin=(1, 1))
            stream.add_later(branch, branch.normalization(layer2))
        return stream

    def _decode(self, stream: "ResidualStream", recompute: bool) -> Iterator[Strip]:
        """Run the decoder and the head."""
        (first, *others), border = self._decoder, self._decoder_border
        kernel, bias = first.folded(stream.offset, self.dtype)
        half = Maps(
            lambda i: to_space(convolve(stream.take(i, border), kernel, bias)),
            len(stream),
            around=self._around,
            chunks=stream.chunks.times(2),
        )
        maps, norm = half, half.normalization(first)
        for layer in others:
            maps = self._upsampled(maps, norm, layer, hold=not recompute)
            norm = maps.normalization(layer)
        kernel, bias = self._head.folded(norm.threshold, self.dtype, scale=norm.scale)
        margin = (kernel.shape[-1] - self._head.stride) // 2
        # What the bias loses to the rounding of the maps' type would be a tint.
        rest = 0.5 + like(bias - bias.to(self.dtype).double(), self._head.kernel)
        for i in range(len(maps)):
            padded = maps.activated(i, norm, (margin, margin), self.dtype, consume=True)
            half.forget_before(i)
            squares = convolve(padded, kernel, bias, self._head.stride).float() + rest
            h, w, channels = squares.shape
            strip = squares.view(h, w, 2, 2, channels // 4).permute(0, 2, 1, 3, 4)
            yield strip.reshape(2 * h, 2 * w, channels // 4)

    def _upsampled(
        self, maps: "Maps", norm: "Normalization", layer: "Layer", *, hold: bool
    ) -> "Maps":
        """Normalize, rectify and upsample maps, strip by strip as they are asked for."""
        kernel, bias = layer.folded(norm.threshold, self.dtype, scale=norm.scale)
        border = self._decoder_border
        return Maps(
            lambda i: to_space(
                convolve(maps.activated(i, norm, (1, 1), self.dtype, border), kernel, bias)
            ),
            len(maps),
            around=self._around,
            chunks=maps.chunks.times(2),
            hold=hold,
        )

    def _after(
        self, maps: "Maps", norm: "Normalization", layer: "Layer", margin: tuple[int, int]
    ) -> "Maps":
        """Normalize, rectify and convolve maps, strip by strip as they are asked for."""
        kernel, bias = layer.folded(norm.threshold, self.dtype, scale=norm.scale)
        return Maps(
            lambda i: convolve(
                maps.activated(i, norm, margin, self.dtype, consume=True),
                kernel,
                bias,
                layer.stride,
            ),
            len(maps),
            around=self._around,
            chunks=maps.chunks.times(1 / layer.stride),
        )


def _read(stream: ResidualStream, kernel: Tensor, bias: Tensor, i: int) -> Strip:
    return convolve(stream.padded(i, "reflect"), kernel, bias)
