"""The grid term: a picture shall have no pattern that hangs on the grid of its own pixels.

A transformer network doubles its maps twice, so whatever it does alike in every pixel of the small
map repeats every 4 pixels, or 2: a mesh in skies, which content and style hardly feel. Strokes lie
anywhere, so their mean over all places of one phase, (y mod 4, x mod 4), is that of any other.

With a picture y, b its mean over 4×4 pixels (in which waves of 4 and 2 pixels vanish, and a ramp is
a constant away), h = T tanh((y - b) / T), and m(p) the mean of h over a window's pixels of phase p:

* grid loss: mean over windows, channels and phases of (m(p) - mean over phases of m)^2

The tanh keeps few strong edges from outvoting a smooth sky. It is the project's own.
"""

import torch.nn.functional as F
from torch import Tensor

from fast_style.networks.transformer import replicate_one

# What repeats: the networks' stride.
_PERIOD = 4
# A window's side in pixels: what a network does wrong changes with what it paints.
_WINDOW = 64
# Of the image's range; a mesh that is seen is fainter.
_STRONG = 0.05


def grid_loss(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> scalar in float32: 0 for a side of less than a period."""
    pictures = pictures.float()
    side = min(_WINDOW, *(edge // _PERIOD * _PERIOD for edge in pictures.shape[-2:]))
    if not side:
        return pictures.new_zeros(())
    around = replicate_one(replicate_one(pictures))[..., 1:, 1:]  # one pixel before, two after
    fine = pictures - F.avg_pool2d(around, _PERIOD, stride=1)
    fine = _STRONG * (fine / _STRONG).tanh()
    cells = side // _PERIOD
    down, across = (edge // side for edge in pictures.shape[-2:])
    windows = fine[..., : down * side, : across * side].reshape(
        *fine.shape[:2], down, cells, _PERIOD, across, cells, _PERIOD
    )
    phases = windows.mean((3, 6))  # (N, 3, down, phase, across, phase)
    return (phases - phases.mean((3, 5), keepdim=True)).square().mean()
