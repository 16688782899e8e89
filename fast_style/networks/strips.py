"""An image cut into strips of rows, and the rows and columns that it goes on with at its edges."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.images import to_float
from fast_style.networks.transformer import stride_padding

Strip = Tensor

# Statistics are taken over chunks of rows of the image: a multiple of _CHUNK_ROWS that holds about
# _CHUNK_PIXELS pixels, which are enough to be fast and few enough for sums in float32. Strips begin
# where chunks do, so the numbers are the same whatever the height of the strips.
_CHUNK_ROWS = 8
_CHUNK_PIXELS = 1 << 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """Whether the image's last row comes before its first, and its last column before its first."""

    rows: bool
    columns: bool


class Plan:
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
class Chunks:
    """The chunks of rows over which statistics are taken: how many rows each, and its share.

    All have the same number of rows but the last one, so that strips of whole chunks follow each
    other. The shares of the image, (chunks, 1) float64, are the same for maps of every size.
    """

    rows: int
    shares: Tensor

    @classmethod
    def of(cls, plan: Plan, exact: torch.device) -> "Chunks":
        """Return the chunks of the image's rows; `exact` is where float64 is computed."""
        count = -(-plan.total // plan.chunk)
        # A list of them would make a GPU wait for the host.
        shares = torch.full((count, 1), plan.chunk / plan.total, device=exact, dtype=torch.float64)
        shares[-1] = (plan.total - (count - 1) * plan.chunk) / plan.total
        return cls(rows=plan.chunk, shares=shares)

    def times(self, factor: float) -> "Chunks":
        """Return the chunks of maps that have `factor` times the rows."""
        return replace(self, rows=int(self.rows * factor))


class ImageRows:
    """The first convolution's input: strips of the image with reflected borders, centred.

    An image is on the GPU that computes as a whole, and by its integers.
    """

    def __init__(
        self,
        image: Tensor,
        plan: Plan,
        device: torch.device,
        *,
        edges: tuple[int, int],
        around: Around,
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
