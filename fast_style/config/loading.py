"""The loader: YAML or plain data into a checked dataclass, and back.

Every mistake is a `ConfigError` that names the file, the dotted key, the value, and what would be
right.
"""

import dataclasses
import difflib
import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from fast_style.config.places import CONFIGS, config_names
from fast_style.config.schema import Config, ConfigError, LossConfig

T = TypeVar("T")
# What is wrong is shown, but of a long list or text not all.
_SHOWN = reprlib.Repr()
_SHOWN.maxlist = _SHOWN.maxdict = 6
_SHOWN.maxlevel = 3
_SHOWN.maxstring = _SHOWN.maxother = 200
# In a file's name: control characters, and what no text file can hold.
_UNNAMEABLE = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff]")
_RAW_WEIGHTS = frozenset(("content_weight", "style_weight"))
# Terms whose default is meant for a strength: off beside raw weights, and in files that are older.
_TERMS_OFF = {"grid_weight": 0.0, "contrast_weight": 0.0, "frame_weight": 0.0}


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file into a `Config`; overrides are "dotted.key=value" and win.

    `path` is that of a file or a name, as `find_config` takes it. Relative paths in it are relative
    to the working directory. Raises ConfigError.
    """
    path = find_config(path)
    data = load_yaml(path)
    for override in overrides:
        apply_override(data, override)
    data.setdefault("name", path.stem)
    return config_from_dict(data, source=str(path))


def find_config(config: str | Path) -> Path:
    """Find a config by path or by name: in the working directory, or one that is shipped.

    `wave`, `wave.yaml` and `configs/wave.yaml` mean the same. Raises ConfigError with the names
    that there are.
    """
    path = Path(config)
    if path.is_file():
        return path
    by_name = path.parent in (Path(), Path("configs"))
    if by_name:
        name = path.name if path.suffix in (".yaml", ".yml") else f"{path.name}.yaml"
        for folder in (path.parent, Path("configs"), CONFIGS):
            if (folder / name).is_file():
                return folder / name
    if path.exists():  # a folder, which reading it tells
        return path
    raise ConfigError(f"{path}: no such config file{_shipped_ones(path.stem) if by_name else ''}")


def _shipped_ones(asked: str) -> str:
    """Return the end of the message for a config that is not found: the names that there are."""
    names = config_names()
    near = difflib.get_close_matches(asked, names, n=1)
    cure = f"; did you mean {near[0]!r}?" if near else "."
    return f"{cure} Shipped are {', '.join(names)}; any other is named by its path"


class _TwiceError(yaml.YAMLError):
    """A key is given twice in one mapping, where YAML's own reader drops the first."""


# An impossible date is a ValueError; brackets in brackets without end are a RecursionError.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class _Loader(yaml.SafeLoader):
    """Reads plain data, and no mapping that has a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise _TwiceError(
                    f"{key.value}: is given twice, the second time in line "
                    f"{key.start_mark.line + 1}: put what both hold into one"
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping. Raises ConfigError."""
    try:
        data = _read_yaml(path.read_text(encoding="utf-8"))
    except _TwiceError as error:
        raise ConfigError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {_describe(data)}, not 'key: value' lines")
    return data


def config_from_dict(data: Mapping[str, Any], *, source: str = "config") -> Config:
    """Build a `Config` from plain data; `source` is named in errors. Raises ConfigError."""
    loss = data.get("loss")
    if isinstance(loss, Mapping):
        if not _RAW_WEIGHTS.isdisjoint(loss):
            loss = {"strength": None, **loss}
        if loss.get("strength", 1) is None:
            loss = {**_TERMS_OFF, **loss}
        data = {**data, "loss": loss}
    config = build(Config, data, source)
    is_plain = Path(config.name).name == config.name and not config.name.startswith(".")
    if not config.name or not is_plain or _UNNAMEABLE.search(config.name):
        raise ConfigError(
            f"{source}: name: {config.name!r} names the run's folder and model file, "
            "so it must be a plain file name"
        )
    check_strength(config.loss, source)
    if not config.data.train:
        raise ConfigError(f"{source}: data.train: names no folder of photos")
    return config


def config_from_stored(data: Any, *, source: str) -> Config:
    """Build a `Config` from what a state or a model file holds, whatever version wrote it.

    What a version did not know yet had another default, and a `strength` of 1 was once half of
    today's. Raises ConfigError.
    """
    if not isinstance(data, Mapping):  # in a file that is not ours
        raise ConfigError(f"{source}: is {_describe(data)}, expected 'key: value' lines")
    loss = data.get("loss") or {}
    if not isinstance(loss, Mapping):
        raise ConfigError(f"{source}: loss: is {_describe(loss)}, expected 'key: value' lines")
    loss = {**_TERMS_OFF, **loss}
    if "padding" not in loss:
        loss["padding"] = "zeros"
        loss["strength"] = loss.get("strength") and loss["strength"] / 2
    return config_from_dict({**data, "loss": loss}, source=source)


def check_strength(loss: LossConfig, source: str) -> None:
    """Raise ConfigError for weights that the strength would replace in silence."""
    default = LossConfig()
    raw = (loss.content_weight, loss.style_weight)
    if loss.strength is not None and raw != (default.content_weight, default.style_weight):
        raise ConfigError(
            f"{source}: loss.strength: takes the place of loss.content_weight and "
            "loss.style_weight: remove these, or set it to null"
        )


def build(cls: type[T], data: Any, source: str, key: str = "") -> T:
    """Build the dataclass `cls` from plain data, checking every key, type and bound."""
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{source}: {key or 'config'}: is {_describe(data)}, expected 'key: value' lines"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values = {}
    for name, value in data.items():
        dotted = f"{key}.{name}" if key else str(name)
        if name not in fields:
            near = (not key and _keys_named(cls, str(name))) or difflib.get_close_matches(
                str(name), fields, n=1
            )
            cure = f"known keys: {', '.join(fields)}"
            if near:
                cure = f"did you mean {' or '.join(repr(one) for one in near)}?"
            raise ConfigError(f"{source}: {dotted}: unknown key; {cure}")
        values[name] = _convert(value, hints[name], source, dotted)
        if bounds := fields[name].metadata.get("bounds"):
            numbers = values[name] if isinstance(values[name], tuple) else (values[name],)
            for number in (number for number in numbers if isinstance(number, int | float)):
                _check_bounds(number, bounds, f"{source}: {dotted}")
    for name, f in fields.items():
        no_default = dataclasses.MISSING
        if name not in values and f.default is no_default and f.default_factory is no_default:
            raise ConfigError(f"{source}: {f'{key}.' if key else ''}{name}: is missing")
    try:
        return cls(**values)
    except ConfigError as error:  # of values that do not go together
        raise ConfigError(f"{source}: {error}") from None


def _keys_named(cls: type, name: str) -> list[str]:
    """List the dotted keys of a config's sections that have this name."""
    hints = get_type_hints(cls)
    return [
        f"{section}.{name}"
        for section, hint in hints.items()
        if dataclasses.is_dataclass(hint) and name in (f.name for f in dataclasses.fields(hint))
    ]


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config into plain data that YAML and `torch.load(weights_only=True)` can hold."""
    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else None
        flat.update(nested or {f"{prefix}{key}": value})
    return flat


def _convert(value: Any, hint: Any, source: str, key: str) -> Any:
    """Convert plain data to a field's type; PyYAML reads 1e-4 and 1e5 as strings."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, source, key)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        if (value is None and type(None) in arguments) or value in words_of(hint):
            return value
        try:
            return _convert(value, inner, source, key)
        except ConfigError as error:
            raise ConfigError(" or ".join([str(error), *words_of(hint)])) from None
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(item, arguments[0], source, key) for item in items)
    if origin is not None and issubclass(_runtime(origin), Mapping):
        if arguments[0] is Path:
            return _convert_shares(value, source, key)
        return _convert_layers(value, source, key)
    if origin is Literal:
        for choice in arguments:
            if value == choice and type(value) is type(choice):  # 1 is not True
                return value
        known = [str(c).lower() if isinstance(c, bool) else str(c) for c in arguments]
        near = difflib.get_close_matches(str(value), known, n=1)
        hint_text = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{source}: {key}: {value!r} is not one of {', '.join(known)}{hint_text}")
    return _convert_scalar(value, hint, source, key)


def words_of(hint: Any) -> tuple[str, ...]:
    """Return the words that a field may hold beside values of its type, as in `int | "auto"`."""
    return tuple(
        word for one in get_args(hint) if get_origin(one) is Literal for word in get_args(one)
    )


def _convert_scalar(value: Any, hint: type, source: str, key: str) -> Any:
    wrong = ConfigError(f"{source}: {key}: is {_describe(value)}, expected {NOUNS[hint]}")
    if hint is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if hint in (str, Path):
        if not isinstance(value, str | Path) or (hint is Path and not str(value)):
            raise wrong
        if "\0" in str(value):
            raise ConfigError(f"{source}: {key}: {value!r}: holds a NUL character: remove it")
        return hint(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    try:
        if hint is int and isinstance(value, int):
            return value  # a float would round it
        number = float(value)
        whole = int(number)
    except (ValueError, OverflowError):  # of NaN and infinity, too
        raise wrong from None
    if hint is int and whole != number:
        raise wrong
    return whole if hint is int else number


def _convert_layers(value: Any, source: str, key: str) -> dict[str, float]:
    """Read layers as a mapping of name to weight, or as a list of names with weight 1."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | Mapping) or not all(isinstance(n, str) for n in names):
        names = ()
    if not names:
        raise ConfigError(
            f"{source}: {key}: is {_describe(value)}, expected layer names, as in [relu2_2] "
            "or {relu1_2: 1, relu2_2: 0.5}"
        )
    weights = names if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    layers = {}
    for name, weight in weights.items():
        layers[name] = _convert_scalar(weight, float, source, f"{key}.{name}")
        _check_bounds(layers[name], (0, math.inf, False), f"{source}: {key}.{name}")
    return layers


def _convert_shares(value: Any, source: str, key: str) -> dict[Path, float]:
    """Read paths as a mapping of path to share, or as a list of paths with a share of 1."""
    if not isinstance(value, list | tuple | Mapping | str | Path):
        raise ConfigError(
            f"{source}: {key}: is {_describe(value)}, expected paths, as in [a.jpg, b.jpg] or "
            "{a.jpg: 2, b.jpg: 1}"
        )
    shares: dict[Path, float] = {}
    for item in [value] if isinstance(value, str | Path) else value:
        path = _convert_scalar(item, Path, source, key)
        if path in shares:
            raise ConfigError(f"{source}: {key}: {path}: is named twice: give it a larger share")
        share = value[item] if isinstance(value, Mapping) else 1.0
        shares[path] = _convert_scalar(share, float, source, f"{key}.{path}")
        _check_bounds(shares[path], (0, math.inf, False), f"{source}: {key}.{path}")
    return shares


def _check_bounds(value: float, bounds: tuple[float, float, bool], where: str) -> None:
    minimum, maximum, above = bounds
    if value < minimum or value > maximum or (above and value == minimum):
        wanted = f"above {minimum:g}" if above else f"at least {minimum:g}"
        if maximum < math.inf:
            wanted += f" and at most {maximum:.9g}"
        raise ConfigError(f"{where}: {value!r} is impossible: it must be {wanted}")


def apply_override(data: dict[str, Any], override: str) -> None:
    """Put "dotted.key=value" into plain data. Raises ConfigError."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected key=value, as in training.steps=300")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: {parent!r} has no keys below it")
    try:
        data[last] = _read_yaml(text)
    except _TwiceError as error:
        raise ConfigError(f"--set {override}: {error}") from None
    except _NOT_YAML:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None


def plain(value: Any) -> Any:
    """Turn a value of a config into plain data."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {plain(name): plain(item) for name, item in value.items()}
    return value


def _runtime(origin: Any) -> type:
    return origin if isinstance(origin, type) else object


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    return f"{_SHOWN.repr(value)} (a {_TYPE_WORDS.get(type(value), type(value).__name__)})"


NOUNS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}
_TYPE_WORDS: dict[type, str] = {
    bool: "yes/no value",
    dict: "mapping",
    float: "number",
    int: "whole number",
    list: "list",
    str: "text",
}
