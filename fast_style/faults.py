"""What happens when losses or gradients are not finite: back to the last good weights, once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.checkpoint import find_states
from fast_style.errors import UserError
from fast_style.losses import Losses
from fast_style.trainee import Trainee

# A second fault within so many steps is fatal.
_FAULT_FREE_STEPS = 500


class TrainingError(UserError, RuntimeError):
    """Training cannot go on: the losses keep being NaN or infinite."""


class Guard:
    """Looks at what updates gave, when it is asked to: looking waits for a GPU."""

    def __init__(self, trainee: Trainee, run_dir: Path) -> None:
        self.trainee = trainee
        self.run_dir = run_dir
        self.snapshot = trainee.state()
        self._unchecked: list[tuple[int, Tensor, Sequence[str]]] = []

    def keep(self) -> None:
        """Take the weights as they are, which must have been checked, as the last good ones."""
        self.snapshot = self.trainee.state()

    def watch(self, losses: Losses, gradient_norm: Tensor, paths: Sequence[str]) -> None:
        """Remember what the update just made gave for these image files."""
        values = torch.stack([losses.total.detach(), gradient_norm])
        self._unchecked.append((self.trainee.step, values, paths))

    def check(self) -> tuple[int, str] | None:
        """Look at the updates since the last time.

        After a non-finite one, which was not applied, go back and give its step and a message.
        Raises TrainingError at the second one so soon. All processes see the same.
        """
        if not self._unchecked:
            return None
        unchecked, self._unchecked = self._unchecked, []
        finite = distributed.mean(torch.stack([values for _, values, _ in unchecked])).isfinite()
        # An fp16 gradient that overflows is the scaler's to mend; it left the weights alone.
        scaling = self.trainee.scaler.get_scale() > 1
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
        trainee.restore(self.snapshot)
        trainee.learning_rate_scale /= 2
        trainee.last_fault = step
        self.keep()
        return (
            "the losses are NaN or infinite: back to the last good weights, learning rate halved "
            f"to {trainee.learning_rate:.3g}; the images were {files}"
        )
