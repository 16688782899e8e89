"""What every benchmark needs: cases timed in turn, the machine's peak, a photo-like input."""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

# A case gives the function that is timed; it is built inside the process that runs it.
Case = Callable[[], Callable[[], object]]


def photo_like(height: int, width: int, *, seed: int = 0) -> Tensor:
    """Give a (3, H, W) picture in [0, 1] with structure at every scale, as photos have."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        noise = torch.randn(1, 3, min(cells, height), min(cells, width), generator=generator)
        layer = F.interpolate(noise, (height, width), mode="bilinear")
        image = image + layer / float(cells) ** 0.5
    return (0.5 + image[0] / 4).clamp(0, 1)


def peak_rate(dtype: torch.dtype) -> float:
    """Measure the machine's best rate of floating-point operations, a second, on a convolution."""
    x = torch.randn(1, 128, 512, 512).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3).to(dtype, memory_format=torch.channels_last)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        F.conv2d(x, kernel)
        best = min(best, time.perf_counter() - start)
    return 2 * 9 * 128 * 128 * 510 * 510 / best


def interleave(cases: dict[str, Case], runs: int) -> dict[str, tuple[float, int]]:
    """Time the cases in turn; give each one's median seconds and peak memory growth in bytes."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    processes = []
    for name, case in cases.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, case), daemon=True)
        process.start()
        pipes[name] = ours
        processes.append(process)
        ours.recv()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    memory = dict.fromkeys(cases, 0)
    for turn in range(runs + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            elapsed, grown = pipe.recv()
            memory[name] = max(memory[name], grown)
            if turn:  # the first is the warm-up
                seconds[name].append(elapsed)
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return {name: (statistics.median(seconds[name]), memory[name]) for name in cases}


def _serve(pipe: Connection, case: Case) -> None:
    function = case()
    base = _resident("VmRSS")
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent was interrupted
        pipe.send(None)
        while pipe.recv():
            start = time.perf_counter()
            function()
            pipe.send((time.perf_counter() - start, _resident("VmHWM") - base))


def _resident(field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
