"""Where an exported model comes from: what its file says of itself in other programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast_style.checkpoints.files import SHIPPED, Model
from fast_style.config.style_names import named_styles, styles_text
from fast_style.files import digest
from fast_style.version import __version__


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A model's style, licence and training, as far as they are known, and its file's SHA-256."""

    style: str
    style_image: str | None
    trained_on: str | None
    licence: str | None
    checksum: str
    version: str

    def as_text(self) -> dict[str, str]:
        """Return what is known, by name."""
        entries = {
            "style": self.style,
            "style_image": self.style_image,
            "trained_on": self.trained_on,
            "licence": self.licence or "not stated",
            "checksum": self.checksum,
            "version": self.version,
        }
        return {name: value for name, value in entries.items() if value}


def origin_of(path: Path, model: Model, *, licence: str | None = None) -> Origin:
    """Return what a model and its file say; a `licence` given is the word of whoever exports."""
    metadata = model.metadata
    config = _mapping(metadata.get("config"))
    shipped = path.resolve().parent == SHIPPED.resolve()
    return Origin(
        style=str(metadata.get("name") or path.stem),
        style_image=styles_text(named_styles(config)) or None,
        trained_on=_text(_mapping(config.get("data")).get("description")),
        licence=(licence or "").strip()
        or _text(metadata.get("licence"))
        or ("MIT" if shipped else None),
        checksum=f"sha256:{digest(path)}",
        version=__version__,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return str(value).strip() or None if value else None
