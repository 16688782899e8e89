"""The report card of a model: what its users' pictures are worth, by the measures of `measures`.

Pictures are judged as users get them: from a `Stylizer` with its own treatment of edges, clamped.
Each number is given as the median over the photos and as that of the worst tenth, since a model
that fails fails at some photos.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fast_style.checkpoints.files import Model
from fast_style.config import Config, ConfigError, LossConfig, StyleConfig, config_from_stored
from fast_style.config.style_names import styles_text
from fast_style.devices import resolve_device, tf32
from fast_style.evaluation.certificate import moved
from fast_style.networks.vgg import canonical_layers
from fast_style.objective.losses import PerceptualLoss
from fast_style.objective.weights import load_vgg
from fast_style.stylization import Stylizer
from fast_style.training.artefacts import find_artefacts
from fast_style.training.measures import SMALLEST, measure, median, worst_tenth
from fast_style.training.styles import StyleImages, load_styles

# Content is looked at here whatever a model was trained with: cards are to be compared.
_CONTENT_LAYERS = ("relu2_2", "relu3_3")
_TITLES = {
    "content_lost": "content lost",
    "style_left": "style left",
    "ring": "ring, of 255",
    "mesh": "mesh, of 255",
}
_LEGEND = (
    "content lost: 0 is the photo, 1 about a picture without content; style left: 1 is the photo,",
    "0 the style; contrast: 1 is the style image's; ring: the outermost pixels' excess of luma;",
    "mesh: a pattern of 2 to 4 pixels in flat areas; worst tenth: a tenth of the photos are there",
    "or worse.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What models are judged by: the images of a style, and the layers of an objective.

    `label` is the name without folders.
    """

    name: str
    label: str
    styles: StyleImages
    criterion: PerceptualLoss


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoMarks:
    """What a model's picture of one photo is worth; `alarms` are sentences."""

    photo: str
    values: Mapping[str, float]
    alarms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportCard:
    """A model's marks on squares of `size` pixels."""

    model: str
    size: int
    photos: tuple[PhotoMarks, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures."""
        return tuple(self.photos[0].values)

    @property
    def alarms(self) -> dict[str, tuple[str, ...]]:
        """The alarms, by photo, of those that have any."""
        return {marks.photo: marks.alarms for marks in self.photos if marks.alarms}

    def median(self, name: str) -> float:
        """Return a measure's median over the photos."""
        return median([marks.values[name] for marks in self.photos])

    def worst_tenth(self, name: str) -> float:
        """Return what a measure is at, or worse, for a tenth of the photos."""
        return worst_tenth(name, [marks.values[name] for marks in self.photos])

    def summary(self) -> dict[str, Any]:
        """Return what a model's metadata keeps, as plain data."""
        return {
            "size": self.size,
            "photos": len(self.photos),
            "alarms": len(self.alarms),
            "median": {name: self.median(name) for name in self.measures},
            "worst_tenth": {name: self.worst_tenth(name) for name in self.measures},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        per_photo = [
            {"photo": marks.photo, **marks.values, "alarms": list(marks.alarms)}
            for marks in self.photos
        ]
        return {"model": self.model, **self.summary(), "per_photo": per_photo}


def reference(
    models: Sequence[Model],
    *,
    style_image: Path | None = None,
    style_size: int | None = None,
    device: str = "auto",
) -> Reference:
    """Build what all of some models are judged by, from the first of them that has a config.

    `style_image` and `style_size` take the place of that config's: an imported model has none.
    Content is judged at relu2_2 and relu3_3 and at the config's own layers, style at the config's.
    Raises ConfigError and WeightsError.
    """
    config = next((found for model in models if (found := _config(model))), None)
    if config is None and style_image is None:
        raise ConfigError(
            "the model's metadata holds no config, so its style image is unknown: name it with "
            "--style"
        )
    if config is None:
        style = StyleConfig(image=style_image)
    elif style_image is None:
        style = config.style.resolved()
    elif style_image.is_dir():
        style = moved(config.style, style_image)
    else:
        style = replace(config.style, image=style_image, images={})
    if style_size is not None:
        style = replace(style, size=style_size)
    styles = load_styles(style).to(resolve_device(device))
    size = f"at {style.size} pixels" if style.size else "at its own size"
    return Reference(
        name=f"{styles_text(style.shares)} {size}",
        label=f"{styles_text(style.shares, names_only=True)} {size}",
        styles=styles,
        criterion=_criterion(config.loss if config else LossConfig(), styles),
    )


def trained_style(model: Model) -> StyleConfig | None:
    """Return the style in a model's config, if it has one."""
    config = _config(model)
    return config.style if config else None


def _config(model: Model) -> Config | None:
    data = model.metadata.get("config")
    return config_from_stored(data, source="the model's config") if data else None


def _criterion(loss: LossConfig, style: StyleImages) -> PerceptualLoss:
    """Build an objective whose layers are those that a card looks at, with weights of 1."""
    try:
        own = canonical_layers(loss.network, _weighed(loss.content_layers))
        names = dict.fromkeys((*_CONTENT_LAYERS, *own), 1.0)
        layers = _weighed(loss.style_layers) or LossConfig().style_layers
        styles = dict.fromkeys(canonical_layers(loss.network, layers), 1.0)
    except ValueError as error:
        raise ConfigError(f"the model's config: loss: {error}") from None
    features = load_vgg(loss.network, list({**names, **styles}), path=loss.weights)
    return PerceptualLoss(
        features.to(style.images[0].device),
        style.images,
        content_layers=names,
        style_layers=styles,
        style_shares=style.shares,
    )


def _weighed(layers: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in layers.items() if weight}


def examine(
    stylizer: Stylizer,
    judged_by: Reference,
    photos: Mapping[str, Tensor],
    *,
    model: str,
    on_photo: Callable[[PhotoMarks], None] = lambda marks: None,
) -> ReportCard:
    """Judge a model by its pictures of named squares, (3, S, S) in [0, 1], all of one size.

    Raises ConfigError for squares too small to be judged.
    """
    size = next(iter(photos.values())).shape[-1]
    if size < SMALLEST:
        raise ConfigError(f"squares of {size} pixels are too small to judge: take {SMALLEST}")
    marks = []
    style = judged_by.styles
    for name, photo in photos.items():
        photo = photo.to(style.images[0].device)
        picture = stylizer(photo)
        try:
            with tf32(photo.device, allowed=False):
                values = measure(
                    photo, picture, judged_by.criterion, style.images, style_shares=style.shares
                )
        except ValueError as error:  # too small for the deepest layer
            raise ConfigError(str(error)) from None
        alarms = tuple(find_artefacts(photo, picture))
        marks.append(PhotoMarks(photo=name, values=values, alarms=alarms))
        on_photo(marks[-1])
    return ReportCard(model=model, size=size, photos=tuple(marks))


def format_cards(cards: Sequence[ReportCard]) -> str:
    """Return cards on the same photos as lines of text, side by side."""
    first = cards[0]
    counts = f"{len(first.photos)} photos, {first.size}×{first.size}"
    rows = [
        ["", "", *(text for card in cards for text in (card.model, ""))],
        ["", "", *(text for _ in cards for text in ("median", "worst tenth"))],
    ]
    before = ""
    for name in first.measures:
        title, _, of = name.partition("/")
        rows.append([_TITLES.get(title, title) if title != before else "", of])
        rows[-1] += [
            _text(name, value)
            for card in cards
            for value in (card.median(name), card.worst_tenth(name))
        ]
        before = title
    rows.append(["alarms", ""])
    rows[-1] += [text for card in cards for text in (str(len(card.alarms)), "")]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    sentences = [
        f"{card.model}: {photo}: {alarm}"
        for card in cards
        for photo, alarms in card.alarms.items()
        for alarm in alarms
    ]
    return "\n".join([counts, *lines, *sentences, *_LEGEND])


def headline(card: ReportCard) -> tuple[str, ...]:
    """Return a card's few lines for the head of its column on a sheet."""
    shown = {
        "style left": "style_left/mean",
        "content lost": f"content_lost/{_CONTENT_LAYERS[0]}",
        "contrast": "contrast/luma",
        "ring": "ring",
    }
    lines = [f"{what} {_both(card, name)}" for what, name in shown.items() if name in card.measures]
    return (card.model, *lines)


def _both(card: ReportCard, name: str) -> str:
    return f"{_text(name, card.median(name))} / {_text(name, card.worst_tenth(name))}"


def _text(name: str, value: float) -> str:
    if name == "ring":
        return f"{value:+.1f}"
    if name == "mesh":
        return f"{value:.1f}"
    if name.startswith("style_left/"):
        return f"{value:.3f}"
    return f"{value:.2f}" if math.isfinite(value) else str(value)
