"""Makes the files that test_golden.py compares with. They are contracts: make them once.

    python tests/golden/make_golden.py model        model-v1.pth, model-v1.npz
    python tests/golden/make_golden.py stylized     model-v1-stylized.npz
    python tests/golden/make_golden.py training     training.json

* `model-v1.pth` is a model file (format fast-style/1) of a network of width 4 with one residual
  block, whose weights are PyTorch's initial ones of seed 0 plus normal noise of 0.1, as
  `save_model` wrote it. `model-v1.npz` holds an input, that network's output in float32 on a CPU,
  and the SHA-256 of the weights. They stay for good: whatever comes after must read them and give
  that output. A new format gets files of its own, beside them.
* `model-v1-stylized.npz` holds what that network gives for that input with 8 mirrored pixels around
  it, which are cut off again, clamped: what `Stylizer` gives since it draws no frames.
* `training.json` holds the losses of ten steps of a tiny run (see `golden_config`) in float32 on a
  CPU, and the names and shapes of what its state holds. Make it anew only for a change of numerics
  or of the state's format that is meant, and enter that in the CHANGELOG.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from synthetic import photo, tiny_config_data, vgg_weights, write_photos

from fast_style.checkpoints.files import load_model, save_model
from fast_style.config import Config, config_from_dict
from fast_style.data import content_batches
from fast_style.images import to_float
from fast_style.networks.transformer import TransformerNet
from fast_style.training.inputs import prepare
from fast_style.training.trainee import Trainee

FOLDER = Path(__file__).parent
STEPS = 10


def weights_hash(network: TransformerNet) -> str:
    """Hash names, shapes and bits of the weights."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def golden_config(folder: Path) -> Config:
    """Write a style image, eight photos and random VGG-16 weights, and a config that uses them."""
    write_photos(folder / "photos", 8)
    photo(1000, 40, 40).save(folder / "style.png")
    torch.save(vgg_weights(), folder / "vgg.pth")
    data = tiny_config_data(
        photos=folder / "photos", style=folder / "style.png", weights=folder / "vgg.pth"
    )
    # Small steps: rounding that differs between machines must not grow with them.
    data["training"] |= {"steps": STEPS, "learning_rate": 3e-5}
    return config_from_dict(data)


def run_training(folder: Path) -> dict[str, Any]:
    """Train ten steps; give the losses of each and what the state holds."""
    config = golden_config(folder)
    inputs = prepare(config, device="cpu")
    trainee = Trainee(config, inputs)
    batches = content_batches(inputs.images, config.training.batch_size)
    losses = []
    for _ in range(STEPS):
        terms, _ = trainee.update(to_float(next(batches).pixels))
        losses.append({name: value.item() for name, value in terms.items().items()})
    return {"losses": losses, "state": shapes(trainee.state())}


def shapes(data: Any) -> Any:
    """Replace every tensor by its shape, and everything else that is no container by its type."""
    if isinstance(data, Tensor):
        return list(data.shape)
    if isinstance(data, Mapping):
        return {str(key): shapes(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [shapes(value) for value in data]
    return type(data).__name__


def make_model() -> None:
    path = FOLDER / "model-v1.pth"
    if path.exists():
        raise SystemExit(f"{path} is there, and stays for good")
    torch.manual_seed(0)
    network = TransformerNet(width=4, num_residual_blocks=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(path, network, metadata={"name": "golden", "step": 7})
    image = (
        torch.from_numpy(np.asarray(photo(7, 21, 30)).copy()).permute(2, 0, 1)[None].float() / 255
    )
    network = load_model(path).network
    with torch.no_grad():
        output = network(image)
    np.savez_compressed(
        path.with_suffix(".npz"),
        image=image.numpy(),
        output=output.contiguous().numpy(),
        sha256=weights_hash(network),
    )


def make_stylized() -> None:
    path = FOLDER / "model-v1-stylized.npz"
    if path.exists():
        raise SystemExit(f"{path} is there, and stays for good")
    with np.load(FOLDER / "model-v1.npz") as data:
        image = torch.from_numpy(data["image"])
    # By the plain network, so that the streaming one is compared with something else than itself.
    with torch.no_grad():
        padded = F.pad(image, (8, 8, 8, 8), mode="reflect")
        output = load_model(FOLDER / "model-v1.pth").network(padded)[..., 8:-8, 8:-8].clamp(0, 1)
    np.savez_compressed(path, output=output.contiguous().numpy())


def make_training() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = run_training(Path(folder))
    (FOLDER / "training.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    make = {"model": make_model, "stylized": make_stylized, "training": make_training}
    make[sys.argv[1]]()
