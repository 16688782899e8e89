"""Write a card for each shipped model: its style and photos, licences, training and worth.

    python scripts/cards.py docs/models.md

`gallery.py` does so too. All comes from the model files and from styles/README.md.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fast_style.checkpoints.files import load_model, shipped_models
from fast_style.commands.models import describe, worth
from fast_style.config import flatten
from fast_style.errors import UserError
from fast_style.files import atomic_write
from fast_style.objective.losses import OPTIONAL_PICTURE_TERMS

_STYLES = Path(__file__).parents[1] / "styles" / "README.md"
_HEAD = """# The shipped models

A card for each model of the package, made from the model files; [the gallery](gallery.md) shows
their pictures.

**Licence.** The model files are part of this project (MIT licence). Each card names the licences of
the style image and of the photos, none of which is in the model file; where these allow research
only, whoever wants to use a model for something else has to judge that. The loss network's weights,
K. Simonyan's and A. Zisserman's (CC BY), are not in it either.

**Use.** `fast-style stylize --model NAME photo.jpg`, or `Stylizer("NAME")` from Python.

**Limits.** The networks are small and their training was short: they bring a
style's colours, strokes and textures, and not its large shapes. Small faces and text do not
survive. The strokes have the size in pixels that they had in training, so a large picture has
relatively finer ones: `--size` and `--stroke-scale` change that. The photos are everyday scenes;
drawings, maps and medical images were not tried.

**Worth** is how many steps of an optimiser on the model's own objective one forward pass equals
([method.md](method.md), *The certificate*); it compares models of one objective, and does not tell
a mild picture from a bold one.
"""


def page(models: Sequence[Path]) -> str:
    """Return the page with a card for each of these model files."""
    return "\n".join([_HEAD, *(line for path in models for line in _card(path))])


def write(path: Path) -> None:
    """Write the page of the shipped models."""
    with atomic_write(path) as file:
        file.write(page(shipped_models()).encode())


def _card(path: Path) -> Iterator[str]:
    entry = describe(path)
    config = load_model(path).metadata.get("config") or {}
    rows = {
        "style": "; ".join(map(_style, entry["style_images"] or [""])),
        "network": f"width {entry['width']}, {entry['num_residual_blocks']} residual blocks, "
        f"{entry['bytes'] / 1e6:.1f} MB",
        "training": _training(entry, flatten(config)),
        "photos": entry["data"] or "not said",
        "objective": _objective(config.get("loss") or {}),
        "worth": worth(entry["quality"]),
        "made with": f"fast-style {entry['version']}",
    }
    yield from (f"## `{entry['name']}`", "", "| | |", "|---|---|")
    yield from (f"| {name} | {text} |" for name, text in rows.items())
    yield ""


def _style(image: str) -> str:
    """Return what styles/README.md says of a style image, and the licence of its section."""
    name = Path(image).name
    text = _STYLES.read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0] != f"`{name}`":
                continue
            drawn = section.startswith("Drawn by this project")
            licence = "drawn by this project's own code, MIT licence" if drawn else cells[2]
            return f"`{name}`: {cells[1]}; {licence}"
    raise UserError(f"styles/README.md: says nothing of {name!r}, a shipped model's style image")


def _training(entry: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Say how long, from what, and at which sizes a network was trained."""
    start = f"from `{entry['init_from']}`" if entry["init_from"] else "from random weights"
    size, share = config["training.image_size"], config.get("training.first_share", 0)
    text = (
        f"{entry['steps']:,} steps {start}, each of {config['training.batch_size']} crops of "
        f"{size} pixels"
    )
    if share:
        text += f" (the first {share:.0%} of {config['training.first_size']})"
    return f"{text}; style image at {config['style.size']} pixels"


def _objective(loss: Mapping[str, Any]) -> str:
    content, style = (", ".join(loss[f"{kind}_layers"]) for kind in ("content", "style"))
    padding = loss.get("padding", "zeros")
    terms = (name for name in OPTIONAL_PICTURE_TERMS if loss.get(f"{name}_weight"))
    more = "".join(f"; {name} term" for name in terms)
    return f"{loss['network']}: content at {content}; style at {style}; {padding} padding{more}"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
