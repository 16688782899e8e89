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

A strip is (rows, columns, channels): the channels-last layout of one image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_style.images import to_float
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
# to the system at once (`devices.keep_freed_memory`); in the heap, between the maps that are held,
# they would leave holes of a tenth of it.
_HUGE_PIXELS = 1 << 26
_HUGE_BYTES = 1 << 25

# Up to this share of its mean the deviation of a map is rounding: no photo's is so small.
_NOISE = 1e-5

# How far an image goes on beyond its edges: 16 pixels do no better.
EDGE_PIXELS = 8

Strip = Tensor
Border = Literal["reflect", "replicate", "zeros"]
Edge = Literal["reflect", "none"]


class StreamingTransformer:
    """Applies a trained `TransformerNet` to one image of any size, strip by strip.

    `dtype` is that of the feature maps; the first convolution is float32 and statistics are merged
    in float64. `edge`: "none" yields the network's own result up to rounding; "reflect" its result
    for the image with 8 mirrored pixels around it, which are cut off again.
    """

    def __init__(
        self,
        network: TransformerNet,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        edge: Edge = "reflect",
    ) -> None:
        self.dtype = dtype
        self._edge = EDGE_PIXELS if edge == "reflect" else 0
        self.device = device or torch.device("cpu")
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
        self._head = self._layer(network.head, None, two_by_two_kernel)

    @torch.inference_mode()
    def strips(
        self, image: Tensor, *, height: int | None = None, recompute: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, (3, h, W) float32 RGB, about [0, 1]) from the top to the bottom.

        `image` is (3, H, W): floats in [0, 1], or integers as a file holds them. It is not read any
        more once the first strip has come, so its rows may then be overwritten. `height` is that of
        a strip in rows of the image and of what is around it, rounded up to 131,072 pixels (32 MB
        of maps in huge images) and whole chunks; it changes no number. `recompute` computes the
        maps at full resolution twice instead of holding them.
        """
        edge = self._edge
        rows, columns = (size + 2 * edge for size in image.shape[-2:])
        least = _STRIP_PIXELS
        if rows * columns > _HUGE_PIXELS:
            least = max(least, _HUGE_BYTES // (self._width * self.dtype.itemsize))
        plan = _Plan(rows, columns, height, least=least)
        trunk = self._residual(self._encode(image, plan, recompute))
        for i, strip in enumerate(self._decode(trunk, recompute)):
            first, last = plan.rows(i)
            # A strip of a wide image may hold nothing but what is around it.
            top, bottom = max(first, edge), min(last, rows - edge)
            if top < bottom:
                visible = strip[top - first : bottom - first, edge : columns - edge]
                yield top - edge, visible.permute(2, 0, 1)

    def _layer(
        self,
        conv: nn.Conv2d,
        norm: InstanceNorm | None,
        rewrite: Callable[[Tensor], Tensor] = lambda kernel: kernel,
    ) -> "_Layer":
        kernel = conv.weight.detach().to(self.device, torch.float64)
        if norm is None:
            assert conv.bias is not None
            bias = conv.bias.detach().to(self.device, torch.float64)
            kernel = _channels_last(rewrite(kernel * OUTPUT_SCALE))
            return _Layer(kernel=kernel, stride=2, bias=bias * OUTPUT_SCALE)
        gamma = norm.weight.detach().to(self.device, torch.float64)
        beta = norm.bias.detach().to(self.device, torch.float64)
        kernel = kernel * torch.where(gamma < 0, -1.0, 1.0)[:, None, None, None]
        return _Layer(
            kernel=_channels_last(rewrite(kernel)),
            stride=conv.stride[0],
            # A channel whose scale is 0 takes part in the algebra with a tiny one.
            gamma=gamma.abs().clamp(min=1e-8),
            beta=beta,
            eps=norm.eps,
        )

    def _encode(self, image: Tensor, plan: "_Plan", recompute: bool) -> "_Stream":
        """Run the encoder; return the residual stream at a quarter of the edge."""
        conv1, conv2, conv3 = self._encoder
        rows = _ImageRows(image, plan, self.device, edge=self._edge)
        full = _Maps(
            lambda i: _convolve(rows.strip(i), conv1.kernel),
            len(plan),
            chunk=plan.chunk,
            hold=not recompute,
        )
        norm = full.normalization(conv1)
        half = self._after(full, norm, conv2, margin=(1, 0))
        norm = half.normalization(conv2)
        trunk = self._after(half, norm, conv3, margin=(1, 0))
        norm = trunk.normalization(conv3)
        return _Stream.from_maps(trunk, norm)

    def _residual(self, stream: "_Stream") -> "_Stream":
        """Run the residual blocks; each branch is added while the next block reads the stream."""
        for layer1, layer2 in self._residual_blocks:
            kernel, bias = layer1.folded(stream.offset, self.dtype)
            branch = _Maps(partial(_read, stream, kernel, bias), len(stream), chunk=stream.chunk)
            norm = branch.normalization(layer1)
            branch = self._after(branch, norm, layer2, margin=(1, 1))
            stream.add_later(branch, branch.normalization(layer2))
        return stream

    def _decode(self, stream: "_Stream", recompute: bool) -> Iterator[Strip]:
        """Run the decoder and the head."""
        (up1, up2), border = self._decoder, self._decoder_border
        kernel, bias = up1.folded(stream.offset, self.dtype)
        half = _Maps(
            lambda i: _to_space(_convolve(stream.take(i, border), kernel, bias)),
            len(stream),
            chunk=2 * stream.chunk,
        )
        norm1 = half.normalization(up1)
        kernel2, bias2 = up2.folded(norm1.threshold, self.dtype, scale=norm1.scale)
        full = _Maps(
            lambda i: _to_space(
                _convolve(half.activated(i, norm1, (1, 1), self.dtype, border), kernel2, bias2)
            ),
            len(half),
            chunk=2 * half.chunk,
            hold=not recompute,
        )
        norm2 = full.normalization(up2)
        kernel3, bias3 = self._head.folded(norm2.threshold, self.dtype, scale=norm2.scale)
        margin = kernel3.shape[-1] // 2 - 1
        # What the bias loses to the rounding of the maps' type would be a tint.
        rest = 0.5 + (bias3 - bias3.to(self.dtype).double()).float()
        for i in range(len(full)):
            padded = full.activated(i, norm2, (margin, margin), self.dtype, consume=True)
            half.forget_before(i)
            squares = _convolve(padded, kernel3, bias3, 2).float() + rest
            h, w, channels = squares.shape
            strip = squares.view(h, w, 2, 2, channels // 4).permute(0, 2, 1, 3, 4)
            yield strip.reshape(2 * h, 2 * w, channels // 4)

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
            chunk=maps.chunk // layer.stride,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """A convolution and the instance norm after it, or the convolution's bias where none follows.

    The kernel is float32 and channels-last, the rest float64.
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
        kernel = self.kernel if scale is None else self.kernel * scale.float()[:, None, None]
        kernel = kernel.to(dtype)
        bias = -(kernel.float().sum((2, 3)).double() @ offset.to(dtype).double())
        if self.bias is not None:
            bias = bias + self.bias.repeat(len(bias) // len(self.bias))
        return kernel, bias


@dataclass(frozen=True, kw_only=True, slots=True)
class _Normalization:
    """What an instance norm does to stored maps, float64: relu(norm(x)) = scale (max(x, t) - t)."""

    scale: Tensor
    threshold: Tensor


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


class _ImageRows:
    """The first convolution's input: strips of the image with reflected borders, centred."""

    def __init__(self, image: Tensor, plan: _Plan, device: torch.device, *, edge: int) -> None:
        self._image = image
        self._plan = plan
        self._device = device
        self._margin = 4
        self._row_index = _border_index(image.shape[-2], edge, self._margin)
        self._column_index = _border_index(image.shape[-1], edge, self._margin)

    def strip(self, i: int) -> Strip:
        first, last = self._plan.rows(i)
        rows = self._row_index[first : last + 2 * self._margin].to(self._image.device)
        columns = self._column_index.to(self._image.device)
        pixels = self._image.index_select(-2, rows).index_select(-1, columns).to(self._device)
        pixels = pixels if pixels.is_floating_point() else to_float(pixels)
        return (pixels.float() - 0.5).permute(1, 2, 0).contiguous()


class _Maps:
    """The raw output of a convolution, computed strip by strip when first asked for.

    Where `hold` is false a strip is forgotten once it is used, and computed again the next time.
    Statistics are taken over `chunk` rows at once.
    """

    def __init__(
        self, compute: Callable[[int], Strip], count: int, *, chunk: int, hold: bool = True
    ) -> None:
        self._compute = compute
        self._count = count
        self.chunk = chunk
        self._hold = hold
        self._strips: dict[int, Strip] = {}

    def __len__(self) -> int:
        return self._count

    def strip(self, i: int) -> Strip:
        if i not in self._strips:
            self._strips[i] = self._compute(i)
        return self._strips[i]

    def forget_before(self, i: int) -> None:
        for j in [j for j in self._strips if j < i]:
            del self._strips[j]

    def normalization(self, layer: _Layer) -> _Normalization:
        """Compute all strips, and from their statistics what the layer's norm does to them."""
        moments: list[tuple[Tensor, Tensor]] = []
        counts: list[int] = []
        for i in range(self._count):
            for rows in self.strip(i).split(self.chunk):
                moments.append(_mean_and_variance(rows))
                counts.append(rows.shape[0] * rows.shape[1])
            if not self._hold:
                self.forget_before(i + 1)
        means = torch.stack([mean for mean, _ in moments]).double()
        variances = torch.stack([variance for _, variance in moments]).double()
        share = means.new_tensor(counts)[:, None] / sum(counts)
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
        padded = _pad(
            self.strip(i),
            above=self.strip(i - 1)[-before:] if i > 0 else None,
            below=self.strip(i + 1)[:after] if after and i + 1 < self._count else None,
            last=i + 1 == self._count,
            margin=margin,
            border=border,
            zero=norm.threshold,
            floor=norm.threshold,
            dtype=dtype,
        )
        if consume or not self._hold:
            self.forget_before(i)
        return padded


class _Stream:
    """The residual stream, updated in place: what is stored is the stream plus `offset`."""

    def __init__(self, strips: Sequence[Strip], offset: Tensor, chunk: int) -> None:
        self._strips: list[Strip | None] = list(strips)
        self.offset = offset
        self.chunk = chunk
        self._pending: tuple[_Maps, _Normalization] | None = None
        self._updated = len(strips)
        self._above: Tensor | None = None

    @classmethod
    def from_maps(cls, maps: _Maps, norm: _Normalization) -> "_Stream":
        """Return the stream that begins with relu(norm(maps))."""
        strips = []
        for i in range(len(maps)):
            strip = maps.strip(i)
            torch.maximum(strip, norm.threshold.to(strip), out=strip)
            strips.append(strip.mul_(norm.scale.to(strip)))
            maps.forget_before(i + 1)
        return cls(strips, norm.scale * norm.threshold, maps.chunk)

    def __len__(self) -> int:
        return len(self._strips)

    def add_later(self, branch: _Maps, norm: _Normalization) -> None:
        """Add norm(branch) to the stream: each strip when it is first read."""
        self._pending = branch, norm
        self._updated = 0
        self.offset = self.offset + norm.scale * norm.threshold

    def padded(self, i: int, border: Border) -> Strip:
        """Return strip `i`, up to date, with a border of one pixel; strips are read in order."""
        while self._updated < min(i + 2, len(self)):
            self._update(self._updated)
            self._updated += 1
        strip, last = self._strip(i), i + 1 == len(self)
        padded = _pad(
            strip,
            above=self._above if i > 0 else None,
            below=None if last else self._strip(i + 1)[:1],
            last=last,
            margin=(1, 1),
            border=border,
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
            strip.flatten(1).addcmul_(raw.flatten(1), norm.scale.to(raw).repeat(raw.shape[1]))
            branch.forget_before(i + 1)

    def _strip(self, i: int) -> Strip:
        strip = self._strips[i]
        assert strip is not None
        return strip


def _read(stream: _Stream, kernel: Tensor, bias: Tensor, i: int) -> Strip:
    return _convolve(stream.padded(i, "reflect"), kernel, bias)


def _convolve(strip: Strip, kernel: Tensor, bias: Tensor | None = None, stride: int = 1) -> Strip:
    bias = None if bias is None else bias.to(kernel.dtype)
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


def _mean_and_variance(strip: Strip) -> tuple[Tensor, Tensor]:
    """(h, w, C) -> mean and variance of each channel, float32."""
    if strip.device.type != "cpu":
        variance, mean = torch.var_mean(strip.float(), (0, 1), correction=0)
        return mean, variance
    # The kernel of batch norm, many times faster here than var_mean.
    maps = strip.permute(2, 0, 1)[None]
    mean, variance = torch.batch_norm_update_stats(maps, None, None, 0.0)
    return mean.float(), variance.float()


def _pad(
    strip: Strip,
    *,
    above: Strip | None,
    below: Strip | None,
    last: bool,
    margin: tuple[int, int],
    border: Border,
    zero: Tensor,
    floor: Tensor | None,
    dtype: torch.dtype,
) -> Strip:
    """Copy a strip between the rows above and below it and its border columns.

    `margin` is the number of rows and columns before and after; above the image's top (no `above`)
    and below its bottom (`last`) the border is made. Values below `floor`, by channel, are raised
    to it.
    """
    before, after = margin
    height, width, channels = strip.shape
    padded = strip.new_empty(
        (before + height + after, before + width + after, channels), dtype=dtype
    )
    # All rows without the border columns: a line of memory a row.
    inside = padded.flatten(1)[:, before * channels : (before + width) * channels]
    floor = None if floor is None else floor.to(dtype).to(strip.dtype).repeat(width)
    for row, part in ((0, above), (before, strip), (before + height, below)):
        if part is None:
            continue
        target = inside[row : row + part.shape[0]]
        if floor is None:
            target.copy_(part.flatten(1))
        else:
            torch.maximum(part.flatten(1), floor, out=target)
    _fill_border(padded, margin, border, zero, top=above is None, bottom=last)
    return padded


def _fill_border(
    padded: Strip,
    margin: tuple[int, int],
    border: Border,
    zero: Tensor,
    *,
    top: bool,
    bottom: bool,
) -> None:
    """Fill the border columns and, at the image's top and bottom, the border rows.

    `zero` is what stands for 0 in the maps, by channel.
    """
    before, after = margin
    step = 1 if border == "reflect" else 0
    for axis, first, last in ((0, top, bottom), (1, True, True)):
        lines = padded.transpose(0, axis)
        end = lines.shape[0] - after - 1
        for k in range(1, before + 1 if first else 1):
            lines[before - k] = zero.to(lines) if border == "zeros" else lines[before + k * step]
        for k in range(1, after + 1 if last else 1):
            lines[end + k] = zero.to(lines) if border == "zeros" else lines[end - k * step]


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


def _channels_last(kernel: Tensor) -> Tensor:
    return kernel.float().contiguous(memory_format=torch.channels_last)
