"""What live frames become: one of several styles, at a strength, changed while they run."""

import threading
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fast_style.checkpoints.files import Model, load_model
from fast_style.devices import Precision
from fast_style.stylization import Stylizer

_STEP = 0.1


class Looks:
    """The styles to choose from, by their models' files, and the one that is chosen.

    Models are loaded when they are first chosen. Raises CheckpointError.
    """

    def __init__(
        self,
        models: Sequence[Path],
        *,
        strength: float = 1.0,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        self._models = list(models)
        self._precision: Precision = precision
        self._device = device
        self._loaded: dict[Path, Model] = {}
        self._index = 0
        self._changing = threading.Lock()
        self.strength = strength
        self._stylizer = self._made(self._index, strength)

    @property
    def name(self) -> str:
        """The name of the style that is chosen."""
        return self._models[self._index].stem

    @property
    def status(self) -> str:
        """The style and its strength, for a person."""
        return f"{self.name}   strength {self.strength:.1f}"

    @property
    def is_on_cpu(self) -> bool:
        """Whether frames are stylized by the processor's cores."""
        return self._stylizer.device.type == "cpu"

    def stylize(self, pixels: Tensor) -> Tensor:
        """(3, H, W) uint8 -> (3, H, W) uint8; `pixels` may be overwritten."""
        if self.strength == 0:
            return pixels
        return self._stylizer.stylize_pixels(pixels)

    def change(self, wish: str) -> None:
        """Do what a person asked for, if it is about looks: see `KEYS` in live_window.py."""
        with self._changing:
            index, strength = self._index, self.strength
            if wish in ("next", "previous"):
                index = (index + (1 if wish == "next" else -1)) % len(self._models)
            elif wish.isdecimal() and 1 <= int(wish) <= len(self._models):
                index = int(wish) - 1
            elif wish in ("stronger", "weaker"):
                change = _STEP if wish == "stronger" else -_STEP
                strength = min(1.0, max(0.0, round(strength + change, 1)))
            if (index, strength) != (self._index, self.strength):
                # Only then is it named: until its model is loaded, frames have the style before.
                self._stylizer = self._made(index, strength)
                self._index, self.strength = index, strength

    def _made(self, index: int, strength: float) -> Stylizer:
        path = self._models[index]
        if path not in self._loaded:
            self._loaded[path] = load_model(path)
        return Stylizer(
            self._loaded[path],
            precision=self._precision,
            device=self._device,
            strength=strength,
        )
