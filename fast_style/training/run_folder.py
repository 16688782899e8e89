"""What a run leaves in its folder, and how the same command goes on from it."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fast_style import remote
from fast_style.checkpoints.files import (
    STATES_KEPT,
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
    StyleConfig,
    config_from_stored,
    flatten,
    locate,
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
    that are trained on, `limit` the run's time limit. `store` is an address at which model and
    states are kept too.
    """

    def __init__(
        self,
        lock: RunLock,
        config: Config,
        *,
        loss: LossConfig,
        photos: Sequence[str],
        limit: TimeLimit | None,
        store: Path | None = None,
    ) -> None:
        self.path = lock.folder
        self._store = store
        self.model = model_path(self.path, config)
        self.photos = fingerprint([Path(photo) for photo in photos])
        self._lock = lock
        self._style = _style_digest(config.style)
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
        written = save_state(self.path, step, state)
        if self._store:
            keep_in_store(self._store, self.path / "config.yaml", self.model, written)


def keep_in_store(store: Path, *files: Path) -> None:
    """Copy a run's files to its address, the state last, and remove states that are too old.

    Raises CheckpointError.
    """
    try:
        for file in files:
            remote.write_bytes(store / file.name, file.read_bytes())
        for old in _states_in(store)[:-STATES_KEPT]:
            remote.remove(old)
    except OSError as error:
        raise CheckpointError(
            f"{remote.shown(store)}: cannot be written: {error.strerror}; the state is in "
            f"{files[-1].parent}"
        ) from None


def fetch_states(store: Path, run_dir: Path, config: Config) -> None:
    """Copy the states and models of a run from its address, where they are not here already.

    A newer state that is here alone, of a run that was killed, is copied there. Raises
    CheckpointError.
    """
    try:
        there = remote.listing(store, recursive=False)
        states = [path for path in _states_in(store) if not (run_dir / path.name).exists()]
        # A model belongs to its newest state: where there is a newer one here, so is the model.
        newer = states and states[-1].name > max((s.name for s in find_states(run_dir)), default="")
        models = [path for path in there if path.suffix == ".pth"] if newer else []
        for path in (*models, *states):
            run_dir.mkdir(parents=True, exist_ok=True)
            content = remote.read_bytes(path)
            with atomic_write(run_dir / path.name) as file:
                file.write(content)
        here, far = find_states(run_dir), _states_in(store)
        if here and here[-1].name > max((path.name for path in far), default=""):
            model = model_path(run_dir, config)
            keep_in_store(store, *filter(Path.is_file, (run_dir / "config.yaml", model)), here[-1])
    except OSError as error:
        raise CheckpointError(f"{remote.shown(store)}: {error.strerror}") from None


def _states_in(store: Path) -> list[Path]:
    names = remote.listing(store, recursive=False)
    return sorted(path for path in names if path.match("state-*.pt"))


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
        _check_same(config, state.get("config"), path)
        _check_style(config, state.get("style"), path)
        return state
    if states:
        raise CheckpointError(
            f"{run_dir}: none of its training states can be read: remove them to begin anew"
        )
    return None


def _check_same(config: Config, begun: Any, path: Path) -> None:
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


def _style_digest(style: StyleConfig) -> str | dict[str, str]:
    """Return the hash of the style image's file, or of each of several, by its path as written."""
    if style.image is not None:
        return digest(_file_of(style.image, style))
    return {str(path): digest(_file_of(path, style)) for path in style.images}


def _file_of(path: Path, style: StyleConfig) -> Path:
    return locate(path, key=style.dotted_key)


def _check_style(config: Config, begun: str | Mapping[str, str] | None, path: Path) -> None:
    """Raise ConfigError for another picture under the same name; the first states knew none."""
    for written in config.style.shares:
        style = _file_of(written, config.style)
        before = begun.get(str(written)) if isinstance(begun, Mapping) else begun
        if before and style.is_file() and digest(style) != before:
            raise ConfigError(
                f"{config.style.dotted_key}: {style} is another picture than the one with which "
                f"the run in {path.parent} was begun: change it back, give the config another "
                f"name, or remove {path.parent}"
            )
