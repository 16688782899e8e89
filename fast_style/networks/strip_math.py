"""What is computed on a strip: its convolution, its moments, its border.

A strip is (rows, columns, channels): the channels-last layout of one image.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.networks.strips import Strip

Border = Literal["reflect", "replicate", "zeros", "around"]


def convolve(strip: Strip, kernel: Tensor, bias: Tensor | None = None, stride: int = 1) -> Strip:
    """(h, w, C) -> (h', w', D): convolve a strip that has its border already."""
    bias = None if bias is None else like(bias, kernel)
    maps = F.conv2d(strip.permute(2, 0, 1)[None], kernel, bias, stride)
    return maps[0].permute(1, 2, 0).contiguous()


def to_space(cells: Strip) -> Strip:
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


def means_and_variances(strip: Strip, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
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
    """Do what `means_and_variances` does, for all whole chunks in one launch."""
    whole = len(strip) // chunk * chunk
    for chunks in (strip[:whole].unflatten(0, (-1, chunk)), strip[None, whole:]):
        if chunks.numel():
            variances, means = torch.var_mean(chunks.float(), (1, 2), correction=0)
            yield means, variances


def pad_strip(
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
    floor = None if floor is None else like(floor.to(dtype), strip).repeat(width)
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
    zero = like(zero, padded)
    for axis, border, first, last in ((0, borders[0], top, bottom), (1, borders[1], True, True)):
        lines = padded.transpose(0, axis)
        end = lines.shape[0] - after - 1
        for k in range(1, before + 1 if first else 1):
            source = {"replicate": before, "reflect": before + k, "around": end + 1 - k}
            lines[before - k] = zero if border == "zeros" else lines[source[border]]
        for k in range(1, after + 1 if last else 1):
            source = {"replicate": end, "reflect": end - k, "around": before - 1 + k}
            lines[end + k] = zero if border == "zeros" else lines[source[border]]


def channels_last(kernel: Tensor) -> Tensor:
    """Return a kernel in float32, in the layout of strips."""
    return kernel.float().contiguous(memory_format=torch.channels_last)


def like(values: Tensor, other: Tensor) -> Tensor:
    """Return `values`, float64, in the type of `other` and where it is."""
    return values.to(other.dtype).to(other.device)
