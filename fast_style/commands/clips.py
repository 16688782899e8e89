"""What `stylize` does with clips: video files, animations, numbered pictures."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fast_style import distributed
from fast_style.checkpoints.files import CheckpointError, find_model
from fast_style.commands import refused
from fast_style.images import ImageError, table
from fast_style.remote import is_remote
from fast_style.stylization import Stylizer
from fast_style.stylization.jobs import identity
from fast_style.video import (
    Coding,
    StylizedClip,
    VideoError,
    is_clip,
    is_finished,
    named_output,
    read_files,
    remove_leftovers,
    stylize_clip,
    written_files,
)
from fast_style.video.clips import is_pattern

# Frames a second of pictures that have none of their own.
_RATE = Fraction(25)

_NOT_FOR_CLIPS = (
    "sheet",
    "format",
    "depth",
    "keep_metadata",
    "manifest",
    "json",
    "recursive",
    "mask",
)


def has_clips(options: argparse.Namespace) -> bool:
    """Return whether what is to be stylized is clips. Raises VideoError for clips among photos."""
    for source in options.images:
        if is_remote(source) and Path(source).suffix.lower() in table.CLIPS:
            raise VideoError(f"{source}: is a clip in a store: copy it to this machine first")
    near = [source for source in options.images if not is_remote(source)]
    found = [source for source in near if is_clip(source, options.output)]
    if found and len(found) < len(options.images):
        other = next(source for source in options.images if source not in found)
        raise VideoError(f"{found[0]} is a clip and {other} is not: stylize them apart")
    return bool(found)


def stylize_clips(options: argparse.Namespace, load: Callable[[Path], Stylizer]) -> int:
    """Stylize this process's share of the clips; return 1 where a part of one was lost."""
    for name in _NOT_FOR_CLIPS:
        if getattr(options, name) not in (None, False):
            raise VideoError(f"--{name.replace('_', '-')} does nothing for a clip: leave it out")
    if len(options.model) != 1:
        raise CheckpointError("a clip needs one --model, as in --model wave")
    model = find_model(options.model[0])
    jobs = [
        (Path(source), named_output(source, model.stem, options.output))
        for source in options.images
    ]
    _check_outputs(jobs, options)
    share = jobs[distributed.rank() :: distributed.world_size()]
    waiting = []
    for source, output in share:
        if is_finished(output) and not options.overwrite:
            print(f"{output}: already there; --overwrite redoes it", file=sys.stderr)
            remove_leftovers(output)
        else:
            waiting.append((source, output))
    if not waiting:
        return 0
    stylizer = load(model)
    return max([_stylize(stylizer, *job, options, alone=len(jobs) == 1) for job in waiting])


def _check_outputs(jobs: Sequence[tuple[Path, Path]], options: argparse.Namespace) -> None:
    """Raise VideoError for an output that is no place for a clip, or that is an input."""
    if options.output == "-" or is_remote(options.output):
        raise VideoError(f"-o {options.output}: a clip becomes a file on this machine: name one")
    if options.rate and not any(is_pattern(source) for source, _ in jobs):
        raise VideoError("--rate is for numbered pictures: a clip has its own, leave it out")
    sources: dict[Path, Path] = {}
    for source, output in jobs:
        if (other := sources.setdefault(output, source)) is not source:
            raise VideoError(
                f"{output}: several clips would become one file, {other} and {source}: "
                "name a folder, or stylize them apart"
            )
    # Whatever names and links lead to them.
    inputs = {
        identity(path.stat()) for source, _ in jobs for path in read_files(source) if path.exists()
    }
    for _, output in jobs:
        for path in written_files(output):
            if identity(path.stat()) in inputs:
                raise VideoError(
                    f"{path}: is the input, which is never overwritten: name another place with "
                    "--output"
                )


def _stylize(
    stylizer: Stylizer, source: Path, output: Path, options: argparse.Namespace, *, alone: bool
) -> int:
    try:
        with _Progress(str(source)) as progress:
            output.parent.mkdir(parents=True, exist_ok=True)
            result = stylize_clip(
                stylizer,
                source,
                output,
                coding=Coding(
                    codec=options.codec,
                    quality=options.quality,
                    pixel_format=options.pixel_format,
                ),
                steady=options.steady,
                workers=options.workers,
                rate=options.rate or _RATE,
                on_note=progress.note,
                on_frame=progress.frame,
            )
    except (ImageError, OSError) as error:  # of this clip: the others go on
        if alone:
            raise
        text = str(error) if isinstance(error, ImageError) else refused(error)
        print(f"error: {text}", file=sys.stderr)
        return 1
    print(f"{output} ({_summary(result)})")
    if result.damage:
        print(f"error: {source}: {result.damage}", file=sys.stderr)
        return 1
    return 0


def _summary(result: StylizedClip) -> str:
    done = result.frames - result.resumed
    frames = "1 frame" if result.frames == 1 else f"{result.frames} frames"
    parts = [frames, f"{result.seconds:.1f} s"]
    if done and result.seconds > 0:
        parts.append(f"{done / result.seconds:.1f} frames/s")
    if result.resumed:
        parts.append(f"{result.resumed} of them made before")
    if result.steadied:
        parts.append("steadied")
    return ", ".join(parts)


@dataclass(slots=True)
class _Progress:
    """Tells a person how far it is, with frames a second and the time that is left."""

    name: str
    bar: Any = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def note(self, note: str) -> None:
        print(f"{self.name}: {note}", file=sys.stderr)

    def frame(self, done: int, total: int | None) -> None:
        if not sys.stderr.isatty() or distributed.world_size() > 1:
            return
        if self.bar is None:
            # Only here, since importing it takes its time.
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done - 1, unit="frame", dynamic_ncols=True)
        self.bar.update(done - self.bar.n)
