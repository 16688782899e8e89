"""What every benchmark needs: cases timed in turn, the machine's peak, a photo-like input."""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.resident import resident
from fast_style.training.usage import peak_memory

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """A case's median seconds, its memory in bytes, and its parts' seconds.

    Memory is the most that was in use on a GPU, or the growth of the process's peak on a CPU.
    """

    seconds: float
    memory: int
    parts: Mapping[str, float]


# What is timed; it may return the seconds of its parts.
Timed = Callable[[], dict[str, float] | None]
# A case returns what is timed, and is built inside the process that runs it.
Case = Callable[[], Timed]
# Seconds, memory growth, seconds of the parts.
_Run = tuple[float, int, dict[str, float]]


def photo_like(height: int, width: int, *, seed: int = 0) -> Tensor:
    """Return a (3, H, W) picture in [0, 1] with structure at every scale, as photos have."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        noise = torch.randn(1, 3, min(cells, height), min(cells, width), generator=generator)
        layer = F.interpolate(noise, (height, width), mode="bilinear")
        image = image + layer / float(cells) ** 0.5
    return (0.5 + image[0] / 4).clamp(0, 1)


def peak_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the device's best rate of floating-point operations, a second, on a convolution."""
    channels, size = 128, 512
    x = torch.randn(1, channels, size, size, device=device)
    x = x.to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3, device=device)
    kernel = kernel.to(dtype, memory_format=torch.channels_last)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        F.conv2d(x, kernel)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * 9 * channels**2 * (size - 2) ** 2 / best


def wait(device: torch.device) -> None:
    """Wait until an accelerator has finished its work; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str:
    """Return what a device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def interleave(
    cases: Mapping[str, Case], runs: int, *, device: torch.device = _CPU
) -> dict[str, Timing]:
    """Time the cases in turn, after one run of each to warm up; `device` is whose memory counts."""
    context = multiprocessing.get_context("spawn")
    runs_of: dict[str, list[_Run]] = {name: [] for name in cases}
    with contextlib.ExitStack() as stack:
        pipes = {}
        for name, case in cases.items():
            ours, theirs = context.Pipe()
            # No daemon: these may not have children, as a case with a loader has.
            process = context.Process(target=_serve, args=(theirs, case, device))
            process.start()
            stack.callback(process.join)
            pipes[name] = stack.enter_context(ours)
            theirs.close()
            ours.recv()
        for _ in range(runs + 1):
            for name, pipe in pipes.items():
                pipe.send(True)
                runs_of[name].append(pipe.recv())
    return {name: _timing(runs) for name, runs in runs_of.items()}


def _timing(runs: list[_Run]) -> Timing:
    return Timing(
        seconds=statistics.median(seconds for seconds, _, _ in runs[1:]),
        memory=max(grown for _, grown, _ in runs),
        parts={name: statistics.median(run[2][name] for run in runs[1:]) for name in runs[1][2]},
    )


def _serve(pipe: Connection, case: Case, device: torch.device) -> None:
    function = case()
    base = resident()
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is done, or was interrupted
        pipe.send(None)
        while pipe.recv():
            start = time.perf_counter()
            parts = function()
            pipe.send((time.perf_counter() - start, _memory(device, base), parts or {}))


def _memory(device: torch.device, base: int) -> int:
    return resident(most=True) - base if device.type == "cpu" else peak_memory(device)
