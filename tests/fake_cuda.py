"""A GPU that is not there: the program's CUDA path, run without numbers, and what it would cost.

Tensors on "cuda" have a shape, a type, a layout and a device here, but no values, so a CPU runs all
of the program's own code for a GPU in a moment. An `Account` is kept of every operation: how many
launch something, what makes the host wait, which result is float64, how many bytes are moved.
Operations on tensors of two devices raise as they do on a GPU.

It needs a PyTorch that was built with CUDA, as those of PyPI for Linux are, and no driver. What it
cannot know: kernels inside an operation, the time of anything, layouts of bf16 convolutions.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.cuda.amp.common
import torch.utils._foreach_utils
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import graph as autograd_graph
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda")

needs_cuda_build = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this PyTorch was built without CUDA"
)
# Whoever asks for their values waits until the GPU has computed them.
_READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
# Nothing is computed by these.
_ALLOCATIONS = (
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
    "detach_",
)


@dataclass
class Account:
    """What the program has asked of the device since `clear`, each with the place in its code."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    float64: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    bytes_moved: int = 0

    @property
    def count(self) -> int:
        """The number of operations of one kernel or more."""
        return self.launches.total()

    def __str__(self) -> str:
        waits, gigabytes = self.waits.total(), self.bytes_moved / 1e9
        return f"{self.count} launches, {waits} waits of the host, {gigabytes:.2f} GB moved"

    def clear(self) -> None:
        """Begin anew."""
        for counter in (self.launches, self.waits, self.float64, self.layouts):
            counter.clear()
        self.bytes_moved = 0


class _Bookkeeper(TorchDispatchMode):
    """Lets every operation pass, and writes into the account what it does on the device."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = _tensors((args, kwargs))
        on_device = any(tensor.is_cuda for tensor in given)
        if on_device and name in _READS:
            self.account.waits[f"{_place()}: {name}"] += 1
        if name in _READS[:3]:  # there is no value to return, so that one is made up
            dtype = given[0].dtype
            return True if name != _READS[0] or dtype == torch.bool else _number(dtype)
        result = func(*args, **kwargs)
        made = _tensors(result)
        if any(tensor.is_cuda for tensor in (*given, *made)):
            self._enter(func, name, given, made, waits=not _is_asynchronous(name, args, kwargs))
        return result

    def _enter(
        self, func: Any, name: str, given: list[Tensor], made: list[Tensor], *, waits: bool
    ) -> None:
        account, place = self.account, _place()
        if name in ("_to_copy", "copy_", "to") and len({t.is_cuda for t in (*given, *made)}) > 1:
            if waits:
                account.waits[f"{place}: {name}"] += 1
            return
        if any(tensor.is_cuda and tensor.dtype == torch.float64 for tensor in made):
            account.float64[f"{place}: {name}"] += 1
        if name in _ALLOCATIONS or _is_view(func, given, made):
            return
        account.launches[f"{place}: {name}"] += 1
        account.bytes_moved += sum(t.numel() * t.element_size() for t in (*given, *made))
        maps = [t for t in (*given, *made) if t.ndim == 4 and min(t.shape[1:]) > 1]
        kinds = {t.is_contiguous(memory_format=torch.channels_last) for t in maps}
        if len(kinds) > 1 and name in ("clone", "_to_copy", "convolution"):
            account.layouts[f"{place}: {name}"] += 1


def _number(dtype: torch.dtype) -> float | int:
    return 1.0 if dtype.is_floating_point else 1


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_asynchronous(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking", name == "copy_" and len(args) > 2 and args[2]))


def _is_view(func: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operation only looks at memory that it was given."""
    if func._schema.is_mutable:
        return False
    known = {tensor.untyped_storage()._cdata for tensor in given}
    return all(tensor.untyped_storage()._cdata in known for tensor in made)


def _place() -> str:
    """Return the line of the package that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = frame.f_code.co_filename.replace("\\", "/")
        if "/fast_style/" in path:
            where = f"{path.rpartition('/fast_style/')[2]}:{frame.f_lineno}"
            return f"{where} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _backward(roots: Sequence[Tensor], seeds: Sequence[Tensor | None], *_: Any, **__: Any) -> None:
    """Stand in for autograd's engine, which asks CUDA for its streams: call its nodes in order."""
    order: list[Any] = []
    _follow([root.grad_fn for root in roots], order)
    arrived: dict[Any, dict[int, Tensor]] = {node: {} for node in order}
    for root, seed in zip(roots, seeds, strict=True):
        arrived[root.grad_fn][root.output_nr] = torch.ones_like(root) if seed is None else seed
    with torch.no_grad():
        for node in reversed(order):  # each after all that use its result
            gradients = arrived.pop(node)
            if hasattr(node, "variable"):
                _accumulate(node.variable, gradients[0])
                continue
            call = node if callable(node) else node.apply
            inputs = [gradients.get(i) for i in range(max(1, len(node._input_metadata)))]
            results = call(*inputs)
            results = results if isinstance(results, tuple) else (results,)
            for (before, number), gradient in zip(node.next_functions, results, strict=False):
                if before is not None and gradient is not None:
                    known = arrived[before].get(number)
                    arrived[before][number] = gradient if known is None else known + gradient


def _follow(nodes: Sequence[Any], order: list[Any]) -> None:
    """Append the nodes of the graph to `order`, each after all that it leads to."""
    seen: set[Any] = set()
    stack = [(node, False) for node in nodes]
    while stack:
        node, is_finished = stack.pop()
        if is_finished:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((n, False) for n, _ in node.next_functions if n is not None)


def _accumulate(leaf: Tensor, gradient: Tensor) -> None:
    if gradient.stride() != leaf.stride():
        gradient = torch.empty_like(leaf).copy_(gradient)
    leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
    """Stand in for `nn.Module._apply`, which changes the data of a parameter in place."""
    for child in module.children():
        _apply(child, function)
    with torch.no_grad():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                changed = nn.Parameter(function(parameter), requires_grad=parameter.requires_grad)
                module._parameters[name] = changed
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else function(buffer)
    return module


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Stand in for `Tensor.__deepcopy__`, which looks into the memory of a tensor."""
    with torch.no_grad():
        copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
    memo[id(tensor)] = copy
    return copy


def _new_tensor(tensor: Tensor, data: Any, **options: Any) -> Tensor:
    """Stand in for `Tensor.new_tensor`: make it on the host, and copy it to the device."""
    made = torch.tensor(data, dtype=options.get("dtype", tensor.dtype))
    return torch.empty(made.shape, dtype=made.dtype).to(options.get("device", tensor.device))


class _Event:
    def synchronize(self) -> None: ...


class _Stream:
    def record_event(self) -> _Event:
        return _Event()


@contextlib.contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Within, tensors may be on "cuda", and what PyTorch asks a driver is answered for one."""
    with monkeypatch.context() as patch:
        for place in (torch.autograd, autograd_graph):
            patch.setattr(place, "_engine_run_backward", _backward)
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(Tensor, "__deepcopy__", _copied)
        patch.setattr(Tensor, "new_tensor", _new_tensor)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: _Stream())
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (60 << 30, 80 << 30))
        patch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda device=None: 0)
        # `torch.cuda.is_available` stays false: or PyTorch itself would call the driver.
        account = Account()
        foreach = torch.utils._foreach_utils._foreach_supported_types
        foreach.append(FakeTensor)
        try:
            with FakeTensorMode(allow_non_fake_inputs=False), _Bookkeeper(account):
                yield account
        finally:
            foreach.remove(FakeTensor)
