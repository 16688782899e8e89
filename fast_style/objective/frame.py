"""The frame term: a picture shall not be darker or brighter along its edges than inside.

A loss network sees nothing beyond the edges, so strokes may do there what they cannot do elsewhere,
and networks learn to draw a frame: a dark or bright band of some 16 pixels, which the objective
rewards.

With a picture y of a photo c, and e_k the mean of y - c over the pixels that are E_k to E_(k+1) - 1
pixels from the nearest edge, E = 0, 1, 2, 4, 8, 16, 32:

* frame loss: mean over images, k = 0 to 4 and channels of (e_k - e_5)^2

A photo's own frame, or its sky above and grass below, is none of the picture's: hence y - c. The
term is the project's own.
"""

import torch
from torch import Tensor

# How many bands there are, each as wide as all around it; the last one stands for the inside.
_BANDS = 6


def frame_loss(pictures: Tensor, photos: Tensor) -> Tensor:
    """Twice (N, 3, H, W) in [0, 1] -> scalar in float32.

    A small image has fewer bands, of which the last one is what there is. With a single one, for a
    side of 1 or 2 pixels, the loss is 0.
    """
    height, width = pictures.shape[2:]
    bands = min(_BANDS, (min(height, width) - 1).bit_length())
    if bands < 2:
        return pictures.new_zeros((), dtype=torch.float32)
    with torch.autocast(pictures.device.type, enabled=False):
        excess = pictures.float() - photos.float()
        edges = (1 << torch.arange(bands + 1, device=excess.device)) // 2  # 0, 1, 2, 4 ...
        rows, columns = (_inside(edges, side) for side in (height, width))
        sums = ((excess @ columns) * rows).sum(2)  # (N, 3, bands + 1): of all inside each edge
        areas = rows.sum(0) * columns.sum(0)
        colors = sums.diff() / areas.diff()
        return (colors[..., :-1] - colors[..., -1:]).square().mean()


def _inside(edges: Tensor, side: int) -> Tensor:
    """(K,) -> (side, K): 1 for pixels that are as far from both ends, else 0."""
    place = torch.arange(side, device=edges.device)
    return (torch.minimum(place, side - 1 - place)[:, None] >= edges).float()
