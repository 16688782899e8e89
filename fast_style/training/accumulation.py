"""A batch in parts, one after the other: a step that needs the memory of one part."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from fast_style.objective.losses import Losses

# Their sum is the total.
_TERMS = ("content", "style", "tv")


def in_parts(
    losses_of: Callable[[Tensor], Losses],
    content: Tensor,
    *,
    parts: int,
    backward: Callable[[Tensor], object],
    network: nn.Module,
) -> Losses:
    """Compute the losses of (N, 3, S, S) content images, and with `backward` their gradients.

    Losses are means over images, so those of equal `parts` of the batch and their gradients average
    to those of the whole. Several processes exchange the gradients of `network` at the last part.
    """
    if parts == 1:
        losses = losses_of(content)
        backward(losses.total)
        return losses
    found: list[dict[str, Tensor]] = []
    for part in content.chunk(parts):
        is_last = len(found) == parts - 1
        with nullcontext() if is_last else _by_itself(network):
            losses = losses_of(part)
            backward(losses.total / parts)
        found.append({name: getattr(losses, name).detach() for name in _TERMS})
    return Losses(**{name: torch.stack([one[name] for one in found]).mean() for name in _TERMS})


def _by_itself(network: nn.Module) -> AbstractContextManager[None]:
    """Return the context in which backward leaves gradients in this process."""
    no_sync: Callable[[], AbstractContextManager[None]] = getattr(network, "no_sync", nullcontext)
    return no_sync()
