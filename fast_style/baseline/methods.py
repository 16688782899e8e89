"""How the baseline's image is found: projected L-BFGS, Adam, the normalised gradient."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_style.config import OptimizationConfig
from fast_style.errors import UserError

# A step that gains less than this share of what the gradient promises is shortened (Armijo).
_SUFFICIENT_GAIN = 1e-4
# The number of shortenings in a row after which L-BFGS's memory leads nowhere.
_MAXIMUM_REJECTIONS = 20


class OptimizationError(UserError, RuntimeError):
    """The objective is NaN or infinite."""


class Method(Protocol):
    """Moves `image`, in place, by its `.grad`."""

    image: Tensor

    def step(self, total: float) -> None:
        """Move on from where the objective is `total`."""

    def kept(self, total: float) -> Tensor:
        """Return the image to keep, when the objective is `total` at the present one."""

    def carried_to(self, image: Tensor) -> "Method":
        """Return the same method for a larger image, with what it knows scaled up."""


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
        """Return the present image, or the last good point where that is better."""
        if self.point is None or total <= self.total:
            return self.image.detach()
        return self.point.reshape(self.image.shape)

    def carried_to(self, image: Tensor) -> "ProjectedLBFGS":
        """Start anew: displacements of another size are of no use here."""
        return ProjectedLBFGS(image, self.options)

    def _is_sufficient(self, total: float) -> bool:
        return total <= self.total + _SUFFICIENT_GAIN * self._promise()

    def _promise(self) -> float:
        """Return the first-order change of the objective, negative when downhill."""
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
        """Multiply the gradient by minus the inverse Hessian that the pairs imply (two loops)."""
        direction = -self.gradient
        if not self.pairs:
            mean = self.gradient.abs().mean().item()
            # Where there is no slope, as at a minimum, there is nowhere to go.
            return direction * (self.options.learning_rate / mean if mean else 0.0)
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
        """Return the present image."""
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
        """Return the present image."""
        return self.image.detach()

    def carried_to(self, image: Tensor) -> "NormalizedGradient":
        """Start at the image; there is nothing to carry."""
        return NormalizedGradient(image, self.options)


_METHODS: dict[str, Callable[[Tensor, OptimizationConfig], Method]] = {
    "lbfgs": ProjectedLBFGS,
    "adam": Adam,
    "gradient": NormalizedGradient,
}
