"""Distillation: a network of the fast family learns to draw what a trained network draws.

The loss of a step is the mean squared difference of the two pictures, and a share of that of the
maps before the residual blocks (a hint, as in Romero et al. 2015, arXiv:1412.6550), which
are the trained network's own at first. No loss network takes part, so a step takes a fifth of one
of training, which can go on with the result (`training.init_from`).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.data import ContentImages, Skipped, content_batches
from fast_style.devices import autocast
from fast_style.images import to_float
from fast_style.networks.patch import PatchNet, grown_from
from fast_style.networks.transformer import TransformerNet, pad_to_stride
from fast_style.training.faults import TrainingError

# Maps after a norm have a deviation of about 1, pictures of a fifth.
_HINT = 0.02
# The learning rate rises over so many steps, then falls along a half cosine to a tenth.
_WARM_UP = 10
_LOWEST = 0.1


def distill(
    teacher: TransformerNet,
    images: ContentImages,
    *,
    steps: int,
    batch_size: int = 4,
    learning_rate: float = 3e-3,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    skipped: Skipped | None = None,
) -> PatchNet:
    """Return a network that was taught by `teacher` at crops of the `images`, in `steps` steps.

    The crops are a function of (the images' seed, step). `on_step` is told each step's loss. Photos
    that are broken are `skipped`. Raises ValueError for a teacher that cannot be taken over,
    DataError, and TrainingError for a loss that is not finite.
    """
    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(images.seed)
        network = grown_from(teacher)
    network = network.to(memory_format=torch.channels_last).to(device).train()
    network.requires_grad_(True)
    teacher = teacher.to(device).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    batches = content_batches(images, batch_size, skipped=skipped)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _pace(step, steps)
        content = to_float(next(batches).pixels.to(device))
        with autocast(device, dtype):
            loss = _difference(network, teacher, content)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if not math.isfinite(value := loss.item()):
            raise TrainingError(
                f"the difference is NaN or infinite in step {step + 1}: compute in float32 "
                "(--precision float32), or with a lower learning rate"
            )
        on_step(step + 1, value)
    return network.eval().requires_grad_(False)


def _difference(network: PatchNet, teacher: TransformerNet, content: Tensor) -> Tensor:
    """(N, 3, S, S) -> scalar: how far the network is from its teacher."""
    padded = pad_to_stride(content - 0.5).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        picture, maps = teacher(content), teacher.encoder(padded)
    hint = F.mse_loss(network.encoder(padded).float(), maps.float())
    return F.mse_loss(network(content).float(), picture.float()) + _HINT * hint


def _pace(step: int, steps: int) -> float:
    falling = (1 + math.cos(math.pi * step / steps)) / 2
    return min(1, (step + 1) / _WARM_UP) * (_LOWEST + (1 - _LOWEST) * falling)
