"""The processes that load photos: how many, how they are started, whom they obey."""

import copy
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.context import BaseContext
from typing import Literal

from fast_style import distributed
from fast_style.config import DataConfig

# The batches that each has ready before they are asked for.
PREFETCHED = 2
# A CPU that trains needs its cores for that; a GPU may take what many cores load.
_BESIDE_A_CPU = 2
_BESIDE_A_GPU = 12


def number_of_workers(wanted: int | Literal["auto"], device_type: str) -> int:
    """Return the number of processes that load photos for this one.

    "auto" leaves a core to each process that trains on CUDA, up to a number that feeds any card.
    """
    if wanted != "auto":
        return wanted
    if device_type != "cuda":
        return _BESIDE_A_CPU
    return min(max((cores() - 1) // distributed.processes_here(), 1), _BESIDE_A_GPU)


def cure_for_waiting(data: DataConfig, workers: int) -> str:
    """Return what makes photos come faster than with so many `workers`."""
    cures = []
    if (workers + 1) * distributed.processes_here() < cores():
        cures.append(f"raise data.workers ({workers} now, with {cores()} cores)")
    if data.cache is None:
        cures.append("name a folder in data.cache")
    return " or ".join(cures) or "smaller photo files, or a faster disk, would help"


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Flag:
    """The part of multiprocessing's Event that a DataLoader uses, without its lock.

    Setting the flag ends the workers. A worker that is killed while it reads an Event keeps the
    lock for ever, and then nobody ends: not the other workers, and not the main process.
    """

    def __init__(self) -> None:
        self._value = multiprocessing.RawValue("b", 0)

    def set(self) -> None:
        self._value.value = 1

    def is_set(self) -> bool:
        return bool(self._value.value)


def context() -> BaseContext:
    """Return the way in which processes are started, with flags that outlive killed workers."""
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    vars(context)["Event"] = _Flag
    return context


def obey_the_main_process_only(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which may go to a group's every process, to the main process.

    The main process saves first and then sends SIGTERM; workers ignore SIGTERM from anyone else.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # other systems do not name a signal's sender
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(main_process: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main_process:
        pass
    os._exit(0)
