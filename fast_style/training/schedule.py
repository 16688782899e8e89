"""How long a run is and how fast it learns: the plan, the learning rate, the size of the crops."""

import math
from dataclasses import dataclass

from fast_style.config import TrainingConfig

# The share of the steps in which the cosine schedule holds the learning rate, and where it ends.
_HELD = 2 / 3
_LOWEST = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run's number of steps, and how far along the schedule each of them is.

    Progress is `progress` after step `since` and 1 after the last; in between it is linear.
    """

    steps: int
    since: int = 0
    progress: float = 0.0

    def progress_at(self, step: int) -> float:
        """Return the progress after `step` finished steps."""
        if step >= self.steps:
            return 1.0
        share = (1 - self.progress) * (step - self.since) / (self.steps - self.since)
        return self.progress + share

    def changed(self, steps: int, *, after: int) -> "Plan":
        """Plan another number of steps, so that the learning rate does not jump."""
        anew, progress = Plan(steps=steps), self.progress_at(after)
        if max(progress, anew.progress_at(after)) <= _HELD:
            return anew  # the learning rate is held still: as if this had been known from the start
        return Plan(steps=steps, since=after, progress=progress)


def learning_rate_at(config: TrainingConfig, progress: float) -> float:
    """Return the scheduled learning rate at a progress between 0 and 1."""
    if config.schedule == "constant":
        return config.learning_rate
    falling = min(max((progress - _HELD) / (1 - _HELD), 0), 1)
    cosine = (1 + math.cos(math.pi * falling)) / 2
    return config.learning_rate * (_LOWEST + (1 - _LOWEST) * cosine)


def first_steps(config: TrainingConfig, steps: int) -> int:
    """Return how many of a run's `steps` use crops of `first_size`, if these are smaller."""
    if config.first_size >= config.image_size:
        return 0
    return round(config.first_share * steps)


def work_after(config: TrainingConfig, step: int, steps: int) -> float:
    """Return what the first `step` of `steps` cost: each the area of its crops, in pixels."""
    early = min(step, first_steps(config, steps))
    late = [size**2 for size in config.mixed_sizes or [config.image_size]]
    return early * config.first_size**2 + (step - early) * sum(late) / len(late)
