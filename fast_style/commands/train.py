"""`scripts/train.py --config configs/wave.yaml`: train a network; the same command resumes."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from fast_style.commands import catch_signals, run
from fast_style.config import Config, load_config, to_dict
from fast_style.data import content_batches
from fast_style.images import to_float
from fast_style.monitoring import ProgressMonitor, TensorBoardMonitor
from fast_style.preparation import prepare
from fast_style.training import Trainee, default_run_dir, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; exit 0 when finished, 128 + N after signal N, 2 with one line on a mistake."""
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="the style's YAML")
    parser.add_argument("--run-dir", type=Path, help="default: checkpoints/<name>")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the config, as in training.steps=300",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, write nothing, estimate the time"
    )
    options = parser.parse_args(arguments)
    return run(lambda: _train(options))


def _train(options: argparse.Namespace) -> int:
    config = load_config(options.config, overrides=options.set)
    run_dir = options.run_dir or default_run_dir(config)
    if options.dry_run:
        return _dry_run(config, options.device)
    stopped_by, should_stop = catch_signals()
    result = train(
        config,
        run_dir,
        device=options.device,
        monitors=(TensorBoardMonitor(run_dir), ProgressMonitor()),
        should_stop=should_stop,
    )
    if result.finished:
        print(result.model)
        return 0
    print(
        f"stopped after step {result.step} of {config.training.steps}, saved in {run_dir}; "
        "the same command goes on from there",
        file=sys.stderr,
    )
    return 128 + stopped_by[0]


def _dry_run(config: Config, device: str) -> int:
    """Check everything that a run needs, and time a few updates."""
    inputs = prepare(config, device=device)
    trainee = Trainee(config, inputs)
    batches = content_batches(inputs.images, config.training.batch_size)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        losses, _ = trainee.update(to_float(next(batches).pixels.to(inputs.device)))
        losses.total.item()
        seconds.append(time.perf_counter() - start)
    print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
    step = sorted(seconds[1:])[1]
    precision = str(inputs.dtype).removeprefix("torch.")
    print(
        f"# all inputs are there; on {inputs.device} in {precision}: {step:.2f} s a step, "
        f"about {_duration(step * config.training.steps)} for {config.training.steps} steps"
    )
    return 0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
