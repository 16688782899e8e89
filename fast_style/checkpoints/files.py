"""The two files of a run: the model, which is shipped, and the training state, which resumes.

Both are plain data that `torch.load(weights_only=True)` reads: no pickled code, ever. The formats
are described in docs/checkpoints.md.
"""

import atexit
import contextlib
import difflib
import io
import re
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch

from fast_style.checkpoints.importing import SUPPORTED, find_state_dict, import_network
from fast_style.checkpoints.recognition import pickled, unreadable, what_it_is
from fast_style.checkpoints.safe_weights import is_safetensors, read_safetensors
from fast_style.errors import UserError
from fast_style.files import atomic_write
from fast_style.networks.building import DEFAULT_KIND, KINDS, build_network
from fast_style.networks.transformer import TransformerNet
from fast_style.remote import is_remote, listing, read_bytes, shown
from fast_style.version import __version__

MODEL_FORMAT = "fast-style/1"
STATE_FORMAT = "fast-style-state/1"
# The newest may be damaged by the disk; the one before it is still there.
STATES_KEPT = 2
# The models that travel with the package.
SHIPPED = Path(__file__).parents[1] / "models"
# What a NumPy number is rebuilt with, in files of NumPy 1 and 2: other projects keep a loss so.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]


class CheckpointError(UserError):
    """A model or state file cannot be read, written, or is not one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What a model file holds: the network, and the metadata of how it came to be."""

    network: TransformerNet
    metadata: dict[str, Any] = field(default_factory=dict)


def save_model(
    path: str | Path,
    network: TransformerNet,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a model file that rebuilds its own network; float16 halves it. Raises CheckpointError.

    `metadata` is plain data; the version that writes is added to it.
    """
    return _save(Path(path), model_data(network, metadata=metadata, dtype=dtype))


def model_data(
    network: TransformerNet,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Return what a model file holds: see `save_model`."""
    weights = {key: value.detach().cpu().to(dtype) for key, value in network.state_dict().items()}
    return {
        "format": MODEL_FORMAT,
        "network": network.spec(),
        "weights": {key: value.contiguous() for key, value in weights.items()},
        "metadata": {"version": __version__, **(metadata or {})},
    }


def load_model(source: str | Path | bytes | BinaryIO) -> Model:
    """Read a model file; the network is float32, on the CPU, in evaluation mode.

    `source` is a path, a name (see `find_model`), or a file's bytes, also as a binary stream, which
    is read to its end. Other projects' checkpoints are converted; the metadata's `imported_from`
    names the project. Raises CheckpointError.
    """
    path, data = _opened(source)
    model = _read_model(path, data) if data.get("format") == MODEL_FORMAT else _import(path, data)
    if not all(torch.isfinite(value).all() for value in model.network.state_dict().values()):
        raise CheckpointError(
            f"{path}: holds weights that are NaN or infinite: train it again, or name another model"
        )
    model.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return model


def _opened(source: str | Path | bytes | BinaryIO) -> tuple[Path, dict[str, Any]]:
    """Return what a model file holds, and the path by which messages name the file."""
    if isinstance(source, str | Path):
        path = Path(source)
        if "://" in str(source) or (path.parent == Path() and not path.exists()):
            path = find_model(source)
        return path, _load(path)
    # What is handed over in memory has no name.
    path = Path("model")
    content = source if isinstance(source, bytes) else source.read()
    if not isinstance(content, bytes):
        raise CheckpointError("the model's stream holds text: open its file with mode 'rb'")
    return path, _load(path, io.BytesIO(content))


def _read_model(path: Path, data: Mapping[str, Any]) -> Model:
    try:
        spec = dict(data["network"])
        if (kind := spec.get("kind", DEFAULT_KIND)) not in KINDS:
            raise CheckpointError(
                f"{path}: holds a network of kind {kind!r}; this version knows "
                f"{', '.join(KINDS)}: update fast-style"
            )
        if spec.get("num_residual_blocks", 0) > len(data["weights"]):
            raise ValueError("fewer weights than residual blocks")
        with torch.device("meta"):  # a damaged width costs no memory, nothing is drawn at random
            network = build_network(spec)
        weights = {key: _plain(value).float() for key, value in data["weights"].items()}
        network.load_state_dict(weights, assign=True)
        metadata = dict(data["metadata"])
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise CheckpointError(f"{path}: a damaged {MODEL_FORMAT} file: {reason}") from None
    return Model(network=network, metadata=metadata)


def _plain(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight that holds real numbers, each in its place. Raises ValueError."""
    if weight.layout is not torch.strided or weight.is_quantized or weight.is_complex():
        raise ValueError(f"a weight is {weight.layout} {weight.dtype}, not plain numbers")
    return weight


def _import(path: Path, data: Mapping[str, Any]) -> Model:
    try:
        imported = import_network(data)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if imported is None:
        raise CheckpointError(f"{path}: {_what_is_wrong(data)}")
    network, project = imported
    return Model(network=network, metadata={"imported_from": project})


def stored_dtype(network: TransformerNet) -> torch.dtype:
    """Return what its file holds the weights as: one of half precision loses nothing by halving."""
    weights = network.state_dict().values()
    halved = all(torch.equal(weight.half().float(), weight) for weight in weights)
    return torch.float16 if halved else torch.float32


def find_model(model: str | Path) -> Path:
    """Find a model by path or by name: a run's, one in `checkpoints`, or one that is shipped.

    `wave` and `wave.pth` mean the same, and a run's folder means the model in it. Raises
    CheckpointError with the places tried, and the names that there are.
    """
    path = Path(model)
    if is_remote(model):
        return _fetched(path)
    with contextlib.suppress(RuntimeError):  # of a user who is not there
        path = path.expanduser()
    if path.is_file():
        return path
    if path.is_dir() and (inside := _model_in(path)):
        return inside
    tried = [path]
    if path.parent == Path():
        name = path.name.removesuffix(".pth")
        shipped = SHIPPED / f"{name}.pth"
        for candidate in (
            Path("checkpoints", name, f"{name}.pth"),
            Path("checkpoints", f"{name}.pth"),
            shipped,
        ):
            if candidate.is_file():
                return candidate
            tried.append(candidate)
    raise CheckpointError(_no_model(str(model), tried))


def _fetched(address: Path) -> Path:
    """Copy a model, or the one in a run's folder, from a store into a folder of this process."""
    try:
        if not address.suffix:
            models = [path for path in listing(address, recursive=False) if path.suffix == ".pth"]
            named = [path for path in models if path.stem == address.name] or models
            if len(named) != 1:
                raise CheckpointError(f"{shown(address)}: holds {len(named)} models: name one")
            address = named[0]
        content = read_bytes(address)
    except OSError as error:
        raise CheckpointError(f"{shown(address)}: {error.strerror}") from None
    folder = Path(tempfile.mkdtemp(prefix="fast-style-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / address.name
    copy.write_bytes(content)
    return copy


def _model_in(folder: Path) -> Path | None:
    """Return a run's model: the one with the folder's name, or the only one that is there."""
    own = folder / f"{folder.resolve().name}.pth"
    models = [own] if own.is_file() else sorted(folder.glob("*.pth"))
    return models[0] if len(models) == 1 else None


def _no_model(model: str, tried: Sequence[Path]) -> str:
    """Return the message for a model that is not found."""
    if "://" in model:
        return f"no model {model!r}: it is an address: download the file, and name that"
    names = [path.stem for path in shipped_models()]
    runs = [path.stem for path in Path("checkpoints").glob("*/*.pth")]
    asked = Path(model).name.removesuffix(".pth")
    near = difflib.get_close_matches(asked, [*names, *runs], n=1)
    cure = f"; did you mean {near[0]!r}?" if near else "."
    return (
        f"no model {model!r}{cure} Shipped are {', '.join(names) or 'none'}; tried "
        f"{', '.join(map(str, tried))}. Train one with fast-style train, or name a .pth file"
    )


def shipped_models() -> list[Path]:
    """List the models that travel with the package, by name."""
    return sorted(SHIPPED.glob("*.pth"))


def save_state(run_dir: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write `state-<step>.pt`, then remove all but the newest two. Raises CheckpointError."""
    path = _save(run_dir / f"state-{step:08d}.pt", {"format": STATE_FORMAT, "step": step, **state})
    for old in find_states(run_dir)[:-STATES_KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state. Raises CheckpointError."""
    data = _load(path)
    if data.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path}: not a training state of this program ({STATE_FORMAT})")
    return data


def find_states(run_dir: Path) -> list[Path]:
    """List a run's training states, the oldest first."""
    return sorted(run_dir.glob("state-*.pt"))


def _save(path: Path, data: Mapping[str, Any]) -> Path:
    try:
        with atomic_write(path) as file:
            torch.save(dict(data), file)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into the latter
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be written: {reason}; what was there before is untouched"
        ) from None
    return path


def _load(path: Path, stream: BinaryIO | None = None) -> dict[str, Any]:
    """Read plain data from `stream`, or else from the file at `path`."""
    try:
        # A stream has no name by which to tell more.
        if stream is None and (reason := what_it_is(path)):
            raise CheckpointError(f"{path}: {reason}")
        if is_safetensors(stream or path):
            return read_safetensors(stream or path)
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            data = torch.load(stream or path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        refused = "refused: damaged, or holds pickled code rather than plain weights"
        if found:
            refused = pickled(found[1])
        raise CheckpointError(f"{path}: {_other_kind(path) or refused}") from None
    except Exception as error:  # torch's reader raises nearly anything on damaged files
        raise CheckpointError(f"{path}: {_other_kind(path) or unreadable(error)}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds a {type(data).__name__}, not a model")
    return data


def _other_kind(path: Path) -> str | None:
    """Return what a file is that was named by mistake, where its extension shows that."""
    from fast_style.images.table import EXTENSIONS

    extension = path.suffix.lower()
    if extension in (".yaml", ".yml"):
        return f"is a config, not a model: fast-style train --config {path} makes its model"
    return "is an image, not a model (a .pth file)" if extension in EXTENSIONS else None


def _what_is_wrong(data: Mapping[str, Any]) -> str:
    found = data.get("format")
    if found == STATE_FORMAT:
        return "is a training state, for resuming; the model is the .pth file beside it"
    if isinstance(found, str) and found.startswith("fast-style/"):
        return f"is a {found} file; this version reads {MODEL_FORMAT}: update fast-style"
    keys = ", ".join(str(key) for key in list(data)[:4])
    weights = find_state_dict(data)
    shapes = ", ".join(f"{key} {tuple(weights[key].shape)}" for key in list(weights)[:2])
    return (
        f"not a {MODEL_FORMAT} model: found {len(data)} keys ({keys} ...) and "
        f"{len(weights)} tensors ({shapes} ...); of other projects it can be one of {SUPPORTED}"
    )
