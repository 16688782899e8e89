"""Try settings of a config, and see what they do side by side, on one contact sheet.

Every --set with several values is an axis; each combination makes a column of one contact sheet.
The same command goes on with a sweep that was interrupted.
"""

import logging
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from torch import Tensor

from fast_style.commands import catch_signals, check_folder, exit_code, run
from fast_style.commands.options import (
    Parser,
    add_config,
    add_device,
    add_log_dir,
    check_paths,
    command_parser,
    count,
)
from fast_style.config import find_config, to_dict
from fast_style.config.style_names import styles_text
from fast_style.data import Skipped, read_each
from fast_style.data.photos import choose, find_images, scan_images
from fast_style.devices import resolve_device
from fast_style.evaluation.sweep import (
    Combination,
    CombinationError,
    Job,
    check,
    held_out_images,
    load_photo,
    make_pictures,
    pictures_of,
    plan,
)
from fast_style.evaluation.sweep_report import (
    keep_another_sweep,
    sheet_of,
    write_numbers,
)
from fast_style.images import load_image, save_image
from fast_style.stylization.sheets import comparison_sheet
from fast_style.training.monitors import TensorBoardMonitor
from fast_style.training.styles import load_styles

_STEPS = {"optimize": 100, "train": 300}
# No more are needed to measure loss.strength.
_MEASURED_AT = 16
_TIMED_STEPS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep; exit 0 when all is done, 1 when some fail, 2 with one line on a mistake."""
    options = parser().parse_args(arguments)

    def command() -> int:
        # What every training logs of its inputs would come once a combination.
        with _logging_from(logging.WARNING):
            return _sweep(options)

    return run(command, options=options, less_memory="lower training.batch_size or --size")


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "sweep",
        __doc__,
        examples=(
            "--config my.yaml --set loss.strength=0.3,1,3",
            "--config my.yaml --recipe gatys,johnson --steps 200 --dry-run",
        ),
    )
    add_config(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="values to try for one key of the config, comma-separated, or one value for every "
        "picture; a list in brackets is one value; may be repeated (at least one with several "
        "values)",
    )
    parser.add_argument(
        "--recipe",
        type=_names,
        default=(),
        metavar="NAME,NAME",
        help="recipes of the baseline to try, by name or path of a YAML; the keys of --set are "
        "then theirs (default: none, the config's own objective)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, write nothing, estimate the time (default: make the pictures)",
    )
    parser.add_argument(
        "--mode",
        choices=tuple(_STEPS),
        default="optimize",
        help="make each picture by L-BFGS, or by a network after a short training "
        "(default: optimize)",
    )
    parser.add_argument(
        "--steps",
        type=count,
        help="number of steps of L-BFGS (default: 100), or of training (default: 300)",
    )
    parser.add_argument(
        "--size",
        type=count,
        default=256,
        metavar="PIXELS",
        help="long edge of the photos, from 1 on (default: 256)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of photos (default: the config's held-out photos)",
    )
    parser.add_argument(
        "--n", type=count, default=3, help="number of photos to use, from 1 on (default: 3)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the pictures and the sheet (default: checkpoints/sweep-<name>)",
    )
    add_log_dir(parser)
    add_device(parser)
    return parser


def _sweep(options: Namespace) -> int:
    file = find_config(options.config)
    combinations = plan(file, options.set, recipes=options.recipe)
    for combination in combinations:
        check_paths(file, combination.config)
    check(combinations, options.mode)
    resolve_device(options.device)
    config = combinations[0].config
    skipped = Skipped()
    if options.images:
        with _logging_from(logging.NOTSET):
            listed = find_images([options.images], named="--images")
        photos = scan_images(listed, skipped=skipped).usable
        measured_at = choose(photos, _MEASURED_AT)
    else:
        with _logging_from(logging.NOTSET):
            photos = held_out_images(config, skipped=skipped)
        measured_at = tuple(photos)
    shown = choose(photos, options.n)
    shown = tuple(read_each(shown, partial(load_photo, size=options.size), skipped=skipped))
    stopped_by, should_stop = catch_signals()
    folder = options.output or Path("checkpoints", f"sweep-{config.name}")
    check_folder(folder)
    job = Job(
        mode=options.mode,
        photos=shown,
        measured_at=measured_at,
        size=options.size,
        steps=options.steps or _STEPS[options.mode],
        folder=folder,
        device=options.device,
        should_stop=should_stop,
    )
    estimate = _Estimate(_announce(combinations, job))
    if options.dry_run:
        _time(combinations[0], job, estimate)
        return exit_code(unreadable=len(skipped))
    job = replace(job, on_step=estimate.step)
    keep_another_sweep(combinations, job)
    failures: dict[int, str] = {}
    for index, combination in enumerate(combinations):
        start = time.perf_counter()
        try:
            if not make_pictures(combination, job):
                print(f"stopped in {combination}; the same command goes on", file=sys.stderr)
                return 128 + (stopped_by or [signal.SIGINT])[0]
        except CombinationError as error:
            failures[index] = str(error)
            print(f"error: {combination}: {error}", file=sys.stderr, flush=True)
            continue
        seconds = time.perf_counter() - start
        print(f"{index + 1} of {len(combinations)}: {combination} ({seconds:.0f} s)", flush=True)
        if index < len(combinations) - 1:
            _save_sheet(combinations, job, failures)
    if len(failures) == len(combinations):
        return 1
    write_numbers(combinations, job, failures)
    sheet = _save_sheet(combinations, job, failures)
    if options.log_dir:
        _log(options.log_dir, combinations, job, failures, sheet)
    print(sheet_of(folder))
    return exit_code(unreadable=len(skipped)) or (1 if failures else 0)


class _Estimate:
    """Measures the first steps, then prints once how long all of them will take."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._start = 0.0

    def step(self) -> None:
        """Count a finished step; the first one is not measured, since it warms up."""
        self._done += 1
        if self._done == 1:
            self._start = time.perf_counter()
        if self._done == 1 + _TIMED_STEPS:
            seconds = (time.perf_counter() - self._start) / _TIMED_STEPS
            minutes = seconds * (self._steps - self._done) / 60
            print(f"{seconds:.2f} s a step: about {minutes:.1f} minutes", flush=True)


def _time(combination: Combination, job: Job, estimate: _Estimate) -> None:
    """Make a few steps of one picture in a folder that is removed, for the estimate."""
    with tempfile.TemporaryDirectory() as folder:
        # Nothing else is written: no cache of photos either.
        data = replace(combination.config.data, cache=None)
        combination = replace(combination, config=replace(combination.config, data=data))
        steps = min(job.steps, 1 + _TIMED_STEPS)
        job = replace(job, photos=job.photos[:1], steps=steps, folder=Path(folder))
        make_pictures(combination, replace(job, on_step=estimate.step))


def _announce(combinations: Sequence[Combination], job: Job) -> int:
    """Print what will be done; return the number of steps."""
    missing = [
        sum(not file.exists() for file in pictures_of(combination, job))
        for combination in combinations
    ]
    if job.mode == "optimize":
        pictures, steps = sum(missing), sum(missing) * job.steps
        work = f"{pictures} Gatys previews of {job.steps} steps"
    else:
        trainings = sum(count > 0 for count in missing)
        steps = trainings * job.steps
        work = f"{trainings} trainings of {job.steps} steps"
    kept = sum(count == 0 for count in missing)
    there = f" ({kept} of them there already)" if kept else ""
    names = ", ".join(path.stem for path in job.photos)
    print(
        f"{len(combinations)} combinations{there}, photos {names}: {work}, pictures of "
        f"{job.size} pixels, into {job.folder}",
        flush=True,
    )
    return steps


def _save_sheet(combinations: Sequence[Combination], job: Job, failures: dict[int, str]) -> Tensor:
    """Draw the pictures so far, and for the rest why they are missing."""
    columns: list[list[Tensor | str]] = []
    for index, combination in enumerate(combinations):
        files = pictures_of(combination, job)
        missing = f"failed: {failures[index]}" if index in failures else "not made yet"
        columns.append([load_image(file) if file.exists() else missing for file in files])
    shares = [tuple(c.config.style.shares.items()) for c in combinations]
    styles = {key: c.config.style for key, c in zip(shares, combinations, strict=True)}
    shown = [styles[key] for key in (shares if len(styles) > 1 else styles)]
    sheet = comparison_sheet(
        [
            (path.stem, load_photo(path, job.size), [column[row] for column in columns])
            for row, path in enumerate(job.photos)
        ],
        columns=[combination.settings for combination in combinations],
        styles=[
            (styles_text(style.shares, names_only=True), load_styles(style.resolved()).picture)
            for style in shown
        ],
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    save_image(sheet, sheet_of(job.folder))
    return sheet


def _log(
    folder: Path,
    combinations: Sequence[Combination],
    job: Job,
    failures: dict[int, str],
    sheet: Tensor,
) -> None:
    monitor = TensorBoardMonitor(folder)
    monitor.start(0, 0, yaml.safe_dump(to_dict(combinations[0].config), sort_keys=False))
    monitor.image(0, "sweep", sheet)
    for index, combination in enumerate(combinations):
        if index in failures:
            monitor.message(0, f"{combination}: {failures[index]}")
        for photo, file in zip(job.photos, pictures_of(combination, job), strict=True):
            if file.exists():
                monitor.image(0, f"sweep/{combination}/{photo.stem}", load_image(file))
    monitor.close()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@contextmanager
def _logging_from(level: int) -> Iterator[None]:
    """Let what is logged from this level on be heard."""
    logger = logging.getLogger("fast_style")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
