"""A batch in parts, one after the other: a step that needs the memory of one part."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from fast_style.objective.losses import Losses
from fast_style.objective.stability import Disturbance

Part = tuple[Tensor, Disturbance | None]


def in_parts(
    losses_of: Callable[[Tensor, Disturbance | None], Losses],
    content: Tensor,
    disturbance: Disturbance | None,
    *,
    parts: int,
    backward: Callable[[Tensor], object],
    module: nn.Module,
) -> Losses:
    """Compute the losses of (N, 3, S, S) content images, and with `backward` their gradients.

    Losses are means over images, so those of equal `parts` of the batch and their gradients average
    to those of the whole. Several processes exchange the gradients of `module` at the last part.
    """
    if parts == 1:
        losses = losses_of(content, disturbance)
        backward(losses.total)
        return losses
    found: list[Losses] = []
    for part in _split(content, disturbance, parts):
        is_last = len(found) == parts - 1
        with nullcontext() if is_last else _by_itself(module):
            losses = losses_of(*part)
            backward(losses.total / parts)
        found.append(losses)
    return Losses.mean(found)


def part_of(content: Tensor, disturbance: Disturbance | None, *, parts: int) -> Part:
    """Return the first of the equal parts of a batch."""
    return _split(content, disturbance, parts)[0]


def _split(content: Tensor, disturbance: Disturbance | None, parts: int) -> list[Part]:
    how = disturbance.chunk(parts) if disturbance is not None else [None] * parts
    return list(zip(content.chunk(parts), how, strict=True))


def _by_itself(module: nn.Module) -> AbstractContextManager[None]:
    """Return the context in which backward leaves gradients in this process."""
    no_sync: Callable[[], AbstractContextManager[None]] = getattr(module, "no_sync", nullcontext)
    return no_sync()
