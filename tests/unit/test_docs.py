"""What the pages say of the code is there."""

import importlib
import itertools
import re
from pathlib import Path

import pytest
import yaml
from cards import page as cards_page

import fast_style
from fast_style.checkpoints.files import shipped_models
from fast_style.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "styles/README.md",
        *ROOT.glob("docs/*.md"),
    ]
)
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:fast_style|scripts|tests|configs|docs|styles|examples)/[\w./-]+)`")
COMMAND = re.compile(rf"(?:fast-style|fast_style) ({'|'.join(COMMANDS)})\b([^`\n]*)")
OPTION = re.compile(r"(?<= )(--[a-z][a-z-]*|-[a-z])(?![\w-])")
# Scans of paintings, which are not part of the repository.
NOT_THERE = {"styles/great_wave.jpg", "styles/scream.jpg", "styles/starry_night.jpg"}


@EACH_PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith(("http:", "https:", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), link


@EACH_PAGE
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in set(PATH.findall(page.read_text(encoding="utf-8"))) - NOT_THERE:
        assert (ROOT / name).exists(), name


@EACH_PAGE
def test_every_option_that_is_shown_exists(page: Path) -> None:
    for command, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
        module = importlib.import_module(f"fast_style.commands.{command.replace('-', '_')}")
        known = module.parser()._option_string_actions
        for option in OPTION.findall(rest.partition(" # ")[0]):
            assert option in known, f"{command} {option}"


def test_the_architecture_page_has_every_room_in_the_order_of_the_contract() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| `")]
    contract = (ROOT / "pyproject.toml").read_text().split("\nlayers = [")[1].split("]")[0]
    layers = re.findall(r'"(.+)"', contract)
    row_of = {
        name.removesuffix("/").removesuffix(".py"): number
        for number, line in enumerate(table)
        for name in re.findall(r"`([\w./]+)`", line.split("|")[1])
    }
    levels = [
        [row_of[room] for room in layer.split(" | ")] for layer in layers if layer != "__main__"
    ]
    assert sum(map(len, levels)) == len(row_of)
    for above, below in itertools.pairwise(levels):
        assert max(above) < min(below)


def test_every_file_of_a_walk_is_in_the_room_that_is_named() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    walks = page.split("## A key of a YAML")[1]
    named = set(re.findall(r"`(\w+/\w+\.py)`", walks))
    assert len(named) > 15
    for name in named:
        assert (ROOT / "fast_style" / name).is_file(), name


@pytest.mark.parametrize("name", fast_style.__all__)
def test_every_public_name_is_on_the_page_of_the_api(name: str) -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{name}\b", page, re.MULTILINE)


def test_every_shipped_model_has_a_card() -> None:
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    cards = re.findall(r"^## `(\w+)`$", page, re.MULTILINE)
    assert cards == [path.stem for path in shipped_models()]
    assert page == cards_page(shipped_models()), "docs/models.md is stale: make docs"


def test_the_citation_names_this_version_and_the_workflow_runs_what_every_change_must_pass() -> (
    None
):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == fast_style.__version__
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert {"run": ".ci/run"} in workflow["jobs"]["all"]["steps"]


def test_the_hooks_are_the_checks_of_the_makefile() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    check = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    commands = [line.strip().removeprefix("$(BIN)/") for line in check.splitlines()[1:]]
    entries = [hook["entry"] for hook in hooks]
    assert [command.removesuffix(" .") for command in commands] == entries
