"""What happens when losses or gradients are not finite: back to the last good weights, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.checkpoints.files import find_states
from fast_style.devices import Arriving
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

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the weights and of all that the next update depends on."""

    def go_back(self, state: Mapping[str, Any], *, fault: int) -> None:
        """Take over an earlier state after a fault at that step, and learn half as fast."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Watched:
    """Updates whose finiteness is on its way: steps, image files, and (updates, 2) booleans."""

    updates: Sequence[tuple[int, Sequence[str]]]
    finite: Arriving


class Guard:
    """Checks the losses and gradients of updates, only when asked to: checking may wait for a GPU.

    A check that does not wait judges what the check before it has asked the GPU for.
    """

    def __init__(self, trainee: Recoverable, run_dir: Path) -> None:
        self.trainee = trainee
        self.run_dir = run_dir
        self.snapshot = trainee.snapshot()
        self._unchecked: list[tuple[int, Tensor, Sequence[str]]] = []
        self._asked: list[_Watched] = []
        # Weights of a step up to which not all updates are judged.
        self._candidate: tuple[int, dict[str, Any]] | None = None

    def keep(self) -> None:
        """Keep the present weights as the last good ones, once all updates before are judged."""
        self._candidate = self.trainee.step, self.trainee.snapshot()
        if not self._unchecked and not self._asked:
            self._accept(self.trainee.step)

    def watch(self, losses: Losses, gradient_norm: Tensor, paths: Sequence[str]) -> None:
        """Remember the loss and gradient of the last update, and the image files of its batch."""
        values = torch.stack([losses.total.detach(), gradient_norm])
        self._unchecked.append((self.trainee.step, values, paths))

    def check(self, *, waits: bool = True) -> tuple[int, str] | None:
        """Check the updates since the last call; without waiting, those before it.

        After a non-finite one, which was not applied, go back, and return its step and a message.
        Raises TrainingError at the second one so soon. All processes see the same.
        """
        if unchecked := self._unchecked:
            values = distributed.mean(torch.stack([values for _, values, _ in unchecked]))
            updates = [(step, paths) for step, _, paths in unchecked]
            self._asked.append(_Watched(updates=updates, finite=Arriving(values.isfinite())))
            self._unchecked = []
        while len(self._asked) > (0 if waits else 1):
            if fault := self._judge(self._asked.pop(0)):
                return fault
        return None

    def _judge(self, watched: _Watched) -> tuple[int, str] | None:
        # An fp16 gradient that overflows is the scaler's to mend; it left the weights alone.
        finite = watched.finite.wait().tolist()
        for (step, paths), (loss, gradient) in zip(watched.updates, finite, strict=True):
            if not loss or not (gradient or self.trainee.is_scaling):
                return step, self._go_back(step, ", ".join(distributed.gathered(paths)))
            self._accept(step)
        return None

    def _accept(self, step: int) -> None:
        if self._candidate and self._candidate[0] <= step:
            self.snapshot = self._candidate[1]
            self._candidate = None

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
        # What came after that step began with weights that are given up.
        self._unchecked, self._asked, self._candidate = [], [], None
        trainee.go_back(self.snapshot, fault=step)
        self.keep()
        return (
            "the losses are NaN or infinite: back to the last good weights, learning rate halved "
            f"to {trainee.learning_rate:.3g}; the images were {files}"
        )
