"""What a run makes of its device: the rate of its arithmetic beside the device's, and memory."""

import importlib.util
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from fast_style import distributed
from fast_style.devices import autocast
from fast_style.objective.stability import draw_disturbance
from fast_style.training.forward import Forward
from fast_style.training.trainee import Trainee

# Of an image that is large enough for every layer; the count grows with the number of pixels.
_COUNTED_SIZE = 64
# The side of the matrices whose product shows the device's rate, and how often it is tried.
_SIDE = {"cuda": 8192, "mps": 2048}
_SMALL_SIDE = 1024
_TRIES = 5


def flops_per_pixel(trainee: Trainee) -> float:
    """Count the floating-point operations of an update for each pixel of its crops.

    Only those of convolutions and matrix products, as is usual: of the networks and the losses,
    forward and backward, and of the pass for a stability loss. They are counted on one small image,
    and change nothing.
    """
    inputs = trainee.inputs
    content = torch.full((1, 3, _COUNTED_SIZE, _COUNTED_SIZE), 0.5, device=inputs.device)
    disturbance = None
    if inputs.criterion.stability_weight:
        disturbance = draw_disturbance(0, 0, count=1, size=_COUNTED_SIZE, device=inputs.device)
    forward = Forward(trainee.network, inputs.criterion)
    with FlopCounterMode(display=False) as counter:
        with autocast(inputs.device, inputs.dtype):
            losses = forward.evaluate(content, disturbance)
        torch.autograd.grad(losses.total, list(trainee.network.parameters()))
    return counter.get_total_flops() / _COUNTED_SIZE**2


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the best rate of a matrix product on the device, in operations a second."""
    side = _SIDE.get(device.type, _SMALL_SIDE)
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_TRIES):
        wait_for(device)
        start = time.perf_counter()
        left @ right
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done all that it was told to; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes of memory that were in use: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()  # which never shrinks by itself
    if importlib.util.find_spec("resource") is None:  # Windows
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Usage:
    """What a run uses of its device; the device's own rate is measured when it is first asked."""

    def __init__(self, trainee: Trainee) -> None:
        self._trainee = trainee
        self._of_pixel = self._peak = 0.0
        self._scalars: dict[str, float] = {}

    def scalars(self, work_rate: float) -> dict[str, float]:
        """Return, by tag, what a run uses that finishes crops of `work_rate` pixels a second.

        That is the area of one crop of each step.
        """
        trainee, inputs = self._trainee, self._trainee.inputs
        if not self._peak:
            self._of_pixel = flops_per_pixel(trainee)
            self._peak = peak_flops(inputs.device, inputs.dtype)
        images = trainee.config.batch_size // distributed.world_size()
        rate = work_rate * images * self._of_pixel
        self._scalars = {
            "run/teraflops_per_second": rate / 1e12,
            "run/utilization": rate / self._peak,
            "run/peak_memory_gigabytes": peak_memory(inputs.device) / 1e9,
        }
        return self._scalars

    def summary(self) -> str:
        """Return the same in a line; empty where nobody has asked before."""
        if not self._scalars:
            return ""
        rate, share, memory = self._scalars.values()
        precision = str(self._trainee.inputs.dtype).removeprefix("torch.")
        of = f"{share:.0%} of a matrix product's in {precision}"
        at_most = f", {memory:.1f} GB of memory at most" if memory else ""
        return f"{rate:.2f} TFLOP/s, {of}{at_most}"
