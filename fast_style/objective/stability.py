"""The stability term: a network shall draw the same strokes where a photo has moved a little.

With the network N, crops c, a motion W by whole pixels and, for some, a zoom, a light l, and a
sensor's noise e:

* stability loss: mean over pixels of (N(l W c + e) - W N(c))^2, images in [0, 1]

over the pixels that both pictures show, away from their edges. W is the same bicubic resampling of
photo and picture. The light is not put onto the picture: strokes need not change with it.

So a network learns from single photos what else takes clips with their optical flow. The field
calls this compound regularization, of motion and light together (Wang et al., AAAI 2020, and in
IEEE TIP 2020, ReReVST).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Keeps these draws apart from those of the crops' sizes, which have (seed, step, 1).
_DISTURBANCES = 2
# The largest motion in pixels: twice the networks' stride, on whose grid the strokes hang.
_SHIFT = 8
_ZOOM = 0.03
# Of the crops that are zoomed: the others move by whole pixels, and lose no detail by resampling.
_ZOOMED = 0.5
_LIGHT = 0.05
# The standard deviation of the noise is drawn from 0 up to this.
_NOISE = 4 / 255
# Pixels along the edges, where a network sees what is mirrored there.
_RIM = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """How N square crops are disturbed: (N, 2, 3) maps of places, (N, 1, 1, 1) light, noise.

    A map takes a place of the disturbed crop to where it was, in [-1, 1] across the crop.
    """

    motion: Tensor
    light: Tensor
    noise: Tensor

    def of(self, content: Tensor) -> Tensor:
        """(N, 3, S, S) crops in [0, 1] -> the same, moved, relit and with noise."""
        return (self.light * self.moved(content) + self.noise).clamp(0, 1)

    def moved(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, 3, S, S) float32: moved; what comes into view is mirrored."""
        with torch.autocast(images.device.type, enabled=False):
            places = self._places(images.shape[-1])
            return F.grid_sample(
                images.float(),
                places,
                mode="bicubic",
                padding_mode="reflection",
                align_corners=False,
            )

    def difference(self, stylized: Tensor, again: Tensor) -> Tensor:
        """(N, 3, S, S) pictures of the crops and of the disturbed ones -> the stability loss."""
        squared = (again.float() - self.moved(stylized)).square().mean(1)
        seen = self.shared(stylized.shape[-1])
        return ((squared * seen).sum((1, 2)) / seen.sum((1, 2))).mean()

    def shared(self, size: int) -> Tensor:
        """(N, S, S) float32: 1 where a pixel is in both pictures, away from their edges; else 0."""
        inside = 1 - 2 * min(_RIM, size // 4) / size
        here = F.affine_grid(self._still, [1, 1, size, size], align_corners=False)
        both = torch.maximum(self._places(size).abs(), here.abs())
        return (both.amax(-1) < inside).float()

    def chunk(self, parts: int) -> list["Disturbance"]:
        """Return those of equal parts of the crops."""
        tensors = (each.chunk(parts) for each in (self.motion, self.light, self.noise))
        return [
            Disturbance(motion=motion, light=light, noise=noise)
            for motion, light, noise in zip(*tensors, strict=True)
        ]

    @property
    def _still(self) -> Tensor:
        return torch.eye(2, 3, device=self.motion.device)[None]

    def _places(self, size: int) -> Tensor:
        shape = [len(self.motion), 1, size, size]
        return F.affine_grid(self.motion, shape, align_corners=False)


def draw_disturbance(
    seed: int,
    step: int,
    *,
    count: int,
    size: int,
    share: tuple[int, int] = (0, 1),
    device: torch.device,
) -> Disturbance:
    """Draw how the `count` crops of `size` pixels of a step are disturbed: from (seed, step) alone.

    `share` (k, n) is the k-th of n equal parts of the step's crops; `count` is that of a part.
    """
    number, parts = share
    all_of_them = count * parts
    random = np.random.default_rng((seed, step, _DISTURBANCES))
    shift = random.integers(-_SHIFT, _SHIFT + 1, (all_of_them, 2)) * 2 / size
    is_zoomed = random.random(all_of_them) < _ZOOMED
    zoom = 1 + is_zoomed * random.uniform(-_ZOOM, _ZOOM, all_of_them)
    light = 1 + random.uniform(-_LIGHT, _LIGHT, all_of_them)
    deviation = random.uniform(0, _NOISE, all_of_them)
    motion = zoom[:, None, None] * np.eye(2, 3) + shift[..., None] * [0, 0, 1]
    noise = random.standard_normal((all_of_them, 3, size, size), np.float32)
    noise *= deviation[:, None, None, None].astype(np.float32)
    own = slice(number * count, (number + 1) * count)
    # Asynchronous copies: a GPU has the steps before still to do.
    return Disturbance(
        motion=torch.from_numpy(motion[own]).float().to(device, non_blocking=True),
        light=torch.from_numpy(light[own, None, None, None]).float().to(device, non_blocking=True),
        noise=torch.from_numpy(noise[own]).to(device, non_blocking=True),
    )
