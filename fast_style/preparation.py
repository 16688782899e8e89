"""What a training run needs from outside: its inputs, found, checked and loaded.

Nothing is written here but the cache of photos, last, where one is asked for; a run that fails on
its inputs leaves nothing behind.
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.cache import open_cache
from fast_style.checkpoint import find_model, load_model
from fast_style.config import Config, ConfigError, StyleConfig, locate
from fast_style.data import ContentImages, center_crops
from fast_style.devices import resolve_device, resolve_precision
from fast_style.images import ImageError, load_image, resize_long_edge, to_float
from fast_style.losses import PerceptualLoss, with_raw_weights
from fast_style.networks.transformer import TransformerNet
from fast_style.networks.vgg import canonical_layers
from fast_style.photos import find_images, hold_out, scan_images
from fast_style.schedule import first_steps
from fast_style.weights import load_vgg

log = logging.getLogger(__name__)

_NUM_PREVIEWS = 4
_PREVIEW_EDGE = 384


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Everything that a run needs from outside: found, checked and loaded."""

    device: torch.device
    dtype: torch.dtype
    network: TransformerNet  # as the first step finds it
    style_image: Tensor
    criterion: PerceptualLoss
    images: ContentImages
    validation: Tensor
    previews: dict[str, Tensor]


def prepare_together(config: Config, *, device: str = "auto") -> Inputs:
    """Prepare in every process of a run, in the main one first; a run of one just prepares.

    The others find what it has downloaded and cached, and take over what `loss.strength` came to.
    """
    batch_size, processes = config.training.batch_size, distributed.world_size()
    objective = config
    with distributed.together():
        if batch_size % processes:
            raise ConfigError(
                f"training.batch_size: {batch_size} images cannot be shared equally by {processes} "
                f"processes: make it {processes * max(1, round(batch_size / processes))}, or start "
                "another number of processes"
            )
        if distributed.is_main():
            inputs = prepare(config, device=distributed.local_device(device))
            objective = objective_config(config, inputs.criterion)
    objective = distributed.from_main(objective)
    with distributed.together(), distributed.only_main_speaks():
        if not distributed.is_main():
            inputs = prepare(objective, device=distributed.local_device(device))
    return inputs


def prepare(config: Config, *, device: str = "auto") -> Inputs:
    """Find, check and load what a run needs, cheap checks first; the cache of photos comes last."""
    data, training = config.data, config.training
    on = resolve_device(device)
    dtype = resolve_precision(training.precision, on)
    network = initial_network(config)
    style = load_style_image(config.style).to(on)
    train = [locate(path, key="data.train") for path in data.train]
    paths = find_images(train, named="data.train")
    held = [locate(path, key="data.validation") for path in data.validation]
    held = find_images(held, named="data.validation") if held else []
    criterion = None if config.loss.strength else build_criterion(config, style)
    scan = scan_images(paths)
    usable = scan.usable
    if held:
        held = scan_images(held).usable
    else:
        usable, held = hold_out(usable, data.held_out)
    counts = f"{len(usable):,} to train on, {len(held):,} held out"
    log.info("content images: %s; %s", scan.summary(), counts)
    size = training.image_size
    crops = center_crops(held, size)
    validation = torch.stack(list(crops.values()))
    if criterion is None:
        criterion = build_criterion(config, style, content=to_float(validation.to(on)))
    previews = {
        path.stem: resize_long_edge(load_image(path), _PREVIEW_EDGE)
        for path in list(crops)[:_NUM_PREVIEWS]
    }
    images = ContentImages(
        usable,
        size,
        mixed_sizes=training.mixed_sizes,
        first_size=training.first_size,
        first_steps=first_steps(training, training.steps),
        seed=training.seed,
        min_crop=data.min_crop,
        flip=data.flip,
    )
    if data.cache:
        # Of the held-out images too: how many these are shall not matter to a cache.
        folder = locate(data.cache, key="data.cache")
        images.cache = open_cache(folder, scan.usable, at_least=images.at_least)
    return Inputs(
        device=on,
        dtype=dtype,
        network=network,
        style_image=style,
        criterion=criterion,
        images=images,
        validation=validation,
        previews=previews,
    )


def load_style_image(style: StyleConfig) -> Tensor:
    """Load the style image, (1, 3, H, W), at the size at which its statistics are taken.

    Raises ConfigError for one that cannot be read, and says where to get one that is not there.
    """
    path = locate(style.image, key="style.image")
    try:
        image = load_image(path)
    except ImageError as error:
        cure = "" if path.exists() else _where_to_get(path)
        raise ConfigError(f"style.image: {error}{cure}") from None
    return resize_long_edge(image, style.size)[None]


def _where_to_get(path: Path) -> str:
    if path.is_absolute():
        return ""
    readme = Path("styles/README.md")
    if path.parent == readme.parent and readme.is_file():
        return f"; {readme} says where to get it"
    return f" in {Path.cwd()}, where relative paths begin"


def build_criterion(
    config: Config, style_image: Tensor, *, content: Tensor | None = None
) -> PerceptualLoss:
    """Build the config's objective on the style image's device, with real weights.

    `content`, (N, 3, H, W) typical photos, is what `loss.strength` is measured at. Raises
    ConfigError for layers that do not exist or do not fit, and WeightsError.
    """
    loss = config.loss
    try:
        layers = [
            name
            for weights in (loss.content_layers, loss.style_layers)
            for name in canonical_layers(loss.network, weights)
        ]
    except ValueError as error:
        raise ConfigError(f"loss: {error}") from None
    features = load_vgg(loss.network, layers, path=loss.weights).to(style_image.device)
    try:
        loss = with_raw_weights(loss, features, style_image, content)
        return PerceptualLoss(
            features,
            style_image,
            content_layers=loss.content_layers,
            style_layers=loss.style_layers,
            content_weight=loss.content_weight,
            style_weight=loss.style_weight,
            tv_weight=loss.tv_weight,
        )
    except ValueError as error:
        raise ConfigError(f"style.image: {config.style.image}: {error}") from None


def objective_config(config: Config, criterion: PerceptualLoss) -> Config:
    """Write the weights that `loss.strength` came to into the config: the very same objective."""
    raw = dataclasses.replace(
        config.loss,
        strength=None,
        content_layers=criterion.content_layers,
        style_layers=criterion.style_layers,
        content_weight=criterion.content_weight,
        style_weight=criterion.style_weight,
    )
    return dataclasses.replace(config, loss=raw)


def initial_network(config: Config) -> TransformerNet:
    """Build the config's network: with the weights of `training.init_from`, or seeded random ones.

    Raises CheckpointError, and ConfigError where that model's network is another.
    """
    network, init_from = config.network, config.training.init_from
    if init_from is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            return TransformerNet(network.width, network.num_residual_blocks)
    initial = load_model(find_model(init_from)).network
    for key in ("width", "num_residual_blocks"):
        if getattr(initial, key) != getattr(network, key):
            raise ConfigError(
                f"network.{key}: is {getattr(network, key)}, but training.init_from, {init_from}, "
                f"has {getattr(initial, key)}: they must agree"
            )
    return initial.requires_grad_(True).train()
