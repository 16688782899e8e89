"""A sweep: the same photos under every combination of some settings, so that one can choose by eye.

A combination's pictures are Gatys previews (`optimization`: L-BFGS on each photo) or those of a
network after a short training, both at the objective of the config. They are kept as files, so that
a sweep that was interrupted goes on: the same command again.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fast_style.baseline.optimization import Baseline, optimize_image
from fast_style.checkpoints.files import find_model, find_states
from fast_style.config import (
    BaselineConfig,
    Config,
    ConfigError,
    OptimizationConfig,
    load_config,
    load_recipe,
    to_dict,
)
from fast_style.config.recipes import BaselineContentConfig
from fast_style.data import Skipped, center_crops
from fast_style.data.photos import find_images, fingerprint, scan_images
from fast_style.devices import resolve_device
from fast_style.errors import UserError
from fast_style.files import atomic_write, digest
from fast_style.images import load_image, resize_long_edge, save_image, to_float
from fast_style.objective.building import build_features
from fast_style.objective.losses import OPTIONAL_PICTURE_TERMS, TERMS, Losses, PerceptualLoss
from fast_style.objective.weights import find_weights
from fast_style.stylization import Stylizer
from fast_style.training import train
from fast_style.training.inputs import held_out_crops, with_start
from fast_style.training.monitors import NullMonitor
from fast_style.training.styles import load_styles, style_objective

log = logging.getLogger(__name__)

Mode = Literal["optimize", "train"]
# The terms of the objective at a picture, and a picture with them.
_Numbers = dict[str, float | None]
_Made = tuple[Tensor, _Numbers]

# What is told of a picture.
PICTURE_TERMS = (*TERMS, *OPTIONAL_PICTURE_TERMS)
MAXIMUM_COMBINATIONS = 64
# A Gatys preview has nothing to do with these, but for the size at which strength is measured.
_TRAINING_ONLY = ("name", "network.", "training.", "data.")
_MEASURED_SIZE = "training.image_size"
_STABILITY = "loss.stability_weight"
# What options of the sweep decide for a recipe's pictures.
_BY_OPTION = {"optimization.steps": "--steps", "content.": "--size"}
_RECIPE = "recipe"
# The most steps that a short training loses when it is killed.
_CHECKPOINT_EVERY = 100


class CombinationError(UserError, RuntimeError):
    """One combination of a sweep fails; the others go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One column of the sheet: its settings, as "key=value", and the config with them.

    With a `recipe` of the baseline, that says what is minimised and how; the config still names the
    style image and the photos.
    """

    settings: tuple[str, ...]
    config: Config
    recipe: BaselineConfig | None = None

    def __str__(self) -> str:
        return ", ".join(self.settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """How a combination's pictures are made: photos of a long edge `size`, in `steps` steps.

    `measured_at` are the photos at which `loss.strength` is measured; `folder` keeps the pictures.
    """

    mode: Mode
    photos: tuple[Path, ...]
    measured_at: tuple[Path, ...]
    size: int
    steps: int
    folder: Path
    device: str = "auto"
    on_step: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False


def plan(
    path: str | Path, settings: Sequence[str], *, recipes: Sequence[str] = ()
) -> list[Combination]:
    """Combine the values of every setting "key=value,value,..." with those of the others.

    Values are YAML; commas inside brackets, braces and quotes part nothing. A setting of one value
    holds for all. `recipes` of the baseline are an axis too, and then the settings are theirs.
    Raises ConfigError for what is wrong with any of the combinations.
    """
    if recipes:
        settings = [f"{_RECIPE}={','.join(recipes)}", *settings]
    axes = [_values(setting) for setting in settings]
    keys = [setting.partition("=")[0] for setting in settings]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"--set {twice}=...: is given twice; write --set {twice}=VALUE,VALUE")
    if "training.steps" in keys:
        raise ConfigError("--set training.steps=...: the length of a sweep's trainings is --steps")
    for key in keys if recipes else ():
        if option := next((o for own, o in _BY_OPTION.items() if key.startswith(own)), None):
            raise ConfigError(f"--set {key}=...: is decided by {option} in a sweep")
    varied = [len(values) > 1 for values in axes]
    if not any(varied):
        raise ConfigError(
            "a sweep needs a setting with several values, as in --set loss.strength=0.3,1,3"
        )
    count = 1
    for values in axes:
        count *= len(values)
    if count > MAXIMUM_COMBINATIONS:
        product = " x ".join(str(len(values)) for values in axes if len(values) > 1)
        raise ConfigError(
            f"{product} = {count} combinations: more than {MAXIMUM_COMBINATIONS} are too many to "
            "look at; give fewer values"
        )
    combinations = []
    for chosen in itertools.product(*axes):
        overrides = [f"{key}={value}" for key, value in zip(keys, chosen, strict=True)]
        shown = tuple(text for text, shows in zip(overrides, varied, strict=True) if shows)
        if recipes:
            config, recipe = load_config(path), load_recipe(chosen[0], overrides=overrides[1:])
            combinations.append(Combination(settings=shown, config=config, recipe=recipe))
        else:
            config = load_config(path, overrides=overrides)
            combinations.append(Combination(settings=shown, config=config))
    return combinations


def check(combinations: Sequence[Combination], mode: Mode) -> None:
    """Find what would fail only later: settings without effect, files that are not there.

    Raises ConfigError, WeightsError and CheckpointError.
    """
    recipes = [combination.recipe for combination in combinations if combination.recipe]
    if recipes and mode != "optimize":
        raise ConfigError("--recipe: makes pictures by optimisation: leave --mode train out")
    if mode == "optimize" and not recipes:
        for key in (setting.partition("=")[0] for setting in combinations[0].settings):
            if (key.startswith(_TRAINING_ONLY) and key != _MEASURED_SIZE) or key == _STABILITY:
                raise ConfigError(f"--set {key}=...: changes no Gatys preview: use --mode train")
    configs = [combination.config for combination in combinations]
    for style in {config.style for config in configs}:
        load_styles(style.resolved())
    losses = [config.loss.resolved() for config in recipes or configs]
    for network, weights in {(loss.network, loss.weights) for loss in losses}:
        find_weights(network, path=weights)
    for config in configs if mode == "train" else ():
        if model := with_start(config).training.init_from:
            find_model(model)


def held_out_images(config: Config, *, skipped: Skipped | None = None) -> list[Path]:
    """Return the photos that a training of `config` would hold out: such as can be read.

    Raises DataError.
    """
    data, skipped = config.data.resolved(), Skipped() if skipped is None else skipped
    usable: list[Path] = []
    if not data.validation:
        usable = scan_images(find_images(data.train, named="data.train"), skipped=skipped).usable
    return [*held_out_crops(data, usable, config.training.image_size, skipped)[1]]


def load_photo(path: Path, size: int) -> Tensor:
    """Load a photo as (3, H, W) with a long edge of `size`. Raises ImageError."""
    return resize_long_edge(load_image(path), size)


def pictures_of(combination: Combination, job: Job) -> list[Path]:
    """Return the paths of a combination's pictures, a PNG for each photo, made or not.

    The name of their folder is a digest of everything that they depend on.
    """
    config = with_start(combination.config) if job.mode == "train" else combination.config
    read = [*config.style.resolved().shares]
    if job.mode == "train" and config.training.init_from:
        read.append(find_model(config.training.init_from))
    folders = config.data.resolved().train if job.mode == "train" else ()
    identity: dict[str, Any] = {
        "config": to_dict(config),
        "mode": job.mode,
        "size": job.size,
        "steps": job.steps,
        "photos": [str(path.absolute()) for path in job.photos],
        "files": [*map(digest, read), *map(fingerprint, (job.photos, job.measured_at))],
        "trained_on": _trained_on(folders),
    }
    if combination.recipe:
        identity["recipe"] = to_dict(combination.recipe)
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = job.folder / name
    return [folder / f"{index}-{path.stem}.png" for index, path in enumerate(job.photos)]


def numbers_of(picture: Path) -> dict[str, float | None] | None:
    """Return the terms of the objective at a picture, as a sweep wrote them beside it."""
    try:
        found = json.loads(picture.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None
    return {name: found.get(name) for name in PICTURE_TERMS} if isinstance(found, dict) else None


@functools.cache
def _trained_on(folders: tuple[Path, ...]) -> str:
    return fingerprint(find_images(folders, named="data.train")) if folders else ""


def make_pictures(combination: Combination, job: Job) -> bool:
    """Make the missing ones of a combination's pictures; return whether all are there now.

    Some are missing when `job.should_stop()` was true. Raises CombinationError for what is wrong
    with this combination.
    """
    files = pictures_of(combination, job)
    pairs = zip(job.photos, files, strict=True)
    missing = [(photo, file) for photo, file in pairs if not file.exists()]
    if not missing:
        return True
    folder = files[0].parent
    try:
        photos = [load_photo(photo, job.size) for photo, _ in missing]
        if combination.recipe:
            pictures = _by_recipe(combination.config, combination.recipe, photos, job)
        elif job.mode == "optimize":
            pictures = _optimized(combination.config, photos, job)
        else:
            pictures = _trained(combination.config, photos, job, run_dir=folder)
        for (_, file), made in itertools.zip_longest(missing, pictures):
            if made is None:
                return False
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(file.with_suffix(".json")) as output:
                output.write(json.dumps(made[1]).encode())
            save_image(made[0], file)
    except (UserError, OSError, torch.OutOfMemoryError) as error:
        raise CombinationError(" ".join(str(error).split())) from error
    for state in find_states(folder):
        state.unlink()
    return True


class _Terms:
    """Counts the steps of one picture, and keeps the terms of the best."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.best: _Numbers = {}

    def __call__(self, step: int, losses: Losses, _image: Tensor) -> None:
        if step:
            self._job.on_step()
        terms = _numbers(losses)
        before = self.best.get("total")
        if before is None or (terms["total"] is not None and terms["total"] <= before):
            self.best = terms


def _numbers(losses: Losses) -> _Numbers:
    """Return the terms; None for one that is not finite, for which JSON has no word."""
    terms = {name: value.item() for name, value in losses.items().items()}
    return {name: value if math.isfinite(value) else None for name, value in terms.items()}


def _by_recipe(
    config: Config, recipe: BaselineConfig, photos: Sequence[Tensor], job: Job
) -> Iterator[_Made]:
    """Yield the photos as a recipe of the baseline makes them; fewer when the job is stopped."""
    on = resolve_device(job.device)
    optimization = dataclasses.replace(recipe.optimization, steps=job.steps)
    content = BaselineContentConfig(maximum=job.size)
    recipe = dataclasses.replace(recipe, optimization=optimization, content=content)
    shares = config.style.resolved().shares
    styles = [load_image(path)[None].to(on) for path in shares]
    for photo in photos:
        terms = _Terms(job)
        baseline = Baseline(recipe, photo[None].to(on), styles, shares=[*shares.values()])
        outcome = baseline.run(report=terms, should_stop=job.should_stop)
        if not outcome.finished:
            return
        yield outcome.image[0], terms.best


def _optimized(config: Config, photos: Sequence[Tensor], job: Job) -> Iterator[_Made]:
    """Yield the photos as L-BFGS makes them; fewer when the job is stopped."""
    on = resolve_device(job.device)
    criterion = _criterion(config, job.measured_at, on)
    options = OptimizationConfig(method="lbfgs", steps=job.steps, clip=True)
    for photo in photos:
        terms = _Terms(job)
        content = photo[None].to(on)
        outcome = optimize_image(
            criterion,
            content,
            initial=content,
            options=options,
            report=terms,
            should_stop=job.should_stop,
        )
        if not outcome.finished:
            return
        yield outcome.image[0], terms.best


def _criterion(config: Config, measured_at: Sequence[Path], on: torch.device) -> PerceptualLoss:
    """Build the objective of a training whose held-out photos are these."""
    crops = None
    if config.loss.strength:
        size = config.training.image_size
        pixels = list(center_crops(measured_at, size).values())
        crops = to_float(torch.stack(pixels).to(on))
    config = dataclasses.replace(config, style=config.style.resolved(), loss=config.loss.resolved())
    styles, features = load_styles(config.style).to(on), build_features(config.loss, on)
    return style_objective(config, features, styles, content=crops).criterion


class _Listener(NullMonitor):
    """A monitor that counts a training's steps."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step

    def advance(self, step: int) -> None:
        self._on_step()

    def message(self, step: int, text: str) -> None:
        log.warning("step %d: %s", step, text)


def _trained(
    config: Config, photos: Sequence[Tensor], job: Job, *, run_dir: Path
) -> Iterator[_Made]:
    """Yield the photos as a briefly trained network makes them; none when the job is stopped."""
    training = dataclasses.replace(
        config.training,
        steps=job.steps,
        checkpoint_every=min(config.training.checkpoint_every, _CHECKPOINT_EVERY),
        validate_every=job.steps,
        preview_every=job.steps,
    )
    result = train(
        dataclasses.replace(config, training=training),
        run_dir,
        device=job.device,
        monitors=[_Listener(job.on_step)],
        minimum_reports=1,
        should_stop=job.should_stop,
    )
    if result.finished:
        stylizer = Stylizer.load(result.model, device=job.device)
        on = resolve_device(job.device)
        criterion = _criterion(config, job.measured_at, on)
        for photo in photos:
            picture, content = stylizer(photo), photo[None].to(on)
            with torch.no_grad():
                losses = criterion(picture[None].to(on), criterion.content_targets(content))
            yield picture, _numbers(losses)


def _values(setting: str) -> list[str]:
    """Split "key=a,[b, c],d" into its values, as YAML texts."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting}: expected key=value,value, as in loss.strength=0.3,1,3")
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and not quote and depth <= 0:
            values.append("")
        else:
            values[-1] += character
    values = [value.strip() for value in values]
    if "" in values:
        raise ConfigError(f"--set {setting}: holds an empty value; nothing at all is written null")
    return values
