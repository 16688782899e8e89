"""Which image files are stylized, and into which names.

A name is a function of its input alone, never of what else is in the folder, so that a run and its
continuation agree: `a.jpg` becomes `a.wave.jpg`, and where the format changes the old extension
stays in the name: `a.gif` becomes `a.gif.wave.png`.
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fast_style.formats.decoding import EXTENSIONS, ImageError, opened
from fast_style.formats.encoding import FORMATS
from fast_style.formats.metadata import is_own_output

# In place of a path: standard input, standard output.
STREAM = Path("-")

_MAGIC = set("*?[")


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to stylize; either path may be `STREAM`."""

    input: Path
    output: Path


@dataclass(frozen=True, slots=True)
class _Found:
    """An image, and its folder's path below the argument that named it."""

    path: Path
    below: Path = Path()


def plan_jobs(
    arguments: Sequence[str],
    model: str,
    *,
    output: str | None = None,
    extension: str | None = None,
    recursive: bool = False,
) -> list[Job]:
    """Find the images that files, folders, globs or "-" name, and name their outputs.

    What this program made of an image that is found too is left out. `output` is a folder, in which
    trees are mirrored, or for a single image a file; by default an output is beside its input.
    `extension` sets the outputs' format. Raises ImageError, also for an output that is an input.
    """
    folder, file = _destination(arguments, output)
    unique: dict[Path, _Found] = {}
    for argument in arguments:
        for item in _expand(argument, recursive, folder):
            unique.setdefault(item.path.resolve(), item)
    items = _without_own_outputs(list(unique.values()), model)
    if file:
        jobs = [Job(item.path, file) for item in items]
    else:
        jobs = _apart([_named(item, model, folder, extension) for item in items], model)
    _check(jobs)
    return jobs


def _destination(arguments: Sequence[str], output: str | None) -> tuple[Path | None, Path | None]:
    """Give the output's folder, or its file, or neither."""
    if "-" in arguments and len(arguments) > 1:
        raise ImageError("- (standard input) is one image, and must be the only one")
    if output is None:
        return None, STREAM if "-" in arguments else None
    path = Path(output)
    is_folder = path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix
    single = len(arguments) == 1 and (arguments[0] == "-" or Path(arguments[0]).is_file())
    if output != "-" and is_folder:
        if "-" in arguments:
            raise ImageError(f"{output}: is a folder: name a file for standard input")
        return path, None
    if not single:
        raise ImageError(f"{output}: is one file, but there may be several images: name a folder")
    return None, path


def _expand(argument: str, recursive: bool, output: Path | None) -> list[_Found]:
    """Find the images that one argument names, sorted."""
    path = Path(argument)
    if argument == "-" or path.is_file():
        return [_Found(path)]
    if path.is_dir():
        inside = path.rglob("*") if recursive else path.iterdir()
        found = _images_below(path, inside, output)
        if not found:
            hint = "" if recursive else "; --recursive looks into its subfolders"
            raise ImageError(f"{path}: holds no images{hint}")
        return found
    fixed = list(itertools.takewhile(lambda part: not _MAGIC & set(part), path.parts))
    if len(fixed) < len(path.parts):
        root = Path(*fixed)
        found = _images_below(root, root.glob(str(path.relative_to(root))), output)
        if not found:
            raise ImageError(f"{argument}: matches no images")
        return found
    raise ImageError(f"{path}: no such image file or folder")


def _images_below(root: Path, paths: Iterable[Path], output: Path | None) -> list[_Found]:
    """Keep the visible image files, but what an earlier run wrote to a folder below the root."""
    output = output.resolve() if output else None
    if output and root.resolve() not in output.parents:
        output = None
    return [
        _Found(path, path.parent.relative_to(root))
        for path in sorted(paths)
        if path.suffix.lower() in EXTENSIONS
        and not path.name.startswith(".")
        and path.is_file()
        and (output is None or output not in path.resolve().parents)
    ]


def _without_own_outputs(items: list[_Found], model: str) -> list[_Found]:
    """Leave out what was made of another of these images: its name and its signature say so."""
    sources = {(item.path.parent, name) for item in items for name in _names(item.path)}

    def is_output(path: Path) -> bool:
        base, _, by_model = path.stem.rpartition(".")
        if (path.parent, base) not in sources:
            return False
        if path.suffix.lower() == ".bmp":
            return by_model == model
        try:
            with opened(path) as (_, image):
                return is_own_output(image)
        except ImageError:
            return False

    return [item for item in items if not is_output(item.path)]


def _names(path: Path) -> tuple[str, str]:
    return path.name, path.stem


def _named(item: _Found, model: str, folder: Path | None, extension: str | None) -> Job:
    own = item.path.suffix
    wanted = extension or own
    same = FORMATS.get(wanted.lower()) == FORMATS.get(own.lower(), "")
    base = item.path.stem if same else item.path.name
    suffix = own if same else extension or ".png"
    parent = folder / item.below if folder else item.path.parent
    return Job(item.path, parent / f"{base}.{model}{suffix}")


def _apart(jobs: list[Job], model: str) -> list[Job]:
    """Give outputs of one name the whole names of their inputs, in their own subfolders."""
    groups = defaultdict(list)
    for job in jobs:
        # There are file systems to which upper and lower case are the same.
        groups[str(job.output).casefold()].append(job)
    apart = []
    for job in jobs:
        group = groups[str(job.output).casefold()]
        if len(group) > 1:
            common = os.path.commonpath([other.input.parent.absolute() for other in group])
            below = job.input.parent.absolute().relative_to(common)
            name = f"{job.input.name}.{model}{job.output.suffix}"
            job = Job(job.input, job.output.parent / below / name)
        apart.append(job)
    return apart


def _check(jobs: Sequence[Job]) -> None:
    """Refuse to write over an input, or twice to one file."""
    inputs = {_identity(job.input): job.input for job in jobs if job.input != STREAM}
    outputs: dict[Path, Job] = {}
    for job in jobs:
        if job.output == STREAM:
            continue
        if job.output.is_dir():
            raise ImageError(f"{job.output}: is a folder, so {job.input} cannot be written there")
        if job.output.exists() and _identity(job.output) in inputs:
            raise ImageError(f"{job.output}: is an input, and inputs are never overwritten")
        other = outputs.setdefault(job.output.absolute(), job)
        if other is not job:
            raise ImageError(f"{other.input} and {job.input} would both become {job.output}")


def _identity(path: Path) -> tuple[int, int]:
    """Tell files apart whatever names and links lead to them."""
    status = path.stat()
    return status.st_dev, status.st_ino
