"""Monitors for the tests: one that keeps what a run reports, one that ends it."""

from collections.abc import Mapping

from torch import Tensor

from fast_style.training.monitors import NullMonitor


class Recorder(NullMonitor):
    """Keeps everything that a run reports."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int, str]] = []
        self.steps: list[int] = []
        self.values: dict[str, dict[int, float]] = {}
        self.images: dict[str, dict[int, Tensor]] = {}
        self.messages: list[tuple[int, str]] = []
        self.alarms: list[tuple[int, str]] = []  # of pictures, which may well look bad here
        self.closed = 0

    def start(self, step: int, steps: int, config: str) -> None:
        self.started.append((step, steps, config))

    def advance(self, step: int) -> None:
        self.steps.append(step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self.values.setdefault(tag, {})[step] = value

    def image(self, step: int, tag: str, image: Tensor) -> None:
        self.images.setdefault(tag, {})[step] = image

    def message(self, step: int, text: str) -> None:
        messages = self.alarms if text.startswith("artefact alarm") else self.messages
        messages.append((step, text))

    def close(self) -> None:
        self.closed += 1


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


class KilledAfter(Recorder):
    """Ends the run before anything of the step is saved."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.last = step

    def advance(self, step: int) -> None:
        if step == self.last:
            raise Killed
