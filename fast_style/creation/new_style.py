"""From a picture and photos to a model: what `fast-style new` chooses, checks, shows and writes.

The result is an ordinary run of an ordinary config, which `fast-style train` goes on with as well.
"""

import bisect
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fast_style.baseline.optimization import optimize_image
from fast_style.checkpoints.files import find_states, load_model, shipped_models
from fast_style.config import (
    Config,
    ConfigError,
    LossConfig,
    OptimizationConfig,
    config_from_dict,
    load_config,
)
from fast_style.config.style_names import styles_text
from fast_style.data import center_crops, read_each
from fast_style.data.photos import choose
from fast_style.devices import resolve_precision
from fast_style.evaluation.sweep import load_photo
from fast_style.files import atomic_write
from fast_style.images import ImageError, read_size, save_image, to_float
from fast_style.objective.building import Objective, build_features, build_objective
from fast_style.objective.losses import Losses, PerceptualLoss
from fast_style.objective.weights import find_weights
from fast_style.remote import is_remote
from fast_style.stylization import Stylizer
from fast_style.stylization.sheets import comparison_sheet, contact_sheet
from fast_style.training import default_run_dir
from fast_style.training.inputs import initial_network
from fast_style.training.schedule import work_after
from fast_style.training.styles import load_style_image, load_styles, style_objective
from fast_style.training.trainee import train_step

# A style begins with a shipped model's network: this one's, until the nearest is known.
_BASE = "wave"
# From there, fewer steps show a style only in part.
ENOUGH_STEPS = 800
# The crops: of the first steps, and then by device. Small ones give what they have in a few hundred
# steps (docs/measurements.md).
SMALL_SIZE, _SIZE, _SIZE_ON_CUDA = 128, 192, 256
_SMALL_SHARE = 0.25
_STYLE_SIZE = 512
# The paper's, for the minutes to be what ends a run: where a step is quick, they are worth using.
_TRAINING_STEPS = 40_000

# The preview: strengths around the run's own, at a photo's central square of this side. Fewer steps
# than the one number show no difference, more than the other little more.
_FACTORS = (0.5, 1.0, 2.0)
_PREVIEW_SIDE = 192
_FEWEST_STEPS, _MOST_STEPS = 15, 60
_PREVIEW_MINUTES, _PREVIEW_SHARE = 1.0, 0.1
# The contact sheet at the end.
_SHEET_EDGE = 512
_SHEET_PHOTOS = 4
_TIMED_STEPS = 3
_BASE_PHOTOS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a new style is made of; fields that are None are chosen."""

    picture: Path
    photos: tuple[Path, ...]
    name: str | None = None
    strength: float | None = None
    image_size: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStyle:
    """A run's config, the YAML file that holds it, and the text that is still to be written there.

    The text is empty where the file is there already: an earlier command began this style.
    """

    config: Config
    file: Path
    text: str

    def write(self) -> None:
        """Write the YAML, unless it is there. Raises OSError."""
        if self.text:
            with atomic_write(self.file) as file:
                file.write(self.text.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The seconds of a step on this machine, and the number of steps that fit into the time.

    These steps take `minutes`: far fewer than there are where the config wants no more steps.
    """

    seconds: float
    steps: int
    minutes: float
    enough_minutes: float

    @property
    def is_enough(self) -> bool:
        """Whether a style is to be seen after `steps` steps."""
        return self.steps >= ENOUGH_STEPS


def training_minutes(minutes: float) -> float:
    """Return the part of the minutes for the training; the preview has the rest."""
    return minutes - preview_minutes(minutes)


def preview_minutes(minutes: float) -> float:
    """Return the part of the minutes for the preview of strengths."""
    return min(_PREVIEW_MINUTES, _PREVIEW_SHARE * minutes)


def plan_style(wish: Wish, *, on: torch.device) -> NewStyle:
    """Choose what fits the picture and the device, or take what an earlier command chose.

    Raises ConfigError and CheckpointError.
    """
    name = wish.name or _name_of(wish.picture)
    if name in {path.stem for path in shipped_models()}:
        raise ConfigError(f"--name {name}: is the name of a shipped model; choose another")
    file = Path(f"{name}.yaml")
    if file.exists():
        config = load_config(file)
        _check_wish(wish, config, file)
        return NewStyle(config=config, file=file, text="")
    style = _described(name, _chosen(wish, on), file)
    if has_begun(run_dir := default_run_dir(style.config)):
        raise ConfigError(
            f"{file}: is not here, but {run_dir} holds a run: remove that folder to begin anew, "
            f"copy {run_dir / 'config.yaml'} to {file} to go on, or give another --name"
        )
    return style


def _described(name: str, data: dict[str, Any], file: Path) -> NewStyle:
    picture = Path(data["style"]["image"]).name
    text = (
        f"# The style of {picture if picture.isprintable() else ascii(picture)}.\n"
        "# The command that wrote this goes on with it, and so does, with its minutes:\n"
        f"# fast-style train --config {shlex.quote(str(file))} --max-minutes M\n"
        f"{yaml.safe_dump(data, sort_keys=False)}"
    )
    config = config_from_dict({"name": name, **data}, source=str(file))
    return NewStyle(config=config, file=file, text=text)


@torch.no_grad()
def from_nearest_base(
    style: NewStyle, criterion: PerceptualLoss, held_out: Sequence[Path], on: torch.device
) -> NewStyle:
    """Return the style with the shipped model that is nearest to its content and style losses.

    A style whose config is there already keeps that config.
    """
    if not style.text:
        return style
    crops = center_crops(choose(held_out, _BASE_PHOTOS), SMALL_SIZE)
    content = to_float(torch.stack([*crops.values()]).to(on))
    targets = criterion.content_targets(content)
    distances = {}
    for path in shipped_models():
        losses = criterion(load_model(path).network.to(on)(content).clamp(0, 1), targets)
        # By its strokes: another style's colours are unlearned in a few steps.
        distances[path.stem] = (losses.content + losses.style).item()
    data = yaml.safe_load(style.text)
    data["training"]["init_from"] = min(distances, key=distances.__getitem__)
    return _described(style.config.name, data, style.file)


def _name_of(picture: Path) -> str:
    """Return the picture's name as that of a model; a shipped model's gets "my_" before it."""
    name = "_".join(picture.stem.split()).lstrip(".") or "style"
    name = "".join(c if c.isprintable() else "_" for c in name)
    return f"my_{name}" if name in {path.stem for path in shipped_models()} else name


def _chosen(wish: Wish, on: torch.device) -> dict[str, Any]:
    """Return a config's plain data for a new style."""
    size = wish.image_size or (_SIZE_ON_CUDA if on.type == "cuda" else _SIZE)
    return {
        "style": {"image": str(wish.picture), "size": _style_size(wish.picture)},
        "data": {"train": [str(path) for path in wish.photos]},
        "loss": {"strength": wish.strength or 1.0},
        "training": {
            "init_from": _BASE,
            "image_size": size,
            "first_share": _SMALL_SHARE,
            "steps": _TRAINING_STEPS,
        },
    }


def _style_size(picture: Path) -> int:
    """Return the size for the style image: a small one is not enlarged, which would blur it."""
    try:
        return min(_STYLE_SIZE, max(read_size(picture)))
    except ImageError as error:
        raise ConfigError(str(error)) from None


def _check_wish(wish: Wish, config: Config, file: Path) -> None:
    """Raise ConfigError where a YAML that is there says other than the command."""
    differences = {
        "style.image": (tuple(config.style.shares), (wish.picture,)),
        "data.train": (config.data.train, wish.photos),
        "loss.strength": (config.loss.strength, wish.strength),
        "training.image_size": (config.training.image_size, wish.image_size),
    }
    for key, (there, wanted) in differences.items():
        if wanted is not None and _absolute(there) != _absolute(wanted):
            shown = [
                " ".join(map(str, value)) if isinstance(value, tuple) else value
                for value in (there, wanted)
            ]
            raise ConfigError(
                f"{file}: {key}: is {shown[0]} there, and {shown[1]} in this command: use --name "
                f"for a second style, or remove {file} and the run's folder to begin anew"
            )


def _absolute(value: object) -> object:
    """Return a value to compare: one place is the same, however its path is written."""
    if not isinstance(value, tuple):
        return value
    return [path if is_remote(path) else path.absolute().resolve() for path in value]


def has_begun(run_dir: Path) -> bool:
    """Return whether a training has left a state to go on from."""
    return bool(find_states(run_dir))


def check_inputs(config: Config) -> None:
    """Make the cheap checks, before the photos are read. Raises ConfigError, WeightsError."""
    load_style_image(config.style.resolved())
    loss = config.loss.resolved()
    find_weights(loss.network, path=loss.weights)


def objective_of(
    config: Config, held_out: Sequence[Path], on: torch.device
) -> Objective[LossConfig]:
    """Build the objective that the training will have. Raises ConfigError and WeightsError."""
    config = config.resolved()
    features = build_features(config.loss, on)
    styles = load_styles(config.style).to(on)
    crops = center_crops(held_out, config.training.image_size)
    content = to_float(torch.stack([*crops.values()]).to(on))
    return style_objective(config, features, styles, content=content)


def estimate(
    config: Config, criterion: PerceptualLoss, minutes: float, on: torch.device
) -> Estimate:
    """Time a few updates of a copy of the network, and estimate the steps in the minutes."""
    training = config.training
    dtype = resolve_precision(training.precision, on)
    network = initial_network(config).to(on)
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(on.type, enabled=False)
    size = training.image_size
    content = torch.rand(training.batch_size, 3, size, size).to(on)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):  # the first warms up
        start = time.perf_counter()
        losses, _ = train_step(network, criterion, optimizer, content, dtype=dtype, scaler=scaler)
        losses.total.item()
        seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[1:])

    def needed(steps: int) -> float:
        return step * work_after(training, steps, steps) / size**2

    available = 60 * training_minutes(minutes)
    steps = bisect.bisect_right(range(training.steps + 1), available, key=needed) - 1
    enough = needed(ENOUGH_STEPS) / 60
    with_preview = min(enough / (1 - _PREVIEW_SHARE), enough + _PREVIEW_MINUTES)
    used = needed(steps) / 60
    return Estimate(seconds=step, steps=steps, minutes=used, enough_minutes=with_preview)


def draw_strengths(
    config: Config,
    objective: Objective[LossConfig],
    held_out: Sequence[Path],
    output: Path,
    *,
    minutes: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Draw a held-out photo as L-BFGS makes it at strengths around the config's.

    Every picture has an equal share of the minutes, or longer where that is too little to see.
    False means that the sheet was not drawn, since `should_stop()` turned true. Raises ImageError,
    OptimizationError and OSError.
    """
    style = load_style_image(config.style.resolved())
    on = next(iter(objective.criterion.style_targets.values())).device
    strength = config.loss.strength or 1.0
    seconds = 60 * minutes / len(_FACTORS)
    ((path, pixels),) = center_crops(choose(held_out, 1), _PREVIEW_SIDE).items()
    photo = to_float(pixels)
    pictures: list[Tensor | str] = []
    for factor in _FACTORS:
        raw = replace(
            objective.raw,
            style_weight=factor * objective.raw.style_weight,
            contrast_weight=factor * objective.raw.contrast_weight,
        )
        criterion = build_objective(raw, objective.criterion.features, style.to(on)).criterion
        pictures.append(_optimized(criterion, photo[None].to(on), seconds, should_stop))
        if should_stop():
            return False
    sheet = comparison_sheet(
        [(path.stem, photo, pictures)],
        columns=[(f"strength {factor * strength:g}",) for factor in _FACTORS],
        styles=[(styles_text(config.style.shares, names_only=True), style[0])],
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_image(sheet, output)
    return True


def _optimized(
    criterion: PerceptualLoss, content: Tensor, seconds: float, should_stop: Callable[[], bool]
) -> Tensor:
    """(1, 3, H, W) -> (3, H, W): what L-BFGS makes of a photo in about `seconds`."""
    end, done = time.perf_counter() + seconds, 0

    def count(step: int, _losses: Losses, _image: Tensor) -> None:
        nonlocal done
        done = step

    outcome = optimize_image(
        criterion,
        content,
        initial=content,
        options=OptimizationConfig(method="lbfgs", steps=_MOST_STEPS, clip=True),
        report=count,
        should_stop=lambda: should_stop() or (done >= _FEWEST_STEPS and time.perf_counter() > end),
    )
    return outcome.image[0].cpu()


def draw_photos(
    model: Path, name: str, held_out: Sequence[Path], output: Path, *, device: str
) -> None:
    """Draw a contact sheet of held-out photos in the new style; one that is gone is left out.

    Raises ImageError, and DataError where none is left.
    """
    found = read_each(choose(held_out, _SHEET_PHOTOS), partial(load_photo, size=_SHEET_EDGE))
    photos = [(path.stem, photo) for path, photo in found.items()]
    save_image(contact_sheet(photos, [(name, Stylizer(model, device=device))]), output)
