"""What a run reports while it trains: losses, validation, previews, and the time that is left."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from fast_style import distributed
from fast_style.artefacts import artefact_scores, find_artefacts
from fast_style.config import TrainingConfig
from fast_style.losses import Losses
from fast_style.monitoring import Monitor
from fast_style.schedule import Pace, work_after
from fast_style.trainee import Trainee


class Reports:
    """Tells the monitors of the main process; those of other processes are left alone."""

    def __init__(self, trainee: Trainee, monitors: Sequence[Monitor]) -> None:
        self.trainee = trainee
        self.training: TrainingConfig = trainee.config
        self.monitors = monitors if distributed.is_main() else ()
        self.pace = Pace(
            trainee.step,
            {
                "validation": self.training.validate_every,
                "previews": self.training.preview_every,
                "saving": self.training.checkpoint_every,
            },
            work=partial(work_after, self.training),
        )

    def open(self, config: str) -> None:
        """Say that the run begins, goes on, or has a new folder; `config` is its YAML."""
        for monitor in self.monitors:
            monitor.start(self.trainee.step, self.trainee.plan.steps, config)

    def close(self) -> None:
        """Say that the run has ended."""
        for monitor in self.monitors:
            monitor.close()

    def inputs(self) -> None:
        """Show the style image and the content of the previews."""
        inputs = self.trainee.inputs
        self._image("style", inputs.style_image[0])
        for name, content in inputs.previews.items():
            self._image(f"preview/{name}/content", content)

    def advance(self) -> None:
        """Say that a step is finished."""
        for monitor in self.monitors:
            monitor.advance(self.trainee.step)

    def losses(self, losses: Losses, learning_rate: float) -> None:
        """Report an update: its losses, as means over the processes, and how fast it went."""
        terms = losses.items()
        means = distributed.mean(torch.stack(list(terms.values()))).tolist()
        values = {f"train/{name}": value for name, value in zip(terms, means, strict=True)}
        plan = self.trainee.plan
        rate = self.pace.mark(self.trainee.step, plan.steps) * self.training.batch_size
        values |= {"learning_rate": learning_rate, "images_per_second": rate}
        if self.pace.is_known:
            values["minutes_left"] = self.pace.seconds_left(plan.steps) / 60
        self.scalars(values)

    def validation(self) -> None:
        """Report the objective on the held-out images."""
        with self.pace.report("validation"):
            values = self.trainee.validate()
            self.scalars({f"validation/{name}": value for name, value in values.items()})

    def previews(self) -> None:
        """Show the first held-out images as the averaged network stylizes them."""
        with self.pace.report("previews"):
            if distributed.is_main():
                for name, content in self.trainee.inputs.previews.items():
                    stylized = self.trainee.stylize(content[None])[0]
                    self._image(f"preview/{name}/stylized", stylized)
                    self._artefacts(name, content, stylized)

    def _artefacts(self, name: str, content: Tensor, stylized: Tensor) -> None:
        """Raise the alarm for what a good picture does not have."""
        scores = artefact_scores(stylized)
        self.scalars({f"artefacts/{name}/{measure}": score for measure, score in scores.items()})
        for artefact in find_artefacts(content, stylized):
            self.message(f"artefact alarm, preview {name}: {artefact}")

    def message(self, text: str, *, step: int | None = None) -> None:
        """Say something that a person should know, of the last step or another."""
        for monitor in self.monitors:
            monitor.message(self.trainee.step if step is None else step, text)

    def scalars(self, values: Mapping[str, float]) -> None:
        """Report values by tag."""
        for monitor in self.monitors:
            monitor.scalars(self.trainee.step, values)

    def _image(self, tag: str, image: Tensor) -> None:
        for monitor in self.monitors:
            monitor.image(self.trainee.step, tag, image)
