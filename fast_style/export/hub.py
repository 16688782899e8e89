"""A model in the layout of model hubs: safetensors weights, their config, and a model card."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fast_style.checkpoints.files import MODEL_FORMAT, Model, model_data
from fast_style.checkpoints.safe_weights import model_bytes
from fast_style.errors import UserError
from fast_style.export.origin import Origin
from fast_style.networks.building import DEFAULT_KIND

CONFIG, CARD = "config.json", "README.md"
# By these a file of an earlier export is known, which a new one may replace.
_LIBRARY = "library_name: fast-style"


def hub_files(
    output: Path, model: Model, origin: Origin, *, dtype: torch.dtype
) -> dict[Path, bytes]:
    """Return the files of a model and their contents: the weights at `output`, and what belongs.

    Raises UserError where another's config or README has its place, or the metadata is not plain.
    """
    data = model_data(model.network, metadata=model.metadata, dtype=dtype)
    config = {"library_name": "fast-style", "format": MODEL_FORMAT, "network": data["network"]}
    try:
        weights = model_bytes(data)
    except TypeError as error:
        raise UserError(f"{output}: the model's metadata is not plain data: {error}") from None
    files = {
        output: weights,
        output.with_name(CONFIG): (json.dumps(config, indent=2) + "\n").encode(),
        output.with_name(CARD): _card(output.name, model, origin).encode(),
    }
    for path in files:
        if path != output and path.exists() and not _is_ours(path):
            raise UserError(
                f"{path}: is in the way of the model's own {path.name}: name a file in a folder "
                "of its own"
            )
    return files


def _is_ours(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        if path.name == CARD:
            return text.startswith("---\n") and _LIBRARY in text.partition("\n---\n")[0]
        config = json.loads(text)
        return isinstance(config, dict) and config.get("library_name") == "fast-style"
    except (OSError, ValueError):
        return False


def _card(file_name: str, model: Model, origin: Origin) -> str:
    """Return a model card: what the hub reads at its head, then what a person wants to know."""
    # What the hub reads is one word, and YAML has a meaning for others.
    words = re.findall(r"[\w.+-]+", (origin.licence or "unknown").lower())
    known = words[0] if words else "other"
    network = model.network
    family = "" if network.kind == DEFAULT_KIND else f"kind {network.kind}, "
    shape = f"{family}width {network.width}, {network.num_residual_blocks} residual blocks"
    facts = {
        "Style image": origin.style_image or "not stated",
        "Trained on": origin.trained_on or "not stated",
        "Steps": _steps(model.metadata),
        "Network": f"{shape}, upsampling {network.upsampling}",
        "Licence of the weights": origin.licence or "not stated",
        "Made with": f"fast-style {origin.version}",
    }
    cells = {name: " ".join(value.replace("|", "/").split()) for name, value in facts.items()}
    table = "\n".join(f"| {name} | {value} |" for name, value in cells.items())
    return f"""---
{_LIBRARY}
pipeline_tag: image-to-image
license: {known}
tags:
- style-transfer
- fast-style
---

# {origin.style}

Turns a photo of any size into a picture in one style, `{origin.style}`, in one forward pass.

```
pip install fast-style
fast-style stylize --model {file_name} photo.jpg
```

In Python, with float RGB in [0, 1] in and out: `Stylizer("{file_name}")(image)`.

| | |
|---|---|
{table}
"""


def _steps(metadata: Mapping[str, Any]) -> str:
    steps = metadata.get("step")
    return f"{steps:,}" if isinstance(steps, int) else "not stated"
