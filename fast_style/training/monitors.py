"""The monitors of a run: their protocol; TensorBoard, a table of losses, a progress bar."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol

import yaml
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from fast_style.images import to_uint8
from fast_style.objective.losses import OPTIONAL_TERMS, TERMS

log = logging.getLogger(__name__)

# tqdm's own line, with our estimate in the place of its.
_BAR = "{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{{elapsed}}<{left}, {{rate_fmt}}{{postfix}}]"


class Monitor(Protocol):
    """What `train` reports to. Steps count finished updates; the first is step 1."""

    def start(self, step: int, steps: int, config: str) -> None:
        """A run begins, goes on or has a new folder, after `step` of `steps`; `config` is YAML.

        `steps` is 0 where they are not planned yet.
        """

    def advance(self, step: int) -> None:
        """A step is finished."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by tag, as in `loss/style` or `loss_validation/total`."""

    def image(self, step: int, tag: str, image: Tensor) -> None:
        """Show a (3, H, W) image in [0, 1] under a tag."""

    def message(self, step: int, text: str) -> None:
        """Show a text that a person should read."""

    def close(self) -> None:
        """The run has ended, one way or the other."""


class NullMonitor:
    """A monitor that does nothing: to inherit from, for what watches a part of a run."""

    def start(self, step: int, steps: int, config: str) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def image(self, step: int, tag: str, image: Tensor) -> None:
        pass

    def message(self, step: int, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoardMonitor(NullMonitor):
    """Writes event files into the run's folder, for `tensorboard --logdir checkpoints`.

    Where they cannot be written (any more), the monitor logs that and lets the run go on.
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


class MetricsMonitor(NullMonitor):
    """Writes `metrics.csv` into the run's folder: a row for every report of losses.

    `part` is "training" or "validation". A run that goes on takes away the rows after the state
    that it goes on from, so that no step has two. Where the file cannot be written (any more), the
    monitor logs that and lets the run go on.
    """

    _PARTS: Mapping[str, str] = {"training": "loss", "validation": "loss_validation"}
    _PACE = ("learning_rate", "images_per_second")

    def __init__(self, run_dir: str | Path) -> None:
        self._path: Path | None = None
        self._run_dir = Path(run_dir)
        self._terms = TERMS

    def start(self, step: int, steps: int, config: str) -> None:
        self._path = self._run_dir / "metrics.csv"
        loss = (yaml.safe_load(config) or {}).get("loss", {})
        more = (name for name in OPTIONAL_TERMS if loss.get(f"{name}_weight"))
        self._terms = (*TERMS, *more)
        with self._telling(), self._path.open("a+b") as file:
            file.truncate(self._length_up_to(step, file))
            if not file.seek(0, os.SEEK_END):
                file.write((",".join(self._head()) + "\n").encode())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for part, section in self._PARTS.items():
            losses = [values.get(f"{section}/{term}") for term in self._terms]
            if self._path is None or f"{section}/total" not in values:
                continue
            pace = [values.get(f"run/{name}") for name in self._PACE]
            cells = ["" if value is None else repr(value) for value in (*losses, *pace)]
            with self._telling(), self._path.open("a", encoding="utf-8") as file:
                file.write(",".join([str(step), part, *cells]) + "\n")

    def _head(self) -> list[str]:
        return ["step", "part", *self._terms, *self._PACE]

    def _length_up_to(self, step: int, file: IO[bytes]) -> int:
        """Return the bytes of the whole rows up to a step; they are in the steps' order."""
        length = 0
        if step:
            file.seek(0)
            for row in file:
                number = row.partition(b",")[0]
                if not row.endswith(b"\n") or (number.isdigit() and int(number) > step):
                    break
                length += len(row)
        return length

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("%s: the table of losses ends: %s", self._path, error.strerror)
            self._path = None


class ProgressMonitor(NullMonitor):
    """Shows a progress bar with the losses and the time left; messages go above it.

    The losses are those under the tag `section`, as in `loss/style`. The time left is that of
    `run/minutes_left`, once there is one; `run/planned_steps` moves the end of the bar. `waiting`
    is the share of the time in which the run waits for photos.
    """

    def __init__(self, section: str = "loss") -> None:
        self._section = section
        self._bar: Any = None
        self._redirect: AbstractContextManager[None] = nullcontext()

    def start(self, step: int, steps: int, config: str) -> None:
        self.close()
        self._redirect = logging_redirect_tqdm()  # keeps log lines above the bar
        self._redirect.__enter__()
        self._bar = tqdm(
            total=steps or None, initial=step, unit="step", dynamic_ncols=True, smoothing=0.1
        )

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._bar is None:
            return
        if "run/planned_steps" in values:
            self._bar.total = round(values["run/planned_steps"])
        if "run/minutes_left" in values:
            left = tqdm.format_interval(values["run/minutes_left"] * 60)
            self._bar.bar_format = _BAR.format(left=left)
        tags = {name: f"{self._section}/{name}" for name in (*TERMS, *OPTIONAL_TERMS)}
        shown = {name: f"{values[tag]:.4g}" for name, tag in tags.items() if tag in values}
        if shown and "run/waited_for_data" in values:
            shown["waiting"] = f"{values['run/waited_for_data']:.0%}"
        if shown:
            self._bar.set_postfix(shown, False)

    def message(self, step: int, text: str) -> None:
        log.warning("step %d: %s", step, text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._redirect.__exit__(None, None, None)
