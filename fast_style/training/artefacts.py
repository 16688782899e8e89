"""The artefact alarm: signs of a failed training, measured at a picture.

A flat picture, a grid from the network's two doublings of its maps, dots: each is one number. The
thresholds were chosen by what photos, style images and good networks' pictures have
(docs/measurements.md).
"""

import torch
from torch import Tensor

# BT.601, in which JPEG separates luma from chroma.
_LUMA = (0.299, 0.587, 0.114)

# A picture with less than this share of the photo's standard deviation is flat.
MINIMUM_DEVIATION = 0.2
# The energy at periods of 4 and 2 pixels, as a multiple of that beside them.
MAXIMUM_GRID = 3.0
# The share of pixels that stand alone, beyond the photo's own; a few may in the smallest picture.
MAXIMUM_HOT_PIXELS = 1e-4
_HOT_PIXELS_ALLOWED = 8

# A grid varies over a picture, so the spectrum is that of blocks; 32 pixels are eight periods.
_BLOCK = 32
# Waves of this amplitude, in units of the image, are too faint to be seen; the eye is less
# sensitive to a period of 2 pixels.
_FAINT_OF_FOUR = 0.004
_FAINT_OF_TWO = 0.016
# Hann's window spreads a wave over the bins next to its own.
_APART = 3
# A hot pixel differs from all eight around it by more than this, in one channel.
_HOT = 0.45
# A mesh is looked for in this share of a photo's blocks, the flattest, which are small enough to
# lie between a style's lines; and of these, in the quarter that has least of it.
_MESH_BLOCK = 16
_FLATTEST = 0.1
_LEAST = 0.25


def artefact_scores(image: Tensor) -> dict[str, float]:
    """(3, H, W) in [0, 1] -> `deviation`, `grid` and `hot_pixels`.

    `deviation` is the standard deviation of the pixels, 0 for one flat colour. `grid` is about 1
    for photos, and grows with the energy of a pattern of 4 or 2 pixels. `hot_pixels` is the share
    of pixels that stand out from all eight around them. Values out of range are clamped, as they
    are when saved.
    """
    image = image.detach().float().clamp(0, 1)
    scores = torch.stack([_deviation(image), _grid(image), _hot_pixels(image)])
    names = ("deviation", "grid", "hot_pixels")
    return dict(zip(names, scores.tolist(), strict=True))


def find_artefacts(content: Tensor, stylized: Tensor) -> list[str]:
    """Compare two (3, H, W) images in [0, 1]; return a sentence for each artefact that was found.

    What the content image has itself is not held against the stylized one.
    """
    if not stylized.isfinite().all():
        return ["not a picture: it holds NaN or infinite values"]
    before, after = artefact_scores(content), artefact_scores(stylized)
    found = []
    if after["deviation"] < MINIMUM_DEVIATION * before["deviation"]:
        found.append(
            f"flat: its standard deviation, {after['deviation']:.3f}, is "
            f"{after['deviation'] / before['deviation']:.0%} of the photo's "
            f"(alarm under {MINIMUM_DEVIATION:.0%})"
        )
    if after["grid"] > MAXIMUM_GRID * max(before["grid"], 1):
        found.append(
            f"a grid of 4 or 2 pixels: {after['grid']:.1f} times the energy of the periods beside "
            f"these, the photo {before['grid']:.1f} (alarm above {MAXIMUM_GRID:g} times that; "
            "a larger loss.grid_weight takes it away)"
        )
    allowed = max(MAXIMUM_HOT_PIXELS, _HOT_PIXELS_ALLOWED / stylized[0].numel())
    if after["hot_pixels"] > before["hot_pixels"] + allowed:
        found.append(
            f"hot pixels: {after['hot_pixels']:.3%} stand alone, the photo "
            f"{before['hot_pixels']:.3%} (alarm above that and {allowed:.3%})"
        )
    return found


def mesh(content: Tensor, stylized: Tensor) -> float:
    """(3, H, W) photo, (3, H, W) picture -> how strong a pattern of 2 to 4 pixels is in flat areas.

    It is the root of the mean square, in units of the image, of the luma's waves with a period of 2
    to 4 pixels down or across, beyond the photo's own: 0.02 for checks of single pixels that are
    0.02 brighter and darker than what they lie on. Only the photo's flattest blocks count, and of
    these the ones with least of it, so that lines and edges that a style draws do not.
    """
    if min(content.shape[1:]) < _MESH_BLOCK:
        return 0.0
    before, after = (_small_blocks(image) for image in (content, stylized))
    flattest = before.var((1, 2)).argsort()[: max(1, round(_FLATTEST * len(before)))]
    excess = _fine_energy(after[flattest]) - _fine_energy(before[flattest])
    return float(excess.clamp_min(0).quantile(_LEAST).sqrt())


def _small_blocks(image: Tensor) -> Tensor:
    """(3, H, W) -> (N, 16, 16): the luma in blocks."""
    size = _MESH_BLOCK
    height, width = (side // size * size for side in image.shape[1:])
    luma = _luma(image.detach().float().clamp(0, 1))[:height, :width]
    return luma.unfold(0, size, size).unfold(1, size, size).reshape(-1, size, size)


def _fine_energy(blocks: Tensor) -> Tensor:
    """(N, B, B) -> (N,): the mean square of the waves with a period of 2 to 4 pixels."""
    window = torch.hann_window(blocks.shape[-1], device=blocks.device)
    window = window * window[:, None]
    spectrum = torch.fft.fft2((blocks - blocks.mean((1, 2), keepdim=True)) * window)
    frequency = torch.fft.fftfreq(blocks.shape[-1], device=blocks.device).abs()
    fine = torch.maximum(frequency, frequency[:, None]) >= 0.25
    energy = (spectrum.abs().square() * fine).mean((1, 2))
    return energy / window.square().sum()


def _luma(image: Tensor) -> Tensor:
    return (image * image.new_tensor(_LUMA)[:, None, None]).sum(0)


def _deviation(image: Tensor) -> Tensor:
    return image.var((1, 2), correction=0).mean().sqrt()


def _grid(image: Tensor) -> Tensor:
    """(3, H, W) -> scalar: the largest excess of energy at the frequencies k / 4 and k / 2.

    Blocks are averaged as logarithms, so that a few textured ones don't outvote a smooth sky, where
    a grid is seen. Edges and motion blur have energy along one line of the spectrum, a grid at
    points: the excess counts only if it is there both down and across.
    """
    height, width = (side // _BLOCK * _BLOCK for side in image.shape[1:])
    if not height or not width:
        return image.new_ones(())
    luma = _luma(image)[:height, :width]
    blocks = luma.unfold(0, _BLOCK, _BLOCK).unfold(1, _BLOCK, _BLOCK).reshape(-1, _BLOCK, _BLOCK)
    window = torch.hann_window(_BLOCK, device=image.device)
    blocks = (blocks - blocks.mean((1, 2), keepdim=True)) * window * window[:, None]
    energy = torch.fft.fft2(blocks).abs().square()
    of_four, of_two = (
        # A wave of amplitude a over a block has the energy (a / 2 x the window's sum)^2.
        _excess(energy, (faint / 2 * window.sum().square()).square())
        for faint in (_FAINT_OF_FOUR, _FAINT_OF_TWO)
    )
    half = torch.arange(4, device=image.device) == 2
    excess = torch.where(half | half[:, None], of_two, of_four)
    return excess.flatten()[1:].max().exp()  # without frequency 0, the mean


def _excess(energy: Tensor, faint: Tensor) -> Tensor:
    """(N, 32, 32) spectra -> (4, 4): log energy at every eighth frequency, less that beside it.

    `faint`, the energy of a wave too faint to be seen, is added everywhere.
    """
    spectrum = (energy + faint).log().mean(0)
    beside = [(spectrum.roll(_APART, dim) + spectrum.roll(-_APART, dim)) / 2 for dim in (0, 1)]
    excess = torch.minimum(spectrum - beside[0], spectrum - beside[1])
    return excess[:: _BLOCK // 4, :: _BLOCK // 4]


def _hot_pixels(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    if height < 3 or width < 3:
        return image.new_zeros(())
    around = [
        image[:, y : height - 2 + y, x : width - 2 + x]
        for y in range(3)
        for x in range(3)
        if (y, x) != (1, 1)
    ]
    highest, lowest = around[0], around[0]
    for neighbors in around[1:]:
        highest, lowest = torch.maximum(highest, neighbors), torch.minimum(lowest, neighbors)
    center = image[:, 1:-1, 1:-1]
    hot = (center > highest + _HOT) | (center < lowest - _HOT)
    return hot.any(0).sum() / (height * width)
