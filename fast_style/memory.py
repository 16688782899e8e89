"""Memory: what there is, what was too much, and the allocator. It knows nothing of torch."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

# What PyTorch and ONNX Runtime say where there is too little memory, or no memory would do: in
# lower case, because drivers and libraries write the same in several ways.
_MEMORY_ERRORS = (
    "allocate memory",
    "not enough memory",  # Windows
    "out of memory",  # CUDA's driver, HIP and MPS, where it is not torch's own class
    "invalid buffer size",  # MPS, for one block that is too large
    "status_alloc_failed",  # cuDNN and cuBLAS
    "storage size calculation overflowed",
    "integer multiplication overflow",
)


def available_ram() -> int:
    """Return the bytes that an allocation may still use: of RAM and its cgroup."""
    limits = [_meminfo_available()]
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = int((cgroup / "memory.max").read_text())
        limits.append(limit - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no cgroup, or no limit ("max")
    return max(min(limits), 0)


def _meminfo_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def keep_freed_memory(*, up_to: int | None = None) -> None:
    """Tell glibc to keep freed blocks for reuse instead of returning them to the system.

    Every activation above 32 MB is otherwise mapped and unmapped anew; at 1024×1024 these page
    faults are half of a forward pass. Blocks above `up_to` bytes, which is 32 MB at most, still go
    back at once: where large blocks come and go among small ones that stay, kept ones would leave
    holes. It changes the whole process, so only programs call it. Elsewhere than on glibc it does
    nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_mmap_threshold, m_mmap_max = -1, -3, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    if up_to is None:
        mallopt(m_mmap_max, 0)
    else:
        mallopt(m_mmap_threshold, up_to)
    mallopt(m_trim_threshold, 2**31 - 1)


def share_one_heap() -> None:
    """Tell glibc that all threads share one heap; call it before there are threads.

    Each thread has one of its own otherwise, and keeps there what it freed: in a server, whose
    requests are threads, the same photos would take more and more memory.
    """
    if sys.platform.startswith("linux"):
        m_arena_max = -8
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(m_arena_max, 1)


def is_memory_error(error: Exception) -> bool:
    """Return whether there was too little memory, for which PyTorch on a CPU has no class.

    Its class of GPUs is known by its name, so that torch need not be imported.
    """
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError) and kind != "RuntimeException":
        return False
    said = str(error).lower()
    return any(text in said for text in _MEMORY_ERRORS)
