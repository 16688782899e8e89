"""The reference of every key, made from the dataclasses: docs/config.md, and --keys.

`python -m fast_style.config.reference docs/config.md` writes the page again.
"""

import difflib
import inspect
import math
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from fast_style.config.loading import NOUNS, plain, words_of
from fast_style.config.recipes import BaselineConfig
from fast_style.config.schema import Config, ConfigError

_PAGE = """# Every key

What a style's YAML and a recipe of the baseline may say. A key whose default is *none* must be
given, but for `name`. Where no source is named, the default is a choice of this program that
nothing was measured for. Unknown keys, wrong types and values out of bounds are refused, with the
key and the cure. Layers are named `relu3_3` or `block3_conv3`.

`fast-style train --keys loss` and `fast-style optimize --keys loss` print the same. This page is
made of the dataclasses in `fast_style/config`, by `make docs`.

"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The entry of one key: dotted name, possible values, default, meaning, source."""

    key: str
    kind: str
    default: str
    doc: str
    source: str


def entries(cls: type, prefix: str = "") -> Iterator[Entry]:
    """List the keys of a config's dataclass and of its sections, in order."""
    hints = get_type_hints(cls)
    for one in fields(cls):
        dotted, hint = f"{prefix}{one.name}", hints[one.name]
        if is_dataclass(hint):
            yield from entries(hint, f"{dotted}.")  # type: ignore[arg-type]
            continue
        none = type(None) in get_args(hint)
        kind = _kind(hint) + _bounds(one.metadata.get("bounds"), several=_is_list(hint))
        yield Entry(
            key=dotted,
            kind=" or ".join([kind, *words_of(hint), *(["null"] if none else [])]),
            default=_default(one),
            doc=one.metadata.get("doc", ""),
            source=one.metadata.get("source", ""),
        )


def keys_text(cls: type, wanted: str = "") -> str:
    """Return the reference of a section or a key, or of all keys, for a terminal.

    Raises ConfigError for a key that is not there.
    """
    known = list(entries(cls))
    chosen = [
        entry for entry in known if not wanted or f"{entry.key}.".startswith(f"{wanted}.")
    ] or [entry for entry in known if entry.key.endswith(f".{wanted}")]
    if not chosen:
        sections = dict.fromkeys(entry.key.partition(".")[0] for entry in known)
        names = [*sections, *(entry.key for entry in known)]
        near = difflib.get_close_matches(wanted, names, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"the sections are {', '.join(sections)}"
        raise ConfigError(f"unknown key {wanted!r}; {cure}")
    lines = []
    for entry in chosen:
        lines.append(f"{entry.key}: {entry.kind} (default: {entry.default})")
        lines += textwrap.wrap(entry.doc, 92, initial_indent="    ", subsequent_indent="    ")
        if entry.source:
            source = f"From: {entry.source}"
            lines += textwrap.wrap(source, 92, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def page() -> str:
    """Return docs/config.md."""
    parts = [
        *_chapter("A style's config", Config),
        *_chapter("A recipe of the baseline", BaselineConfig),
    ]
    return _PAGE + "\n".join(parts)


def _chapter(title: str, cls: type) -> Iterator[str]:
    yield from (f"## {title}", "", *_table(e for e in entries(cls) if "." not in e.key))
    for section, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            text = " ".join((inspect.getdoc(hint) or "").split())
            yield from (f"### `{section}`: {title[0].lower()}{title[1:]}", "", text, "")
            yield from _table(entries(hint, f"{section}."))  # type: ignore[arg-type]


def _table(rows: Iterator[Entry]) -> Iterator[str]:
    yield from ("| key | what it may be | default | meaning |", "|---|---|---|---|")
    for row in rows:
        meaning = f"{row.doc} *From: {row.source}.*" if row.source else row.doc
        default = "*none*" if row.default == "none" else f"`{row.default}`"
        cells = (f"`{row.key}`", row.kind, default, meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _kind(hint: Any) -> str:
    """Return in words the values that a field's type allows, but for null."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _kind(next(one for one in arguments if one is not type(None)))
    if origin is Literal:
        words = [str(one).lower() if isinstance(one, bool) else str(one) for one in arguments]
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if _is_list(hint):
        return f"{NOUNS[arguments[0]]} or a list of these"
    if origin is not None and issubclass(origin, Mapping) and arguments[0] is Path:
        return "a list of paths, or a mapping of them to shares from 0 on"
    if origin is not None and issubclass(origin, Mapping):
        return "layer names, or a mapping of them to weights from 0 on"
    return NOUNS[hint]


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _bounds(bounds: tuple[float, float, bool] | None, *, several: bool) -> str:
    if bounds is None:
        return ""
    minimum, maximum, above = bounds
    if maximum == math.inf:
        words = f"above {minimum:g}" if above else f"from {minimum:g} on"
    else:
        top = "2^63 - 1" if maximum == 2**63 - 1 else f"{maximum:.9g}"
        words = f"above {minimum:g}, up to {top}" if above else f"from {minimum:g} to {top}"
    return f", each {words}" if several else f" {words}"


def _default(one: "Field[Any]") -> str:
    """Return a default as a YAML has it, in one line."""
    if one.default_factory is not MISSING:
        value = plain(one.default_factory())
    elif one.default is not MISSING:
        value = plain(one.default)
    else:
        return "none"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page into the file that is named."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    Path(path).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
