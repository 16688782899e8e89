"""Made-up inputs for the tests: photos, loss-network weights, a tiny config.

All of it is a function of a seed through NumPy's RandomState, whose streams are frozen for good.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.vgg import cfgs

_CFG = {"vgg16": "D", "vgg19": "E"}


def photo(seed: int, height: int = 40, width: int = 48) -> Image.Image:
    """Draw a smooth coloured pattern with a few hard edges."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x * a + y * b + c)
        for a, b, c in zip(*random.uniform(0.1, 0.9, (2, 3)), random.uniform(0, 6, 3), strict=True)
    ]
    pixels = 127.5 + 100 * np.stack(waves, axis=-1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = random.uniform(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int, *, height: int = 40, width: int = 48) -> list[Path]:
    """Write lossless photos `photo-000.png`, ... and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{i:03d}.png" for i in range(count)]
    for seed, path in enumerate(paths):
        photo(seed, height, width).save(path)
    return paths


def vgg_weights(
    network: str = "vgg16", *, convolutions: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    """Return random weights of the first convolutions, under the keys of torchvision's `features`.

    Four of them reach relu2_2. They are scaled as by He et al. 2015, so that feature maps neither
    fade nor grow with depth.
    """
    random = np.random.RandomState(seed)
    state: dict[str, Tensor] = {}
    channels, index = 3, 0
    for entry in cfgs[_CFG[network]]:
        if entry == "M":
            index += 1
            continue
        if len(state) == 2 * convolutions:
            break
        std = (2 / (9 * channels)) ** 0.5
        weight = random.standard_normal((entry, channels, 3, 3)) * std
        state[f"{index}.weight"] = torch.from_numpy(weight).float()
        state[f"{index}.bias"] = torch.from_numpy(random.standard_normal(entry)).float()
        channels, index = entry, index + 2
    return state


# The terms that a run has by default beside a `loss.strength`, which `tiny_config_data` has not.
TERMS = {"loss.grid_weight": 3000.0, "loss.contrast_weight": 2.0, "loss.frame_weight": 40.0}


def tiny_config_data(*, photos: Path, style: Path, weights: Path) -> dict[str, Any]:
    """Return the plain data of a config whose every step takes milliseconds."""
    return {
        "name": "tiny",
        "style": {"image": str(style), "size": 32},
        "data": {"train": str(photos), "held_out": 1, "workers": 0},
        "loss": {
            "network": "vgg16",
            "padding": "zeros",
            "weights": str(weights),
            "content_layers": ["relu2_2"],
            "style_layers": ["relu1_2", "relu2_2"],
            "style_weight": 0.1,
            "tv_weight": 1,
        },
        "network": {"width": 4, "num_residual_blocks": 1},
        "training": {
            "steps": 12,
            "init_from": None,
            "batch_size": 2,
            "image_size": 32,
            "precision": "float32",
            "log_every": 1,
            "validate_every": 6,
            "preview_every": 6,
            "checkpoint_every": 3,
        },
    }
