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

A strip is (rows, columns, channels): the channels-last layout of one image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_style.devices import available_memory, exact_device, items_with_tf32
from fast_style.images import to_float
from fast_style.networks.patch import PatchNet
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

# Statistics are taken over chunks of rows of the image: a multiple of _CHUNK_ROWS that holds about
# _CHUNK_PIXELS pixels, which are enough to be fast and few enough for sums in float32. Strips begin
# where chunks do, so the numbers are the same whatever the height of the strips.
_CHUNK_ROWS = 8
_CHUNK_PIXELS = 1 << 15
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

# The most rows that a layer reads beyond a strip.
_MOST_MARGIN = 4

# Up to this share of its mean the deviation of a map is rounding: no photo's is so small.
_NOISE = 1e-5

# How far an image goes on beyond its edges: 16 pixels do no better.
EDGE_PIXELS = 8

Strip = Tensor
Border = Literal["reflect", "replicate", "zeros", "around"]
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
        self._around = _Around(rows="y" in wrap, columns="x" in wrap)
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
        plan = _Plan(rows, columns, height, least=self._least_pixels(rows * columns, height))
        chunks = _Chunks.of(plan, self._exact)
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
    ) -> "_Layer":
        kernel = conv.weight.detach().to(self._exact, torch.float64)
        if norm is None:
            assert conv.bias is not None
            bias = conv.bias.detach().to(self._exact, torch.float64)
            kernel = _channels_last(rewrite(kernel * OUTPUT_SCALE)).to(self.device)
            return _Layer(kernel=kernel, stride=stride or 1, bias=bias * OUTPUT_SCALE)
        gamma = norm.weight.detach().to(self._exact, torch.float64)
        beta = norm.bias.detach().to(self._exact, torch.float64)
        kernel = kernel * torch.where(gamma < 0, -1.0, 1.0)[:, None, None, None]
        return _Layer(
            kernel=_channels_last(rewrite(kernel)).to(self.device),
            stride=conv.stride[0],
            # A channel whose scale is 0 takes part in the algebra with a tiny one.
            gamma=gamma.abs().clamp(min=1e-8),
            beta=beta,
            eps=norm.eps,
        )

    def _encode(
        self, image: Tensor, plan: "_Plan", chunks: "_Chunks", recompute: bool
    ) -> "_Stream":
        """Run the encoder; return the residual stream at a quarter of the edge."""
        first, *others = self._encoder
        rows = _ImageRows(image, plan, self.device, edges=self._edges, around=self._around)
        # A first layer that is the only one makes the trunk, which is held in the maps' type.
        dtype = torch.float32 if others else self.dtype
        maps = _Maps(
            lambda i: _convolve(rows.strip(i), first.kernel, stride=first.stride).to(dtype),
            len(plan),
            around=self._around,
            chunks=chunks.times(1 / first.stride),
            hold=not (recompute and others),
        )
        norm = maps.normalization(first)
        for layer in others:
            maps = self._after(maps, norm, layer, margin=(1, 0))
            norm = maps.normalization(layer)
        return _Stream.from_maps(maps, norm, around=self._around)

    def _residual(self, stream: "_Stream") -> "_Stream":
        """Run the residual blocks; each branch is added while the next block reads the stream."""
        for layer1, layer2 in self._residual_blocks:
            kernel, bias = layer1.folded(stream.offset, self.dtype)
            read = partial(_read, stream, kernel, bias)
            branch = _Maps(read, len(stream), around=self._around, chunks=stream.chunks)
            norm = branch.normalization(layer1)
            branch = self._after(branch, norm, layer2, margin=(1, 1))
            stream.add_later(branch, branch.normalization(layer2))
        return stream

    def _decode(self, stream: "_Stream", recompute: bool) -> Iterator[Strip]:
        """Run the decoder and the head."""
        (first, *others), border = self._decoder, self._decoder_border
        kernel, bias = first.folded(stream.offset, self.dtype)
        half = _Maps(
            lambda i: _to_space(_convolve(stream.take(i, border), kernel, bias)),
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
        rest = 0.5 + _like(bias - bias.to(self.dtype).double(), self._head.kernel)
        for i in range(len(maps)):
            padded = maps.activated(i, norm, (margin, margin), self.dtype, consume=True)
            half.forget_before(i)
            squares = _convolve(padded, kernel, bias, self._head.stride).float() + rest
            h, w, channels = squares.shape
            strip = squares.view(h, w, 2, 2, channels // 4).permute(0, 2, 1, 3, 4)
            yield strip.reshape(2 * h, 2 * w, channels // 4)

    def _upsampled(
        self, maps: "_Maps", norm: "_Normalization", layer: "_Layer", *, hold: bool
    ) -> "_Maps":
        """Normalize, rectify and upsample maps, strip by strip as they are asked for."""
        kernel, bias = layer.folded(norm.threshold, self.dtype, scale=norm.scale)
        border = self._decoder_border
        return _Maps(
            lambda i: _to_space(
                _convolve(maps.activated(i, norm, (1, 1), self.dtype, border), kernel, bias)
            ),
            len(maps),
            around=self._around,
            chunks=maps.chunks.times(2),
            hold=hold,
        )

    def _after(
        self, maps: "_Maps", norm: "_Normalization", layer: "_Layer", margin: tuple[int, int]
    ) -> "_Maps":
        """Normalize, rectify and convolve maps, strip by strip as they are asked for."""
        kernel, bias = layer.folded(norm.threshold, self.dtype, scale=norm.scale)
        return _Maps(
            lambda i: _convolve(
                maps.activated(i, norm, margin, self.dtype, consume=True),
                kernel,
                bias,
                layer.stride,
            ),
            len(maps),
            around=self._around,
            chunks=maps.chunks.times(1 / layer.stride),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """A convolution and the instance norm after it, or the convolution's bias where none follows.

    The kernel is float32 and channels-last, the rest float64, where there is float64.
    """

    kernel: Tensor
    stride: int
    gamma: Tensor = field(default_factory=Tensor)
    beta: Tensor = field(default_factory=Tensor)
    eps: float = 0.0
    bias: Tensor | None = None

    def folded(
        self, offset: Tensor, dtype: torch.dtype, *, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return kernel and bias for an input (x - offset) * scale, of which x is what is stored.

        The bias is computed from the rounded kernel and offset, so that large offsets cancel.
        """
        kernel = self.kernel
        if scale is not None:
            kernel = kernel * _like(scale, kernel)[:, None, None]
        kernel = kernel.to(dtype)
        sums = kernel.float().sum((2, 3)).to(offset.device)
        bias = -(sums.double() @ offset.to(dtype).double())
        if self.bias is not None:
            bias = bias + self.bias.repeat(len(bias) // len(self.bias))
        return kernel, bias


@dataclass(frozen=True, kw_only=True, slots=True)
class _Normalization:
    """What an instance norm does to stored maps, float64: relu(norm(x)) = scale (max(x, t) - t)."""

    scale: Tensor
    threshold: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class _Around:
    """Whether the image's last row comes before its first, and its last column before its first."""

    rows: bool
    columns: bool


class _Plan:
    """How an image's rows, padded to the stride, are cut into strips."""

    def __init__(self, rows: int, columns: int, height: int | None, *, least: int) -> None:
        self.total = rows + stride_padding(rows)[0]
        self.chunk = max(1, _CHUNK_PIXELS // (_CHUNK_ROWS * columns)) * _CHUNK_ROWS
        least = -(-least // columns)
        height = -(-max(height or 0, least) // self.chunk) * self.chunk
        self._starts = list(range(0, self.total, height))
        if len(self._starts) > 1 and self.total - self._starts[-1] < least:
            self._starts.pop()  # the last strip takes the rest along

    def __len__(self) -> int:
        return len(self._starts)

    def rows(self, i: int) -> tuple[int, int]:
        """Return strip `i`'s first row and the row after its last."""
        return self._starts[i], [*self._starts[1:], self.total][i]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunks:
    """The chunks of rows over which statistics are taken: how many rows each, and its share.

    All have the same number of rows but the last one, so that strips of whole chunks follow each
    other. The shares of the image, (chunks, 1) float64, are the same for maps of every size.
    """

    rows: int
    shares: Tensor

    @classmethod
    def of(cls, plan: _Plan, exact: torch.device) -> "_Chunks":
        """Return the chunks of the image's rows; `exact` is where float64 is computed."""
        count = -(-plan.total // plan.chunk)
        # A list of them would make a GPU wait for the host.
        shares = torch.full((count, 1), plan.chunk / plan.total, device=exact, dtype=torch.float64)
        shares[-1] = (plan.total - (count - 1) * plan.chunk) / plan.total
        return cls(rows=plan.chunk, shares=shares)

    def times(self, factor: float) -> "_Chunks":
        """Return the chunks of maps that have `factor` times the rows."""
        return replace(self, rows=int(self.rows * factor))


class _ImageRows:
    """The first convolution's input: strips of the image with reflected borders, centred.

    An image is on the GPU that computes as a whole, and by its integers.
    """

    def __init__(
        self,
        image: Tensor,
        plan: _Plan,
        device: torch.device,
        *,
        edges: tuple[int, int],
        around: _Around,
    ) -> None:
        self._image = image if device.type == "cpu" else on_device(image, device)
        self._plan = plan
        self._device = device
        self._margin = 4
        indices = (
            _around_index(size, self._margin) if joined else _border_index(size, edge, self._margin)
            for size, edge, joined in zip(
                image.shape[-2:], edges, (around.rows, around.columns), strict=True
            )
        )
        self._row_index, self._column_index = (
            index.to(self._image.device, non_blocking=True) for index in indices
        )

    def strip(self, i: int) -> Strip:
        first, last = self._plan.rows(i)
        rows = self._row_index[first : last + 2 * self._margin]
        pixels = self._image.index_select(-2, rows).index_select(-1, self._column_index)
        pixels = pixels.to(self._device)
        pixels = pixels if pixels.is_floating_point() else to_float(pixels)
        return (pixels.float() - 0.5).permute(1, 2, 0).contiguous()


def on_device(image: Tensor, device: torch.device) -> Tensor:
    """Return an image on a GPU: uint8 as it is, and all else, for which there are fewer kernels,
    in float32.
    """
    if image.dtype != torch.uint8:
        image = to_float(image).float()
    return image.to(device)


class _Maps:
    """The raw output of a convolution, computed strip by strip when first asked for.

    Where `hold` is false a strip is forgotten once it is used, and computed again the next time.
    Statistics are taken over `chunks`.
    """

    def __init__(
        self,
        compute: Callable[[int], Strip],
        count: int,
        *,
        around: _Around,
        chunks: _Chunks,
        hold: bool = True,
    ) -> None:
        self._compute = compute
        self._count = count
        self._around = around
        self.chunks = chunks
        self._hold = hold
        self._strips: dict[int, Strip] = {}
        # The first and the last rows, which meet where the image goes around.
        self._ends: dict[int, Strip] = {}

    def __len__(self) -> int:
        return self._count

    def strip(self, i: int) -> Strip:
        if i not in self._strips:
            strip = self._strips[i] = self._compute(i)
            if self._around.rows and i == 0:
                self._ends[0] = strip[:_MOST_MARGIN].clone()
            if self._around.rows and i + 1 == self._count:
                self._ends[1] = strip[-_MOST_MARGIN:].clone()
        return self._strips[i]

    def forget_before(self, i: int) -> None:
        for j in [j for j in self._strips if j < i]:
            del self._strips[j]

    def normalization(self, layer: _Layer) -> _Normalization:
        """Compute all strips, and from their statistics what the layer's norm does to them."""
        moments: list[tuple[Tensor, Tensor]] = []
        for i in range(self._count):
            moments.extend(_means_and_variances(self.strip(i), self.chunks.rows))
            if not self._hold:
                self.forget_before(i + 1)
        share = self.chunks.shares
        parts = [part for parts in zip(*moments, strict=True) for part in parts]
        merged = torch.cat(parts).to(share.device).double()
        means, variances = merged.chunk(2)
        if share.is_cuda:  # the same sums in half as many launches
            mean = (share.T @ means)[0]
            apart = means - mean
            variance = (share.T @ torch.addcmul(variances, apart, apart))[0]
        else:
            mean = (share * means).sum(0)
            variance = (share * (variances + (means - mean).square())).sum(0)
        # What varies less than single precision can tell is one colour and the noise of rounding,
        # which a division by almost nothing would make the picture of.
        noise = torch.where(variance < (_NOISE * mean).square(), mean.square(), 0)
        scale = layer.gamma / (variance + layer.eps + noise).sqrt()
        return _Normalization(scale=scale, threshold=mean - layer.beta / scale)

    def activated(
        self,
        i: int,
        norm: _Normalization,
        margin: tuple[int, int],
        dtype: torch.dtype,
        border: Border = "reflect",
        *,
        consume: bool = False,
    ) -> Strip:
        """Return max(x, threshold) of strip `i`, with `margin` lines before and after it."""
        before, after = margin
        above = self.strip(i - 1) if i > 0 else self._ends.get(1)
        below = None
        if after:
            below = self.strip(i + 1) if i + 1 < self._count else self._ends.get(0)
        padded = _pad(
            self.strip(i),
            above=None if above is None else above[-before:],
            below=None if below is None else below[:after],
            last=i + 1 == self._count and not self._around.rows,
            margin=margin,
            border=border,
            sides="around" if self._around.columns else border,
            zero=norm.threshold,
            floor=norm.threshold,
            dtype=dtype,
        )
        if consume or not self._hold:
            self.forget_before(i)
        return padded


class _Stream:
    """The residual stream, updated in place: what is stored is the stream plus `offset`."""

    def __init__(
        self, strips: Sequence[Strip], offset: Tensor, chunks: _Chunks, *, around: _Around
    ) -> None:
        self._strips: list[Strip | None] = list(strips)
        self._around = around
        self.offset = offset
        self.chunks = chunks
        self._pending: tuple[_Maps, _Normalization] | None = None
        self._updated = len(strips)
        self._above: Tensor | None = None
        # The first row, which follows the last one where the image goes around.
        self._first: Tensor | None = None

    @classmethod
    def from_maps(cls, maps: _Maps, norm: _Normalization, *, around: _Around) -> "_Stream":
        """Return the stream that begins with relu(norm(maps))."""
        strips = []
        for i in range(len(maps)):
            strip = maps.strip(i)
            torch.maximum(strip, _like(norm.threshold, strip), out=strip)
            strips.append(strip.mul_(_like(norm.scale, strip)))
            maps.forget_before(i + 1)
        return cls(strips, norm.scale * norm.threshold, maps.chunks, around=around)

    def __len__(self) -> int:
        return len(self._strips)

    def add_later(self, branch: _Maps, norm: _Normalization) -> None:
        """Add norm(branch) to the stream: each strip when it is first read."""
        self._pending = branch, norm
        self._updated = 0
        self.offset = self.offset + norm.scale * norm.threshold

    def padded(self, i: int, border: Border) -> Strip:
        """Return strip `i`, up to date, with a border of one pixel; strips are read in order."""
        joined = self._around.rows
        while self._updated < (len(self) if joined else min(i + 2, len(self))):
            self._update(self._updated)
            self._updated += 1
        strip, last = self._strip(i), i + 1 == len(self)
        if i == 0:
            self._above = self._strip(len(self) - 1)[-1:].clone() if joined else None
            self._first = strip[:1].clone() if joined else None
        padded = _pad(
            strip,
            above=self._above,
            below=self._first if last else self._strip(i + 1)[:1],
            last=last and not joined,
            margin=(1, 1),
            border=border,
            sides="around" if self._around.columns else border,
            zero=self.offset,
            floor=None,
            dtype=strip.dtype,
        )
        self._above = strip[-1:].clone()
        return padded

    def take(self, i: int, border: Border) -> Strip:
        """Return strip `i` as `padded` does, for the last time, and forget it."""
        padded = self.padded(i, border)
        self._strips[i] = None
        return padded

    def _update(self, i: int) -> None:
        if self._pending:
            branch, norm = self._pending
            raw, strip = branch.strip(i), self._strip(i)
            strip.flatten(1).addcmul_(raw.flatten(1), _like(norm.scale, raw).repeat(raw.shape[1]))
            branch.forget_before(i + 1)

    def _strip(self, i: int) -> Strip:
        strip = self._strips[i]
        assert strip is not None
        return strip


def _read(stream: _Stream, kernel: Tensor, bias: Tensor, i: int) -> Strip:
    return _convolve(stream.padded(i, "reflect"), kernel, bias)


def _convolve(strip: Strip, kernel: Tensor, bias: Tensor | None = None, stride: int = 1) -> Strip:
    bias = None if bias is None else _like(bias, kernel)
    maps = F.conv2d(strip.permute(2, 0, 1)[None], kernel, bias, stride)
    return maps[0].permute(1, 2, 0).contiguous()


def _to_space(cells: Strip) -> Strip:
    """(h+1, w+1, 4 D) -> (2h, 2w, D): the pixels of `upsample_conv2d`, without its outer ring.

    A cell lies between four pixels of the input and holds the corner pixels next to it.
    """
    height, width, channels = cells.shape[0] - 1, cells.shape[1] - 1, cells.shape[2] // 4
    cells = cells.view(height + 1, width + 1, 2, 2, channels)
    pixels = cells.new_empty(height, 2, width, 2, channels)
    for a in (0, 1):
        for b in (0, 1):
            rows, columns = slice(a, a + height), slice(b, b + width)
            pixels[:, a, :, b] = cells[rows, columns, 1 - a, 1 - b]
    return pixels.view(2 * height, 2 * width, channels)


def _means_and_variances(strip: Strip, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(h, w, C) -> means and variances, float32, of `chunk` rows each: (1 or more chunks, C)."""
    if strip.device.type == "cpu":
        for rows in strip.split(chunk):
            # The kernel of batch norm, many times faster here than var_mean.
            mean, variance = torch.batch_norm_update_stats(
                rows.permute(2, 0, 1)[None], None, None, 0.0
            )
            yield mean.float()[None], variance.float()[None]
    else:
        yield from _moments_at_once(strip, chunk)


def _moments_at_once(strip: Strip, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Do what `_means_and_variances` does, for all whole chunks in one launch."""
    whole = len(strip) // chunk * chunk
    for chunks in (strip[:whole].unflatten(0, (-1, chunk)), strip[None, whole:]):
        if chunks.numel():
            variances, means = torch.var_mean(chunks.float(), (1, 2), correction=0)
            yield means, variances


def _pad(
    strip: Strip,
    *,
    above: Strip | None,
    below: Strip | None,
    last: bool,
    margin: tuple[int, int],
    border: Border,
    sides: Border,
    zero: Tensor,
    floor: Tensor | None,
    dtype: torch.dtype,
) -> Strip:
    """Copy a strip between the rows above and below it and its border columns.

    `margin` is the number of rows and columns before and after; above the image's top (no `above`)
    and below its bottom (`last`) the `border` is made, and that of the columns by `sides`. Values
    below `floor`, by channel, are raised to it.
    """
    before, after = margin
    height, width, channels = strip.shape
    padded = strip.new_empty(
        (before + height + after, before + width + after, channels), dtype=dtype
    )
    # All rows without the border columns: a line of memory a row.
    inside = padded.flatten(1)[:, before * channels : (before + width) * channels]
    floor = None if floor is None else _like(floor.to(dtype), strip).repeat(width)
    for row, part in ((0, above), (before, strip), (before + height, below)):
        if part is None:
            continue
        target = inside[row : row + part.shape[0]]
        if floor is None:
            target.copy_(part.flatten(1))
        else:
            torch.maximum(part.flatten(1), floor, out=target)
    _fill_border(padded, margin, (border, sides), zero, top=above is None, bottom=last)
    return padded


def _fill_border(
    padded: Strip,
    margin: tuple[int, int],
    borders: tuple[Border, Border],
    zero: Tensor,
    *,
    top: bool,
    bottom: bool,
) -> None:
    """Fill the border columns and, at the image's top and bottom, the border rows.

    `borders` are that of the rows and that of the columns. `zero` is what stands for 0 in the maps,
    by channel.
    """
    before, after = margin
    zero = _like(zero, padded)
    for axis, border, first, last in ((0, borders[0], top, bottom), (1, borders[1], True, True)):
        lines = padded.transpose(0, axis)
        end = lines.shape[0] - after - 1
        for k in range(1, before + 1 if first else 1):
            source = {"replicate": before, "reflect": before + k, "around": end + 1 - k}
            lines[before - k] = zero if border == "zeros" else lines[source[border]]
        for k in range(1, after + 1 if last else 1):
            source = {"replicate": end, "reflect": end - k, "around": before - 1 + k}
            lines[end + k] = zero if border == "zeros" else lines[source[border]]


def _border_index(size: int, edge: int, margin: int) -> Tensor:
    """Return, for each line of the padded image, the image's own line that it repeats.

    The image is padded by `edge` on both sides, then to the stride, then by `margin`.
    """
    # Where the image is smaller than the edge, it is mirrored to and fro.
    last = size - 1
    index = torch.arange(-edge, size + edge).remainder(max(2 * last, 1))
    index = (last - (last - index).abs()).double()[None, None]
    missing, mode = stride_padding(size + 2 * edge)
    index = F.pad(index, (0, missing), mode=mode)
    return F.pad(index, (margin, margin), mode="reflect")[0, 0].long()


def _around_index(size: int, margin: int) -> Tensor:
    """Return what `_border_index` does for an image that goes around."""
    return torch.arange(-margin, size + margin).remainder(size)


def _channels_last(kernel: Tensor) -> Tensor:
    return kernel.float().contiguous(memory_format=torch.channels_last)


def _like(values: Tensor, other: Tensor) -> Tensor:
    """Return `values`, float64, in the type of `other` and where it is."""
    return values.to(other.dtype).to(other.device)
