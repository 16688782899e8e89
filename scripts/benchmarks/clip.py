"""A clip from file to file: frames a second, and what of the time is not the network's."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
from torch import Tensor

from fast_style.commands.options import count
from fast_style.devices import Precision
from fast_style.memory import keep_freed_memory
from fast_style.stylization import Stylizer
from fast_style.video import stylize_clip
from fast_style.video.reading import require_av

_WIDTH, _HEIGHT = 640, 360
_RATE = 25
_VARIANTS: tuple[tuple[Precision, bool], ...] = (
    ("bf16", False),
    ("bf16", True),
    ("float32", False),
    ("float32", True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="wave", help="(default: wave)")
    parser.add_argument("--frames", type=count, default=100, help="(default: 100)")
    parser.add_argument("--rounds", type=count, default=3, help="runs of each (default: 3)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Stylize one clip in each way, in turn, each in a process of its own."""
    if options.child:
        clip, precision, steady = options.child
        print(json.dumps(_stylized(Path(clip), options.model, precision, steady == "True")))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        clip = Path(scratch, "in.mp4")
        _write(clip, options.frames)
        found: dict[tuple[Precision, bool], list[dict[str, float]]] = {v: [] for v in _VARIANTS}
        for _ in range(options.rounds):
            for variant, runs in found.items():
                runs.append(_in_a_child(clip, options, *variant))
    print(f"{_WIDTH}×{_HEIGHT}, {options.model}, {os.cpu_count()} cores")
    print("| precision | steadied | frames/s | network, CPU ms a frame | all else |")
    print("|---|---|---|---|---|")
    for (precision, steady), runs in found.items():
        value = {name: median(one[name] for one in runs) for name in runs[0]}
        print(
            f"| {precision} | {'yes' if steady else 'no'} | {value['rate']:.1f} "
            f"| {value['network']:.0f} | {value['else'] / (value['network'] + value['else']):.0%} |"
        )
    return 0


def _frames(frames: int) -> np.ndarray:
    """Return a window that moves over waves, with a camera's noise in each frame."""
    rows, columns = np.mgrid[: _HEIGHT + frames, : _WIDTH + 3 * frames].astype(np.float32)
    waves = [np.sin(rows / 19 + k) * np.cos(columns / 23 - k) for k in range(3)]
    scene = (0.5 + 0.4 * np.stack(waves, -1)) * 255
    noise = np.random.default_rng(0).normal(0, 2, (frames, _HEIGHT, _WIDTH, 3))
    shown = [scene[i : i + _HEIGHT, 3 * i : 3 * i + _WIDTH] for i in range(frames)]
    return (np.stack(shown) + noise).clip(0, 255).astype(np.uint8)


def _write(path: Path, frames: int) -> None:
    av = require_av()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(_RATE))
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for pixels in _frames(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _in_a_child(
    clip: Path, options: argparse.Namespace, precision: Precision, steady: bool
) -> dict[str, float]:
    arguments = ["clip", "--model", options.model, "--child", str(clip), precision, str(steady)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "benchmark.py"), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


class _TimedStylizer(Stylizer):
    """Adds up the CPU seconds of its threads."""

    seconds = 0.0
    _lock = threading.Lock()

    def begin(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Iterator[slice]]:
        begun = time.thread_time()
        output, rows = super().begin(image, mask)
        spans = list(rows)
        with self._lock:
            self.seconds += time.thread_time() - begun
        return output, iter(spans)


def _stylized(clip: Path, model: str, precision: Precision, steady: bool) -> dict[str, float]:
    """Return frames a second, and CPU milliseconds a frame in the network and in all else."""
    keep_freed_memory()
    stylizer = _TimedStylizer(model, precision=precision, device="cpu")
    stylizer(np.zeros((_HEIGHT, _WIDTH, 3), np.uint8))
    stylizer.seconds = 0.0
    begun, cpu = time.perf_counter(), time.process_time()
    result = stylize_clip(stylizer, clip, clip.with_name("out.mp4"), steady=steady)
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "rate": result.frames / elapsed,
        "network": 1000 * stylizer.seconds / result.frames,
        "else": 1000 * (cpu - stylizer.seconds) / result.frames,
    }
