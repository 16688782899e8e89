"""What a training run needs from outside: its inputs, found, checked and loaded.

Nothing is written here but the cache of photos, last, where one is asked for; a run that fails on
its inputs leaves nothing behind.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.checkpoints.files import SHIPPED, find_model, load_model
from fast_style.config import Config, ConfigError, DataConfig, LossConfig
from fast_style.data import ContentImages, DataError, Skipped, center_crops, read_each
from fast_style.data.cache import open_cache
from fast_style.data.photos import find_images, hold_out, scan_images
from fast_style.devices import resolve_device, resolve_precision
from fast_style.images import load_image, resize_long_edge, to_float
from fast_style.networks.building import build_network
from fast_style.networks.transformer import TransformerNet
from fast_style.objective.building import build_features
from fast_style.objective.losses import PerceptualLoss
from fast_style.training.schedule import first_steps
from fast_style.training.styles import StyleImages, check_size, load_styles, style_objective
from fast_style.training.styles import load_style_image as load_style_image

log = logging.getLogger(__name__)

_NUM_PREVIEWS = 4
# From this share of photos on it is told what to do about plain bands.
_MANY_FRAMED = 0.1
_PREVIEW_EDGE = 384
_AUTO = Path("auto")
# What a network and the one that it begins with have in common.
_SHAPE = ("kind", "width", "num_residual_blocks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Everything that a run needs from outside: found, checked and loaded."""

    device: torch.device
    dtype: torch.dtype
    network: TransformerNet  # as the first step finds it
    styles: StyleImages
    criterion: PerceptualLoss
    loss: LossConfig  # the criterion's, in raw weights
    images: ContentImages
    validation: Tensor
    previews: dict[str, Tensor]


def prepare_together(
    config: Config, *, device: str = "auto", skipped: Skipped | None = None
) -> Inputs:
    """Prepare in every process of a run, in the main one first; a lone process just prepares.

    The other processes find what that one has downloaded and cached, and take over the weights
    that `loss.strength` came to.
    """
    batch_size, processes = config.training.batch_size, distributed.world_size()
    loss = config.loss
    with distributed.together():
        if batch_size % processes:
            raise ConfigError(
                f"training.batch_size: {batch_size} images cannot be shared equally by {processes} "
                f"processes: make it {processes * max(1, round(batch_size / processes))}, or start "
                "another number of processes"
            )
        _check_parts(batch_size // processes, config.training.accumulate)
        if distributed.is_main():
            inputs = prepare(config, device=distributed.local_device(device), skipped=skipped)
            loss = inputs.loss
    config = dataclasses.replace(config, loss=distributed.from_main(loss))
    with distributed.together(), distributed.only_main_speaks():
        if not distributed.is_main():
            inputs = prepare(config, device=distributed.local_device(device), skipped=skipped)
    return inputs


def _check_parts(images: int, parts: int) -> None:
    """Raise ConfigError where the images of a process and a step have no such equal parts."""
    if images % parts:
        fitting = [str(number) for number in range(2, images + 1) if images % number == 0]
        choice = f"make it {' or '.join(fitting)}, or" if fitting else "use"
        raise ConfigError(
            f"training.accumulate: {images} images of a step cannot be computed in {parts} equal "
            f"parts: {choice} 1"
        )


def prepare(config: Config, *, device: str = "auto", skipped: Skipped | None = None) -> Inputs:
    """Find, check and load what a run needs, cheap checks first; the cache of photos comes last.

    `config` is a resolved one, whose paths are those of the files themselves. Photos that are
    broken are `skipped`.
    """
    data, training = config.data, config.training
    on = resolve_device(device)
    dtype = resolve_precision(training.precision, on)
    network = initial_network(config)
    styles = load_styles(config.style).to(on)
    features = build_features(config.loss, on)
    check_size(config.style, features, styles)
    paths = find_images(data.train, named="data.train")
    if data.validation:
        find_images(data.validation, named="data.validation")
    skipped = Skipped() if skipped is None else skipped
    scan = scan_images(paths, skipped=skipped)
    usable, crops = held_out_crops(data, scan.usable, training.image_size, skipped)
    counts = f"{len(usable):,} to train on, {len(crops):,} held out"
    log.info("content images: %s; %s", scan.summary(), counts)
    if scan.framed_share >= _MANY_FRAMED:
        log.info(
            "a plain band, of a frame or padding, is trained on as well: crop it away, or leave "
            "such photos out; check-data --json names them"
        )
    validation = torch.stack(list(crops.values()))
    objective = style_objective(config, features, styles, content=to_float(validation.to(on)))
    images = ContentImages(
        usable,
        training.image_size,
        mixed_sizes=training.mixed_sizes,
        first_size=training.first_size,
        first_steps=first_steps(training, training.steps),
        seed=training.seed,
        min_crop=data.min_crop,
        flip=data.flip,
    )
    if data.cache:
        # Of the held-out images too, so that another data.held_out does not rebuild the cache.
        cache = open_cache(data.cache, scan.usable, preparation=images.preparation)
        images = images.cached(cache)
    return Inputs(
        device=on,
        dtype=dtype,
        network=network,
        styles=styles,
        criterion=objective.criterion,
        loss=objective.raw,
        images=images,
        validation=validation,
        previews=_load_previews(list(crops)[:_NUM_PREVIEWS], skipped),
    )


def split_photos(
    data: DataConfig, usable: Sequence[Path], *, skipped: Skipped | None = None
) -> tuple[list[Path], list[Path]]:
    """Divide the `usable` photos of `data.train` into those to train on and those held out.

    With `data.validation` none of them is held out, but the usable photos there.
    """
    if data.validation:
        paths = find_images(data.validation, named="data.validation")
        return list(usable), scan_images(paths, skipped=skipped).usable
    return hold_out(usable, data.held_out)


def held_out_crops(
    data: DataConfig, paths: Sequence[Path], size: int, skipped: Skipped
) -> tuple[list[Path], dict[Path, Tensor]]:
    """Divide the photos, and read those that are held out: others where all of these are broken."""
    while True:
        usable, held = split_photos(data, paths, skipped=skipped)
        try:
            return usable, center_crops(held, size, skipped=skipped)
        except DataError:
            if data.validation or len(held) == len(paths):
                raise
            paths = [path for path in paths if path not in held]


def _load_previews(paths: Sequence[Path], skipped: Skipped) -> dict[str, Tensor]:
    """Load the photos of the previews, (3, H, W), by names that differ: as short as they can be."""
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.parent.name}-{stem}"
        for path, stem in zip(paths, stems, strict=True)
    ]
    names = [
        name if names.count(name) == 1 else f"{name}-{number}"
        for number, name in enumerate(names, start=1)
    ]
    name_of = dict(zip(paths, names, strict=True))

    def load(path: Path) -> Tensor:
        return resize_long_edge(load_image(path), _PREVIEW_EDGE)

    photos = read_each(paths, load, skipped=skipped)
    return {name_of[path]: photo for path, photo in photos.items()}


def with_start(config: Config) -> Config:
    """Return the config with the start of the run decided.

    `training.init_from: auto` becomes a model or none, and a missing width becomes the initial
    network's. Raises CheckpointError.
    """
    network, init_from = config.network, config.training.init_from
    if init_from is None or (network.width is not None and init_from != _AUTO):
        return config
    initial = load_model(SHIPPED / "wave.pth" if init_from == _AUTO else find_model(init_from))
    network = dataclasses.replace(network, width=network.width or initial.network.width)
    if init_from == _AUTO:
        same = all(getattr(initial.network, key) == getattr(network, key) for key in _SHAPE)
        init_from = Path("wave") if same else None
    training = dataclasses.replace(config.training, init_from=init_from)
    return dataclasses.replace(config, network=network, training=training)


def initial_network(config: Config) -> TransformerNet:
    """Build the config's network: with the weights of `training.init_from`, or seeded random ones.

    Raises CheckpointError, and ConfigError where that model's network is another.
    """
    config = with_start(config)
    network, init_from = config.network, config.training.init_from
    if init_from is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            return build_network(dataclasses.asdict(network))
    initial = load_model(find_model(init_from)).network
    for key in _SHAPE:
        if getattr(initial, key) != getattr(network, key):
            raise ConfigError(
                f"network.{key}: is {getattr(network, key)}, but training.init_from, {init_from}, "
                f"has {getattr(initial, key)}: they must agree"
            )
    return initial.requires_grad_(True).train()
