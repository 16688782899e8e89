"""The feature maps of an image in strips: computed when asked for, normalized, added up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fast_style.networks.strip_math import Border, like, means_and_variances, pad_strip
from fast_style.networks.strips import Around, Chunks, Strip

# The most rows that a layer reads beyond a strip.
_MOST_MARGIN = 4

# Up to this share of its mean the deviation of a map is rounding: no photo's is so small.
_NOISE = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
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
            kernel = kernel * like(scale, kernel)[:, None, None]
        kernel = kernel.to(dtype)
        sums = kernel.float().sum((2, 3)).to(offset.device)
        bias = -(sums.double() @ offset.to(dtype).double())
        if self.bias is not None:
            bias = bias + self.bias.repeat(len(bias) // len(self.bias))
        return kernel, bias


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """What an instance norm does to stored maps, float64: relu(norm(x)) = scale (max(x, t) - t)."""

    scale: Tensor
    threshold: Tensor


class Maps:
    """The raw output of a convolution, computed strip by strip when first asked for.

    Where `hold` is false a strip is forgotten once it is used, and computed again the next time.
    Statistics are taken over `chunks`.
    """

    def __init__(
        self,
        compute: Callable[[int], Strip],
        count: int,
        *,
        around: Around,
        chunks: Chunks,
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

    def normalization(self, layer: Layer) -> Normalization:
        """Compute all strips, and from their statistics what the layer's norm does to them."""
        moments: list[tuple[Tensor, Tensor]] = []
        for i in range(self._count):
            moments.extend(means_and_variances(self.strip(i), self.chunks.rows))
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
        return Normalization(scale=scale, threshold=mean - layer.beta / scale)

    def activated(
        self,
        i: int,
        norm: Normalization,
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
        padded = pad_strip(
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


class ResidualStream:
    """The residual stream, updated in place: what is stored is the stream plus `offset`."""

    def __init__(
        self, strips: Sequence[Strip], offset: Tensor, chunks: Chunks, *, around: Around
    ) -> None:
        self._strips: list[Strip | None] = list(strips)
        self._around = around
        self.offset = offset
        self.chunks = chunks
        self._pending: tuple[Maps, Normalization] | None = None
        self._updated = len(strips)
        self._above: Tensor | None = None
        # The first row, which follows the last one where the image goes around.
        self._first: Tensor | None = None

    @classmethod
    def from_maps(cls, maps: Maps, norm: Normalization, *, around: Around) -> "ResidualStream":
        """Return the stream that begins with relu(norm(maps))."""
        strips = []
        for i in range(len(maps)):
            strip = maps.strip(i)
            torch.maximum(strip, like(norm.threshold, strip), out=strip)
            strips.append(strip.mul_(like(norm.scale, strip)))
            maps.forget_before(i + 1)
        return cls(strips, norm.scale * norm.threshold, maps.chunks, around=around)

    def __len__(self) -> int:
        return len(self._strips)

    def add_later(self, branch: Maps, norm: Normalization) -> None:
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
        padded = pad_strip(
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
            strip.flatten(1).addcmul_(raw.flatten(1), like(norm.scale, raw).repeat(raw.shape[1]))
            branch.forget_before(i + 1)

    def _strip(self, i: int) -> Strip:
        strip = self._strips[i]
        assert strip is not None
        return strip
