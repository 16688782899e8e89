"""The style images of a config: loaded, checked, and made into its objective."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fast_style.config import Config, ConfigError, LossConfig, StyleConfig
from fast_style.config.places import source_of
from fast_style.config.style_names import styles_text
from fast_style.errors import UserError
from fast_style.images import ImageError, load_image, resize, resize_long_edge, style_doubts
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.building import Objective, build_objective

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleImages:
    """The images of a style, each (1, 3, H, W) in [0, 1], with the share of each."""

    images: tuple[Tensor, ...]
    shares: tuple[float, ...]

    def to(self, device: torch.device) -> "StyleImages":
        """Return the same on a device."""
        return replace(self, images=tuple(image.to(device) for image in self.images))

    @property
    def picture(self) -> Tensor:
        """The image as (3, H, W), or all of them side by side, at the height of the lowest."""
        if len(self.images) == 1:
            return self.images[0][0]
        height = min(image.shape[-2] for image in self.images)
        return torch.cat([_at_height(image[0], height) for image in self.images], dim=-1)


def _at_height(image: Tensor, height: int) -> Tensor:
    width = max(1, round(image.shape[-1] * height / image.shape[-2]))
    return resize(image, height, width)


def load_styles(style: StyleConfig) -> StyleImages:
    """Load the style images at the size at which their statistics are taken.

    Raises ConfigError for a file that cannot be read, with the place to get a missing one.
    """
    shares = style.shares
    return StyleImages(
        images=tuple(_load(path, style) for path in shares), shares=tuple(shares.values())
    )


def load_style_image(style: StyleConfig) -> Tensor:
    """Load the style image, (1, 3, H, W), of a config that names one (see `load_styles`)."""
    (image,) = load_styles(style).images
    return image


def _load(path: Path, style: StyleConfig) -> Tensor:
    try:
        image = load_image(path)
        _tell_doubts(path, style.dotted_key)
    except ImageError as error:
        cure = "" if path.exists() else _where_to_get(path)
        raise ConfigError(f"{style.dotted_key}: {error}{cure}") from None
    return resize_long_edge(image, style.size)[None]


@functools.cache  # a sweep loads the same one for every combination
def _tell_doubts(path: Path, key: str) -> None:
    for doubt in style_doubts(path):
        log.warning("%s: %s: %s", key, path, doubt)


def _where_to_get(path: Path) -> str:
    if path.is_absolute():
        return ""
    if page := source_of(path):
        return f"; {page} says where to get it"
    return f" in {Path.cwd()}, where relative paths begin"


def style_objective(
    config: Config, features: VGGFeatures, styles: StyleImages, *, content: Tensor | None = None
) -> Objective[LossConfig]:
    """Build a config's objective for its style images, on their device.

    `content`, (N, 3, H, W) typical photos, is what `loss.strength` is measured at. Raises
    ConfigError for a style image that is too small.
    """
    with _blamed_on(config.style.dotted_key, styles_text(config.style.shares)):
        return build_objective(
            config.loss, features, styles.images, content=content, shares=styles.shares
        )


def check_size(style: StyleConfig, features: VGGFeatures, styles: StyleImages) -> None:
    """Raise ConfigError for a style image too small for the deepest layer."""
    for path, image in zip(style.shares, styles.images, strict=True):
        with _blamed_on(style.dotted_key, str(path)), torch.no_grad():
            features(image)


@contextlib.contextmanager
def _blamed_on(key: str, named: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ConfigError(f"{key}: {named}: {error}") from None
