"""How long a run is and how fast it learns: the learning rate, the pace, the time limit."""

import bisect
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fast_style.config import TrainingConfig
from fast_style.errors import UserError

# The share of the steps in which the cosine schedule holds the learning rate, and where it ends.
_HELD = 2 / 3
_LOWEST = 0.1
# The first steps of a process allocate, choose kernels and compile: they say nothing of the rest.
_WARM_UP = 2
# A run aims to end this share of its limit early, and plans by what it has seen in this one.
_MARGIN = 0.01
_MEMORY = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run's number of steps, and how far along the schedule each of them is.

    Progress is `progress` after step `since` and 1 after the last; in between it is linear.
    """

    steps: int
    since: int = 0
    progress: float = 0.0

    def progress_at(self, step: int) -> float:
        """Give the progress after `step` finished steps."""
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
    """Give the scheduled learning rate at a progress between 0 and 1."""
    if config.schedule == "constant":
        return config.learning_rate
    falling = min(max((progress - _HELD) / (1 - _HELD), 0), 1)
    cosine = (1 + math.cos(math.pi * falling)) / 2
    return config.learning_rate * (_LOWEST + (1 - _LOWEST) * cosine)


def first_steps(config: TrainingConfig, steps: int) -> int:
    """Give how many of so many steps see crops of `first_size`."""
    return round(config.first_share * steps)


def work_after(config: TrainingConfig, step: int, steps: int) -> float:
    """Give what the first `step` of `steps` cost: each the area of its crops, in pixels."""
    early = min(step, first_steps(config, steps))
    late = [size**2 for size in config.mixed_sizes or [config.image_size]]
    return early * config.first_size**2 + (step - early) * sum(late) / len(late)


class Pace:
    """How long steps take, and the reports between them; so how long the rest of a run will.

    `intervals` says how many steps lie between reports of each kind, and `work` what the steps up
    to one of a number of steps cost together, in a unit of its own. What was measured longer than
    `memory` seconds ago fades.
    """

    def __init__(
        self,
        step: int,
        intervals: Mapping[str, int],
        *,
        work: Callable[[int, int], float] = lambda step, steps: step,
        memory: float = 60.0,
    ) -> None:
        self.intervals = intervals
        self.work = work
        self.memory = memory
        self.reports: dict[str, float] = {}
        self._first = self._step = step
        self._clock = time.perf_counter()
        self._rate = 0.0
        self._done = self._seconds = 0.0

    def mark(self, step: int, steps: int) -> float:
        """Note that `step` of `steps` is finished on the device; give the steps a second since."""
        now = time.perf_counter()
        done, seconds = step - self._step, now - self._clock
        if done:
            if self._step >= self._first + _WARM_UP:
                kept = math.exp(-seconds / self.memory)
                work = self.work(step, steps) - self.work(self._step, steps)
                self._done = kept * self._done + work
                self._seconds = kept * self._seconds + seconds
            self._step, self._clock, self._rate = step, now, done / seconds
        return self._rate

    @contextlib.contextmanager
    def report(self, kind: str) -> Iterator[None]:
        """Time a report; it does not count as part of a step."""
        start = time.perf_counter()
        yield
        self.reports[kind] = time.perf_counter() - start
        self._clock += self.reports[kind]

    @property
    def is_known(self) -> bool:
        """Whether enough steps have been timed to say anything."""
        return self._done > 0

    def seconds_left(self, steps: int) -> float:
        """Estimate the seconds from now to the end of a run of so many steps."""
        work = self.work(steps, steps) - self.work(self._step, steps)
        left = work * self._seconds / self._done
        for kind, cost in self.reports.items():
            every = self.intervals[kind]
            # From this step, whose reports are still to come, to the last, which has them all.
            left += (math.ceil(steps / every) - (self._step - 1) // every) * cost
        return left

    def steps_within(self, seconds: float, *, maximum: int) -> int:
        """Give the number of steps with which a run ends within so many seconds from now."""
        choices = range(self._step, maximum + 1)
        fitting = bisect.bisect_right(choices, seconds, key=self.seconds_left)
        return choices[max(fitting - 1, 0)]


class TimeLimit:
    """The minutes that a run may take, with what earlier processes of it have taken.

    The clock starts when this is built. `before` is what an earlier process recorded.
    """

    def __init__(self, minutes: float, *, before: Mapping[str, Any] | None = None) -> None:
        if not 0 < minutes < math.inf:
            raise UserError(f"max_minutes: {minutes!r} is impossible: it must be above 0")
        self.minutes = minutes
        self._before = before or {"minutes": None, "seconds": 0.0}
        self._start = time.perf_counter()

    @property
    def spent(self) -> float:
        """The seconds that the run has taken so far."""
        return float(self._before["seconds"]) + time.perf_counter() - self._start

    @property
    def memory(self) -> float:
        """For how many seconds to remember the pace: a minute, or less where time is short."""
        return min(60.0, self.minutes * 60 * _MEMORY)

    @property
    def left(self) -> float:
        """The seconds that it may still take, less a margin."""
        return self.minutes * 60 * (1 - _MARGIN) - self.spent

    def plan_before(self, *, maximum: int) -> Plan:
        """Give the plan to go on with: the recorded one, if it was made for this limit."""
        if self._before["minutes"] == self.minutes:
            recorded = Plan(**self._before["plan"])
            if recorded.steps <= maximum:
                return recorded
        return Plan(steps=maximum)

    def is_due(self, steps: int) -> bool:
        """Say whether to look at the clock after so many steps of this process: 2, 4, 8 ..."""
        return steps >= _WARM_UP and steps & (steps - 1) == 0

    def record(self, plan: Plan) -> dict[str, Any]:
        """Give what a later process needs to go on, as plain data."""
        return {"minutes": self.minutes, "seconds": self.spent, "plan": asdict(plan)}
