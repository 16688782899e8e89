"""What happens when losses or gradients are not finite: back to the last good weights, once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.checkpoints.files import find_states
from fast_style.errors import UserError
from fast_style.objective.losses import Losses

# The number of steps within which a second fault is fatal.
_FAULT_FREE_STEPS = 500


class TrainingError(UserError, RuntimeError):
    """Training cannot go on: the losses keep being NaN or infinite."""


class Recoverable(Protocol):
    """What can go back to earlier weights: of a `Trainee`, what its guard needs."""

    @property
    def step(self) -> int:
        """The number of updates."""

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""

    @property
    def last_fault(self) -> int | None:
        """The step of the last fault, if there was one."""

    @property
    def is_scaling(self) -> bool:
        """Whether gradients are scaled, as in fp16."""

    def state(self) -> dict[str, Any]:
        """Return a copy of the weights and of all that the next update depends on."""

    def go_back(self, state: Mapping[str, Any], *, fault: int) -> None:
        """Take over an earlier state after a fault at that step, and learn half as fast."""


class Guard:
    """Checks the losses and gradients of updates, only when asked to: checking waits for a GPU."""

    def __init__(self, trainee: Recoverable, run_dir: Path) -> None:
        self.trainee = trainee
        self.run_dir = run_dir
        self.snapshot = trainee.state()
        self._unchecked: list[tuple[int, Tensor, Sequence[str]]] = []

    def keep(self) -> None:
        """Keep the present weights, which must have been checked, as the last good ones."""
        self.snapshot = self.trainee.state()

    def watch(self, losses: Losses, gradient_norm: Tensor, paths: Sequence[str]) -> None:
        """Remember the loss and gradient of the last update, and the image files of its batch."""
        values = torch.stack([losses.total.detach(), gradient_norm])
        self._unchecked.append((self.trainee.step, values, paths))

    def check(self) -> tuple[int, str] | None:
        """Check the updates since the last call.

        After a non-finite one, which was not applied, go back, and return its step and a message.
        Raises TrainingError at the second one so soon. All processes see the same.
        """
        if not self._unchecked:
            return None
        unchecked, self._unchecked = self._unchecked, []
        finite = distributed.mean(torch.stack([values for _, values, _ in unchecked])).isfinite()
        # An fp16 gradient that overflows is the scaler's to mend; it left the weights alone.
        scaling = self.trainee.is_scaling
        for (step, _, paths), (loss, gradient) in zip(unchecked, finite.tolist(), strict=True):
            if not loss or not (gradient or scaling):
                return step, self._go_back(step, ", ".join(distributed.gathered(paths)))
        return None

    def _go_back(self, step: int, files: str) -> str:
        trainee, last = self.trainee, self.trainee.last_fault
        if last is not None and step - last <= _FAULT_FREE_STEPS:
            states = find_states(self.run_dir)
            kept = f"the last good state is {states[-1]}" if states else "no state was saved"
            raise distributed.told_once(
                TrainingError(
                    f"the losses were NaN or infinite at step {last} and again at step {step} "
                    f"({files}); {kept}. Lower training.learning_rate, or remove the images named "
                    "here if they are damaged"
                )
            )
        trainee.go_back(self.snapshot, fault=step)
        self.keep()
        return (
            "the losses are NaN or infinite: back to the last good weights, learning rate halved "
            f"to {trainee.learning_rate:.3g}; the images were {files}"
        )
