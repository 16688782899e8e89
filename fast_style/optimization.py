"""The optimisation baseline: find the image that minimises the objective (Gatys et al. 2016).

It minimises the `PerceptualLoss` that training minimises, over one image instead of over a
network's weights. A step is one evaluation of the objective and its gradient; step 0 evaluates the
initial image. Recipes (configs/baseline) name what is minimised, and how.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.config import (
    BaselineConfig,
    BaselineContentConfig,
    BaselineLossConfig,
    OptimizationConfig,
)
from fast_style.errors import UserError
from fast_style.images import resize, resize_long_edge
from fast_style.losses import Losses, PerceptualLoss, with_raw_weights
from fast_style.networks.vgg import VGGFeatures
from fast_style.weights import load_vgg

log = logging.getLogger(__name__)

# Called with the step, the losses there, and the image that would be kept if it were the last.
Report = Callable[[int, Losses, Tensor], None]
# A step that gains less than this share of what the gradient promises is shortened (Armijo).
_SUFFICIENT_GAIN = 1e-4
# After so many shortenings in a row, what L-BFGS remembers leads nowhere.
_MAXIMUM_REJECTIONS = 20


class OptimizationError(UserError, RuntimeError):
    """The objective is NaN or infinite."""


class Method(Protocol):
    """Moves `image`, in place, by its `.grad`."""

    image: Tensor

    def step(self, total: float) -> None:
        """Move on from where the objective is `total`."""

    def kept(self, total: float) -> Tensor:
        """Give the image to keep, when the objective is `total` at the present one."""

    def carried_to(self, image: Tensor) -> "Method":
        """Give the same method for a larger image, with what it knows scaled up."""


class ProjectedLBFGS:
    """L-BFGS (Liu & Nocedal 1989) with backtracking; `clip` projects every point onto [0, 1].

    Johnson et al. 2016, section 4.1, project too: values out of range would be free for the
    baseline, and are not for a network. Each step is one evaluation: a point that does not improve
    the objective enough is taken back, and the next one is nearer to the last good one.
    """

    def __init__(self, image: Tensor, options: OptimizationConfig) -> None:
        self.image = image
        self.options = options
        self.pairs: list[tuple[Tensor, Tensor]] = []  # displacements, changes of the gradient
        self.point: Tensor | None = None  # the last good point, with its total and gradient
        self.total = math.inf
        self.gradient = self.direction = torch.empty(0)
        self.length = 1.0
        self.rejections = 0

    def step(self, total: float) -> None:
        """Accept or take back the present point, and move to the next."""
        assert self.image.grad is not None
        gradient = self.image.grad.flatten()
        if self.point is None or self._is_sufficient(total):
            self._accept(total, gradient)
        else:
            self._shorten(total)
        assert self.point is not None
        self._move_to(self.point + self.length * self.direction)

    def kept(self, total: float) -> Tensor:
        """Give the present image, or the last good point where that is better."""
        if self.point is None or total <= self.total:
            return self.image.detach()
        return self.point.reshape(self.image.shape)

    def carried_to(self, image: Tensor) -> "ProjectedLBFGS":
        """Start anew: displacements of another size say nothing here."""
        return ProjectedLBFGS(image, self.options)

    def _is_sufficient(self, total: float) -> bool:
        return total <= self.total + _SUFFICIENT_GAIN * self._promise()

    def _promise(self) -> float:
        """Give the change of the objective to first order, negative when downhill."""
        assert self.point is not None
        return self.gradient.dot(self.image.detach().flatten() - self.point).item()

    def _accept(self, total: float, gradient: Tensor) -> None:
        point = self.image.detach().flatten().clone()
        if self.point is not None:
            moved, change = point - self.point, gradient - self.gradient
            # Curvature must be positive, and not only by rounding.
            if moved.dot(change) > 1e-10 * moved.norm() * change.norm():
                self.pairs = [*self.pairs, (moved, change)][-self.options.history :]
        self.point, self.total, self.gradient = point, total, gradient.clone()
        self.direction, self.length, self.rejections = self._quasi_newton(), 1.0, 0

    def _shorten(self, total: float) -> None:
        """Go to the minimum of the parabola through what is known, but not all the way back."""
        self.rejections += 1
        if self.rejections > _MAXIMUM_REJECTIONS:
            self.pairs.clear()
            self.direction, self.length, self.rejections = self._quasi_newton(), 1.0, 0
            return
        promise = self._promise()
        bend = 2 * (total - self.total - promise)
        factor = -promise / bend if math.isfinite(bend) and bend > 0 else 0.1
        self.length *= min(max(factor, 0.1), 0.5)

    def _quasi_newton(self) -> Tensor:
        """Multiply the gradient by minus the inverse Hessian, as the pairs give it (two loops)."""
        direction = -self.gradient
        if not self.pairs:
            return direction * (self.options.learning_rate / self.gradient.abs().mean().item())
        factors = []
        for moved, change in reversed(self.pairs):
            factor = moved.dot(direction) / moved.dot(change)
            direction = direction - factor * change
            factors.append(factor)
        moved, change = self.pairs[-1]
        direction = direction * (moved.dot(change) / change.dot(change))
        for (moved, change), factor in zip(self.pairs, reversed(factors), strict=True):
            direction = direction + moved * (factor - change.dot(direction) / moved.dot(change))
        return direction

    @torch.no_grad()
    def _move_to(self, point: Tensor) -> None:
        self.image.copy_(point.reshape(self.image.shape))
        if self.options.clip:
            self.image.clamp_(0, 1)


class Adam:
    """Adam (Kingma & Ba 2015, section 2) with epsilon where TensorFlow has it.

    That is before the correction of the bias, which matters for the recipes' epsilon of 0.1.
    """

    def __init__(self, image: Tensor, options: OptimizationConfig) -> None:
        self.image = image
        self.options = options
        self.steps = 0
        self.mean = torch.zeros_like(image)
        self.square = torch.zeros_like(image)

    @torch.no_grad()
    def step(self, total: float) -> None:
        """Move by the mean gradient over the root of its mean square."""
        assert self.image.grad is not None
        options = self.options
        self.steps += 1
        self.mean.lerp_(self.image.grad, 1 - options.beta1)
        self.square.lerp_(self.image.grad.square(), 1 - options.beta2)
        bias = (1 - options.beta2**self.steps) ** 0.5 / (1 - options.beta1**self.steps)
        change = self.mean / (self.square.sqrt() + options.epsilon)
        self.image.sub_(options.learning_rate * bias * change)
        if options.clip:
            self.image.clamp_(0, 1)

    def kept(self, total: float) -> Tensor:
        """Give the present image."""
        return self.image.detach()

    def carried_to(self, image: Tensor) -> "Adam":
        """Scale the moments up with the image."""
        carried = Adam(image, self.options)
        size = image.shape[-2:]
        carried.steps = self.steps
        carried.mean = F.interpolate(self.mean, size, mode="bilinear")
        carried.square = F.interpolate(self.square, size, mode="bilinear")
        return carried


class NormalizedGradient:
    """Steps along the gradient, divided by its standard deviation (Pedersen's tutorial)."""

    def __init__(self, image: Tensor, options: OptimizationConfig) -> None:
        self.image = image
        self.options = options

    @torch.no_grad()
    def step(self, total: float) -> None:
        """Move so that the changes of the pixels have the learning rate's standard deviation."""
        assert self.image.grad is not None
        deviation = self.image.grad.std(correction=0) + 1e-8
        self.image.sub_(self.options.learning_rate * self.image.grad / deviation)
        if self.options.clip:
            self.image.clamp_(0, 1)

    def kept(self, total: float) -> Tensor:
        """Give the present image."""
        return self.image.detach()

    def carried_to(self, image: Tensor) -> "NormalizedGradient":
        """Start at the image; there is nothing to carry."""
        return NormalizedGradient(image, self.options)


_METHODS: dict[str, Callable[[Tensor, OptimizationConfig], Method]] = {
    "lbfgs": ProjectedLBFGS,
    "adam": Adam,
    "gradient": NormalizedGradient,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The (1, 3, H, W) image that was found, the steps taken, and what found it."""

    image: Tensor
    steps: int
    finished: bool
    method: Method


def optimize_image(
    criterion: PerceptualLoss,
    content: Tensor,
    *,
    initial: Tensor,
    options: OptimizationConfig,
    steps: int | None = None,
    method: Method | None = None,
    report: Report = lambda step, losses, image: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Minimise the objective over an image of `content`'s size, (1, 3, H, W), from `initial`.

    `method` carries on from a smaller image. `report` hears of step 0 to `steps`; when
    `should_stop()` turns true the run ends early. Raises OptimizationError for a non-finite
    objective, and ValueError for an image too small for the layers.
    """
    steps = options.steps if steps is None else steps
    targets = criterion.content_targets(content)
    image = initial.detach().clone().requires_grad_()
    method = method.carried_to(image) if method else _METHODS[options.method](image, options)
    average = initial.detach().clone()
    for step in range(steps + 1):
        losses = criterion(image, targets)
        total = losses.total.item()
        _check_finite(step, losses, method)
        good = method.kept(total)
        kept = good
        if options.average_decay:
            kept = _averaged(average, good, step, options.average_decay)
        report(step, losses, kept)
        if step == steps or should_stop():
            break
        if options.restart_every and step and step % options.restart_every == 0:
            with torch.no_grad():
                image.copy_(good)
            method = _METHODS[options.method](image, options)
            continue
        image.grad = None
        (_balanced_total(losses, criterion) if options.balance else losses.total).backward()
        method.step(total)
    return Outcome(image=kept.clone(), steps=step, finished=step == steps, method=method)


def _counting_from(done: int, report: Report) -> Report:
    return lambda step, losses, image: report(done + step, losses, image)


def _check_finite(step: int, losses: Losses, method: Method) -> None:
    """Raise OptimizationError, unless L-BFGS has a good point to go back to."""
    if isinstance(method, ProjectedLBFGS) and method.point is not None:
        return
    bad = [name for name, value in losses.items().items() if not value.isfinite()]
    if bad:
        raise OptimizationError(
            f"step {step}: the loss is NaN or infinite ({', '.join(bad)}): "
            "lower optimization.learning_rate or the weights in loss"
        )


def _averaged(average: Tensor, image: Tensor, step: int, decay: float) -> Tensor:
    """Take an image into the moving average, which begins as the plain mean of the first ones."""
    return average.lerp_(image, 1 - min(decay, step / (step + 1)))


def _balanced_total(losses: Losses, criterion: PerceptualLoss) -> Tensor:
    """Sum the terms, each divided by its own value and then weighted (Pedersen's tutorial)."""
    weighted = (
        (criterion.content_weight, losses.content),
        (criterion.style_weight, losses.style),
        (criterion.tv_weight, losses.tv),
    )
    terms = [weight * term / (term.detach() + 1e-10) for weight, term in weighted]
    return torch.stack(terms).sum()


class Baseline:
    """A recipe with its content and style images: `Baseline(config, content, styles).run()`.

    Images are (1, 3, H, W) in [0, 1], on the device to compute on. Raises WeightsError, and
    ValueError for layers that do not exist or do not fit into the smallest scale.
    """

    def __init__(
        self,
        config: BaselineConfig,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.config = config
        self.styles = styles
        self.shares = shares
        self.content = fit_content(content, config.content)
        loss = config.loss
        self.features = load_vgg(
            loss.network,
            [*loss.content_layers, *loss.style_layers],
            path=loss.weights,
            pooling=loss.pooling,
            padding=loss.padding,
            recompute=loss.recompute,
        ).to(content.device)
        self.scales = scale_sizes(self.content, config.optimization.first_scale)
        smallest = resize(self.content, *self.scales[0])
        with torch.no_grad():
            self.features(smallest)
        self.criterion_at(smallest)

    @property
    def steps(self) -> int:
        """The number of steps at all scales together."""
        options = self.config.optimization
        later = (len(self.scales) - 1) * options.steps
        return later + (options.first_steps if len(self.scales) > 1 else options.steps)

    def criterion_at(self, content: Tensor) -> PerceptualLoss:
        """Build the objective for a content image of this size."""
        styles = [fit_style(style, content, self.config) for style in self.styles]
        return build_criterion(
            self.config.loss, self.features, styles, content=content, shares=self.shares
        )

    def run(
        self,
        *,
        report: Report = lambda step, losses, image: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Optimise from the smallest scale to the full size; steps count on across the scales.

        Where a scale ends and the next begins, the step is reported at both sizes. The outcome's
        image has the size that was reached. Raises OptimizationError.
        """
        options = self.config.optimization
        outcome: Outcome | None = None
        done = 0
        for height, width in self.scales:
            content = resize(self.content, height, width)
            initial = resize(outcome.image, height, width) if outcome else self._initial(content)
            first_of_several = outcome is None and len(self.scales) > 1
            outcome = optimize_image(
                self.criterion_at(content),
                content,
                initial=initial,
                options=options,
                steps=options.first_steps if first_of_several else options.steps,
                method=outcome.method if outcome else None,
                report=_counting_from(done, report),
                should_stop=should_stop,
            )
            done += outcome.steps
            if not outcome.finished:
                break
        assert outcome is not None
        return Outcome(
            image=outcome.image,
            steps=done,
            finished=done == self.steps,
            method=outcome.method,
        )

    def _initial(self, content: Tensor) -> Tensor:
        """Give the image to start from: the content image, the first style image, or noise."""
        options = self.config.optimization
        if options.initial == "style":
            return resize(self.styles[0], *content.shape[-2:])
        if options.initial == "noise":
            generator = torch.Generator().manual_seed(options.seed)
            noise = torch.rand(content.shape, generator=generator).to(content.device)
            return options.noise_mean + options.noise_range * (noise - 0.5)
        return content


def build_criterion(
    loss: BaselineLossConfig,
    features: VGGFeatures,
    styles: Sequence[Tensor],
    *,
    content: Tensor,
    shares: Sequence[float] | None = None,
) -> PerceptualLoss:
    """Build a recipe's objective for style images at their final sizes. Raises ValueError.

    `content`, (1, 3, H, W), is what `loss.strength` is measured at.
    """
    loss = with_raw_weights(loss, features, styles, content, style_shares=shares)
    return PerceptualLoss(
        features,
        styles,
        content_layers=loss.content_layers,
        style_layers=loss.style_layers,
        content_weight=loss.content_weight,
        style_weight=loss.style_weight,
        tv_weight=loss.tv_weight,
        style_shares=shares,
        style_statistic=loss.style_statistic,
        content_reduction=loss.content_reduction,
        style_reduction=loss.style_reduction,
        variation=loss.variation,
    )


def fit_content(content: Tensor, size: BaselineContentConfig) -> Tensor:
    """(1, 3, H, W) -> the same at the size that the recipe asks for."""
    height, width = content.shape[-2:]
    if size.width or size.height:
        exact_width = size.width or max(1, round(width * size.height / height))
        exact_height = size.height or max(1, round(height * size.width / width))
        return resize(content, exact_height, exact_width)
    if not size.long_edge and max(height, width) <= size.maximum:
        return content
    return resize_long_edge(content, size.long_edge or size.maximum)


def fit_style(style: Tensor, content: Tensor, config: BaselineConfig) -> Tensor:
    """(1, 3, H, W) -> the style image at the size at which its statistics are taken."""
    if config.style.fit == "content":
        return resize(style, *content.shape[-2:])
    if config.style.fit == "content_edge":
        return resize_long_edge(style, max(content.shape[-2:]))
    return resize_long_edge(style, config.style.size)


def scale_sizes(content: Tensor, first_scale: int) -> list[tuple[int, int]]:
    """Give the heights and widths to go through: long edges from `first_scale`, times root 2."""
    height, width = content.shape[-2:]
    full = max(height, width)
    count = max(0, math.ceil(2 * math.log2(full / first_scale))) if first_scale else 0
    edges = [full * 2 ** (-i / 2) for i in range(count, 0, -1)]
    scales = [
        (max(1, round(height * edge / full)), max(1, round(width * edge / full))) for edge in edges
    ]
    return [*scales, (height, width)]
