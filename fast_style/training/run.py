"""Training: one transformer network for one style image (Johnson et al. 2016, section 3).

To resume, run the same command again. Everything random is a function of (seed, step), so a run
that is killed at any instant and resumed ends with the weights of an unbroken one (on a CPU, bit
for bit).

Several processes (`distributed`) train as one does: on the same images in the same order, with the
same losses but for rounding. The main process alone reports and writes.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast_style import distributed
from fast_style.config import Config
from fast_style.config.places import RUNS
from fast_style.data import ContentBatch, DataError, Skipped, content_batches
from fast_style.data.workers import cure_for_waiting, number_of_workers
from fast_style.devices import is_memory_error, release_cached_memory, tf32
from fast_style.images import to_float
from fast_style.objective.losses import Losses
from fast_style.remote import is_remote
from fast_style.training.faults import Guard, TrainingError
from fast_style.training.inputs import prepare_together, with_start
from fast_style.training.locking import RunLock
from fast_style.training.monitors import Monitor
from fast_style.training.pace import TimeLimit, check_minutes
from fast_style.training.reports import MATTERS_AFTER, Reports
from fast_style.training.run_folder import RunFolder, fetch_states, load_resumable, model_path
from fast_style.training.schedule import Plan
from fast_style.training.trainee import Trainee, on_cpu
from fast_style.training.usage import Usage

log = logging.getLogger(__name__)

# After a non-finite step the weights go back to the last snapshot.
_SNAPSHOT_EVERY = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a run ended: the model file, the last step, and how many steps were planned.

    `unreadable` photos were left out since they are broken, as far as one process knows.
    """

    model: Path
    step: int
    steps: int
    unreadable: int = 0

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
    minimum_reports: int = 10,
    should_stop: Callable[[], bool] = lambda: False,
    skipped: Skipped | None = None,
) -> Result:
    """Train the config's network, resuming whatever `run_dir` holds of the same run.

    `run_dir` defaults to `checkpoints/<name>`; only one process at a time trains in it. Where it is
    an address in a store, the run lives in `checkpoints/<name>`, and its model and its states are
    kept in the store as well: what another machine resumes. With
    `max_minutes`, over all resumptions, the run plans its steps, at most `training.steps`, so that
    it ends by then. A short run has `minimum_reports` validations and previews, whatever their
    intervals. When `should_stop()` turns true the state is saved and the run ends early. Broken
    photos that are in `skipped` already are not told again. Processes that torchrun started train
    together.

    Raises ConfigError, DataError, WeightsError, ImageError and CheckpointError for what is wrong
    with its inputs, before anything is written; TrainingError when the losses stay non-finite;
    ProcessLostError, or ToldElsewhereError, when another process of the run fails.
    """
    if max_minutes is not None:
        check_minutes(max_minutes)
    store = Path(run_dir) if run_dir and is_remote(run_dir) else None
    run_dir = Path(run_dir) if run_dir and not store else default_run_dir(config)
    lock = RunLock(run_dir)
    with distributed.joined(), contextlib.closing(lock):
        with distributed.together():
            # One process of each machine.
            if store and os.environ.get("LOCAL_RANK", "0") == "0":
                fetch_states(store, run_dir, config)
        with distributed.together(), distributed.only_main_speaks():
            config = with_start(config)
            located = config.resolved()
            if distributed.is_main() and run_dir.is_dir():
                lock.take()
            state = load_resumable(config, run_dir)
            limit, plan = None, None
            if max_minutes is not None:
                limit = TimeLimit(max_minutes, before=(state or {}).get("time_limit"))
                plan = limit.recorded_plan(maximum=config.training.steps)
        if state and (finished := _finished(config, run_dir, state, limit=limit, plan=plan)):
            return finished
        skipped = Skipped() if skipped is None else skipped
        inputs = prepare_together(located, device=device, skipped=skipped)
        trainee = Trainee(config, inputs)
        if state:
            trainee.restore(state, plan=plan)
            goal = "" if limit and not plan else f" of {trainee.plan.steps}"
            log.info("resuming after step %d%s", trainee.step, goal)
        run = _Run(
            config,
            lock,
            trainee,
            monitors=monitors,
            limit=limit,
            is_planned=limit is None or plan is not None,
            minimum_reports=minimum_reports,
            store=store,
            skipped=skipped,
        )
        with tf32(trainee.inputs.device, allowed=True):
            run.go(should_stop, photos_before=(state or {}).get("fingerprint"))
        unreadable = max(len(skipped), int(distributed.any_says(len(skipped) > 0)))
    return Result(
        model=run.folder.model,
        step=trainee.step,
        steps=trainee.plan.steps,
        unreadable=unreadable,
    )


def default_run_dir(config: Config) -> Path:
    """Return `checkpoints/<name>`."""
    return RUNS / config.name


def _finished(
    config: Config,
    run_dir: Path,
    state: Mapping[str, Any],
    *,
    limit: TimeLimit | None,
    plan: Plan | None,
) -> Result | None:
    """Return how the run ended, if its model is there and no step is left to do."""
    model, step = model_path(run_dir, config), state["step"]
    steps = plan.steps if plan else config.training.steps
    if (limit and not plan) or step < steps or not model.is_file():
        return None
    is_cut = plan and plan.steps < config.training.steps
    further = "a longer time limit" if is_cut else "a higher training.steps"
    log.info("finished: %s has all its %d steps; %s goes on", model, step, further)
    return Result(model=model, step=step, steps=steps)


class _Run:
    """The loop around the updates: when to report and to save, and what to do about faults."""

    def __init__(
        self,
        config: Config,
        lock: RunLock,
        trainee: Trainee,
        *,
        monitors: Sequence[Monitor],
        limit: TimeLimit | None,
        is_planned: bool,
        minimum_reports: int,
        store: Path | None,
        skipped: Skipped,
    ) -> None:
        self.config = config
        self.skipped = skipped
        self.inputs = inputs = trainee.inputs
        self.folder = RunFolder(
            lock, config, loss=inputs.loss, photos=inputs.images.paths, limit=limit, store=store
        )
        self.trainee = trainee
        self.limit = limit
        self.is_planned = is_planned
        self.workers = number_of_workers(config.data.workers, inputs.device.type)
        self.first_step = trainee.step
        self.guard = Guard(trainee, lock.folder)
        self.usage = Usage(trainee)
        self.reports = Reports(
            config.training,
            monitors,
            step=trainee.step,
            times=minimum_reports,
            memory=limit.memory if limit else 60.0,
            cure_for_waiting=cure_for_waiting(config.data, self.workers),
        )
        self.pace = self.reports.pace

    def go(self, should_stop: Callable[[], bool], *, photos_before: str | None) -> None:
        """Train to the last step, or until `should_stop()`, and save."""
        with distributed.together():
            if distributed.is_main():
                self._open()
        try:
            if photos_before not in (None, self.folder.photos):
                self._say(
                    "the photos changed since the last state was saved: training continues on the "
                    "new list, and the result will differ from an uninterrupted run's"
                )
            self.reports.image(self.trainee.step, "style", self.inputs.styles.picture)
            if self.trainee.step == 0:
                self._validate()
            self._loop(should_stop)
            if used := self.usage.summary():
                waited = self.pace.waited_overall[0]
                log.info("%s; %.0f%% of the time waiting for photos", used, 100 * waited)
        except (DataError, RuntimeError) as error:
            if reason := self._why_no_photos(error):
                raise DataError(
                    f"{reason} after step {self.trainee.step}; the same command goes on from the "
                    "last state"
                ) from None
            raise
        finally:
            self.reports.close()

    def _open(self) -> None:
        """Make the folder, and start the monitors: without a goal while the run has no plan."""
        steps = self.trainee.plan.steps if self.is_planned else 0
        self.reports.open(self.trainee.step, steps, self.folder.open())

    def _why_no_photos(self, error: Exception) -> str | None:
        """Return why loading photos failed, where a few words are enough; None otherwise."""
        if "DataLoader worker" in str(error):
            what = str(error).splitlines()[0].strip()
            return f"a process that loads photos died (data.workers; is memory full?: {what})"
        if not isinstance(error, DataError):
            return None
        roots = self.config.data.resolved().train
        gone = [str(root) for root in roots if not root.exists()]
        return f"{', '.join(gone)}: was removed" if gone else None

    def _loop(self, should_stop: Callable[[], bool]) -> None:
        trainee, training = self.trainee, self.config.training
        runs_ahead = self.inputs.device.type == "cuda"
        batches = content_batches(
            self.inputs.images,
            training.batch_size,
            first_step=trainee.step,
            workers=self.workers,
            pin_memory=self.inputs.device.type == "cuda",
            size_at=trainee.crop_size_at,
            share=(distributed.rank(), distributed.world_size()),
            skipped=self.skipped,
        )
        saved = trainee.step if trainee.step and self.folder.model.is_file() else None
        synchronized = True
        while trainee.step < trainee.plan.steps and not self._stops(should_stop, synchronized):
            learning_rate = trainee.learning_rate
            with self.pace.waiting():
                batch = next(batches)
            losses = self._update(batch)
            step = trainee.step
            planned = self._plan_if_due()
            steps = trainee.plan.steps
            due = self.pace.due(step, steps)
            logged = step % training.log_every == 0 or step == 1 or step >= steps
            snapshot = step % _SNAPSHOT_EVERY == 0
            synchronized = bool(planned or logged or snapshot or due or not runs_ahead)
            # Waiting for a GPU at logging steps would empty its queue, as often as they come.
            waits = bool(due or planned or not runs_ahead)
            if synchronized:
                self._check_faults(waits=waits)
            if logged:
                self.reports.losses(step, steps, losses, learning_rate, waits=waits)
                self._report_usage()
            elif waits:
                self.reports.arrived()
            self.reports.advance(step)
            if snapshot:
                self.guard.keep()
            if "validation" in due:
                self._validate()
            if "previews" in due:
                self._show_previews()
            if "saving" in due or (synchronized and self._is_long_unsaved()):
                self._save()
                saved = step
        if saved != trainee.step:
            self._save()
        self.reports.arrived()

    def _stops(self, should_stop: Callable[[], bool], synchronized: bool) -> bool:
        """Whether to stop: several processes do after the same, synchronised step."""
        alone = distributed.world_size() == 1
        return (alone or synchronized) and distributed.any_says(should_stop())

    def _is_long_unsaved(self) -> bool:
        """Whether it is time to save, by the clock of the main process."""
        overdue = self.pace.is_overdue("saving", self.trainee.plan.steps)
        return distributed.any_says(overdue and distributed.is_main())

    def _update(self, batch: ContentBatch) -> Losses:
        content = to_float(batch.pixels.to(self.inputs.device, non_blocking=True))
        updated = None
        try:
            updated = self.trainee.update(content)
        except Exception as error:
            # What is kept of memory may be in pieces, as after a change of the crops' size. (Other
            # processes wait for this one's gradients, not for another try.)
            if not is_memory_error(error) or distributed.world_size() > 1:
                raise
        if updated is None:
            release_cached_memory(self.inputs.device)
            updated = self.trainee.update(content)
        losses, gradient_norm = updated
        self.guard.watch(losses, gradient_norm, batch.paths)
        return losses

    def _check_faults(self, *, waits: bool = True) -> None:
        """Check the updates since the last call, which waits for a GPU, or those before it."""
        if fault := self.guard.check(waits=waits):
            self.reports.message(*fault)

    def _plan_if_due(self) -> bool:
        """Plan the steps that fit into the time limit, now and then; return whether it was due."""
        trainee, limit, step = self.trainee, self.limit, self.trainee.step
        if limit is None:
            return False
        regular = step % self.config.training.log_every == 0
        near_an_end = (step - self.first_step, trainee.plan.steps - step)
        if not (regular or any(map(limit.is_due, near_an_end))):
            return False
        self._check_faults()
        self.pace.mark(step, trainee.plan.steps)
        if not self.pace.is_known:
            return True
        if len(self.pace.costs) < len(self.pace.intervals):  # how long these take counts, too
            self._validate()
            self._show_previews()
            self._save()
        steps = self.pace.steps_within(limit.left, maximum=self.config.training.steps)
        trainee.follow(trainee.plan.changed(distributed.from_main(steps), after=step))
        self.is_planned = True
        self.reports.planned(step, trainee.plan.steps)
        return True

    def _report_usage(self) -> None:
        """Report what a run uses of its device, once it is long enough for that to matter."""
        if distributed.is_main() and self.pace.waited_overall[1] > MATTERS_AFTER:
            with self.pace.pausing():
                self.reports.scalars(self.trainee.step, self.usage.scalars(self.pace.work_rate()))

    def _validate(self) -> None:
        trainee = self.trainee
        self.reports.validation(trainee.step, trainee.validate, trainee.judge)

    def _show_previews(self) -> None:
        self.reports.previews(self.trainee.step, self.inputs.previews, self.trainee.stylize)

    def _say(self, text: str) -> None:
        self.reports.message(self.trainee.step, text)

    def _save(self) -> None:
        """Write the model and, after it, the state: a killed run never lacks the model."""
        self._check_faults()
        self._compare_processes()
        with self.pace.timing("saving", self.trainee.step):
            self.guard.keep()  # a run that goes on from this state has no older snapshot
            if not distributed.is_main():
                return
            if not self.folder.is_there:
                self._open()
                self._say(f"{self.folder.path} was removed; it is made anew")
            trainee = self.trainee
            state = on_cpu(self.guard.snapshot)
            self.folder.save(trainee.step, trainee.average, state, plan=trainee.plan)

    def _compare_processes(self) -> None:
        """Raise TrainingError if other processes have come to other weights than the main one."""
        if distributed.world_size() == 1:
            return
        first, *others = distributed.gathered([self.trainee.fingerprint()])
        if wrong := [str(i) for i, other in enumerate(others, start=1) if other != first]:
            raise distributed.told_once(
                TrainingError(
                    f"after step {self.trainee.step} process {', '.join(wrong)} has other weights "
                    "than process 0, so that nothing was saved: a GPU, or what connects them, is "
                    "faulty. The same command goes on from the last state"
                )
            )
