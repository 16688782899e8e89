"""A large photo through the graphs of `stages.py`, strip by strip: exact, without PyTorch.

What `web/stages.js` does in a browser. A photo's maps at full resolution take 20 bytes a pixel for
each channel of the network's width when they are all there at once; here only the trunk's map, at
a quarter of the edge, is whole. Rows are counted in quarters, rows of that map: each is two rows at
half resolution, and four of the photo with what is around it.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
# Runs a graph: inputs by name -> outputs by name.
Stage = Callable[[Mapping[str, Array]], Mapping[str, Array]]

STAGES = ("encode1", "encode2", "encode3", "trunk", "decode1", "decode2", "decode3")

# As in networks/streaming.py and networks/transformer.py, which need PyTorch.
_EDGE = 8
_MARGIN = 4
_STRIDE = 4
# Bytes a pixel, for each channel of the network's width, of what is whole: the trunk's map, the
# stream, a branch and its norm.
HELD_BYTES = 6
# What fits into a CPU's caches is fast; what is around a strip is computed twice.
_STRIP_PIXELS = 1 << 19


def stylize_in_strips(
    pixels: npt.NDArray[np.uint8],
    stages: Mapping[str, Stage],
    *,
    strip_pixels: int = _STRIP_PIXELS,
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) -> the same shape: the picture of the whole network."""
    chain = _Chain(pixels, stages, strip_pixels)
    chain.encode()
    return chain.decode()


class _Chain:
    def __init__(
        self, pixels: npt.NDArray[np.uint8], stages: Mapping[str, Stage], strip_pixels: int
    ) -> None:
        self.pixels = pixels
        self.stages = stages
        self.rows, self.columns = (_padded_lines(size) for size in pixels.shape[:2])
        self.quarters = (len(self.rows) - 2 * _MARGIN) // _STRIDE
        self.step = max(1, round(strip_pixels / (_STRIDE * len(self.columns))))
        self.norms: dict[int, dict[str, Array]] = {}
        self.map: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def encode(self) -> None:
        """Run the encoder and the trunk."""
        self.measure(1, "encode1", lambda a, b: {"image": self.image_rows(4 * a, 4 * b)})
        self.measure(2, "encode2", lambda a, b: self.half_rows(2 * a, 2 * b))
        parts = self.measure(3, "encode3", self._encode3)
        self.map = np.concatenate(parts, axis=2)
        parts.clear()
        trunk = self.stages["trunk"]({"map": self.map, **self.norms[3]})
        self.map = np.asarray(trunk["stage"], np.float32)

    def decode(self) -> npt.NDArray[np.uint8]:
        """Run the decoder; return the picture."""
        self.measure(4, "decode1", lambda a, b: {"map": self.trunk_rows(a, b)})
        self.measure(5, "decode2", lambda a, b: self.upsampled_rows(2 * a - 1, 2 * b + 1))
        height, width = self.pixels.shape[:2]
        picture = np.empty_like(self.pixels)
        for a, b in self.strips():
            first, last = self._visible(a), self._visible(b)
            if first == last:
                continue
            # The head's squares are of two rows each.
            top = first + _EDGE - _MARGIN
            bottom = last + last % 2 + _EDGE + _MARGIN
            feeds = {
                **self.upsampled_rows(top // 2 - 1, bottom // 2 + 1),
                **self.norms[5],
                "starts": np.array([0, _EDGE - _MARGIN]),
                "ends": np.array([bottom - top, width + width % 2 + _EDGE + _MARGIN]),
                "size": np.array([last - first, width]),
            }
            picture[first:last] = np.asarray(self.stages["decode3"](feeds)["stage"])[0]
        assert height == self._visible(self.quarters)
        return picture

    def strips(self) -> Iterator[tuple[int, int]]:
        for a in range(0, self.quarters, self.step):
            yield a, min(a + self.step, self.quarters)

    def measure(
        self, norm: int, stage: str, feeds: Callable[[int, int], Mapping[str, Array]]
    ) -> list[npt.NDArray[np.float32]]:
        """Run a stage over all strips, and merge its statistics; return the maps that it gives."""
        means, variances, counts, maps = [], [], [], []
        for a, b in self.strips():
            outputs = self.stages[stage](feeds(a, b))
            means.append(np.array(outputs["mean"], np.float64))
            variances.append(np.array(outputs["variance"], np.float64))
            counts.append(b - a)
            if "stage" in outputs:
                maps.append(np.array(outputs["stage"], np.float32))
        share = np.array(counts)[:, None] / sum(counts)
        mean = (share * means).sum(0)
        variance = (share * (variances + np.square(means - mean))).sum(0)
        self.norms[norm] = {
            f"mean{norm}": mean.astype(np.float32),
            f"variance{norm}": variance.astype(np.float32),
        }
        return maps

    def image_rows(self, first: int, last: int) -> Array:
        """Return what the first convolution reads for rows [first, last) of its map."""
        lines = self.rows[first : last + 2 * _MARGIN]
        return self.pixels[lines][:, self.columns][None]

    def half_rows(self, first: int, last: int) -> dict[str, Array]:
        """Return the feeds from which come rows [first, last) of the map at half resolution."""
        # A reflected row above the first one; below the last, stride 2 reads none.
        top = max(0, 2 * first - 1)
        rows = np.abs(np.arange(2 * first - 1, 2 * last)) - top
        return {"image": self.image_rows(top, 2 * last), **self.norms[1], "rows1": rows}

    def _encode3(self, a: int, b: int) -> dict[str, Array]:
        top = max(0, 2 * a - 1)
        rows = np.abs(np.arange(2 * a - 1, 2 * b)) - top
        return {**self.half_rows(top, 2 * b), **self.norms[2], "rows2": rows}

    def trunk_rows(self, first: int, last: int) -> Array:
        """Return rows [first - 1, last + 1) of the trunk's map; beyond its edge they repeat."""
        rows = np.arange(first - 1, last + 1).clip(0, self.quarters - 1)
        return np.ascontiguousarray(self.map[:, :, rows])

    def upsampled_rows(self, first: int, last: int) -> dict[str, Array]:
        """Return the feeds of an upsampling from rows [first, last) at half resolution."""
        rows = np.arange(first, last).clip(0, 2 * self.quarters - 1)
        a, b = int(rows[0]) // 2, int(rows[-1]) // 2 + 1
        return {"map": self.trunk_rows(a, b), **self.norms[4], "rows4": rows - 2 * a}

    def _visible(self, quarter: int) -> int:
        """Return the row of the photo where the strips meet: in proportion, in pairs of rows."""
        height = self.pixels.shape[0]
        if quarter == self.quarters:
            return height
        return min(2 * round(quarter * height / (2 * self.quarters)), height)


def _padded_lines(size: int) -> npt.NDArray[np.int64]:
    """Return which lines of an axis the first convolution reads: see `_lines` in onnx.py."""
    padded = size + 2 * _EDGE
    total = padded + -padded % _STRIDE
    i = _mirror(_mirror(np.abs(np.arange(-_MARGIN, total + _MARGIN)), total - 1), padded - 1)
    # Where the photo is smaller than the edge, it is mirrored to and fro.
    return _mirror((i - _EDGE) % max(2 * size - 2, 1), size - 1)


def _mirror(i: npt.NDArray[np.int64], last: int) -> npt.NDArray[np.int64]:
    return last - np.abs(last - i)
