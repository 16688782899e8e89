"""Train a network for a style image. The same command resumes a run that was stopped.

To train on N devices: torchrun --nproc-per-node N -m fast_style train ...
"""

import bisect
import dataclasses
import logging
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml

from fast_style import distributed
from fast_style.commands import catch_signals, check_folder, run
from fast_style.commands.options import (
    Parser,
    add_config,
    add_device,
    add_set,
    check_paths,
    command_parser,
)
from fast_style.config import Config, load_config, to_dict
from fast_style.data import content_batches
from fast_style.images import to_float
from fast_style.monitoring import ProgressMonitor, TensorBoardMonitor
from fast_style.preparation import prepare_together
from fast_style.resuming import load_resumable
from fast_style.schedule import TimeLimit, work_after
from fast_style.trainee import Trainee
from fast_style.training import default_run_dir, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; exit 0 when finished, 128 + N after signal N, 2 with one line on a mistake."""
    options = Namespace()

    def command() -> int:
        with distributed.joined():
            with distributed.only_main_speaks():
                parser().parse_args(arguments, options)
            return _train(options)

    return run(command, options=options)


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
        help="folder of the run: its model, states and log (default: checkpoints/<name>)",
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
        help="plan fewer steps than training.steps, so that the run, with what came before it was "
        "resumed, ends by then; above 0 (default: no limit)",
    )
    add_set(parser, of="config", example="training.steps=300")
    add_device(parser)
    return parser


def _train(options: Namespace) -> int:
    if not distributed.is_main():
        logging.getLogger().setLevel(logging.WARNING)
    with distributed.together():
        config = load_config(options.config, overrides=options.set)
        check_paths(options.config, config)
    run_dir = options.run_dir or default_run_dir(config)
    if options.dry_run:
        return _dry_run(config, run_dir, options)
    threading.excepthook = _report_unless_told
    stopped_by, should_stop = catch_signals()
    result = train(
        config,
        run_dir,
        device=options.device,
        max_minutes=options.max_minutes,
        monitors=(TensorBoardMonitor(run_dir), ProgressMonitor()),
        should_stop=should_stop,
    )
    if result.finished:
        if distributed.is_main():
            print(result.model)
        return 0
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
        state = load_resumable(config, run_dir)
        check_folder(run_dir)
    # Nothing is written: no cache of photos either.
    uncached = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=None))
    inputs = prepare_together(uncached, device=options.device)
    trainee = Trainee(config, inputs)
    share = (distributed.rank(), distributed.world_size())
    batches = content_batches(inputs.images, config.training.batch_size, share=share)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        losses, _ = trainee.update(to_float(next(batches).pixels.to(inputs.device)))
        losses.total.item()
        seconds.append(time.perf_counter() - start)
    if not distributed.is_main():
        return 0
    print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
    step, steps, done = sorted(seconds[1:])[1], config.training.steps, state["step"] if state else 0

    def needed(steps: int) -> float:
        work = work_after(config.training, steps, steps) - work_after(config.training, done, steps)
        return step * work / work_after(config.training, 1, config.training.steps)

    if options.max_minutes is not None:
        limit = TimeLimit(options.max_minutes, before=(state or {}).get("time_limit"))
        choices = range(done, steps + 1)
        steps = choices[max(bisect.bisect_right(choices, limit.left, key=needed) - 1, 0)]
    precision = str(inputs.dtype).removeprefix("torch.")
    print(
        f"# all inputs are there; on {inputs.device} in {precision}: {step:.2f} s a step, "
        f"about {_duration(needed(steps))} for {steps - done} steps"
    )
    return 0


def _report_unless_told(failure: threading.ExceptHookArgs) -> None:
    """Report a thread's error, unless it is of TensorBoard's file: the main thread tells that."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
