"""Training: one transformer network for one style image (Johnson et al. 2016, section 3).

To resume, run the same command again. Everything random is a function of (seed, step), so a run
that is killed at any instant and resumed ends with the weights of an unbroken one (on a CPU, bit
for bit).

Several processes (`distributed`) train as one does: on the same images in the same order, with the
same losses but for rounding. The main process alone reports and writes.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fast_style import distributed
from fast_style.config import Config, locate
from fast_style.data import ContentBatch, DataError, content_batches
from fast_style.faults import Guard
from fast_style.images import to_float
from fast_style.losses import Losses
from fast_style.monitoring import Monitor
from fast_style.preparation import prepare_together
from fast_style.reporting import Reports
from fast_style.resuming import RunFolder, load_resumable
from fast_style.schedule import TimeLimit
from fast_style.trainee import Trainee

log = logging.getLogger(__name__)

# After a non-finite step the weights go back to the last snapshot.
_SNAPSHOT_EVERY = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a run ended: the model file, the last step, and how many steps were planned."""

    model: Path
    step: int
    steps: int

    @property
    def finished(self) -> bool:
        """Whether the last step was the planned one."""
        return self.step >= self.steps


def train(
    config: Config,
    run_dir: str | Path | None = None,
    *,
    device: str = "auto",
    max_minutes: float | None = None,
    monitors: Sequence[Monitor] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train the config's network, resuming whatever `run_dir` holds of the same run.

    `run_dir` defaults to `checkpoints/<name>`. With `max_minutes` the run plans its steps, at most
    `training.steps`, so that it ends by then. When `should_stop()` turns true the state is saved
    and the run ends early. Processes that torchrun started train together.

    Raises ConfigError, DataError, WeightsError, ImageError and CheckpointError for what is wrong
    with its inputs, before anything is written; TrainingError when the losses stay non-finite;
    ProcessLostError, or ToldElsewhereError, when another process of the run fails.
    """
    run_dir = Path(run_dir) if run_dir else default_run_dir(config)
    with distributed.joined():
        with distributed.together(), distributed.only_main_speaks():
            state = load_resumable(config, run_dir)
            limit = None
            if max_minutes is not None:
                limit = TimeLimit(max_minutes, before=(state or {}).get("time_limit"))
        inputs = prepare_together(config, device=device)
        trainee = Trainee(config, inputs)
        if state:
            trainee.step = state["step"]
            trainee.restore(state)
            if limit:
                trainee.follow(limit.plan_before(maximum=config.training.steps))
            log.info("resuming after step %d of %d", trainee.step, trainee.plan.steps)
        run = _Run(config, run_dir, trainee, monitors=monitors, limit=limit)
        run.go(should_stop, photos_before=(state or {}).get("fingerprint"))
    return Result(model=run.folder.model, step=trainee.step, steps=trainee.plan.steps)


def default_run_dir(config: Config) -> Path:
    """Give `checkpoints/<name>`."""
    return Path("checkpoints") / config.name


class _Run:
    """The loop around the updates: when to report and to save, and what to do about faults."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        trainee: Trainee,
        *,
        monitors: Sequence[Monitor],
        limit: TimeLimit | None,
    ) -> None:
        self.config = config
        self.folder = RunFolder(run_dir, config, trainee, limit)
        self.trainee = trainee
        self.device = trainee.inputs.device
        self.limit = limit
        self.first_step = trainee.step
        self.guard = Guard(trainee, run_dir)
        self.reports = Reports(trainee, monitors)
        self.pace = self.reports.pace
        if limit:
            self.pace.memory = limit.memory

    def go(self, should_stop: Callable[[], bool], *, photos_before: str | None) -> None:
        """Train to the last step, or until `should_stop()`, and save."""
        with distributed.together():
            if distributed.is_main():
                self.reports.open(self.folder.open())
        try:
            if photos_before not in (None, self.folder.photos):
                self.reports.message(
                    "the photos are not those of the last state: the order is that of the new ones "
                    "from here on, and the weights will not be those of an unbroken run"
                )
            self.reports.inputs()
            if self.trainee.step == 0:
                self.reports.validation()
            self._loop(should_stop)
        except (DataError, RuntimeError) as error:
            if reason := self._why_no_photos(error):
                raise DataError(
                    f"{reason} after step {self.trainee.step}; the same command goes on from the "
                    "last state"
                ) from None
            raise
        finally:
            self.reports.close()

    def _why_no_photos(self, error: Exception) -> str | None:
        """Say in a few words why loading photos failed, where it did and these are enough."""
        if "DataLoader worker" in str(error):
            what = str(error).splitlines()[0].strip()
            return f"a process that loads photos died (data.workers; is memory full?: {what})"
        if not isinstance(error, DataError):
            return None
        roots = [locate(path, key="data.train") for path in self.config.data.train]
        gone = [str(root) for root in roots if not root.exists()]
        return f"{', '.join(gone)}: was removed" if gone else None

    def _loop(self, should_stop: Callable[[], bool]) -> None:
        trainee, training = self.trainee, self.config.training
        batches = content_batches(
            trainee.inputs.images,
            training.batch_size,
            first_step=trainee.step,
            workers=self.config.data.workers,
            pin_memory=self.device.type == "cuda",
            share=(distributed.rank(), distributed.world_size()),
        )
        saved = trainee.step if trainee.step and self.folder.model.is_file() else None
        looked = True
        while trainee.step < trainee.plan.steps and not self._stops(should_stop, looked):
            learning_rate = trainee.learning_rate
            losses = self._update(next(batches))
            step = trainee.step
            planned = self._plan_if_due()
            last = step >= trainee.plan.steps
            logged = step % training.log_every == 0 or step == 1 or last
            snapshot = step % _SNAPSHOT_EVERY == 0
            due = {kind for kind, every in self.pace.intervals.items() if step % every == 0 or last}
            looked = bool(planned or logged or snapshot or due or self.device.type == "cpu")
            if looked:
                self._check_faults()
            if logged:
                self.reports.losses(losses, learning_rate)
            self.reports.advance()
            if snapshot:
                self.guard.keep()
            if "validation" in due:
                self.reports.validation()
            if "previews" in due:
                self.reports.previews()
            if "saving" in due:
                self._save()
                saved = step
        if saved != trainee.step:
            self._check_faults()
            self._save()

    def _stops(self, should_stop: Callable[[], bool], looked: bool) -> bool:
        """Say whether to stop: all processes after the same step, so they ask when they look."""
        alone = distributed.world_size() == 1
        return (alone or looked) and distributed.any_says(should_stop())

    def _update(self, batch: ContentBatch) -> Losses:
        content = to_float(batch.pixels.to(self.device, non_blocking=True))
        losses, gradient_norm = self.trainee.update(content)
        self.guard.watch(losses, gradient_norm, batch.paths)
        return losses

    def _check_faults(self) -> None:
        """Look at the updates since the last time, which waits for a GPU."""
        if fault := self.guard.check():
            step, text = fault
            self.reports.message(text, step=step)

    def _plan_if_due(self) -> bool:
        """Choose the number of steps with which the run ends in time, now and then."""
        trainee, limit, step = self.trainee, self.limit, self.trainee.step
        every = self.config.training.log_every
        if limit is None or not (limit.is_due(step - self.first_step) or step % every == 0):
            return False
        self._check_faults()
        self.pace.mark(step, trainee.plan.steps)
        if not self.pace.is_known:
            return True
        if len(self.pace.reports) < len(self.pace.intervals):  # how long these take counts, too
            self.reports.validation()
            self.reports.previews()
            self._save()
        steps = self.pace.steps_within(limit.left, maximum=self.config.training.steps)
        trainee.follow(trainee.plan.changed(distributed.from_main(steps), after=step))
        self.reports.scalars({"planned_steps": trainee.plan.steps})
        return True

    def _save(self) -> None:
        """Write the model and, after it, the state: a killed run never lacks the model."""
        with self.pace.report("saving"):
            self.guard.keep()  # a run that goes on from this state has no older snapshot
            if not distributed.is_main():
                return
            if not self.folder.is_there:
                self.reports.open(self.folder.open())
                self.reports.message(f"{self.folder.path} was removed; it is made anew")
            self.folder.save(self.guard.snapshot)
