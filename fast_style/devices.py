"""Where tensors live and how precisely they compute: device, precision, memory, allocator."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import Tensor

from fast_style.errors import UserError
from fast_style.memory import available_ram, is_memory_error, keep_freed_memory

__all__ = [
    "Arriving",
    "Precision",
    "autocast",
    "available_memory",
    "exact_device",
    "has_native_bf16",
    "is_memory_error",
    "items_with_tf32",
    "keep_freed_memory",
    "release_cached_memory",
    "resolve_device",
    "resolve_precision",
    "tf32",
]

T = TypeVar("T")

Precision = Literal["auto", "float32", "bf16", "fp16"]

# What "auto" means, where it is set: tests hide a Mac's GPU from the programs that they start.
DEVICE_VARIABLE = "FAST_STYLE_DEVICE"

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device that this machine has.

    "auto" is what the environment's FAST_STYLE_DEVICE names, else the first of CUDA, MPS and CPU
    that is there. Raises ValueError for a device that does not exist or is not present: nothing
    falls back to the CPU unasked.
    """
    if name == "auto":
        name = os.environ.get(DEVICE_VARIABLE) or "auto"
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
    if device.type == "cuda" and device.index is not None:
        # Or threads, such as the one that pins memory, would open a context on the first GPU.
        torch.cuda.set_device(device)
    return device


def exact_device(device: torch.device) -> torch.device:
    """Return where float64 is computed for what is on `device`: Apple's GPUs have none."""
    return torch.device("cpu") if device.type == "mps" else device


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


@contextmanager
def tf32(device: torch.device, *, allowed: bool) -> Iterator[None]:
    """Decide, in this context, whether a GPU may round the factors of float32 products to TF32.

    TF32 keeps 10 bits of a factor's 23 and is several times faster on tensor cores. Training
    allows it; stylizing, the baseline and the certificate do not, so that float32 is float32.
    PyTorch's own default is half of each: convolutions round, matrix products do not.
    """
    if device.type != "cuda":
        yield
        return
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def items_with_tf32(items: Iterator[T], device: torch.device, *, allowed: bool) -> Iterator[T]:
    """Yield `items`, each of which is made within `tf32`, while the caller is outside of it."""
    while True:
        with tf32(device, allowed=allowed):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def available_memory(device: torch.device | None = None) -> int:
    """Return the free bytes of memory: of the GPU, or of RAM within the limit of its cgroup.

    Of a GPU, what PyTorch has taken and holds no tensors counts as free.
    """
    if device is not None and device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return available_ram()


def release_cached_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps of a GPU's memory, so that a large block can be had again."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class Arriving:
    """A tensor on its way to the host, which works on meanwhile and does not wait for a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        on_cuda = tensor.device.type == "cuda"
        # PyTorch takes pinned memory for such a copy, without which it would not be asynchronous.
        self._tensor = tensor.to("cpu", non_blocking=on_cuda)
        stream = torch.cuda.current_stream(tensor.device) if on_cuda else None
        self._copied = stream.record_event() if stream else None

    def wait(self) -> Tensor:
        """Return the tensor on the CPU, once it is there."""
        if self._copied:
            self._copied.synchronize()
        return self._tensor
