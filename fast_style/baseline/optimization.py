"""The optimisation baseline: find the image that minimises the objective (Gatys et al. 2016).

It minimises the `PerceptualLoss` that training minimises, over one image instead of over a
network's weights. A step is one evaluation of the objective and its gradient; step 0 evaluates the
initial image. Recipes (recipes/*.yaml) name what is minimised, and how.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast_style.baseline.methods import _METHODS, Method, OptimizationError, ProjectedLBFGS
from fast_style.config import BaselineConfig, BaselineContentConfig, OptimizationConfig
from fast_style.devices import tf32
from fast_style.images import resize, resize_long_edge
from fast_style.objective.building import build_features, build_objective
from fast_style.objective.losses import Losses, PerceptualLoss

log = logging.getLogger(__name__)

# Called with the step, the losses there, and the image that would be kept if it were the last.
Report = Callable[[int, Losses, Tensor], None]


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

    `method` carries on from a smaller image. `report` is called for steps 0 to `steps`; when
    `should_stop()` turns true the run ends early. Raises OptimizationError for a non-finite
    objective, and ValueError for an image too small for the layers.
    """
    steps = options.steps if steps is None else steps
    with tf32(content.device, allowed=False):
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
    terms = []
    for field in dataclasses.fields(losses):
        weight, term = getattr(criterion, f"{field.name}_weight"), getattr(losses, field.name)
        if term is None:
            continue
        terms.append(weight * term / (term.detach() + 1e-10))
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
        self.features = build_features(config.loss.resolved(), content.device)
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
        return build_objective(
            self.config.loss, self.features, styles, content=content, shares=self.shares
        ).criterion

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
        """Return the image to start from: the content image, the first style image, or noise."""
        options = self.config.optimization
        if options.initial == "style":
            return resize(self.styles[0], *content.shape[-2:])
        if options.initial == "noise":
            generator = torch.Generator().manual_seed(options.seed)
            noise = torch.rand(content.shape, generator=generator).to(content.device)
            return options.noise_mean + options.noise_range * (noise - 0.5)
        return content


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
    """Return each scale's (height, width): long edges from `first_scale` on, times root 2."""
    height, width = content.shape[-2:]
    full = max(height, width)
    count = max(0, math.ceil(2 * math.log2(full / first_scale))) if first_scale else 0
    edges = [full * 2 ** (-i / 2) for i in range(count, 0, -1)]
    scales = [
        (max(1, round(height * edge / full)), max(1, round(width * edge / full))) for edge in edges
    ]
    return [*scales, (height, width)]
