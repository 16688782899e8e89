"""The commands: `fast-style train|stylize|...`, and the doors in scripts/."""

import contextlib
import difflib
import importlib
import io
import logging
import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from fast_style.errors import ProcessLostError, ToldElsewhereError, UserError
from fast_style.images.codec_lines import kept_apart
from fast_style.memory import is_memory_error, keep_freed_memory
from fast_style.remote import is_remote, shown
from fast_style.version import __version__

COMMANDS = {
    "new": "from a picture and photos to a model, in one command",
    "train": "train a network for a style image",
    "stylize": "apply a trained network to photos",
    "live": "stylize a camera live, in a window",
    "optimize": "optimise one image by a recipe: the slow baseline",
    "evaluate": "compare a network with the baseline",
    "sweep": "try settings of a config side by side",
    "models": "list the shipped models, or describe one",
    "distill": "teach a faster network what a trained one does",
    "convert": "rewrite another project's model as one of this program",
    "export": "write a model for other programs: ONNX, .pt2, safetensors",
    "serve": "show the page, and stylize photos over HTTP",
    "check-data": "check folders of photos before a training",
}

# How OpenMP's threads wait for each other, of which PyTorch's own default is to spin: a core of
# theirs that another program has holds up all of them. Asleep, they slow down in proportion.
_WAITING = ("OMP_WAIT_POLICY", "PASSIVE")
# Set to anything but 0, this variable does what --traceback does.
TRACEBACK_VARIABLE = "FAST_STYLE_TRACEBACK"
# EX_SOFTWARE of sysexits.h: an internal error.
_BUG = 70


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fast-style COMMAND ...`: every program passes here, the doors in scripts/ too."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "torch" not in sys.modules:  # which reads it once; a library's caller has chosen already
        os.environ.setdefault(*_WAITING)
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(f"fast_style.commands.{_module(arguments)}")
        return int(module.main(arguments[1:]))
    typed = program()
    usage = f"usage: {typed} COMMAND ...\n\ncommands:\n" + "".join(
        f"  {name:10}  {what}\n" for name, what in COMMANDS.items()
    )
    if arguments in (["-h"], ["--help"]):
        print(f"{usage}\n{typed} COMMAND --help explains it; {typed} --version prints the version.")
        return 0
    if arguments in (["-V"], ["--version"]):
        print(f"fast-style {__version__}")
        return 0
    if not arguments:
        print(f"{usage}error: a command is missing", file=sys.stderr)
        return 2
    near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
    cure = f"did you mean {near[0]!r}? " if near else ""
    print(
        f"error: unknown command {arguments[0]!r}: {cure}the commands are {', '.join(COMMANDS)}",
        file=sys.stderr,
    )
    return 2


def _module(arguments: Sequence[str]) -> str:
    """Return the name of a command's module."""
    # An exported model runs without torch, which takes longer to import than a photo to stylize.
    exported = any(argument.lower().endswith(".onnx") for argument in arguments[1:])
    if arguments[0] == "stylize" and exported:
        return "stylize_exported"
    return arguments[0].replace("-", "_")


def program(command: str = "") -> str:
    """Return how this program was called, with the command: what begins a line that works again.

    A script in scripts/ is a command by itself, and knows those beside it.
    """
    called = Path(sys.argv[0])
    script = called.with_name(f"{command.replace('-', '_')}.py")
    if called == script or (called.stem.replace("_", "-") in COMMANDS and script.is_file()):
        return str(script)
    as_module = called.name == "__main__.py" and called.parent.name == "fast_style"
    name = "python -m fast_style" if as_module else "fast-style"
    return f"{name} {command}".rstrip()


def run(
    command: Callable[[], int],
    *,
    options: Namespace | None = None,
    keep_up_to: int | None = None,
    less_memory: str = "make the batch or the images smaller",
) -> int:
    """Run a command's body as a program: log to stderr, and print an error for who must mend it.

    A user's mistake, or what the operating system refuses, is one line and exit code 2; anything
    else is a bug of this program: its traceback, a line that calls it a bug, and exit code 70. The
    parsed `options` hold whether all tracebacks are wanted. `keep_up_to` is for
    `memory.keep_freed_memory`; `less_memory` is what this command's user can do where there is too
    little.
    """
    with kept_apart():
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        keep_freed_memory(up_to=keep_up_to)
        _let_any_name_be_printed()
        return _guarded(command, options, less_memory=less_memory)


def _guarded(command: Callable[[], int], options: Namespace | None, *, less_memory: str) -> int:
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
    except ToldElsewhereError:
        return 2
    except Exception as error:
        wanted = os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0")
        with_traceback = wanted or getattr(options, "traceback", False)
        return _report(error, with_traceback=with_traceback, less_memory=less_memory)


def _let_any_name_be_printed() -> None:
    """Have what the output's encoding lacks written as an escape: on Windows that is much."""
    if sys.platform == "win32" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _report(error: Exception, *, with_traceback: bool, less_memory: str) -> int:
    """Print an error, and return the exit code."""
    text = _as_mistake(error, less_memory=less_memory)
    if text is None or with_traceback:
        traceback.print_exception(error)
    if text is None:
        print(
            f"error: this is a bug in fast-style {__version__}: please report it, with the "
            "traceback above and the command",
            file=sys.stderr,
            flush=True,
        )
        return _BUG
    print(f"error: {text}", file=sys.stderr, flush=True)
    if isinstance(error, ProcessLostError):
        os._exit(2)  # what still waits for the lost process cannot be ended in good order
    return 2


def _as_mistake(error: Exception, *, less_memory: str) -> str | None:
    """Return one line for an error that is not this program's own, None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return refused(error)
    if is_memory_error(error):
        what = (str(error).splitlines() or ["Out of memory"])[0].rstrip(".")
        return f"{what}. {less_memory[0].upper()}{less_memory[1:]}."
    return None


def refused(error: OSError) -> str:
    """Return one line for what the operating system refuses."""
    return ": ".join(str(p) for p in (error.filename, error.strerror) if p) or str(error)


def exit_code(*, unreadable: int) -> int:
    """Return 1 where photos had to be left out, which a line says, and 0 otherwise."""
    if unreadable:
        what = "1 photo" if unreadable == 1 else f"{unreadable:,} photos"
        verb = "was" if unreadable == 1 else "were"
        print(f"{what} could not be read and {verb} left out", file=sys.stderr, flush=True)
    return 1 if unreadable else 0


def catch_signals() -> tuple[list[int], Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end a run after the current step; a second one ends it at once.

    Return the list that the signal's number goes into, and the function that `should_stop` wants.
    """
    caught: list[int] = []

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, catch)
    signal.signal(signal.SIGTERM, catch)
    if sys.platform == "win32":  # which has no other way to end a program in good order
        signal.signal(signal.SIGBREAK, catch)
    return caught, lambda: bool(caught)


def check_folder(path: Path) -> None:
    """Raise UserError for a folder that could neither be made nor written to."""
    _check_is_here(path)
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"{path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"{path}: the folder {there} cannot be written to")


def _check_is_here(path: Path) -> None:
    """Raise UserError for an address, which would become a folder of that name here."""
    if is_remote(path):
        raise UserError(f"{shown(path)}: is an address: name a place on this machine")


def check_writable(path: Path, *, makes_folder: bool = False) -> None:
    """Raise UserError for an output that could not be written: better now than after the work.

    `makes_folder` is for a command that makes the output's folder where there is none.
    """
    _check_is_here(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    if makes_folder:
        check_folder(path.parent)
        return
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: the folder {path.parent} cannot be written to")
