"""What watches a run: a protocol, and TensorBoard and a progress bar behind it."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from fast_style.images import to_uint8

log = logging.getLogger(__name__)

# tqdm's own line, with our estimate in the place of its.
_BAR = "{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{{elapsed}}<{left}, {{rate_fmt}}{{postfix}}]"


class Monitor(Protocol):
    """What `train` reports to. Steps count finished updates; the first is step 1."""

    def start(self, step: int, steps: int, config: str) -> None:
        """A run begins, goes on or has a new folder, after `step` of `steps`; `config` is YAML."""

    def advance(self, step: int) -> None:
        """A step is finished."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by tag, as in `train/style` or `validation/total`."""

    def image(self, step: int, tag: str, image: Tensor) -> None:
        """Show a (3, H, W) image in [0, 1] under a tag."""

    def message(self, step: int, text: str) -> None:
        """Say something that a person should know."""

    def close(self) -> None:
        """The run has ended, one way or the other."""


class TensorBoardMonitor:
    """Writes event files into the run's folder, for `tensorboard --logdir checkpoints`.

    Where they cannot be written (any more), it says so and lets the run go on.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self._run_dir = Path(run_dir)
        self._writer: SummaryWriter | None = None

    def start(self, step: int, steps: int, config: str) -> None:
        self.close()
        with self._telling():
            # What a killed run wrote after its last state will be written again.
            self._writer = SummaryWriter(str(self._run_dir), purge_step=step + 1 if step else None)
            self._writer.add_text("config", f"```yaml\n{config}```", step)

    def advance(self, step: int) -> None:
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._telling():
            for tag, value in values.items():
                if self._writer:
                    self._writer.add_scalar(tag, value, step)

    def image(self, step: int, tag: str, image: Tensor) -> None:
        with self._telling():
            if self._writer:
                self._writer.add_image(tag, to_uint8(image).cpu().numpy(), step)

    def message(self, step: int, text: str) -> None:
        with self._telling():
            if self._writer:
                self._writer.add_text("messages", text, step)

    def close(self) -> None:
        with self._telling():
            if self._writer:
                self._writer.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            log.warning("%s: TensorBoard's record ends: %s", self._run_dir, error.strerror)


class ProgressMonitor:
    """Shows a progress bar with the losses and the time left; messages go above it.

    The losses are those under the tag `section`, as in `train/style`. The time left is that of
    `minutes_left`, once there is one; `planned_steps` moves the end of the bar.
    """

    _SHOWN = ("content", "style", "tv", "total")

    def __init__(self, section: str = "train") -> None:
        self._section = section
        self._bar: Any = None
        self._redirect: AbstractContextManager[None] = nullcontext()

    def start(self, step: int, steps: int, config: str) -> None:
        self.close()
        self._redirect = logging_redirect_tqdm()  # keeps log lines above the bar
        self._redirect.__enter__()
        self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True, smoothing=0.1)

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._bar is None:
            return
        if "planned_steps" in values:
            self._bar.total = round(values["planned_steps"])
        if "minutes_left" in values:
            left = tqdm.format_interval(values["minutes_left"] * 60)
            self._bar.bar_format = _BAR.format(left=left)
        tags = {name: f"{self._section}/{name}" for name in self._SHOWN}
        if shown := {name: values[tag] for name, tag in tags.items() if tag in values}:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, False)

    def image(self, step: int, tag: str, image: Tensor) -> None:
        pass

    def message(self, step: int, text: str) -> None:
        log.warning("step %d: %s", step, text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._redirect.__exit__(None, None, None)
