"""The options that several commands have, each defined once, and the parser that holds them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fast_style.commands import TRACEBACK_VARIABLE, program
from fast_style.errors import UserError

if TYPE_CHECKING:  # stylizing needs no config, and starts sooner without
    from fast_style.config import Config


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, as every other error is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists the options\n")


def command_parser(command: str, description: str | None, *, examples: Sequence[str]) -> Parser:
    """Return a command's parser: named as it was called, with examples of its arguments."""
    name = program(command)
    lines = "".join(f"  {name} {example}".rstrip() + "\n" for example in examples)
    parser = Parser(
        prog=name,
        description=description,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="print the traceback of every error, as with the environment variable "
        f"{TRACEBACK_VARIABLE}=1 (default: of bugs only)",
    )
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config, which a style's commands need."""
    parser.add_argument(
        "--config",
        required=True,
        type=Path,
        metavar="YAML",
        help="the style's config: a shipped one's name, as wave, or a YAML file",
    )


def add_set(parser: argparse.ArgumentParser, *, of: str, example: str) -> None:
    """Add --set, which overrides keys of a config or a recipe."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override one key of the {of}, as in {example}; may be repeated "
        f"(default: the {of}'s own values)",
    )


def add_keys(parser: argparse.ArgumentParser, *, recipe: bool = False) -> None:
    """Add --keys, which prints the reference of a config's keys, or of a `recipe`'s."""
    parser.add_argument(
        "--keys",
        nargs="?",
        action=_RecipeKeys if recipe else _ConfigKeys,
        metavar="SECTION",
        help="print what a key or a section may say, as in loss or loss.strength, and exit "
        "(default: all of them)",
    )


class _ConfigKeys(argparse.Action):
    recipe = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        from fast_style.config import BaselineConfig, Config
        from fast_style.config.reference import keys_text

        described = BaselineConfig if self.recipe else Config
        try:
            print(keys_text(described, str(values or "")))
        except UserError as error:
            parser.error(f"--keys: {error}")
        parser.exit()


class _RecipeKeys(_ConfigKeys):
    recipe = True


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        default="auto",
        help="device to compute on: auto (a GPU where there is one), cpu, cuda, cuda:N or mps "
        "(default: auto)",
    )


def add_log_dir(parser: argparse.ArgumentParser) -> None:
    """Add --log-dir."""
    parser.add_argument(
        "--log-dir",
        type=Path,
        metavar="DIR",
        help="write a log for TensorBoard into this folder (default: none)",
    )


def check_paths(file: Path, config: "Config") -> None:
    """Raise UserError for a path that exists beside the config, but not in the working directory.

    Relative paths begin in the working directory, not in the folder of the YAML.
    """
    here = Path.cwd()
    paths = [(config.style.dotted_key, path) for path in config.style.shares]
    paths += [("loss.weights", path) for path in (config.loss.weights,) if path]
    paths += [("data.train", path) for path in config.data.train]
    paths += [("data.validation", path) for path in config.data.validation]
    for key, path in paths:
        if path.exists():
            continue
        relative = path.relative_to(here) if path.is_relative_to(here) else path
        beside = file.parent / relative
        if not relative.is_absolute() and beside.exists():
            raise UserError(
                f"{file}: {key}: {relative}: is not in {here}, where relative paths begin, but "
                f"beside the config: write {beside}, or start in {file.parent}"
            )


def count(text: str) -> int:
    """Read a whole number from 1 on, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def pixels(text: str) -> int:
    """Read a size in pixels, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels, from 1 on")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    """Read whole numbers with commas between them, for argparse."""
    return tuple(count(number) for number in text.split(","))
