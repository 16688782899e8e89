"""The size of live frames follows the speed: the largest at which enough of them are ready."""

from collections.abc import Sequence

# Long edges, from the largest.
EDGES = (1280, 960, 640, 480, 320, 240)
# A size is left when its speed falls below this share of what is wanted, and a larger one tried
# when it should have this much more: between them nothing changes to and fro.
_TOO_SLOW = 0.95
_FAST_ENOUGH = 1.25
# The frames after a change before the speed is judged, and the share of a new one in the mean.
_SETTLING = 4
_SHARE = 0.2


class Sizes:
    """Chooses the long edge of frames, by how long the last ones took.

    `goal` is how many frames a second there shall be, `workers` how many are in work at once. A
    `fixed` edge stays.
    """

    def __init__(
        self,
        *,
        goal: float,
        workers: int,
        fixed: int | None = None,
        edges: Sequence[int] = EDGES,
        first: int = 640,
    ) -> None:
        self.goal = goal
        self._workers = workers
        self._fixed = fixed
        self._edges = sorted(edges, reverse=True)
        self._index = self._edges.index(first)
        self._seconds: float | None = None
        self._size: tuple[int, ...] = ()
        self._seen = 0

    @property
    def edge(self) -> int:
        """The long edge that frames shall have, at most."""
        return self._fixed or self._edges[self._index]

    @property
    def speed(self) -> float:
        """Frames a second, if photos come fast enough; 0 where it is not known yet."""
        return self._workers / self._seconds if self._seconds else 0.0

    @property
    def status(self) -> str:
        """The size of the last frame and the speed, for a person."""
        height, width = self._size or (0, 0)
        return f"{width}×{height}   {self.speed:.1f} frames/s"

    def add(self, seconds: float, size: Sequence[int]) -> None:
        """Take note of a frame of (height, width) that took so many seconds."""
        if tuple(size) != self._size:
            self._size, self._seconds, self._seen = tuple(size), None, 0
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + _SHARE * (seconds - before)
        self._seen += 1
        if self._seen > _SETTLING and not self._fixed:
            self._follow()

    def _follow(self) -> None:
        edge = max(self._size)
        if self.speed < _TOO_SLOW * self.goal:
            # A frame's time goes with its area.
            fitting = [
                i
                for i, one in enumerate(self._edges)
                if one < edge and self.speed * (edge / one) ** 2 >= self.goal
            ]
            self._index = fitting[0] if fitting else len(self._edges) - 1
        elif self._index > 0 and edge == self.edge:  # a small camera has no larger frames
            growth = (self._edges[self._index - 1] / edge) ** 2
            if self.speed > _FAST_ENOUGH * self.goal * growth:
                self._index -= 1
