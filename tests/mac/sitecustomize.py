"""Have PyTorch say that this machine has an Apple GPU, as it does on a Mac.

`pytest --pretend-mps` runs this, and puts its folder on PYTHONPATH: each interpreter that starts
from then on runs it too. It waits for PyTorch to be imported, and imports nothing of it itself.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

NAME = "torch.backends.mps"


def pretend(mps: ModuleType) -> None:
    for name in ("is_available", "is_built"):
        there = getattr(mps, name)
        # "wraps", because the compiler looks for what PyTorch's own function wraps.
        setattr(mps, name, functools.wraps(there)(lambda: True))


class _Pretending(MetaPathFinder):
    """Finds the one module, and changes it as soon as it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == NAME else None
        if spec and spec.loader:
            spec.loader.exec_module = _then_pretend(spec.loader)  # type: ignore[method-assign]
        return spec


def _then_pretend(loader: Loader) -> Callable[[ModuleType], None]:
    run = loader.exec_module

    def run_and_pretend(module: ModuleType) -> None:
        run(module)
        pretend(module)

    return run_and_pretend


if NAME in sys.modules:
    pretend(sys.modules[NAME])
else:
    sys.meta_path.insert(0, _Pretending())
