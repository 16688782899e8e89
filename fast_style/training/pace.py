"""What the clock says of a run: its pace, its time limit, and when something is due."""

import bisect
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from fast_style.config import ConfigError
from fast_style.training.schedule import Plan

# The first steps of a process allocate, choose kernels and compile: no measure of the rest.
WARM_UP = 2
# A run aims to end this share of its limit early, and plans by what it has seen in this one.
_MARGIN = 0.01
_MEMORY = 0.05
# The fewest steps between two reports of a short run, unless the config has fewer.
_CLOSEST = 10
# A killed run loses at most a tenth of its time, and never more than _LOST_AT_MOST seconds; a very
# short run may lose _LOST_AT_LEAST, for writing takes a while, too.
_LOST_AT_MOST = 300.0
_LOST_AT_LEAST = 30.0


class Pace:
    """The durations of steps and of the reports between them, and so of the rest of a run.

    `intervals` is the number of steps between reports of each kind, `times` the least number of
    reports of some kinds in a run. `work(step, steps)` is the cost of the first `step` of `steps`,
    in a unit of its own. Measurements fade when they are older than `memory` seconds. `waited` is
    the share of the time between the last two marks that went into waiting for photos.
    """

    def __init__(
        self,
        step: int,
        intervals: Mapping[str, int],
        *,
        times: Mapping[str, int] | None = None,
        work: Callable[[int, int], float] = lambda step, steps: step,
        memory: float = 60.0,
    ) -> None:
        self.intervals = intervals
        self.times = times or {}
        self.work = work
        self.memory = memory
        self.costs: dict[str, float] = {}
        self._first = self._step = step
        self._start = self._clock = time.perf_counter()
        self._last: dict[str, float] = {}
        self._reported: dict[str, int] = {}
        self._rate = 0.0
        self._done = self._seconds = 0.0
        # Seconds of waiting for photos: since the last mark, and with all others since the warm-up.
        self._waited = 0.0
        self._all_waited = self._all_seconds = 0.0
        self.waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for photos."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @property
    def waited_overall(self) -> tuple[float, float]:
        """The share of all seconds after the warm-up that went into waiting, and those seconds."""
        return self._all_waited / max(self._all_seconds, 1e-9), self._all_seconds

    def work_rate(self) -> float:
        """Return the work of a second, in the unit of `work`; 0 while it is not known."""
        return self._done / self._seconds if self.is_known else 0.0

    def mark(self, step: int, steps: int) -> float:
        """Note that `step` of `steps` is finished on the device; return the steps per second."""
        now = time.perf_counter()
        done, seconds = step - self._step, now - self._clock
        if done:
            if self._step >= self._first + WARM_UP:
                kept = math.exp(-seconds / self.memory)
                work = self.work(step, steps) - self.work(self._step, steps)
                self._done = kept * self._done + work
                self._seconds = kept * self._seconds + seconds
                self.waited = self._waited / seconds
                self._all_waited += self._waited
                self._all_seconds += seconds
            self._waited = 0.0
            self._step, self._clock, self._rate = step, now, done / seconds
        return self._rate

    @contextlib.contextmanager
    def timing(self, kind: str, step: int) -> Iterator[None]:
        """Time a report, after `step`; it does not count as part of a step."""
        start = time.perf_counter()
        yield
        self._reported[kind] = step
        self._last[kind] = time.perf_counter()
        self.costs[kind] = self._last[kind] - start
        self._clock += self.costs[kind]

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Count the time inside neither as part of a step nor as that of a report."""
        start = time.perf_counter()
        yield
        self._clock += time.perf_counter() - start

    def due(self, step: int, steps: int) -> set[str]:
        """Return the kinds of reports that `step` of `steps` has; the last step has them all."""
        if step >= steps:
            return set(self.intervals)
        return {kind for kind in self.intervals if self._is_due(kind, step, steps)}

    def is_overdue(self, kind: str, steps: int) -> bool:
        """Whether the last report of `kind` is as long ago as a killed run may lose."""
        now = time.perf_counter()
        whole = now - self._start + self.seconds_left(steps) if self.is_known else math.inf
        allowed = min(_LOST_AT_MOST, max(_LOST_AT_LEAST, whole / 10))
        return now - self._last.get(kind, self._start) >= allowed

    @property
    def is_known(self) -> bool:
        """Whether enough steps have been timed to estimate anything."""
        return self._done > 0

    def seconds_left(self, steps: int, *, after: int | None = None) -> float:
        """Estimate the seconds from `after`, the present step, to the end of a run of `steps`."""
        step = self._step if after is None else after
        left = (self.work(steps, steps) - self.work(step, steps)) * self._seconds / self._done
        for kind, cost in self.costs.items():
            # From this step, whose reports are still to come, to the last, which has them all.
            every = self._every(kind, steps)
            start = step - 1
            if every < self.intervals[kind]:
                start = min(self._since(kind), start)
                left += math.ceil((steps - start) / every) * cost
            else:
                left += (math.ceil(steps / every) - start // every) * cost
        return left

    def steps_within(self, seconds: float, *, maximum: int, after: int | None = None) -> int:
        """Return the number of steps with which a run ends within `seconds` of step `after`.

        `after` is the present step where it is not given.
        """
        choices = range(self._step if after is None else after, maximum + 1)
        fitting = bisect.bisect_right(
            choices, seconds, key=lambda steps: self.seconds_left(steps, after=after)
        )
        return choices[max(fitting - 1, 0)]

    def _is_due(self, kind: str, step: int, steps: int) -> bool:
        every = self._every(kind, steps)
        if every < self.intervals[kind]:
            # The plan changes on the way, and the interval with it: no multiples of that.
            return step - self._since(kind) >= every
        return step % every == 0

    def _every(self, kind: str, steps: int) -> int:
        """Return the steps between two reports of a run of `steps`: those of a short one differ."""
        every = self.intervals[kind]
        return min(every, max(steps // self.times[kind], _CLOSEST)) if kind in self.times else every

    def _since(self, kind: str) -> int:
        return self._reported.get(kind, self._first)


def check_minutes(minutes: float, *, name: str = "max_minutes") -> None:
    """Raise ConfigError for a time limit that no run can keep to."""
    if not 0 < minutes < math.inf:
        raise ConfigError(f"{name}: {minutes!r} is impossible: it must be above 0")


class TimeLimit:
    """The minutes that a run may take, with what earlier processes of it have taken.

    The clock starts when the limit is constructed. `before` is what an earlier process recorded.
    """

    def __init__(self, minutes: float, *, before: Mapping[str, Any] | None = None) -> None:
        check_minutes(minutes)
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

    def recorded_plan(self, *, maximum: int) -> Plan | None:
        """Return the plan of an earlier process, if it was made for this limit and `maximum`."""
        if self._before["minutes"] != self.minutes:
            return None
        recorded = Plan(**self._before["plan"])
        return recorded if recorded.steps <= maximum else None

    def is_due(self, steps: int) -> bool:
        """Whether to look at the clock `steps` steps after the start or before the end: 2, 4 ..."""
        return steps >= WARM_UP and steps & (steps - 1) == 0

    def record(self, plan: Plan) -> dict[str, Any]:
        """Return what a later process needs to go on, as plain data."""
        return {"minutes": self.minutes, "seconds": self.spent, "plan": asdict(plan)}
