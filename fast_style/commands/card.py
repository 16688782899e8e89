"""The report card that `evaluate --card` prints: a model's pictures in numbers, and on a sheet."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from fast_style.checkpoints.files import Model, find_model, load_model, save_model, stored_dtype
from fast_style.commands import check_writable, exit_code
from fast_style.config import ConfigError, StyleConfig
from fast_style.config.style_names import styles_text
from fast_style.data import Skipped, center_crops
from fast_style.data.photos import below_common_folder, choose, find_images, scan_images
from fast_style.evaluation.report_card import (
    Reference,
    ReportCard,
    examine,
    format_cards,
    headline,
    reference,
    trained_style,
)
from fast_style.files import atomic_write
from fast_style.images import format_of, save_image, to_float
from fast_style.remote import is_remote
from fast_style.stylization import Stylizer
from fast_style.stylization.sheets import comparison_sheet
from fast_style.training.monitors import TensorBoardMonitor

# The most rows of a sheet.
_MOST_ON_SHEET = 10


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the report card."""
    card = parser.add_argument_group("report card")
    card.add_argument(
        "--card",
        action="store_true",
        help="judge the pictures (content lost, style left, contrast, frame, mesh, alarms) with "
        "--n, --sizes, --style, --json, --log-dir and --stamp (default: compare with L-BFGS)",
    )
    card.add_argument(
        "--against",
        metavar="MODEL",
        help="second model to judge, by the same style image; implies --card (default: none)",
    )
    card.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="draw the photos and every model's pictures of them into this image; implies --card "
        "(default: none)",
    )
    card.add_argument(
        "--style-size",
        type=_pixels,
        metavar="PIXELS",
        help="long edge of the style image; implies --card (default: the model's, or 512)",
    )


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels, from 1 on")
    return int(text)


def asks_for_card(options: argparse.Namespace) -> bool:
    """Return whether the options ask for a report card."""
    return bool(options.card or options.against or options.sheet or options.style_size)


def check_stamped(model: str, file: Path) -> None:
    """Raise UserError for a model file that cannot be written to, or whose copy would be."""
    if is_remote(model):
        raise ConfigError(f"--stamp: {model}: is an address: copy the file here, and stamp that")
    check_writable(file)


def report(options: argparse.Namespace) -> int:
    """Judge the pictures of a model, or of two, and print the card."""
    if options.video_stability:
        raise ConfigError("--video-stability: is no part of a report card: ask for one at a time")
    if options.plot:
        raise ConfigError("--plot: draws the comparison with L-BFGS, which a card does not have")
    for output in filter(None, (options.json, options.sheet)):
        check_writable(output)
    if options.sheet:
        format_of(options.sheet)
    paths = [find_model(name) for name in (options.model, options.against) if name]
    if options.stamp:
        check_stamped(options.model, paths[0])
    models = [load_model(path) for path in paths]
    listed = find_images([options.images])
    judged_by = reference(
        models,
        style_image=options.style,
        style_size=options.style_size,
        device=options.device,
    )
    skipped = Skipped()
    found = choose(scan_images(listed, skipped=skipped).usable, options.n)
    names = _names(paths)
    print(f"judged by {judged_by.name}", flush=True)
    if not options.style:
        _tell_of_other_styles(models, names)
    stylizers = [Stylizer(model.network, device=options.device) for model in models]
    cards: list[list[ReportCard]] = []
    for size in options.sizes:
        crops = center_crops(found, size, skipped=skipped)
        shown = below_common_folder(list(crops))[1]
        photos = {name: to_float(crop) for name, crop in zip(shown, crops.values(), strict=True)}
        cards.append(
            [
                examine(stylizer, judged_by, photos, model=name)
                for name, stylizer in zip(names, stylizers, strict=True)
            ]
        )
        print(format_cards(cards[-1]), flush=True)
    sheet = None
    if options.sheet or options.log_dir:
        sheet = _draw_sheet(photos, stylizers, cards[-1], judged_by)
    _write(options, paths[0], models[0], judged_by, cards, sheet)
    return exit_code(unreadable=len(skipped))


def _names(paths: Sequence[Path]) -> list[str]:
    """Name the models: by their files or, where these have one name, by their paths."""
    names = [path.stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _tell_of_other_styles(models: Sequence[Model], names: Sequence[str]) -> None:
    """Print which models were trained with another style image than they are judged by."""
    styles = [trained_style(model) for model in models]
    judged_by = next(style for style in styles if style)
    for name, style in zip(names, styles, strict=True):
        if style and _mixture(style) != _mixture(judged_by):
            print(
                f"{name} was trained with {styles_text(style.shares)}: by another style image, "
                "style left says little"
            )


def _mixture(style: StyleConfig) -> dict[str, float]:
    """Return the parts that the style images have, by file name."""
    whole = sum(style.shares.values())
    return {path.name: share / whole for path, share in style.shares.items()}


def _draw_sheet(
    photos: dict[str, Tensor],
    stylizers: Sequence[Stylizer],
    cards: Sequence[ReportCard],
    judged_by: Reference,
) -> Tensor:
    """Draw some of the photos, each with every model's picture of it."""
    shown = list(photos.items())[:: math.ceil(len(photos) / _MOST_ON_SHEET)]
    return comparison_sheet(
        [(name, photo, [stylizer(photo) for stylizer in stylizers]) for name, photo in shown],
        columns=[headline(card) for card in cards],
        styles=[(judged_by.label, judged_by.styles.picture.cpu())],
    )


def _write(
    options: argparse.Namespace,
    path: Path,
    model: Model,
    judged_by: Reference,
    cards: Sequence[Sequence[ReportCard]],
    sheet: Tensor | None,
) -> None:
    """Write what was asked for: the sheet, JSON, TensorBoard, and the stamp in the model file."""
    if options.sheet and sheet is not None:
        print(save_image(sheet, options.sheet))
    if options.json:
        data: dict[str, Any] = {"judged_by": judged_by.name}
        data["cards"] = [card.to_dict() for row in cards for card in row]
        with atomic_write(options.json) as file:
            file.write(json.dumps(data, indent=1).encode())
    if options.log_dir:
        _log(options.log_dir, model, cards, sheet)
    if options.stamp:
        metadata = {**model.metadata, "card": [row[0].summary() for row in cards]}
        save_model(path, model.network.cpu(), metadata=metadata, dtype=stored_dtype(model.network))
        print(f"stamped {path}")


def _log(
    folder: Path, model: Model, cards: Sequence[Sequence[ReportCard]], sheet: Tensor | None
) -> None:
    monitor = TensorBoardMonitor(folder)
    monitor.start(0, 0, yaml.safe_dump(model.metadata.get("config"), sort_keys=False))
    for row in cards:
        for card in row:
            tag = f"card/{card.model}/{card.size}"
            monitor.scalars(0, {f"{tag}/{name}": card.median(name) for name in card.measures})
        monitor.message(0, f"```\n{format_cards(row)}\n```")
    if sheet is not None:
        monitor.image(0, "card", sheet)
    monitor.close()
