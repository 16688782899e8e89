"""Where a network is built from its description, which is what a model file holds of it.

A second family of networks is a class with `spec()` in a file of its own, and a line in `KINDS`.
"""

from collections.abc import Mapping
from typing import Any

from fast_style.networks.patch import PatchNet
from fast_style.networks.transformer import TransformerNet

# What a description without a `kind` means: the first model files had one family to choose from.
DEFAULT_KIND = "residual"
KINDS: Mapping[str, type[TransformerNet]] = {DEFAULT_KIND: TransformerNet, "patch": PatchNet}


def build_network(spec: Mapping[str, Any]) -> TransformerNet:
    """Build the network that `spec` describes: its `kind`, and that class's own arguments.

    Raises ValueError for a kind that is not known, and TypeError for arguments that do not fit it.
    """
    arguments = dict(spec)
    kind = arguments.pop("kind", DEFAULT_KIND)
    if kind not in KINDS:
        raise ValueError(
            f"holds a network of kind {kind!r}, but this version knows {', '.join(KINDS)} only: "
            "update fast-style"
        )
    return KINDS[kind](**arguments)
