"""The style images that a config names, with their shares: from plain data, and as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def named_styles(config: Any) -> dict[str, float]:
    """Return the style images of a model's config, as its metadata holds it, with their shares.

    Whatever version wrote it; without a config, or without a style in it, there are none.
    """
    style = config.get("style") if isinstance(config, Mapping) else None
    if not isinstance(style, Mapping):
        return {}
    if image := style.get("image"):
        return {str(image): 1.0}
    images = style.get("images")
    if not isinstance(images, Mapping):
        return {}
    return {str(path): share for path, share in images.items() if isinstance(share, int | float)}


def styles_text(
    shares: Mapping[str, float] | Mapping[Path, float], *, names_only: bool = False
) -> str:
    """Return the style images in a line, with their shares where these differ; "" for none.

    `names_only` leaves out their folders.
    """
    equal = len(set(shares.values())) == 1
    texts = (
        f"{Path(path).name if names_only else path}{'' if equal else f' ({share:g})'}"
        for path, share in shares.items()
    )
    return ", ".join(texts)
