"""Safetensors files: tensors behind a header of JSON, and nothing that could be executed.

The format is small enough to be read and written here, so no package is needed for it: eight bytes
that say how long the header is, the header, then the tensors' bytes, little-endian, in row order.
A model of this program keeps what its .pth holds beside the weights in the header's metadata.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

# The key of the header's metadata under which a model of this program keeps its own, as JSON.
_KEY = "fast-style"
# What the format's own reader allows.
_LONGEST_HEADER = 100_000_000
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def model_bytes(data: Mapping[str, Any]) -> bytes:
    """Return a safetensors file's bytes of what a .pth of this program holds.

    The metadata must be plain: what JSON has no word for is a TypeError.
    """
    described = {key: value for key, value in data.items() if key != "weights"}
    text = json.dumps(described, sort_keys=True)
    return tensor_bytes(data["weights"], {"format": "pt", _KEY: text})


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file's bytes, the same ones each time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        part = _bytes_of(tensor)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(part)],
        }
        parts.append(part)
        offset += len(part)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return b"".join([len(encoded).to_bytes(8, "little"), encoded, *parts])


def is_safetensors(source: Path | BinaryIO) -> bool:
    """Return whether a file or a stream begins as one: a length, and JSON. Raises OSError."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(9)
    else:
        head = source.read(9)
        source.seek(0)
    length = int.from_bytes(head[:8], "little")
    return head[8:] == b"{" and 2 <= length <= _LONGEST_HEADER


def read_safetensors(source: Path | BinaryIO) -> dict[str, Any]:
    """Read what `torch.load` gives for a .pth: a model of this program, or another's state dict.

    Raises OSError, and ValueError for a damaged file.
    """
    content = source.read_bytes() if isinstance(source, Path) else source.read()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + length:
        raise ValueError("its header is cut short")
    try:
        header = json.loads(content[8 : 8 + length].decode())
        metadata = header.pop("__metadata__", None) or {}
        body = memoryview(content)[8 + length :]
        tensors = {name: _tensor(body, name, **entry) for name, entry in header.items()}
        described = json.loads(metadata[_KEY]) if _KEY in metadata else None
        return tensors if described is None else {**described, "weights": tensors}
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its header is damaged: {error}") from None


def _tensor(
    body: memoryview, name: str, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> Tensor:
    if dtype not in _DTYPES:
        raise ValueError(f"{name} has the type {dtype}, which is not one of {', '.join(_DTYPES)}")
    first, last = data_offsets
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if not 0 <= first <= last <= len(body) or last - first != size or min(shape, default=0) < 0:
        raise ValueError(f"{name} is cut short, or its header is damaged")
    if size == 0:
        return torch.empty(shape, dtype=_DTYPES[dtype])
    # The copy can be written to, and lies where tensors of its type may lie.
    part = torch.frombuffer(bytearray(body[first:last]), dtype=torch.uint8).clone()
    return _in_order(part.view(_DTYPES[dtype])).reshape(shape)


def _bytes_of(tensor: Tensor) -> bytes:
    plain = _in_order(tensor.detach().cpu().contiguous().flatten())
    return plain.view(torch.uint8).numpy().tobytes()


def _in_order(values: Tensor) -> Tensor:
    """(N,) -> (N,): the bytes of each value reversed on a big-endian machine."""
    size = values.dtype.itemsize
    if sys.byteorder == "little" or size == 1:
        return values
    return values.view(torch.uint8).reshape(-1, size).flip(1).flatten().view(values.dtype)
