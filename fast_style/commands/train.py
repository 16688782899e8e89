"""Train a network for a style image. The same command resumes a run that was stopped.

To train on N devices: torchrun --nproc-per-node N -m fast_style train ...
"""

import contextlib
import dataclasses
import logging
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from fast_style import distributed
from fast_style.checkpoints.files import find_model, load_model
from fast_style.commands import catch_signals, check_folder, exit_code, program, run
from fast_style.commands.options import (
    Parser,
    add_config,
    add_device,
    add_keys,
    add_set,
    check_paths,
    command_parser,
)
from fast_style.config import Config, find_config, load_config, to_dict
from fast_style.data import Skipped, content_batches
from fast_style.data.workers import PREFETCHED, number_of_workers
from fast_style.images import to_float
from fast_style.remote import is_remote
from fast_style.training import default_run_dir, train
from fast_style.training.inputs import Inputs, prepare_together, with_start
from fast_style.training.locking import RunLock
from fast_style.training.monitors import MetricsMonitor, ProgressMonitor, TensorBoardMonitor
from fast_style.training.pace import WARM_UP, Pace, TimeLimit, check_minutes
from fast_style.training.run_folder import load_resumable
from fast_style.training.schedule import work_after
from fast_style.training.trainee import Trainee

# The number of updates that a dry run times, after those that warm up.
_TIMED_STEPS = 2
# The same on a GPU, which is told what to do ahead of time, and where the first choose kernels.
_WARM_UP_AHEAD = 5
_TIMED_AHEAD = 20
# The seconds on a CPU above which a dry run suggests a shorter run: from this model, this long.
_LONG = 3600
_SHIPPED_START = "wave"
_SHORT_MINUTES = 10
_LESS_MEMORY = (
    "raise training.accumulate, or lower training.batch_size or training.image_size "
    "(--set KEY=VALUE)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; exit 0 when finished, 1 with broken photos left out, 2 on a mistake, 128 + N after N.

    N is the signal that stops the run.
    """
    options = Namespace()

    def command() -> int:
        with distributed.joined():
            with distributed.only_main_speaks():
                parser().parse_args(arguments, options)
            return _train(options)

    return run(command, options=options, less_memory=_LESS_MEMORY)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "train",
        __doc__,
        examples=(
            "--config my.yaml --dry-run",
            "--config my.yaml --set training.steps=2000 --max-minutes 30",
        ),
    )
    add_config(parser)
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="folder of the run: its model, states and log; model and states are kept in a store "
        "too where this is an address, as s3://bucket/run (default: checkpoints/<name>)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, write nothing, estimate the time (default: train)",
    )
    parser.add_argument(
        "--max-minutes",
        type=float,
        metavar="MINUTES",
        help="end within this many minutes, counting those before a resumption: as many steps as "
        "fit are planned, at most training.steps (default: no limit)",
    )
    add_set(parser, of="config", example="training.steps=300")
    add_keys(parser)
    add_device(parser)
    return parser


def _train(options: Namespace) -> int:
    if not distributed.is_main():
        logging.getLogger().setLevel(logging.WARNING)
    with distributed.together():
        if options.max_minutes is not None:
            check_minutes(options.max_minutes, name="--max-minutes")
        file = find_config(options.config)
        config = load_config(file, overrides=options.set)
        check_paths(file, config)
    run_dir = options.run_dir or default_run_dir(config)
    store = run_dir if is_remote(run_dir) else None
    run_dir = default_run_dir(config) if store else run_dir
    if options.dry_run:
        return _dry_run(config, run_dir, options)
    threading.excepthook = _report_unless_told
    stopped_by, should_stop = catch_signals()
    result = train(
        config,
        store or run_dir,
        device=options.device,
        max_minutes=options.max_minutes,
        monitors=(TensorBoardMonitor(run_dir), MetricsMonitor(run_dir), ProgressMonitor()),
        should_stop=should_stop,
    )
    if result.finished:
        if distributed.is_main():
            print(result.model, flush=True)
            model = result.model if options.run_dir else config.name
            print(f"try: {program('stylize')} --model {model} photo.jpg", file=sys.stderr)
            return exit_code(unreadable=result.unreadable)
        return 1 if result.unreadable else 0
    if distributed.is_main():
        print(
            f"stopped after step {result.step} of {result.steps}, saved in {run_dir}; "
            "the same command goes on from there",
            file=sys.stderr,
        )
    return 128 + (stopped_by or [signal.SIGTERM])[0]


def _dry_run(config: Config, run_dir: Path, options: Namespace) -> int:
    """Check everything that a run needs, and time a few updates."""
    with distributed.together(), distributed.only_main_speaks():
        config = with_start(config)
        RunLock(run_dir).check()
        state = load_resumable(config, run_dir)
        check_folder(run_dir)
    # Nothing is written: no cache of photos either.
    uncached = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=None))
    skipped = Skipped()
    inputs = prepare_together(uncached.resolved(), device=options.device, skipped=skipped)
    pace = _timed_pace(config, inputs, skipped)
    if not distributed.is_main():
        return 1 if len(skipped) else 0
    print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
    done, steps = state["step"] if state else 0, config.training.steps
    step = pace.seconds_left(steps, after=0) - pace.seconds_left(steps, after=1)
    if options.max_minutes is not None:
        limit = TimeLimit(options.max_minutes, before=(state or {}).get("time_limit"))
        steps = pace.steps_within(limit.left, maximum=max(done, steps), after=done)
    precision = str(inputs.dtype).removeprefix("torch.")
    print(
        f"# all inputs are there; on {inputs.device} in {precision}: {step:.2f} s a step, ", end=""
    )
    if options.max_minutes is not None and steps <= done < config.training.steps:
        print(f"more than --max-minutes {options.max_minutes:g} leaves: no step would be made")
        return exit_code(unreadable=len(skipped))
    needed = pace.seconds_left(max(done, steps), after=done)
    print(f"about {_duration(needed)} for {max(steps - done, 0)} steps")
    alone_on_a_cpu = inputs.device.type == "cpu" and distributed.world_size() == 1
    if needed > _LONG and alone_on_a_cpu and not state and options.max_minutes is None:
        print(_shorter(config, inputs, pace, skipped))
    return exit_code(unreadable=len(skipped))


def _timed_pace(config: Config, inputs: Inputs, skipped: Skipped) -> Pace:
    """Make a few updates from the first step on; return the pace that the run would measure.

    They are loaded as the run loads them. What only the first ones do, as compiling, and batches
    that are loaded ahead meanwhile do not count.
    """
    trainee = Trainee(config, inputs)
    workers = number_of_workers(config.data.workers, inputs.device.type)
    batches = content_batches(
        inputs.images,
        config.training.batch_size,
        workers=workers,
        pin_memory=inputs.device.type == "cuda",
        size_at=trainee.crop_size_at,
        share=(distributed.rank(), distributed.world_size()),
        skipped=skipped,
    )
    pace = Pace(0, {}, work=partial(work_after, config.training))
    # The updates between two looks at the clock.
    counts = [1] * (WARM_UP + _TIMED_STEPS)
    if inputs.device.type != "cpu":
        counts = [_WARM_UP_AHEAD + PREFETCHED * workers, _TIMED_AHEAD]
    with contextlib.closing(batches):
        for count in counts:
            for _ in range(count):
                pixels = next(batches).pixels.to(inputs.device, non_blocking=True)
                losses, _ = trainee.update(to_float(pixels))
            losses.total.item()  # waits for a GPU
            pace.mark(trainee.step, config.training.steps)
    return pace


def _shorter(config: Config, inputs: Inputs, pace: Pace, skipped: Skipped) -> str:
    """Return a line: the steps that fit into ten minutes for a network that begins trained.

    It names what the config does not have already.
    """
    changes: list[str] = []
    if config.training.init_from is None:
        network = load_model(find_model(_SHIPPED_START)).network.requires_grad_(True).train()
        pace = _timed_pace(config, dataclasses.replace(inputs, network=network), skipped)
        changes.append(f"training.init_from={_SHIPPED_START}")
        if config.network.width != network.width:
            changes.append(f"network.width={network.width}")
    left = TimeLimit(_SHORT_MINUTES).left
    steps = pace.steps_within(left, maximum=config.training.steps, after=0)
    before = f"{', '.join(changes)} and " if changes else ""
    return f"# with {before}--max-minutes {_SHORT_MINUTES}: {steps} steps, ten minutes"


def _report_unless_told(failure: threading.ExceptHookArgs) -> None:
    """Report a thread's error, but not one of TensorBoard's file: the main thread reports that."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
