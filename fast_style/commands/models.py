"""List the shipped models, or describe one: how it was trained and what it is worth.

NAME is a shipped model's name, that of a model of your own, or the path of a .pth file.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fast_style.checkpoints.files import CheckpointError, find_model, load_model, shipped_models
from fast_style.commands import program, run
from fast_style.commands.options import Parser, command_parser
from fast_style.config import flatten
from fast_style.config.places import config_names
from fast_style.config.style_names import named_styles, styles_text
from fast_style.networks.building import DEFAULT_KIND

# Configs of one's own, one YAML a style, beside those that are shipped.
_OWN_CONFIGS = Path("configs")


def main(arguments: Sequence[str] | None = None) -> int:
    """List; exit 0, or 1 when a model cannot be read."""
    options = parser().parse_args(arguments)
    return run(lambda: _list(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser("models", __doc__, examples=("", "wave --json"))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="model to describe in full (default: a line for each shipped model)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print everything as JSON (default: as text)"
    )
    return parser


def _list(options: Namespace) -> int:
    entries, failed = [], False
    for path in [find_model(name) for name in options.names] or shipped_models():
        try:
            entries.append(describe(path))
        except CheckpointError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    if options.json:
        print(json.dumps(entries, indent=1, ensure_ascii=False, default=str))
    elif options.names:
        print("\n".join(line for entry in entries for line in _card(entry)))
    elif entries:
        print("\n".join([*_table(entries), *_without_model()]))
    elif not failed:
        print(f"no models are shipped with this version; {program('train')} makes one")
    return 1 if failed else 0


def describe(path: Path) -> dict[str, Any]:
    """Return the facts that a model's file holds, None for each that it lacks."""
    model = load_model(path)
    config = flatten(_mapping(model.metadata.get("config")))
    styles = named_styles(model.metadata.get("config"))
    return {
        "name": path.stem,
        "path": str(path),
        "bytes": path.stat().st_size,
        "kind": model.network.kind,
        "width": model.network.width,
        "num_residual_blocks": model.network.num_residual_blocks,
        "steps": model.metadata.get("step"),
        "init_from": config.get("training.init_from"),
        "style_image": config.get("style.image"),
        "style_images": styles or None,
        "data": config.get("data.description") or None,
        "quality": model.metadata.get("quality"),
        "version": model.metadata.get("version"),
    }


def _table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each model: its name, style image and size, in columns."""
    rows = [("name", "style image", "size")]
    rows += [
        (entry["name"], styles_text(entry["style_images"] or {}) or "unknown", _megabytes(entry))
        for entry in entries
    ]
    name, style, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{row[0]:{name}}  {row[1]:{style}}  {row[2]}" for row in rows]
    return [*lines, f"({program('models')} {entries[0]['name']} describes one in full)"]


def _without_model() -> list[str]:
    """Return a line about the configs, shipped or in the working directory, without a model yet."""
    configs = {path.stem: str(path) for path in sorted(_OWN_CONFIGS.glob("*.yaml"))}
    configs |= {name: name for name in config_names()}
    names = []
    for name in sorted(configs):
        try:
            find_model(name)
        except CheckpointError:
            names.append(name)
    if not names:
        return []
    command = f"{program('train')} --config {configs[names[0]]}"
    return [f"a config but no model: {', '.join(names)} ({command} makes one)"]


def _card(entry: Mapping[str, Any]) -> list[str]:
    """Return the lines that describe a model in full."""
    steps = "steps unknown" if entry["steps"] is None else f"{entry['steps']:,} steps"
    if entry["init_from"]:
        steps += f" from {entry['init_from']}"
    styles = entry["style_images"] or {}
    title = "style images" if len(styles) > 1 else "style image "
    family = "" if entry["kind"] == DEFAULT_KIND else f"kind {entry['kind']}, "
    return [
        f"{entry['name']}: {family}width {entry['width']}, {_megabytes(entry)}, {steps}",
        f"    {title} {styles_text(styles) or 'unknown'}",
        f"    trained on   {entry['data'] or 'photos that the model does not name'}",
        f"    worth        {worth(entry['quality'])}",
    ]


def _megabytes(entry: Mapping[str, Any]) -> str:
    return f"{entry['bytes'] / 1e6:.1f} MB"


def worth(quality: Any) -> str:
    """Return the certificates of `evaluate --stamp` as a line."""
    found = [
        f"{_steps(certificate)} steps of L-BFGS from {_initial(certificate)} at "
        f"{certificate.get('size', '?')} pixels"
        for certificate in (quality if isinstance(quality, list | tuple) else ())
        if isinstance(certificate, Mapping)
    ]
    return "; ".join(found) or "not certified"


def _steps(certificate: Mapping[str, Any]) -> str:
    if certificate.get("steps") is None:
        return f"more than {certificate.get('baseline_steps', '?')}"
    return f"{certificate['steps']:.0f}"


def _initial(certificate: Mapping[str, Any]) -> str:
    return "noise" if certificate.get("initial") == "noise" else "the photo"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
