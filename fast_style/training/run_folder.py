"""What a run leaves in its folder, and how the same command goes on from it."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fast_style.checkpoints.files import (
    CheckpointError,
    find_states,
    load_state,
    save_model,
    save_state,
)
from fast_style.config import (
    Config,
    ConfigError,
    LossConfig,
    config_from_stored,
    flatten,
    to_dict,
)
from fast_style.data import fingerprint
from fast_style.files import atomic_write, digest, remove_unfinished
from fast_style.networks.transformer import TransformerNet
from fast_style.training.locking import RunLock
from fast_style.training.pace import TimeLimit
from fast_style.training.schedule import Plan

log = logging.getLogger(__name__)

# Keys that may change between a run and its resumption, because they do not change the weights.
_MAY_CHANGE = {
    "data.cache",
    "data.description",
    "data.workers",
    "training.accumulate",
    "training.compile",
    "training.steps",
    "training.log_every",
    "training.validate_every",
    "training.preview_every",
    "training.checkpoint_every",
}


class RunFolder:
    """A run's folder: its config, its model, its newest states.

    `config` is as the user wrote it; `loss` is what it came to, in raw weights. `photos` are those
    that are trained on, `limit` the run's time limit.
    """

    def __init__(
        self,
        lock: RunLock,
        config: Config,
        *,
        loss: LossConfig,
        photos: Sequence[str],
        limit: TimeLimit | None,
    ) -> None:
        self.path = lock.folder
        self.model = model_path(self.path, config)
        self.photos = fingerprint([Path(photo) for photo in photos])
        self._lock = lock
        self._style = digest(config.style.resolved().image)
        self._config = config
        written = dataclasses.replace(loss, weights=config.loss.weights)
        self._raw = dataclasses.replace(config, loss=written)
        self._limit = limit

    @property
    def is_there(self) -> bool:
        """Whether the folder is still there."""
        return self.path.is_dir()

    def open(self) -> str:
        """Make the folder, lock it, write the config into it, and return the config's YAML.

        Raises CheckpointError.
        """
        text = yaml.safe_dump(to_dict(self._config), sort_keys=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            remove_unfinished(self.path)
            with atomic_write(self.path / "config.yaml") as file:
                file.write(text.encode())
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror}") from None
        return text

    def save(
        self, step: int, average: TransformerNet, snapshot: Mapping[str, Any], *, plan: Plan
    ) -> None:
        """Write the model and, after it, the state: a killed run never lacks the model."""
        metadata = {"name": self._config.name, "step": step, "config": to_dict(self._raw)}
        save_model(self.model, average, metadata=metadata)
        state = {
            "config": to_dict(self._config),
            "fingerprint": self.photos,
            "style": self._style,
            "time_limit": self._limit.record(plan) if self._limit else None,
            **snapshot,
        }
        save_state(self.path, step, state)


def model_path(run_dir: Path, config: Config) -> Path:
    """Return where a run in `run_dir` leaves its model."""
    return run_dir / f"{config.name}.pth"


def load_resumable(config: Config, run_dir: Path) -> dict[str, Any] | None:
    """Load the newest readable state of the same run. Raises ConfigError if it is another run.

    Raises CheckpointError when there are states, but none can be read.
    """
    states = find_states(run_dir)
    for path in reversed(states):
        try:
            state = load_state(path)
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
            continue
        _check_same(config, state["config"], path)
        _check_style(config, state.get("style"), path)
        return state
    if states:
        raise CheckpointError(
            f"{run_dir}: none of its training states can be read: remove them to begin anew"
        )
    return None


def _check_same(config: Config, begun: dict[str, Any], path: Path) -> None:
    """Raise ConfigError for a key that differs from what the run was begun with."""
    before = flatten(to_dict(config_from_stored(begun, source=str(path))))
    now = flatten(to_dict(config))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and key not in _MAY_CHANGE:
            raise ConfigError(
                f"{key}: is {now.get(key)!r}, but the run in {path.parent} was begun with "
                f"{before.get(key)!r}: change it back, give the config another name, or remove "
                f"{path.parent}"
            )


def _check_style(config: Config, begun: str | None, path: Path) -> None:
    """Raise ConfigError for another picture under the same name; the first states knew none."""
    style = config.style.resolved().image
    if begun and style.is_file() and digest(style) != begun:
        raise ConfigError(
            f"style.image: {style} is another picture than the one with which the run in "
            f"{path.parent} was begun: change it back, give the config another name, or remove "
            f"{path.parent}"
        )
