"""Where tensors live and how precisely they compute: device, precision, memory, allocator."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from fast_style.errors import UserError
from fast_style.memory import available_ram, is_memory_error, keep_freed_memory

__all__ = [
    "Precision",
    "autocast",
    "available_memory",
    "has_native_bf16",
    "is_memory_error",
    "keep_freed_memory",
    "resolve_device",
    "resolve_precision",
]

Precision = Literal["auto", "float32", "bf16", "fp16"]

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device that this machine has.

    "auto" is the first of CUDA, MPS and CPU that is there. Raises ValueError for a device that
    does not exist or is not present: nothing falls back to the CPU unasked.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"device {name!r} is not present on this machine: use auto or cpu")
    return device


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in; "auto" is bf16 where the device has it in hardware.

    Raises ValueError for fp16 on a CPU, which has no kernels worth using.
    """
    if precision == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    if precision not in _DTYPES:
        known = ", ".join(["auto", *_DTYPES])
        raise UserError(f"unknown precision {precision!r}: use one of {known}")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision 'fp16' needs a GPU: use bf16 or float32 on a CPU")
    return _DTYPES[precision]


def has_native_bf16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 arithmetic in hardware (emulation is slower)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return the context in which forward passes compute in `dtype`, an empty one for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def available_memory(device: torch.device | None = None) -> int:
    """Return the free bytes of memory: of the GPU, or of RAM within the limit of its cgroup."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_ram()
