"""Several processes that train one network together, each on its share of every batch.

`torchrun --nproc-per-node N -m fast_style train ...` starts them and tells each its rank. Rank 0 is
the main process: it reports and writes. In a program that was started alone every function here
returns its argument, or what holds for one process.
"""

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fast_style.errors import ProcessLostError as ProcessLostError
from fast_style.errors import ToldElsewhereError as ToldElsewhereError
from fast_style.errors import UserError

T = TypeVar("T")

# A process that waits longer than this for another gives up.
_TIMEOUT = timedelta(minutes=30)
# The others wait so long while the main process prepares: it may download, and fill a cache.
_PREPARATION_TIMEOUT = timedelta(days=1)


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def processes_here() -> int:
    """Return the number of them on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if world_size() > 1 else 1


def rank() -> int:
    """Return this process's number among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that reports and writes."""
    return rank() == 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started with this one, if it did.

    Raises ProcessLostError when another one ends before its time.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or world_size() > 1:
        yield
        return
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=_TIMEOUT)
    try:
        yield
    except RuntimeError as error:
        if not _tells_of_a_loss(error):
            raise
        raise ProcessLostError(
            f"process {rank()} of {world_size()} has lost another one, which torchrun names"
        ) from None
    dist.destroy_process_group()


def local_device(name: str) -> str:
    """Return the device of this process: of several GPUs one of its own. Raises ValueError."""
    if world_size() == 1 or name == "cpu":
        return name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if name != "cuda":
        raise UserError(f"device {name!r} is not for several processes: use auto, cpu or cuda")
    here = processes_here()
    if here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes, but {torch.cuda.device_count()} GPUs on this machine: start "
            "torchrun with --nproc-per-node gpu"
        )
    index = int(os.environ.get("LOCAL_RANK", rank()))
    torch.cuda.set_device(index)
    return f"cuda:{index}"


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Make an error in one process end them all, and let one of them report it.

    That process raises its own error, the others ToldElsewhereError.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if world_size() == 1:
            raise
        failure = error
    if world_size() == 1:
        return
    failed: list[bool] = [False] * world_size()
    patient = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_PREPARATION_TIMEOUT))
    dist.all_gather_object(failed, failure is not None, group=patient)
    dist.destroy_process_group(patient)
    if any(failed):
        teller = failed.index(True)
        raise failure if failure and teller == rank() else ToldElsewhereError(f"process {teller}")


def told_once(error: Exception) -> Exception:
    """Return what this process raises for an error that all processes have met."""
    return error if is_main() else ToldElsewhereError("process 0")


@contextlib.contextmanager
def only_main_speaks() -> Iterator[None]:
    """Keep the other processes from logging what the main process logs."""
    if is_main():
        yield
        return
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def wrap(network: nn.Module, device: torch.device) -> nn.Module:
    """Return `network` with gradients that `backward` averages over all processes."""
    if world_size() == 1:
        return network
    indices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=indices)


def total(values: Tensor) -> Tensor:
    """Sum each value over the processes."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """Average each value over the processes."""
    return total(values) / world_size() if world_size() > 1 else values


def any_says(flag: bool) -> bool:
    """Return whether `flag` is true in any process."""
    return bool(total(torch.tensor(float(flag))))


def from_main(value: T) -> T:
    """Return the main process's value."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gathered(items: Sequence[T]) -> list[T]:
    """Put the processes' items one after the other, in the order of their ranks."""
    if world_size() == 1:
        return list(items)
    lists: list[Sequence[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(lists, items)
    return [item for part in lists for item in part]


def _tells_of_a_loss(error: RuntimeError) -> bool:
    """Return whether an error comes from the connection between processes."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
