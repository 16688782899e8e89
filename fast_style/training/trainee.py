"""What is trained, and the step that trains it (Johnson et al. 2016, section 3)."""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fast_style import distributed
from fast_style.config import Config
from fast_style.devices import autocast
from fast_style.images import to_float
from fast_style.objective.losses import TERMS, Losses, PerceptualLoss
from fast_style.objective.stability import Disturbance, draw_disturbance
from fast_style.training.accumulation import in_parts, part_of
from fast_style.training.forward import Forward, choose_compiling, held_in
from fast_style.training.inputs import Inputs
from fast_style.training.measures import SMALLEST, card_scalars
from fast_style.training.schedule import Plan, first_steps, learning_rate_at

# A report card takes passes of the loss network of its own: a few images are enough for medians.
_JUDGED = 4
# What the state of a run without scaling has always held.
_NO_SCALING = {
    "scale": 1.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2**31 - 1,
    "_growth_tracker": 0,
}


def train_step(
    network: nn.Module,
    criterion: PerceptualLoss,
    optimizer: torch.optim.Optimizer,
    content: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    scaler: torch.amp.GradScaler,
    max_gradient_norm: float = math.inf,
    disturbance: Disturbance | None = None,
    parts: int = 1,
) -> tuple[Losses, Tensor]:
    """Make one update on (N, 3, S, S) content images; return the losses and the gradient's norm.

    The images are computed in equal `parts`, one after the other. The weights stay as they are
    where a gradient is not finite; the scaler is for fp16. With a `disturbance` the losses have a
    stability.
    """
    return descend(
        Forward(network, criterion),
        optimizer,
        content,
        dtype=dtype,
        scaler=scaler,
        max_gradient_norm=max_gradient_norm,
        disturbance=disturbance,
        parts=parts,
    )


def descend(
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    content: Tensor,
    *,
    dtype: torch.dtype,
    scaler: torch.amp.GradScaler,
    max_gradient_norm: float,
    disturbance: Disturbance | None = None,
    parts: int = 1,
) -> tuple[Losses, Tensor]:
    """Do what `train_step` does, with a `Forward` or one that averages gradients."""

    def losses_of(images: Tensor, how: Disturbance | None) -> Losses:
        with autocast(images.device, dtype):
            losses: Losses = forward(images, how)
        return losses

    optimizer.zero_grad(set_to_none=True)
    losses = in_parts(
        losses_of,
        content,
        disturbance,
        parts=parts,
        backward=lambda total: scaler.scale(total).backward(),
        module=forward,
    )
    scaler.unscale_(optimizer)
    gradient_norm = _clip(list(forward.parameters()), max_gradient_norm)
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    else:
        _step_if_finite(optimizer, gradient_norm)
    return losses, gradient_norm


def _clip(parameters: Sequence[nn.Parameter], maximum: float) -> Tensor:
    """Return the norm of the gradients, which are scaled down where it is above the maximum."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if math.isfinite(maximum):
        nn.utils.clip_grads_with_norm_(parameters, maximum, norm)
    return norm


def _step_if_finite(optimizer: torch.optim.Optimizer, gradient_norm: Tensor) -> None:
    """Make the optimiser's step, which changes nothing where the gradients are not finite."""
    if gradient_norm.device.type == "mps" or not optimizer.defaults.get("fused"):
        # PyTorch's kernel for it takes no notice of found_inf before 2026, and other optimisers
        # have no such kernel: the host must ask.
        if gradient_norm.isfinite():
            optimizer.step()
        return
    # What a gradient scaler tells the fused kernel, without the scaler's work.
    optimizer.found_inf = gradient_norm.isfinite().logical_not().float()  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]


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
        # Only fp16 needs scaling.
        self.scaler = torch.amp.GradScaler(
            inputs.device.type, init_scale=2.0**16, enabled=inputs.dtype == torch.float16
        )
        self.step = 0
        self.learning_rate_scale = 1.0
        self.last_fault: int | None = None
        # The same network and objective, as the step runs them.
        self._forward = Forward(
            self.network,
            held_in(inputs.criterion, inputs.dtype, inputs.device),
            compiles=choose_compiling(self.config, inputs.device),
        )
        self._step_forward = distributed.wrap(self._forward, inputs.device)
        self._averages: list[Tensor] = list(self.average.parameters())
        self._weights: list[Tensor] = list(self.network.parameters())

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
        disturbance = self._disturbance(content)
        part = part_of(content, disturbance, parts=self.config.accumulate)
        self._forward.rehearse(*part, dtype=self.inputs.dtype)
        losses, gradient_norm = descend(
            self._step_forward,
            self.optimizer,
            content,
            dtype=self.inputs.dtype,
            scaler=self.scaler,
            max_gradient_norm=self.config.max_gradient_norm or math.inf,
            disturbance=disturbance,
            parts=self.config.accumulate,
        )
        self.step += 1
        # The average starts short, so that it forgets the random start.
        decay = min(self.config.ema_decay, self.step / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        return losses, gradient_norm

    def _disturbance(self, content: Tensor) -> Disturbance | None:
        """Draw the step's disturbance of this process's share of the crops, if one is wanted."""
        if not self.inputs.criterion.stability_weight:
            return None
        return draw_disturbance(
            self.config.seed,
            self.step,
            count=len(content),
            size=content.shape[-1],
            share=(distributed.rank(), distributed.world_size()),
            device=content.device,
        )

    def state(self) -> dict[str, Any]:
        """Copy everything that the next update depends on, as plain data on the CPU."""
        return on_cpu(self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """Copy everything that the next update depends on, without waiting for a GPU."""
        return _copied(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else _NO_SCALING,
                "learning_rate_scale": self.learning_rate_scale,
                "last_fault": self.last_fault,
            }
        )

    def fingerprint(self) -> str:
        """Return a digest of the weights, which is the same in all processes of a run."""
        digest = hashlib.sha256()
        for weight in self.network.state_dict().values():
            digest.update(weight.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

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
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # which it would keep
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
        sums = dict.fromkeys((*TERMS, *self.inputs.criterion.optional_terms), 0.0)
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
        styles = inputs.styles
        return card_scalars(
            content, stylized, inputs.criterion, styles.images, style_shares=styles.shares
        )


def on_cpu(data: Any) -> Any:
    """Return plain data with its tensors on the CPU."""
    return _mapped(data, lambda tensor: tensor.to("cpu"))


def _copied(data: Any) -> Any:
    """Copy plain data; its tensors all at once, which is a few launches on a GPU."""
    originals: list[Tensor] = []
    copies: list[Tensor] = []

    def reserve(tensor: Tensor) -> Tensor:
        originals.append(tensor.detach())
        copies.append(torch.empty_like(originals[-1]))
        return copies[-1]

    copied = _mapped(data, reserve)
    torch._foreach_copy_(copies, originals)
    return copied


def _mapped(data: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Copy plain data, with `function` of each tensor in it."""
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, dict):
        return {key: _mapped(value, function) for key, value in data.items()}
    if isinstance(data, list):
        return [_mapped(value, function) for value in data]
    return data
