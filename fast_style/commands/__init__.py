"""The commands: `fast-style train|stylize|...`, and the doors in scripts/."""

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from fast_style.devices import keep_freed_memory

COMMANDS = {
    "new": "from a picture and photos to a model, in one command",
    "train": "train a network for a style image",
    "stylize": "apply a trained network to photos",
    "optimize": "optimise one image: the slow baseline, by recipe",
    "evaluate": "compare a network with the baseline",
    "sweep": "try settings, and see what they do side by side",
    "models": "list the models that are shipped",
    "convert": "rewrite another project's model as one of this program",
    "check-data": "tell what a training would find in folders of photos",
}

# By name, so that a command does not import the rooms that it does not use.
_USER_MISTAKES = frozenset(
    (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "ImageError",
        "OptimizationError",
        "ProcessLostError",
        "TrainingError",
        "WeightsError",
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fast-style COMMAND ...`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in COMMANDS:
        name = arguments[0].replace("-", "_")
        module = importlib.import_module(f"fast_style.commands.{name}")
        return int(module.main(arguments[1:]))
    usage = "usage: fast-style COMMAND ...\n\ncommands:\n" + "".join(
        f"  {name:10} {what}\n" for name, what in COMMANDS.items()
    )
    if arguments in (["-h"], ["--help"]):
        print(usage + "\nfast-style COMMAND --help tells more.")
        return 0
    found = f"unknown command {arguments[0]!r}" if arguments else "a command is missing"
    print(f"fast-style: {found}\n{usage}", end="", file=sys.stderr)
    return 2


def run(command: Callable[[], int], *, keep_up_to: int | None = None) -> int:
    """Run a command's body as a program: log to stderr, one line and exit code 2 for a mistake.

    `keep_up_to` is for `devices.keep_freed_memory`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    keep_freed_memory(up_to=keep_up_to)
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads the output has gone, and Python shall not mind at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        name, text = type(error).__name__, str(error)
        if isinstance(error, OSError):
            text = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or text
        elif name == "OutOfMemoryError":
            text = f"{text.splitlines()[0]} Make the batch or the images smaller."
        elif name not in (*_USER_MISTAKES, "ToldElsewhereError") and type(error) is not ValueError:
            raise
        if name != "ToldElsewhereError":
            print(f"error: {text}", file=sys.stderr, flush=True)
        if name == "ProcessLostError":
            os._exit(2)  # what still waits for the lost process cannot be ended in good order
        return 2


def catch_signals() -> tuple[list[int], Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end a run after the current step; a second one ends it at once.

    Gives the list that the signal's number goes into, and the question whether to stop.
    """
    caught: list[int] = []

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, catch)
    signal.signal(signal.SIGTERM, catch)
    return caught, lambda: bool(caught)


def check_folder(path: Path) -> None:
    """Raise ValueError for a folder that could neither be made nor written to."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{path}: the folder {there} cannot be written to")


def check_writable(path: Path) -> None:
    """Raise ValueError for an output that could not be written: better now than after the work."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the folder {path.parent} cannot be written to")
