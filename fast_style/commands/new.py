"""Make a model of a picture's style, in one command.

The command writes a config, shows after a minute how the style looks at several strengths, trains
for the rest of the minutes, and ends with a contact sheet. The same command resumes it.
"""

import argparse
import math
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path

import torch

from fast_style.commands import (
    catch_signals,
    check_folder,
    check_writable,
    exit_code,
    program,
    run,
)
from fast_style.commands.options import Parser, add_device, command_parser
from fast_style.config import LossConfig
from fast_style.creation.new_style import (
    ENOUGH_STEPS,
    SMALL_SIZE,
    NewStyle,
    Wish,
    check_inputs,
    draw_photos,
    draw_strengths,
    estimate,
    from_nearest_base,
    has_begun,
    objective_of,
    plan_style,
    preview_minutes,
    training_minutes,
)
from fast_style.data import Skipped
from fast_style.devices import resolve_device
from fast_style.evaluation.sweep import held_out_images
from fast_style.objective.building import Objective
from fast_style.objective.losses import PerceptualLoss
from fast_style.training import default_run_dir, train
from fast_style.training.inputs import with_start
from fast_style.training.locking import RunLock
from fast_style.training.monitors import MetricsMonitor, ProgressMonitor, TensorBoardMonitor
from fast_style.training.pace import TimeLimit
from fast_style.training.run_folder import load_resumable

_MOST_MINUTES = 7 * 24 * 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a style; exit 0 when finished, 128 + N after signal N, 2 with one line on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _new(options), options=options, less_memory="lower --image-size")


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "new",
        __doc__,
        examples=("painting.jpg photos/", "painting.jpg photos/ --minutes 60 --strength 0.5"),
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="style image")
    parser.add_argument(
        "photos",
        nargs="+",
        type=Path,
        metavar="PHOTOS",
        help="folder of photos to train on, of any size and layout; a few thousand are enough",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=30.0,
        metavar="M",
        help="minutes until the model is done, at most 10080, a week (default: 30)",
    )
    parser.add_argument(
        "--strength",
        type=_strength,
        metavar="S",
        help="strength of the style: 0.3 is gentle, 3 is strong (default: 1)",
    )
    parser.add_argument(
        "--name", help="name of the model, its config and its run (default: the picture's)"
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="PIXELS",
        help="side of the squares to train on: smaller ones are faster (default: 192, or 256 on a "
        "GPU)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, write nothing, estimate what fits (default: make the model)",
    )
    add_device(parser)
    return parser


def _minutes(text: str) -> float:
    minutes = _number(text)
    if not 0 < minutes <= _MOST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes, of a week at most")
    return minutes


def _strength(text: str) -> float:
    strength = _number(text)
    if not 0 < strength <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a strength, a number around 1")
    return strength


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels, from 32 on")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _new(options: argparse.Namespace) -> int:
    on = resolve_device(options.device)
    wish = Wish(
        picture=options.picture,
        photos=tuple(options.photos),
        name=options.name,
        strength=options.strength,
        image_size=options.image_size,
    )
    style = plan_style(wish, on=on)
    run_dir = default_run_dir(style.config)
    check_folder(run_dir)
    check_writable(style.file)
    check_inputs(style.config)
    RunLock(run_dir).check()
    state = load_resumable(with_start(style.config), run_dir)
    minutes = training_minutes(options.minutes)
    before = (state or {}).get("time_limit")
    skipped = Skipped()
    held_out = held_out_images(style.config, skipped=skipped)
    # A run that goes on needs none here, and it takes seconds.
    objective = cache(partial(objective_of, style.config, held_out, on))
    if style.text:
        style = from_nearest_base(style, objective().criterion, held_out, on)
    if options.dry_run:
        _dry_run(style, objective().criterion, minutes=options.minutes, on=on)
        return exit_code(unreadable=len(skipped))
    stopped_by, should_stop = catch_signals()
    if not _show_strengths(
        style, objective, held_out, minutes=options.minutes, should_stop=should_stop
    ):
        return _stopped(run_dir, stopped_by)
    style.write()
    limit = TimeLimit(minutes, before=before)
    plan = limit.recorded_plan(maximum=style.config.training.steps)
    if not (state and plan and state["step"] >= plan.steps):
        left = max(limit.left, 0) / 60
        print(f"{style.file}: its config; done by about {_clock(left)}", flush=True)
    result = train(
        style.config,
        run_dir,
        device=options.device,
        max_minutes=minutes,
        monitors=(TensorBoardMonitor(run_dir), MetricsMonitor(run_dir), ProgressMonitor()),
        should_stop=should_stop,
        skipped=skipped,
    )
    if not result.finished:
        return _stopped(run_dir, stopped_by)
    sheet = run_dir / "photos.jpg"
    draw_photos(result.model, style.config.name, held_out, sheet, device=options.device)
    print(f"{sheet}: photos that it was not trained on")
    print(f"{result.model}: the model, after {result.step:,} steps; to use it:")
    print(f"  {program('stylize')} --model {shlex.quote(style.config.name)} photo.jpg")
    return exit_code(unreadable=result.unreadable)


def _show_strengths(
    style: NewStyle,
    objective: Callable[[], Objective[LossConfig]],
    held_out: Sequence[Path],
    *,
    minutes: float,
    should_stop: Callable[[], bool],
) -> bool:
    """Draw the preview, unless it is there or the training has begun; False when stopped."""
    run_dir = default_run_dir(style.config)
    preview = run_dir / "strengths.png"
    # Before there is a config, a preview is that of a command that was stopped: perhaps another's.
    if has_begun(run_dir) or (preview.exists() and not style.text):
        return True
    drawn = draw_strengths(
        style.config,
        objective(),
        held_out,
        preview,
        minutes=preview_minutes(minutes),
        should_stop=should_stop,
    )
    if drawn:
        strength = style.config.loss.strength or 1
        print(
            f"{preview}: what strengths look like; this run's is {strength:g} (for another, stop "
            "it, and add --strength S --name NAME)",
            flush=True,
        )
    return drawn


def _stopped(run_dir: Path, stopped_by: Sequence[int]) -> int:
    print(f"stopped; the same command goes on, in {run_dir}", file=sys.stderr)
    return 128 + (stopped_by or [signal.SIGTERM])[0]


def _dry_run(
    style: NewStyle, criterion: PerceptualLoss, *, minutes: float, on: torch.device
) -> None:
    """Print what the command would do and, where the time is too short, what would fit."""
    config = style.config
    size = config.training.image_size
    found = estimate(config, criterion, minutes, on)
    print(
        f"{config.style.image} at {config.style.size} pixels, strength "
        f"{config.loss.strength or 1:g}, from {config.training.init_from}, width "
        f"{with_start(config).network.width}, squares of {size} pixels"
    )
    fit, needed = f"are {found.steps:,} steps", minutes
    if found.steps >= config.training.steps:
        fit = f"are more than its {found.steps:,} steps (training.steps) need"
        needed = preview_minutes(minutes) + found.minutes
    print(
        f"on {on.type} {found.seconds:.2f} s a step: {minutes:g} minutes {fit}, done by about "
        f"{_clock(needed)}"
    )
    if not found.is_enough:
        ways = [f"--minutes {math.ceil(found.enough_minutes)}"]
        if size > SMALL_SIZE:
            small = replace(
                config, training=replace(config.training, image_size=SMALL_SIZE, first_share=0.0)
            )
            needed = estimate(small, criterion, minutes, on).enough_minutes
            ways.append(f"--image-size {SMALL_SIZE} --minutes {math.ceil(needed)}")
        print(
            f"too long: a style is seen only in part before {ENOUGH_STEPS} steps; it fits with "
            f"{', or with '.join(ways)}"
        )
    there = "is there" if not style.text else "would be written"
    print(f"{style.file} {there}; the run would be in {default_run_dir(config)}")


def _clock(minutes: float) -> str:
    """Return the time of day `minutes` from now."""
    end = datetime.now() + timedelta(minutes=minutes)
    today = end.date() == datetime.now().date()
    return end.strftime("%H:%M" if today else "%H:%M on %A")
