"""Which image files are stylized, and into which names.

A name is made of its input's: `a.jpg` becomes `a.wave.jpg`, and where the format changes the old
extension stays in the name: `a.gif` becomes `a.gif.wave.png`. Only inputs of one run whose outputs
would then have the same name matter to each other: these outputs get the whole names of their
inputs, in the subfolders in which these are below the folder that holds them all. So a run and its
continuation agree while the images are the same.
"""

import contextlib
import errno
import functools
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fast_style.images import table
from fast_style.images.decoding import ImageError, opened
from fast_style.images.metadata import is_own_output

# In place of a path: standard input, standard output.
STREAM = Path("-")

_MAGIC = set("*?[")


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to stylize; input and output may be `STREAM`. `mask` says where, if anywhere."""

    input: Path
    output: Path
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An image, its folder's path below its argument, and whether that names the image itself."""

    path: Path
    below: Path = Path()
    named: bool = False


def plan_jobs(
    arguments: Sequence[str],
    model: str,
    *,
    output: str | None = None,
    extension: str | None = None,
    recursive: bool = False,
    overwrite: bool = False,
) -> tuple[list[Job], list[OSError]]:
    """Find the images that files, folders, globs or "-" name, and name their outputs.

    Left out are files that this program made of another image that is found and, unless
    `overwrite`, files that lie where an output of the run belongs. `output` is a folder, in which
    trees are mirrored, or for a single image a file; by default an output is beside its input.
    `extension` sets the outputs' format. The errors that are returned are those of files in folders
    and globs. Raises ImageError, also for an output that is an input, and OSError for an argument.
    """
    folder, file = _destination(arguments, output)
    items, errors = found_images(arguments, [model], recursive, folder)
    jobs = named_jobs(items, model, folder, file, extension)
    if not overwrite:
        outputs = {job.output.absolute() for job in jobs}
        kept = [item for item in items if not _is_one_of(outputs, item)]
        jobs = named_jobs(kept, model, folder, file, extension)
    return _checked(jobs, errors), errors


def find_inputs(
    arguments: Sequence[str], models: Sequence[str], output: Path, *, recursive: bool = False
) -> tuple[list[Path], list[OSError]]:
    """Find the images that go into one file, without what the models made of them.

    That file is left out too, unless it is named. Errors are as those of `plan_jobs`.
    """
    items, errors = found_images(arguments, models, recursive, output)
    return [item.path for item in items], errors


def count_left_out(
    arguments: Sequence[str], *, output: str | Path | None = None, recursive: bool = False
) -> Counter[str]:
    """Count the visible files that folders and globs hold beside images, by their extensions.

    What lies in the output's folder is not counted, nor what a glob names by another extension.
    """
    counted: Counter[str] = Counter()
    known = table.photo_extensions()
    is_output = None if output is None else inside(Path(output))
    for argument in arguments:
        path = Path(argument)
        if argument == "-" or path.is_file():
            continue
        files = _files_in(path, recursive, []) if path.is_dir() else _matches(path)[1]
        for file in files or ():
            extension = file.suffix.lower()
            if extension in known or file.name.startswith(".") or not _is_file(file, []):
                continue
            if is_output is None or not is_output(file):
                counted[extension] += 1
    return counted


def _destination(arguments: Sequence[str], output: str | None) -> tuple[Path | None, Path | None]:
    """Return the outputs' folder or the output's file: (folder, None), (None, file) or neither."""
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


def found_images(
    arguments: Sequence[str], models: Sequence[str], recursive: bool, output: Path | None
) -> tuple[list[Found], list[OSError]]:
    """Find each image once, and no outputs."""
    unique: dict[Path, Found] = {}
    errors: list[OSError] = []
    for argument in arguments:
        for item in _expand(argument, recursive, output, errors):
            first = unique.setdefault(item.path.resolve(), item)
            if item.named:
                unique[item.path.resolve()] = replace(first, named=True)
    return _without_own_outputs(list(unique.values()), models), errors


def _expand(
    argument: str, recursive: bool, output: Path | None, errors: list[OSError]
) -> list[Found]:
    """Find the images that one argument names, sorted; add the errors of what is inside it."""
    path = Path(argument)
    if argument == "-" or path.is_file():
        return [Found(path, named=True)]
    failed: list[OSError] = []
    if path.is_dir():
        root, paths = path, _files_in(path, recursive, failed)
        hint = "" if recursive else "; --recursive looks into its subfolders"
        nothing = f"{path}: holds no images{hint}"
    else:
        root, matched = _matches(path)
        if matched is None:
            raise ImageError(f"{path}: no such image file or folder")
        paths = iter(matched)
        nothing = f"{argument}: matches no images"
    found = _images_below(root, paths, output, failed)
    if not found:
        raise failed[0] if failed else ImageError(nothing)
    errors += failed
    return found


def _matches(path: Path) -> tuple[Path, list[Path] | None]:
    """Return a glob's folder and what it matches; None for a path without any magic in it.

    A part that is there as it is written, as `holiday [2019]`, is no pattern.
    """
    root, parts = Path(path.anchor), list(path.parts[len(Path(path.anchor).parts) :])
    while parts and (not _MAGIC & set(parts[0]) or _status(root / parts[0]) is not None):
        root /= parts.pop(0)
    if not parts:
        return root, None
    found = list(root.glob(str(Path(*parts))))
    if not found:
        found = list(root.glob(str(Path(*parts)).replace("[", "[[]")))
    return root, found


def _files_in(folder: Path, recursive: bool, failed: list[OSError]) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=failed.append):
        yield from (Path(parent, name) for name in names)
        if not recursive:
            return


def _images_below(
    root: Path, paths: Iterable[Path], output: Path | None, failed: list[OSError]
) -> list[Found]:
    """Keep the visible image files, but an output below the root, or what is in its folder."""
    below = output is not None and inside(root)(output)
    in_folder = inside(output or root)

    def is_output(path: Path) -> bool:
        return in_folder(path) or (output is not None and _is_at(path, output))

    known = table.photo_extensions()
    return [
        Found(path, path.parent.relative_to(root))
        for path in sorted(paths)
        if path.suffix.lower() in known
        and not path.name.startswith(".")
        and _is_file(path, failed)
        and not (below and is_output(path))
    ]


def _is_file(path: Path, failed: list[OSError]) -> bool:
    try:
        status = _status(path)
    except OSError as error:
        failed.append(error)
        return False
    return status is not None and stat.S_ISREG(status.st_mode)


def _without_own_outputs(items: list[Found], models: Sequence[str]) -> list[Found]:
    """Leave out outputs of others of these images, known by their names and signatures."""
    sources = {(item.path.parent, name) for item in items for name in _names(item.path)}

    def is_output(path: Path) -> bool:
        stem = path.stem
        bases = [stem.removesuffix(f".{m}") for m in models if stem.endswith(f".{m}")]
        row = table.by_extension(path.suffix)
        signed = row is None or not row.written or "EXIF" in row.metadata
        if signed and not bases:
            # By another model, whose name may hold dots too.
            bases = [stem[:place] for place, letter in enumerate(stem) if letter == "."]
        if not any((path.parent, base) in sources for base in bases):
            return False
        if not signed:
            return True
        try:
            with opened(path) as (_, image):
                return is_own_output(image)
        except ImageError:
            return False

    return [item for item in items if not is_output(item.path)]


def _is_one_of(outputs: set[Path], item: Found) -> bool:
    """Return whether a file that is found, not named, is where an output of the run belongs."""
    # A link may lead to a photo that is found nowhere else.
    return item.path.absolute() in outputs and not (item.named or item.path.is_symlink())


def _names(path: Path) -> tuple[str, str]:
    return path.name, path.stem


def named_jobs(
    items: Sequence[Found],
    model: str,
    folder: Path | None,
    file: Path | None,
    extension: str | None,
) -> list[Job]:
    """Name the images' outputs: in a folder, as a file, or beside them; no file is looked at."""
    if file:
        return [Job(item.path, file) for item in items]
    return _apart([_named(item, model, folder, extension) for item in items], model)


def _named(item: Found, model: str, folder: Path | None, extension: str | None) -> Job:
    own = item.path.suffix
    wanted = extension or own
    row = table.by_extension(own)
    same = row is not None and row.written and row is table.by_extension(wanted)
    base = item.path.stem if same else item.path.name
    suffix = own if same else extension or ".png"
    parent = folder / item.below if folder else item.path.parent
    return Job(item.path, parent / f"{base}.{model}{suffix}")


def _apart(jobs: list[Job], model: str) -> list[Job]:
    """Rename outputs of one name: by their inputs' whole names, in these inputs' subfolders."""
    groups = defaultdict(list)
    for job in jobs:
        # There are file systems to which upper and lower case are the same.
        groups[str(job.output).casefold()].append(job)
    apart = []
    for job in jobs:
        group = groups[str(job.output).casefold()]
        if len(group) > 1:
            below = _below_all(job.input.parent, [other.input.parent for other in group])
            name = f"{job.input.name}.{model}{job.output.suffix}"
            job = Job(job.input, job.output.parent / below / name)
        apart.append(job)
    return apart


def _below_all(folder: Path, folders: Sequence[Path]) -> Path:
    """Return a folder's path below the one that holds all `folders`, of which it is one.

    Of folders on several of Windows' drives it is the drive's letter and the whole path.
    """
    absolute = folder.absolute()
    try:
        return absolute.relative_to(os.path.commonpath([other.absolute() for other in folders]))
    except ValueError:
        return Path(absolute.drive.strip("\\").replace(":", ""), *absolute.parts[1:])


def _checked(jobs: Sequence[Job], errors: list[OSError]) -> list[Job]:
    """Refuse to write over an input, or twice to one file; leave out what can be no output."""
    inputs = set()
    for job in jobs:
        with contextlib.suppress(OSError):  # which reading the file will report
            inputs.add(identity(job.input.stat()))
    outputs: dict[Path, Job] = {}
    checked = []
    for job in jobs:
        if job.output != STREAM:
            try:
                status = _status(job.output)
            except OSError as error:
                reason = f"its output {job.output}: {error.strerror}"
                errors.append(OSError(error.errno, reason, str(job.input)))
                continue
            _check(job, status, inputs)
            other = outputs.setdefault(job.output.absolute(), job)
            if other is not job:
                raise ImageError(f"{other.input} and {job.input} would both become {job.output}")
        checked.append(job)
    if errors and not checked:
        raise errors[0]
    return checked


def _check(job: Job, status: os.stat_result | None, inputs: set[tuple[int, int]]) -> None:
    if status and stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{job.output}: is a folder, so {job.input} cannot be written there")
    if status and identity(status) in inputs:
        raise ImageError(
            f"{job.output}: is an input, and inputs are never overwritten: "
            "name another place with --output"
        )


def _status(path: Path) -> os.stat_result | None:
    """Return a path's status, None where nothing is. Raises OSError where that is unknown."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def inside(folder: Path) -> Callable[[Path], bool]:
    """Return what says whether a path leads into a folder, however either of them is spelt.

    On a Mac or Windows `Photos` and `photos` are one folder, and resolved paths may still differ.
    """
    place = _status(folder)

    @functools.cache
    def is_or_is_in(parent: Path) -> bool:
        status = _status(parent)
        same = place is not None and status is not None and identity(status) == identity(place)
        return same or (parent != parent.parent and is_or_is_in(parent.parent))

    return lambda path: is_or_is_in(path.resolve().parent)


def _is_at(path: Path, place: Path) -> bool:
    """Return whether a path is a place; where a link there leads does not count."""
    if path.name.casefold() != place.name.casefold():
        return False
    with contextlib.suppress(OSError):
        same = identity(path.lstat()) == identity(place.lstat())
        return same and path.parent.samefile(place.parent)
    return False


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what identifies a file, whatever names and links lead to it."""
    return status.st_dev, status.st_ino
