"""Pictures that go around, as panoramas of 360 degrees and textures: rolling and scaling them.

Such a picture begins nowhere. It is stylized from a place that its pixels choose, and rolled back:
so sums of floats are taken in the same order wherever the file happens to begin, and rolled photos
give rolled pictures to the bit. The network steps by 4 pixels, so that holds for multiples of 4;
other steps move the strokes a little, as they do in any picture.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fast_style.images.tensors import bands
from fast_style.networks.transformer import MINIMUM_EDGE, STRIDE

# Odd numbers of 63 bits, with which pixels are mixed to a number (splitmix64 has such).
_MIX = 0x3F58476D1CE4E5B9
_STEP = 0x1E3779B97F4A7C15
_FINISH = 0x14D049BB133111EB


def anchor(image: Tensor, *, rows: bool) -> tuple[int, int]:
    """(..., H, W) -> the row and the column, multiples of 4, at which a picture is made to begin.

    A picture that is rolled by a multiple of 4 begins at the same pixels. The row is 0 unless
    `rows`, where the picture goes around there too.
    """
    height, width = image.shape[-2:]
    if width % STRIDE or (rows and height % STRIDE):
        return 0, 0
    column = _least_rotation(_line_numbers(image.transpose(-2, -1), ordered=not rows))
    if not rows:
        return 0, column * STRIDE
    turned = image.roll(-column * STRIDE, -1)
    return _least_rotation(_line_numbers(turned, ordered=True)) * STRIDE, column * STRIDE


def rolled(image: Tensor, shift: tuple[int, int]) -> Tensor:
    """(..., H, W) -> a copy that begins at this row and column."""
    return image.roll((-shift[0], -shift[1]), (-2, -1))


@torch.inference_mode()
def unrolled(output: Tensor, spans: Iterator[slice], shift: tuple[int, int]) -> Iterator[slice]:
    """Undo `rolled` in place while rows end; where rows were rolled, only when all have."""
    for span in spans:
        if shift[1]:
            output[..., span, :] = output[..., span, :].roll(shift[1], -1)
        if not shift[0]:
            yield span
    if shift[0]:
        output.copy_(output.roll(shift[0], -2))
        yield slice(0, output.shape[-2])


def joined_size(height: int, width: int, *, rows: bool) -> list[int]:
    """Return the size at which the network's steps meet: the next multiple of 4, from 8 on."""
    up = [max(MINIMUM_EDGE, -(-size // STRIDE) * STRIDE) for size in (height, width)]
    return [up[0] if rows else height, up[1]]


def resize_around(image: Tensor, height: int, width: int, *, rows: bool) -> Tensor:
    """(C, H, W) -> (C, height, width): bicubic, antialiased, without a seam, clamped to [0, 1]."""
    for dim, size, joined in ((-2, height, rows), (-1, width, True)):
        if image.shape[dim] != size:
            image = _resize_lines(image, dim, size, joined=joined)
    return image.clamp(0, 1)


def _resize_lines(image: Tensor, dim: int, size: int, *, joined: bool) -> Tensor:
    """Resize along one axis by the kernel of Keys (1981), widened where it shrinks."""
    old = image.shape[dim]
    scale = max(1.0, old / size)
    reach = int(2 * scale) + 1
    center = (torch.arange(size).double() + 0.5) * (old / size) - 0.5
    index = center.floor()[:, None] + torch.arange(-reach, reach + 2)
    t = (center[:, None] - index).abs() / scale
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    shares = torch.where(t < 1, near, torch.where(t < 2, far, 0))
    shares = (shares / shares.sum(1, keepdim=True)).float()
    lines = index.long().remainder(old) if joined else index.long().clamp(0, old - 1)
    lines, shares = lines.to(image.device), shares.to(image.device)
    shape = (-1, 1) if dim == -2 else (-1,)
    total = image.index_select(dim, lines[:, 0]) * shares[:, 0].view(shape)
    for k in range(1, lines.shape[1]):
        total.addcmul_(image.index_select(dim, lines[:, k]), shares[:, k].view(shape))
    return total


def _line_numbers(image: Tensor, *, ordered: bool) -> list[int]:
    """(..., H, W) -> a number for every 4 rows, which stands for their pixels.

    Where it is not `ordered` it is the same however the columns are rolled by multiples of 4.
    """
    bits = image if image.is_floating_point() else image.to(torch.int32)
    bits = bits.float().contiguous().view(torch.int32) if image.is_floating_point() else bits
    width = image.shape[-1]
    places = torch.arange(width if ordered else STRIDE, dtype=torch.int64, device=image.device)
    weights = _mixed(places * _STEP + 1).repeat(1 if ordered else width // STRIDE)
    numbers: list[int] = []
    for band in bands(bits):
        rows = bits[..., band, :].flatten(0, -3).long()
        channels = torch.arange(len(rows), device=image.device)[:, None, None]
        lines = torch.arange(rows.shape[-2], device=image.device).remainder(STRIDE)[:, None]
        mixed = _mixed(rows * _MIX + weights + channels * _STEP + lines * _FINISH)
        squares = mixed.sum(0).unflatten(0, (-1, STRIDE)).sum(1)
        squares = _mixed(squares.unflatten(1, (-1, STRIDE)).sum(2))
        numbers += squares.sum(1).tolist()
    return numbers


def _mixed(values: Tensor) -> Tensor:
    values = (values ^ (values >> 30)) * _MIX
    return (values ^ (values >> 27)) * _FINISH


def _least_rotation(numbers: Sequence[int]) -> int:
    """Return where the rotation of a sequence begins that comes first (Booth 1980)."""
    count, first, other, same = len(numbers), 0, 1, 0
    while first < count and other < count and same < count:
        a, b = numbers[(first + same) % count], numbers[(other + same) % count]
        if a == b:
            same += 1
            continue
        if a > b:
            first += same + 1
        else:
            other += same + 1
        other += first == other
        same = 0
    return min(first, other)
