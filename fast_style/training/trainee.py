"""What is trained, and the step that trains it (Johnson et al. 2016, section 3)."""

import copy
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from fast_style import distributed
from fast_style.config import Config, TrainingConfig
from fast_style.devices import autocast
from fast_style.images import to_float
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import TERMS, Losses, PerceptualLoss
from fast_style.training.accumulation import in_parts
from fast_style.training.inputs import Inputs
from fast_style.training.measures import SMALLEST, card_scalars
from fast_style.training.schedule import Plan, first_steps, learning_rate_at

# A report card takes passes of the loss network of its own: a few images are enough for medians.
_JUDGED = 4
# Compiling takes about a minute, which a shorter run does not win back.
_STEPS_WORTH_COMPILING = 2000


def train_step(
    network: nn.Module,
    criterion: PerceptualLoss,
    optimizer: torch.optim.Optimizer,
    content: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    scaler: torch.amp.GradScaler,
    max_gradient_norm: float = math.inf,
    parts: int = 1,
) -> tuple[Losses, Tensor]:
    """Make one update on (N, 3, S, S) content images; return the losses and the gradient's norm.

    The images are computed in equal `parts`, one after the other. The scaler leaves the weights as
    they are where a gradient is not finite.
    """

    def losses_of(images: Tensor) -> Losses:
        with autocast(images.device, dtype):
            stylized = network(images)
            return criterion(stylized, criterion.content_targets(images))

    optimizer.zero_grad(set_to_none=True)
    losses = in_parts(
        losses_of,
        content,
        parts=parts,
        backward=lambda total: scaler.scale(total).backward(),
        network=network,
    )
    scaler.unscale_(optimizer)
    gradient_norm = nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)
    scaler.step(optimizer)
    scaler.update()
    return losses, gradient_norm


class Trainee:
    """The network in training: its weights, their moving average, and the optimiser.

    Several processes (`distributed`) hold the same trainee: their updates average the gradients.
    """

    def __init__(self, config: Config, inputs: Inputs) -> None:
        self.config = config.training
        self.inputs = inputs
        self.plan = Plan(steps=self.config.steps)
        network = copy.deepcopy(inputs.network)
        self.network = network.to(memory_format=torch.channels_last).to(inputs.device)
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
        # The same network and objective, as the step runs them.
        self._network = distributed.wrap(self.network, inputs.device)
        self._criterion = inputs.criterion
        if worth_compiling(self.config, inputs.device):
            self._network = cast(nn.Module, torch.compile(self._network))
            self._criterion = _compiled(inputs.criterion)

    def follow(self, plan: Plan) -> None:
        """Take over a plan; batches that are already on their way keep the size of their crops."""
        self.plan = plan

    def crop_size_at(self, step: int) -> int:
        """Return the size of a step's crops, as the plan has it."""
        early = first_steps(self.config, self.plan.steps)
        return self.inputs.images.size_at(step, first_steps=early)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        progress = self.plan.progress_at(self.step)
        return learning_rate_at(self.config, progress) * self.learning_rate_scale

    def update(self, content: Tensor) -> tuple[Losses, Tensor]:
        """Make one update; return the losses and the gradient's norm, which may not be finite.

        `content`, and so the losses, are this process's share of the batch.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        losses, gradient_norm = train_step(
            self._network,
            self._criterion,
            self.optimizer,
            content,
            dtype=self.inputs.dtype,
            scaler=self.scaler,
            max_gradient_norm=self.config.max_gradient_norm or math.inf,
            parts=self.config.accumulate,
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

    def restore(self, state: Mapping[str, Any], *, plan: Plan | None = None) -> None:
        """Take over a saved state: its weights, its step, and the plan to go on with."""
        self._load(state)
        self.learning_rate_scale = state["learning_rate_scale"]
        self.last_fault = state["last_fault"]
        self.step = state.get("step", self.step)
        self.plan = plan or self.plan

    def go_back(self, state: Mapping[str, Any], *, fault: int) -> None:
        """Take over the weights of an earlier `state()`, and learn half as fast.

        The step goes on counting; `fault` is the one that failed.
        """
        self._load(state)
        self.learning_rate_scale = state["learning_rate_scale"] / 2
        self.last_fault = fault

    def _load(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    @property
    def is_scaling(self) -> bool:
        """Whether gradients are scaled, so that an infinite one may be an overflow of fp16."""
        return self.scaler.get_scale() > 1

    def stylize(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W) float32 by the averaged network."""
        with torch.no_grad(), autocast(self.inputs.device, self.inputs.dtype):
            return self.average(image.to(self.inputs.device)).float()

    def validate(self) -> dict[str, float]:
        """Evaluate the objective of the averaged network on the held-out images.

        Several processes share the images, and all return the same result.
        """
        sums = dict.fromkeys(TERMS, 0.0)
        size = self.config.batch_size // distributed.world_size() // self.config.accumulate
        shares = self.inputs.validation.split(size)
        for pixels in shares[distributed.rank() :: distributed.world_size()]:
            content = to_float(pixels.to(self.inputs.device))
            with torch.no_grad(), autocast(self.inputs.device, self.inputs.dtype):
                criterion = self.inputs.criterion
                losses = criterion(self.average(content), criterion.content_targets(content))
            for name, value in losses.items().items():
                sums[name] += value.item() * len(pixels)
        totals = distributed.total(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
        count = len(self.inputs.validation)
        return {name: value / count for name, value in zip(sums, totals, strict=True)}

    def judge(self) -> dict[str, float]:
        """Return a report card of some held-out images, where they are large enough for one."""
        inputs = self.inputs
        content = to_float(inputs.validation[:_JUDGED].to(inputs.device))
        if content.shape[-1] < SMALLEST:
            return {}
        stylized = self.stylize(content).clamp(0, 1)
        return card_scalars(content, stylized, inputs.criterion, inputs.style_image)


def worth_compiling(config: TrainingConfig, device: torch.device) -> bool:
    """Return whether to compile: `training.compile`, or for "auto" what pays on this device."""
    if config.compile != "auto":
        return config.compile
    return device.type == "cuda" and config.steps >= _STEPS_WORTH_COMPILING


def _compiled(criterion: PerceptualLoss) -> PerceptualLoss:
    """Return the same objective with a compiled loss network."""
    compiled = copy.copy(criterion)
    compiled.features = cast(VGGFeatures, torch.compile(criterion.features))
    return compiled


def _copy_to_cpu(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.detach().to("cpu", copy=True)
    if isinstance(data, dict):
        return {key: _copy_to_cpu(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_copy_to_cpu(value) for value in data]
    return data
