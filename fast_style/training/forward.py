"""The forward half of a step, content images to losses: one graph, compiled where that pays.

Compiling needs what a machine may lack, a compiler or Triton, and its code generators have faults
of their own. So it is rehearsed before the first step of each size of crops, and a run that did not
insist on it goes on without.
"""

import copy
import logging
import os
import shutil
import sys

import torch
from torch import Tensor, nn

from fast_style import distributed
from fast_style.config import ConfigError, TrainingConfig
from fast_style.devices import autocast, is_memory_error
from fast_style.objective.losses import Losses, PerceptualLoss
from fast_style.objective.stability import Disturbance

log = logging.getLogger(__name__)

# Compiling takes about a minute, which a shorter run does not win back.
_STEPS_WORTH_COMPILING = 2000
_C_COMPILERS = ("cc", "gcc", "clang")


class Forward(nn.Module):
    """(N, 3, S, S) content images -> the losses at what the network makes of them.

    `compiles`: "auto" compiles as long as that succeeds, true insists on it.
    """

    def __init__(
        self, network: nn.Module, criterion: PerceptualLoss, *, compiles: bool | str = False
    ) -> None:
        super().__init__()
        self.network = network
        self._criterion = criterion
        self._insists = compiles is True
        # The sizes are few, so each has kernels of its own.
        self._compiled = torch.compile(self.evaluate, dynamic=False) if compiles else None
        self._known: set[torch.Size] = set()

    @property
    def is_compiled(self) -> bool:
        """Whether steps run compiled code."""
        return self._compiled is not None

    def forward(self, content: Tensor, disturbance: Disturbance | None = None) -> Losses:
        """Return the losses, with a stability where there is a disturbance."""
        return (self._compiled or self.evaluate)(content, disturbance)

    def evaluate(self, content: Tensor, disturbance: Disturbance | None = None) -> Losses:
        """Return the losses without compiled code."""
        stylized, instability = self.network(content), None
        if disturbance is not None:
            again = self.network(disturbance.of(content))
            instability = disturbance.difference(stylized, again)
        targets = self._criterion.content_targets(content)
        return self._criterion(stylized, targets, instability=instability)

    def rehearse(
        self, content: Tensor, disturbance: Disturbance | None, *, dtype: torch.dtype
    ) -> None:
        """Compile for content images of this shape, if they are the first; nothing is updated.

        Where that fails all processes go on uncompiled, and the main one says so. Raises
        ConfigError where compiling was insisted on.
        """
        if self._compiled is None or content.shape in self._known:
            return
        reason = ""
        try:
            with autocast(content.device, dtype):
                losses = self._compiled(content, disturbance)
            losses.total.backward()
        except Exception as error:  # of whatever kind: the compiler is a large program
            if is_memory_error(error):
                raise
            reason = _in_one_line(error)
        self._known.add(content.shape)
        self.zero_grad(set_to_none=True)
        if not distributed.any_says(bool(reason)):
            return
        reason = reason or "in another process"
        if self._insists:
            raise distributed.told_once(
                ConfigError(
                    f"training.compile: true, but compiling failed ({reason}): mend that, or say "
                    "auto, which goes on without, or false"
                )
            )
        self._compiled = None
        if distributed.is_main():
            log.warning("compiling failed, so training goes on without it (%s)", reason)


def _in_one_line(error: Exception) -> str:
    first, *others = str(error).strip().splitlines() or ["without a word"]
    if first.endswith(":") and others:  # what it says of itself is on the next line
        first = f"{first} {others[0].strip()}"
    return f"{type(error).__name__}: {first}"


def choose_compiling(config: TrainingConfig, device: torch.device) -> bool | str:
    """Return what `Forward` is told: false, true, or "auto" where compiling may yet fail."""
    if not worth_compiling(config, device):
        return False
    if config.compile == "auto" and distributed.any_says(bool(lack := _lack(device))):
        if distributed.is_main():
            log.warning("not compiled, because there is %s", lack or "less in another process")
        return False
    return config.compile


def worth_compiling(config: TrainingConfig, device: torch.device) -> bool:
    """Return whether to compile: `training.compile`, or for "auto" what pays on this device."""
    if config.compile != "auto":
        return config.compile
    return device.type == "cuda" and config.steps >= _STEPS_WORTH_COMPILING


def _lack(device: torch.device) -> str:
    """Return what a compiled step on this device lacks; empty where nothing is known to."""
    if device.type != "cuda":
        return ""
    try:
        from torch.utils._triton import has_triton
    except ImportError:  # it is no public name
        return ""
    if not has_triton():
        return "no Triton for this GPU"
    # Triton builds a small launcher in C; the one for Windows brings a compiler along.
    named = os.environ.get("CC")
    compilers = (named,) if named else _C_COMPILERS
    if sys.platform != "win32" and not any(map(shutil.which, compilers)):
        return f"no C compiler ({named or ', '.join(compilers)})"
    return ""


def held_in(criterion: PerceptualLoss, dtype: torch.dtype, device: torch.device) -> PerceptualLoss:
    """Return the objective for forward passes in `dtype`: on a GPU with its weights in that type.

    Autocast would convert the loss network's frozen weights anew at each pass, a launch for each.
    """
    if dtype == torch.float32 or device.type == "cpu":
        return criterion
    held = copy.copy(criterion)
    held.features = copy.deepcopy(criterion.features)
    held.features.features.to(dtype)  # not the mean, which is subtracted in float32
    return held
