"""Stylizing: one forward pass of a trained network over any photo."""

from pathlib import Path

import torch
from torch import Tensor

from fast_style.checkpoint import CheckpointError, load_model
from fast_style.devices import resolve_device
from fast_style.images import load_image, save_image
from fast_style.networks.transformer import TransformerNet


class Stylizer:
    """Applies a trained network: `Stylizer.load("wave")(image) -> stylized image`."""

    def __init__(self, network: TransformerNet, *, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.network = network.to(memory_format=torch.channels_last).to(self.device).eval()

    @classmethod
    def load(cls, model: str | Path, *, device: str = "auto") -> "Stylizer":
        """Build one from a model's path or name (see `find_model`). Raises CheckpointError."""
        return cls(load_model(find_model(model)).network, device=device)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] -> the same shape, in [0, 1]."""
        batch = image.reshape(-1, *image.shape[-3:]).to(self.device)
        return self.network(batch).clamp(0, 1).reshape(image.shape).to(image.device)


def stylize_file(stylizer: Stylizer, path: str | Path, output: str | Path) -> Path:
    """Stylize an image file into another. Raises ImageError."""
    return save_image(stylizer(load_image(path)), output)


def find_model(model: str | Path) -> Path:
    """Find a model by path or by name: a run's, one in `checkpoints`, or one that is shipped.

    `wave` and `wave.pth` mean the same. Raises CheckpointError with the places tried.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return path
    tried = [path]
    if path.parent == Path():
        name = path.name.removesuffix(".pth")
        shipped = Path(__file__).parent / "models" / f"{name}.pth"
        for candidate in (
            Path("checkpoints", name, f"{name}.pth"),
            Path("checkpoints", f"{name}.pth"),
            shipped,
        ):
            if candidate.is_file():
                return candidate
            tried.append(candidate)
    raise CheckpointError(
        f"no model {str(model)!r}; tried {', '.join(map(str, tried))}. "
        "Train one with scripts/train.py, or name a .pth file"
    )
