"""The reference of the keys: docs/config.md, and `--keys`."""

import dataclasses
import re
from pathlib import Path

import pytest

from fast_style.commands import main
from fast_style.config import BaselineConfig, Config, ConfigError, flatten, to_dict
from fast_style.config.reference import entries, keys_text, page
from fast_style.config.schema import DataConfig, StyleConfig, key, number

DOCS = Path(__file__).parents[2] / "docs"
BOTH = pytest.mark.parametrize("config", [Config, BaselineConfig])
# What a heading in docs/measurements.md is named by.
QUOTED = re.compile(r'(docs/\w+\.md), "([^"]+)"')


@BOTH
def test_every_key_has_a_sentence(config: type) -> None:
    for entry in entries(config):
        assert re.fullmatch(r"[^ ].{8,}[.)]", entry.doc), entry.key


@BOTH
def test_a_source_that_is_a_page_of_ours_is_there(config: type) -> None:
    for entry in entries(config):
        for file, heading in QUOTED.findall(entry.source):
            text = (DOCS.parent / file).read_text(encoding="utf-8")
            assert re.search(rf"^#+ {re.escape(heading)}", text, re.MULTILINE), entry.key


def test_the_page_is_what_the_dataclasses_say() -> None:
    written = (DOCS / "config.md").read_text(encoding="utf-8")
    assert written == page(), "docs/config.md is stale: make docs"


def test_the_reference_has_the_keys_of_a_config_and_their_defaults() -> None:
    config = Config(
        name="x", style=StyleConfig(image=Path("x.jpg")), data=DataConfig(train=(Path("p"),))
    )
    layers = ("loss.content_layers", "loss.style_layers")
    known = {key for key in flatten(to_dict(config)) if not key.startswith(layers)}
    found = {entry.key: entry.default for entry in entries(Config)}
    assert set(found) == known | set(layers)
    assert found["data.train"] == "none"
    assert (found["style.image"], found["style.images"]) == ("null", "{}")
    assert found["loss.content_layers"] == "{relu2_2: 1.0, relu3_3: 1.0}"
    assert found["training.seed"] == "0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fruit:
    """What a fruit may be."""

    weight: float | None = number(1.0, 0, 5, above=True, doc="Grams.", source="a scale")
    sizes: tuple[int, ...] = number((), 3, doc="Sizes.")
    note: str = key(doc="A note.")


def test_a_key_says_its_type_bounds_default_meaning_and_source() -> None:
    weight, sizes, note = entries(Fruit)
    assert weight.kind == "a number above 0, up to 5 or null"
    assert (weight.default, weight.doc, weight.source) == ("1.0", "Grams.", "a scale")
    assert sizes.kind == "a whole number or a list of these, each from 3 on"
    assert sizes.default == "[]"
    assert (note.kind, note.default) == ("text", "none")


@pytest.mark.parametrize(
    ("wanted", "first", "number_of_keys"),
    [
        ("loss.strength", "loss.strength: a number above 0 or null (default: 1.0)", 1),
        ("strength", "loss.strength: ", 1),
        ("network", "network.width: ", 3),
        ("", "name: text (default: none)", len(list(entries(Config)))),
    ],
)
def test_a_section_or_a_key_is_printed_alone(wanted: str, first: str, number_of_keys: int) -> None:
    lines = keys_text(Config, wanted).splitlines()
    assert lines[0].startswith(first)
    assert sum(not line.startswith("    ") for line in lines) == number_of_keys


def test_an_unknown_key_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'loss.strength'\?"):
        keys_text(Config, "loss.strenght")


@pytest.mark.parametrize(("command", "first"), [("train", "data.train"), ("optimize", "content.")])
def test_the_commands_print_the_reference(
    command: str, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--keys", first.partition(".")[0]])
    assert not end.value.code
    assert capsys.readouterr().out.startswith(first)


def test_an_unknown_section_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--keys", "lose"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --keys: unknown key 'lose'; did you mean 'loss'?")
