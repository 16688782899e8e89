"""`fast-style models`: which models are shipped, how they were trained, what they are worth."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fast_style.checkpoint import CheckpointError, load_model, shipped_models
from fast_style.commands import run
from fast_style.config import flatten


def main(arguments: Sequence[str] | None = None) -> int:
    """List; exit 0, or 1 when a model cannot be read."""
    parser = argparse.ArgumentParser(prog="models.py", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print everything, as JSON")
    options = parser.parse_args(arguments)
    return run(lambda: _list(as_json=options.json))


def _list(*, as_json: bool) -> int:
    entries, failed = [], False
    for path in shipped_models():
        try:
            entries.append(_describe(path))
        except CheckpointError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    if as_json:
        print(json.dumps(entries, indent=1, ensure_ascii=False, default=str))
    elif entries:
        print("\n".join(line for entry in entries for line in _lines(entry)))
    elif not failed:
        print("no models are shipped with this version; scripts/train.py trains one")
    return 1 if failed else 0


def _describe(path: Path) -> dict[str, Any]:
    """Give what a model's file says of it, None for what it does not say."""
    model = load_model(path)
    config = flatten(_mapping(model.metadata.get("config")))
    return {
        "name": path.stem,
        "path": str(path),
        "bytes": path.stat().st_size,
        "width": model.network.width,
        "num_residual_blocks": model.network.num_residual_blocks,
        "steps": model.metadata.get("step"),
        "init_from": config.get("training.init_from"),
        "style_image": config.get("style.image"),
        "data": config.get("data.description") or None,
        "quality": model.metadata.get("quality"),
        "version": model.metadata.get("version"),
    }


def _lines(entry: Mapping[str, Any]) -> list[str]:
    steps = "steps unknown" if entry["steps"] is None else f"{entry['steps']:,} steps"
    if entry["init_from"]:
        steps += f" from {entry['init_from']}"
    size = f"{entry['bytes'] / 1e6:.1f} MB"
    style = entry["style_image"] or "unknown"
    return [
        f"{entry['name']}: width {entry['width']}, {size}, {steps}",
        f"    style image  {style}",
        f"    trained on   {entry['data'] or 'photos of which the model says nothing'}",
        f"    worth        {_worth(entry['quality'])}",
    ]


def _worth(quality: Any) -> str:
    """Say what the certificates of `evaluate --stamp` found."""
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
