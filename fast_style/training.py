"""Training: one transformer network for one style image (Johnson et al. 2016, section 3).

To resume, run the same command again. Everything random is a function of (seed, step), so a run
that is killed at any instant and resumed ends with the weights of an unbroken one (on a CPU, bit
for bit).
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from fast_style.checkpoint import (
    CheckpointError,
    find_states,
    load_state,
    save_model,
    save_state,
)
from fast_style.config import Config, ConfigError, TrainingConfig, flatten, to_dict
from fast_style.data import (
    content_batches,
)
from fast_style.devices import autocast
from fast_style.files import atomic_write, remove_unfinished
from fast_style.images import to_float
from fast_style.losses import Losses, PerceptualLoss
from fast_style.monitoring import Monitor
from fast_style.preparation import Inputs, initial_network, objective_config, prepare

log = logging.getLogger(__name__)

# What may differ when a run goes on: its length, how often it reports, and who loads the images.
_MAY_CHANGE = {
    "data.workers",
    "training.steps",
    "training.log_every",
    "training.validate_every",
    "training.preview_every",
    "training.checkpoint_every",
}
# After a non-finite step the weights go back to the last snapshot; a second one so soon is fatal.
_SNAPSHOT_EVERY = 100
_FAULT_FREE_STEPS = 500


class TrainingError(RuntimeError):
    """Training cannot go on: the losses keep being NaN or infinite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a run ended: the model file, the last step, and whether it was the planned one."""

    model: Path
    step: int
    finished: bool


def train_step(
    network: nn.Module,
    criterion: PerceptualLoss,
    optimizer: torch.optim.Optimizer,
    content: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    scaler: torch.amp.GradScaler,
    max_gradient_norm: float = math.inf,
) -> tuple[Losses, Tensor]:
    """Make one update on (N, 3, S, S) content images; give the losses and the gradient's norm.

    The scaler leaves the weights as they are where a gradient is not finite.
    """
    with autocast(content.device, dtype):
        stylized = network(content)
        losses = criterion(stylized, criterion.content_targets(content))
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses.total).backward()
    scaler.unscale_(optimizer)
    gradient_norm = nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)
    scaler.step(optimizer)
    scaler.update()
    return losses, gradient_norm


def train(
    config: Config,
    run_dir: str | Path | None = None,
    *,
    device: str = "auto",
    monitors: Sequence[Monitor] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train the config's network, resuming whatever `run_dir` holds of the same run.

    `run_dir` defaults to `checkpoints/<name>`. When `should_stop()` turns true the state is saved
    and the run ends early. Raises ConfigError, DataError, WeightsError, ImageError and
    CheckpointError for what is wrong with its inputs, before anything is written; TrainingError
    when the losses stay non-finite.
    """
    run_dir = Path(run_dir) if run_dir else default_run_dir(config)
    state = _load_resumable(config, run_dir)
    inputs = prepare(config, device=device)
    trainee = Trainee(config, inputs)
    if state:
        trainee.step = state["step"]
        trainee.restore(state)
        log.info("resuming after step %d of %d", trainee.step, config.training.steps)
    run = _Run(config, run_dir, inputs, trainee, monitors)
    run.go(should_stop)
    return Result(
        model=run.model,
        step=trainee.step,
        finished=trainee.step >= config.training.steps,
    )


def default_run_dir(config: Config) -> Path:
    """Give `checkpoints/<name>`."""
    return Path("checkpoints") / config.name


def learning_rate_at(config: TrainingConfig, step: int) -> float:
    """Give the scheduled learning rate of the update that follows `step` finished ones."""
    if config.schedule == "constant":
        return config.learning_rate
    held, lowest = 2 / 3, 0.1
    progress = min(max((step / config.steps - held) / (1 - held), 0), 1)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * (lowest + (1 - lowest) * cosine)


class Trainee:
    """The network in training: its weights, their moving average, and the optimiser."""

    def __init__(self, config: Config, inputs: Inputs) -> None:
        self.config = config.training
        self.inputs = inputs
        self.network = (
            initial_network(config).to(memory_format=torch.channels_last).to(inputs.device)
        )
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)
        # Only fp16 needs scaling; at scale 1 the scaler is the guard against non-finite gradients.
        scale = 2.0**16 if inputs.dtype == torch.float16 else 1.0
        self.scaler = torch.amp.GradScaler(
            inputs.device.type, init_scale=scale, growth_interval=2000 if scale > 1 else 2**31 - 1
        )
        self.step = 0
        self.learning_rate_scale = 1.0
        self.last_fault: int | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return learning_rate_at(self.config, self.step) * self.learning_rate_scale

    def update(self, content: Tensor) -> tuple[Losses, Tensor]:
        """Make one update; give the losses and the gradient's norm, which may not be finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        losses, gradient_norm = train_step(
            self.network,
            self.inputs.criterion,
            self.optimizer,
            content,
            dtype=self.inputs.dtype,
            scaler=self.scaler,
            max_gradient_norm=self.config.max_gradient_norm or math.inf,
        )
        self.step += 1
        # The average starts short, so that it forgets the random start.
        decay = min(self.config.ema_decay, self.step / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for average, current in pairs:
                average.lerp_(current, 1 - decay)
        return losses, gradient_norm

    def state(self) -> dict[str, Any]:
        """Copy everything that the next update depends on, as plain data on the CPU."""
        return _copy_to_cpu(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "learning_rate_scale": self.learning_rate_scale,
                "last_fault": self.last_fault,
            }
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state; the step counter is not part of it."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.learning_rate_scale = state["learning_rate_scale"]
        self.last_fault = state["last_fault"]

    def stylize(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W) float32 by the averaged network."""
        with torch.no_grad(), autocast(self.inputs.device, self.inputs.dtype):
            return self.average(image.to(self.inputs.device)).float()

    def validate(self) -> dict[str, float]:
        """Evaluate the objective of the averaged network on the held-out images."""
        sums: dict[str, float] = {}
        for pixels in self.inputs.validation.split(self.config.batch_size):
            content = to_float(pixels.to(self.inputs.device))
            with torch.no_grad(), autocast(self.inputs.device, self.inputs.dtype):
                criterion = self.inputs.criterion
                losses = criterion(self.average(content), criterion.content_targets(content))
            for name, value in losses.items().items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(pixels)
        return {name: value / len(self.inputs.validation) for name, value in sums.items()}


class _Run:
    """The loop around the updates: reports, checkpoints, and what to do about faults."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        inputs: Inputs,
        trainee: Trainee,
        monitors: Sequence[Monitor],
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.model = run_dir / f"{config.name}.pth"
        self.inputs = inputs
        self.trainee = trainee
        self.monitors = monitors
        self.snapshot = trainee.state()
        # Updates whose losses have not been looked at yet: looking waits for a GPU.
        self.unchecked: list[tuple[int, Tensor, list[str]]] = []

    def go(self, should_stop: Callable[[], bool]) -> None:
        """Train to the last step, or until `should_stop()`, and save."""
        self._open_run_dir()
        try:
            self._report_start()
            self._loop(should_stop)
        finally:
            for monitor in self.monitors:
                monitor.close()

    def _open_run_dir(self) -> None:
        text = yaml.safe_dump(to_dict(self.config), sort_keys=False)
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.run_dir)
            with atomic_write(self.run_dir / "config.yaml") as file:
                file.write(text.encode())
        except OSError as error:
            raise CheckpointError(f"{self.run_dir}: cannot be written: {error.strerror}") from None
        for monitor in self.monitors:
            monitor.start(self.trainee.step, self.config.training.steps, text)

    def _report_start(self) -> None:
        step = self.trainee.step
        self._image("style", self.inputs.style_image[0], step)
        for name, content in self.inputs.previews.items():
            self._image(f"preview/{name}/content", content, step)
        if step == 0:
            self._report_validation()

    def _loop(self, should_stop: Callable[[], bool]) -> None:
        trainee, training = self.trainee, self.config.training
        batches = content_batches(
            self.inputs.images,
            training.batch_size,
            first_step=trainee.step,
            workers=self.config.data.workers,
            pin_memory=self.inputs.device.type == "cuda",
        )
        clock, logged = time.perf_counter(), trainee.step
        saved = trainee.step if trainee.step and self.model.is_file() else None
        while trainee.step < training.steps and not should_stop():
            batch = next(batches)
            content = to_float(batch.pixels.to(self.inputs.device, non_blocking=True))
            learning_rate = trainee.learning_rate
            losses, gradient_norm = trainee.update(content)
            step = trainee.step
            self.unchecked.append((step, losses.total.detach() + 0 * gradient_norm, batch.paths))
            last = step == training.steps
            logging_step = step % training.log_every == 0 or step == 1 or last
            snapshot_step = step % _SNAPSHOT_EVERY == 0
            saving_step = step % training.checkpoint_every == 0 or last
            if logging_step or snapshot_step or saving_step or self.inputs.device.type == "cpu":
                self._check_faults()
            if logging_step:
                seconds = time.perf_counter() - clock
                rate = (step - logged) * training.batch_size / seconds
                clock, logged = time.perf_counter(), step
                values = {f"train/{name}": v.item() for name, v in losses.items().items()}
                self._scalars({**values, "learning_rate": learning_rate, "images_per_second": rate})
            for monitor in self.monitors:
                monitor.advance(step)
            if snapshot_step:
                self.snapshot = trainee.state()
            if step % training.validate_every == 0 or last:
                self._report_validation()
            if step % training.preview_every == 0 or last:
                self._report_previews()
            if saving_step:
                self._save()
                saved = step
        if saved != trainee.step:
            self._check_faults()
            self._save()

    def _check_faults(self) -> None:
        """Roll back after a non-finite update (which was not applied); the second time, stop."""
        unchecked, self.unchecked = self.unchecked, []
        trainee = self.trainee
        scaling = trainee.scaler.get_scale() > 1  # an fp16 overflow is the scaler's to mend
        for step, value, paths in unchecked:
            if torch.isfinite(value) or scaling:
                continue
            files = ", ".join(paths)
            if trainee.last_fault is not None and step - trainee.last_fault <= _FAULT_FREE_STEPS:
                states = find_states(self.run_dir)
                kept = f"the last good state is {states[-1]}" if states else "no state was saved"
                raise TrainingError(
                    f"the losses were NaN or infinite at step {trainee.last_fault} and again at "
                    f"step {step} ({files}); {kept}. Lower training.learning_rate, or remove the "
                    "images named here if they are damaged"
                )
            trainee.restore(self.snapshot)
            trainee.learning_rate_scale /= 2
            trainee.last_fault = step
            self.snapshot = trainee.state()
            for monitor in self.monitors:
                monitor.message(
                    step,
                    f"the losses are NaN or infinite: back to the last good weights, learning rate "
                    f"halved to {trainee.learning_rate:.3g}; the images were {files}",
                )
            return

    def _save(self) -> None:
        """Write the model and, after it, the state: a killed run never lacks the model."""
        trainee, config = self.trainee, to_dict(self.config)
        objective = objective_config(self.config, self.inputs.criterion)
        # A run that goes on from this state has no older snapshot.
        self.snapshot = trainee.state()
        save_model(
            self.model,
            trainee.average,
            metadata={
                "name": self.config.name,
                "step": trainee.step,
                "config": to_dict(objective),
            },
        )
        save_state(self.run_dir, trainee.step, {"config": config, **self.snapshot})

    def _report_validation(self) -> None:
        values = self.trainee.validate()
        self._scalars({f"validation/{name}": value for name, value in values.items()})

    def _report_previews(self) -> None:
        for name, content in self.inputs.previews.items():
            stylized = self.trainee.stylize(content[None])[0]
            self._image(f"preview/{name}/stylized", stylized, self.trainee.step)

    def _scalars(self, values: Mapping[str, float]) -> None:
        for monitor in self.monitors:
            monitor.scalars(self.trainee.step, values)

    def _image(self, tag: str, image: Tensor, step: int) -> None:
        for monitor in self.monitors:
            monitor.image(step, tag, image)


def _load_resumable(config: Config, run_dir: Path) -> dict[str, Any] | None:
    """Load the newest readable state of the same run. Raises ConfigError if it is another run.

    Raises CheckpointError when there are states, but none can be read.
    """
    states, state = find_states(run_dir), None
    for path in reversed(states):
        try:
            state = load_state(path)
            break
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
    if state is None:
        if states:
            raise CheckpointError(
                f"{run_dir}: none of its training states can be read: remove them to begin anew"
            )
        return None
    before, now = flatten(state["config"]), flatten(to_dict(config))
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new and key not in _MAY_CHANGE:
            raise ConfigError(
                f"{key}: is {new!r}, but the run in {run_dir} was begun with {old!r}: "
                f"change it back, give the config another name, or remove {run_dir}"
            )
    return state


def _copy_to_cpu(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.detach().to("cpu", copy=True)
    if isinstance(data, dict):
        return {key: _copy_to_cpu(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_copy_to_cpu(value) for value in data]
    return data
