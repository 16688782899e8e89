"""The objective: content loss, style loss and total variation at an image.

`F_l` is the feature map of layer `l` after its ReLU, (N, C, H, W), of the loss network with its
original weights (RGB in [0, 255] minus the mean inside it). With images y (stylized), c (content)
and s (style) in [0, 1]:

* content loss: sum over layers of w_l mean((F_l(y) - F_l(c))^2)    (Johnson et al. 2016, eq. 2)
* style loss: sum over layers of w_l mean((G_l(y) - G_l(s))^2)      (eq. 4, as a mean)
  with the Gram matrix G = F F^T / (C H W)                          (eq. 3)
* total variation: mean squared difference of neighbouring pixels, down plus across

The total is content_weight, style_weight and tv_weight times these. A weight means nothing without
these choices: scaling the loss network's input by a scales the content loss by a^2 and the style
loss by a^4. They are fixed; a change of one is a change of *Numerics* in the CHANGELOG.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fast_style.networks.vgg import VGGFeatures, canonical_layer


@dataclass(frozen=True, slots=True)
class Losses:
    """The weighted terms of the objective, scalars, as averages over the batch."""

    content: Tensor
    style: Tensor
    tv: Tensor

    @property
    def total(self) -> Tensor:
        """The perceptual loss: the sum of the terms."""
        return self.content + self.style + self.tv

    def items(self) -> dict[str, Tensor]:
        """Give every term, detached, by the name under which it is reported."""
        terms = {"content": self.content, "style": self.style, "tv": self.tv, "total": self.total}
        return {name: value.detach() for name, value in terms.items()}


def gram_matrix(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, C): F F^T / (C H W) in float32 (Johnson et al. 2016, eq. 3).

    The division comes before the product, and the product is never in half precision.
    """
    n, channels, height, width = features.shape
    with torch.autocast(features.device.type, enabled=False):
        # Rows of pixels are the free view of a channels-last feature map.
        pixels = features.permute(0, 2, 3, 1).reshape(n, height * width, channels).float()
        pixels = pixels / (channels * height * width) ** 0.5
        return pixels.transpose(1, 2) @ pixels


def total_variation(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> scalar: mean squared difference of neighbours, down plus across, float32.

    A checkerboard of 0 and 1 has 2. An image one pixel wide or high has no neighbours that way.
    """
    images = images.float()
    down = images[..., 1:, :] - images[..., :-1, :]
    across = images[..., 1:] - images[..., :-1]
    return sum(
        (difference.square().mean() for difference in (down, across) if difference.numel()),
        start=images.new_zeros(()),
    )


class PerceptualLoss:
    """The objective at stylized images, for one style image; complete when constructed.

    `style_image` is (1, 3, H, W) in [0, 1], at the size whose strokes are wanted. Layers map names
    to weights; `features` must hold them all. Raises ValueError where it does not.
    """

    def __init__(
        self,
        features: VGGFeatures,
        style_image: Tensor,
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float = 1.0,
        style_weight: float = 5.0,
        tv_weight: float = 0.0,
    ) -> None:
        self.features = features
        self.content_layers = _canonical(features, content_layers)
        self.style_layers = _canonical(features, style_layers)
        self.content_weight = content_weight
        self.style_weight = style_weight
        self.tv_weight = tv_weight
        with torch.no_grad():
            maps = features(style_image, self.style_layers)
        self.style_targets = {name: gram_matrix(maps[name]) for name in self.style_layers}

    @torch.no_grad()
    def content_targets(self, content: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) in [0, 1] -> the feature maps that the content loss compares with."""
        return self.features(content, self.content_layers)

    def __call__(self, stylized: Tensor, content_targets: Mapping[str, Tensor]) -> Losses:
        """Evaluate the weighted terms at (N, 3, H, W) stylized images."""
        maps = self.features(stylized, {**self.content_layers, **self.style_layers})
        content = sum(
            (
                weight * _mean_squared(maps[name], content_targets[name])
                for name, weight in self.content_layers.items()
            ),
            start=stylized.new_zeros((), dtype=torch.float32),
        )
        style = sum(
            (
                weight * _mean_squared(gram_matrix(maps[name]), self.style_targets[name])
                for name, weight in self.style_layers.items()
            ),
            start=stylized.new_zeros((), dtype=torch.float32),
        )
        tv = total_variation(stylized)
        return Losses(
            content=self.content_weight * content,
            style=self.style_weight * style,
            tv=self.tv_weight * tv,
        )


def _canonical(features: VGGFeatures, layers: Mapping[str, float]) -> dict[str, float]:
    canonical = {canonical_layer(features.network, name): w for name, w in layers.items()}
    if missing := set(canonical) - set(features.layers):
        raise ValueError(f"the loss network was built without {', '.join(sorted(missing))}")
    return canonical


def _mean_squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).square().mean()
