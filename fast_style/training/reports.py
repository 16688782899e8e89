"""What a run reports while it trains: losses, validation, previews, and the time that is left.

TensorBoard sorts tags by name: `loss/` and `loss_validation/` come first, then the previews, the
numbers of the run itself, and last the measures that matter only after an alarm.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.config import TrainingConfig
from fast_style.devices import Arriving
from fast_style.objective.losses import Losses
from fast_style.training.artefacts import artefact_scores, find_artefacts
from fast_style.training.monitors import Monitor
from fast_style.training.pace import Pace
from fast_style.training.schedule import work_after

# After so many seconds it matters how well a run uses its device.
MATTERS_AFTER = 30.0
# From this share of the time on waiting for photos is told of.
_TOLD_SHARE = 0.1


class Reports:
    """Reports to the monitors of the main process; those of other processes get nothing.

    `cure_for_waiting` says what to do where a run waits for its photos (empty: nobody is told).
    Validation and previews come at least `times` times in a run, however short it is.
    """

    def __init__(
        self,
        training: TrainingConfig,
        monitors: Sequence[Monitor],
        *,
        step: int,
        times: int,
        memory: float,
        cure_for_waiting: str = "",
    ) -> None:
        self.monitors = monitors if distributed.is_main() else ()
        self.batch_size = training.batch_size
        self._cure = cure_for_waiting
        # Losses that are on their way from a GPU: the step, their names, what else to report.
        self._arriving: list[tuple[int, Sequence[str], Arriving, dict[str, float]]] = []
        self.pace = Pace(
            step,
            {
                "validation": training.validate_every,
                "previews": training.preview_every,
                "saving": training.checkpoint_every,
            },
            times={"validation": times, "previews": times},
            work=partial(work_after, training),
            memory=memory,
        )

    def open(self, step: int, steps: int, config: str) -> None:
        """Report that the run begins, goes on, or has a new folder; `config` is its YAML."""
        for monitor in self.monitors:
            monitor.start(step, steps, config)

    def close(self) -> None:
        """Report that the run has ended."""
        for monitor in self.monitors:
            monitor.close()

    def advance(self, step: int) -> None:
        """Report that a step is finished."""
        for monitor in self.monitors:
            monitor.advance(step)

    def losses(
        self, step: int, steps: int, losses: Losses, learning_rate: float, *, waits: bool = True
    ) -> None:
        """Report an update: its losses, as means over the processes, and how fast it went.

        Without waiting for a GPU they are reported at the next call, or that of `arrived`.
        """
        terms = losses.items()
        means = Arriving(distributed.mean(torch.stack(list(terms.values()))))
        if waits:
            means.wait()  # so that the time is that of what is finished
        rate = self.pace.mark(step, steps) * self.batch_size
        values = {"run/learning_rate": learning_rate, "run/images_per_second": rate}
        if self.pace.is_known:
            values["run/minutes_left"] = self.pace.seconds_left(steps) / 60
            values["run/waited_for_data"] = self.pace.waited
        self._arriving.append((step, list(terms), means, values))
        self.arrived(but_for=0 if waits else 1)
        self._tell_of_waiting(step)

    def arrived(self, *, but_for: int = 0) -> None:
        """Report the losses that have not been reported yet, but for the last ones."""
        while len(self._arriving) > but_for:
            step, terms, arriving, others = self._arriving.pop(0)
            means = arriving.wait().tolist()
            values = {f"loss/{name}": value for name, value in zip(terms, means, strict=True)}
            self.scalars(step, values | others)

    def _tell_of_waiting(self, step: int) -> None:
        """Tell once, with the cure, where photos come too slowly."""
        share, seconds = self.pace.waited_overall
        if self._cure and share > _TOLD_SHARE and seconds > MATTERS_AFTER:
            self.message(
                step, f"{share:.0%} of the time goes into waiting for photos: {self._cure}"
            )
            self._cure = ""

    def planned(self, step: int, steps: int) -> None:
        """Report how many steps are planned now."""
        self.scalars(step, {"run/planned_steps": steps})

    def validation(
        self,
        step: int,
        validate: Callable[[], Mapping[str, float]],
        judge: Callable[[], Mapping[str, float]],
    ) -> None:
        """Report the objective on the held-out images, and how the main process judges some."""
        with self.pace.timing("validation", step):
            values = validate()
            self.scalars(step, {f"loss_validation/{name}": v for name, v in values.items()})
            if distributed.is_main():
                self.scalars(step, judge())

    def previews(
        self, step: int, contents: Mapping[str, Tensor], stylize: Callable[[Tensor], Tensor]
    ) -> None:
        """Show photos, (3, H, W) by name, each beside what `stylize` makes of (1, 3, H, W) it."""
        with self.pace.timing("previews", step):
            if not distributed.is_main():
                return
            scores = []
            for name, content in contents.items():
                stylized = stylize(content[None])[0].to(content.device)
                self.image(step, f"preview/{name}", torch.cat([content, stylized], dim=-1))
                scores.append(artefact_scores(stylized))
                for artefact in find_artefacts(content, stylized):
                    self.message(step, f"artefact alarm, preview {name}: {artefact}")
            self.scalars(step, _worst(scores))

    def message(self, step: int, text: str) -> None:
        """Report a text about a step that a person should read."""
        for monitor in self.monitors:
            monitor.message(step, text)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report values by tag."""
        for monitor in self.monitors:
            monitor.scalars(step, values)

    def image(self, step: int, tag: str, image: Tensor) -> None:
        """Show a (3, H, W) image in [0, 1] under a tag."""
        for monitor in self.monitors:
            monitor.image(step, tag, image)


def _worst(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the worst of each measure of artefacts over the previews, by its tag."""
    worst = {"deviation": min, "grid": max, "hot_pixels": max}
    return {f"watch/{name}": choose(s[name] for s in scores) for name, choose in worst.items()}
