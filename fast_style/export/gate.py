"""The parity gate: an exported graph is run beside the network before its file gets its name.

A file that is right in one program may be wrong in the next, and nothing in it tells. So the bytes
that will be written are run here, at sizes that find mistakes at borders, odd sizes and in batches.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fast_style.errors import UserError
from fast_style.export.graph import GraphForm
from fast_style.export.strips import Stage, stylize_in_strips
from fast_style.images import to_float
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer

# Images, height, width.
Shape = tuple[int, int, int]
SHAPES: tuple[Shape, ...] = (
    (1, 1, 1),
    (1, 5, 7),
    (1, 64, 64),
    (1, 101, 77),
    (1, 203, 130),
    (1, 256, 256),
    (3, 64, 52),
)

Array = npt.NDArray[np.generic]
Runtime = Callable[[Array], Array]


class ParityError(UserError):
    """An exported graph does not give what the network gives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far a runtime may be from PyTorch: `floats` and `bytes` in 1/255, `share` of pixels."""

    floats: float = 0.02
    bytes: float = 1.0
    share: float = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """The largest difference in 1/255, and the share of other pixels."""

    difference: float
    share: float


def onnxruntime_session(data: bytes) -> Runtime:
    """Return a function that runs an ONNX file's bytes in ONNX Runtime, on the CPU.

    Raises UserError where it is not installed.
    """
    run = _named_session(data)
    return lambda images: next(iter(run({"image": images}).values()))


def _named_session(data: bytes) -> Stage:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "an exported graph is checked in ONNX Runtime: pip install 'fast-style[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    # Threads that wait busily would take the cores from PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def strips_runtime(stages: Mapping[str, bytes], *, strip_pixels: int) -> Runtime:
    """Return a function that runs the graphs of `stages.py` strip by strip, in ONNX Runtime."""
    runs = {name: _named_session(data) for name, data in stages.items()}

    def run(images: Array) -> Array:
        return np.stack(
            [
                stylize_in_strips(image.astype(np.uint8), runs, strip_pixels=strip_pixels)
                for image in images
            ]
        )

    return run


def check_parity(
    run: Runtime,
    network: TransformerNet,
    form: GraphForm,
    *,
    tolerance: Tolerance | None = None,
    shapes: Iterable[Shape] | None = None,
) -> Parity:
    """Compare a runtime with the network at all shapes, or the graph's own. Raises ParityError.

    Return the worst of all shapes but that of one pixel.
    """
    if tolerance is None:
        tolerance = Tolerance()
    if form.size is not None:
        shapes = [(1, *form.size)]
    reference = _reference(network, form)
    worst = [Parity(difference=0, share=0)]
    for shape in shapes or SHAPES:
        found = _compare(run, reference, form, shape)
        if not _within(found, tolerance, form, shape):
            count, height, width = shape
            raise ParityError(
                f"at {height}x{width}, {count} at once, the graph's picture differs from PyTorch's "
                f"by up to {found.difference:.3g}/255, in {found.share:.2%} of pixels: nothing was "
                "written; try another --opset, or another version of onnxruntime"
            )
        if not _is_flat(shape):
            worst.append(found)
    return Parity(
        difference=max(parity.difference for parity in worst),
        share=max(parity.share for parity in worst),
    )


def _within(found: Parity, tolerance: Tolerance, form: GraphForm, shape: Shape) -> bool:
    flat = _is_flat(shape)
    if form.io == "float":
        return found.difference <= (1 if flat else tolerance.floats)
    return found.difference <= tolerance.bytes and (flat or found.share <= tolerance.share)


def _is_flat(shape: Shape) -> bool:
    """Return whether the image is of one color: what is rounded grows by 316 at each norm then."""
    return shape[1:] == (1, 1)


def _compare(
    run: Runtime, reference: Callable[[Tensor], Tensor], form: GraphForm, shape: Shape
) -> Parity:
    images = _images(*shape)
    expected = torch.stack([reference(image) for image in images])
    if form.io == "float":
        found = torch.from_numpy(run(to_float(images).numpy()))
        difference = (found - expected).abs() * 255
    else:
        found = torch.from_numpy(run(images.permute(0, 2, 3, 1).contiguous().numpy()))
        difference = (found.permute(0, 3, 1, 2).float() - (expected * 255).round()).abs()
    if found.isnan().any():
        return Parity(difference=float("inf"), share=1)
    share = (difference.amax(1) >= 0.5).double().mean()
    return Parity(difference=float(difference.max()), share=float(share))


def _reference(network: TransformerNet, form: GraphForm) -> Callable[[Tensor], Tensor]:
    """Return what PyTorch makes of an image: (3, H, W) uint8 -> float32 in [0, 1]."""
    stylizer = Stylizer(network, device="cpu", edge=form.edge)
    edge = form.edge_pixels

    def stylized(image: Tensor) -> Tensor:
        if image.shape[-2:] != (1, 1):
            return stylizer(to_float(image))
        # See `_is_flat`: only float64 comes near to what one color should become.
        mirrored = to_float(image)[None].expand(1, 3, 1 + 2 * edge, 1 + 2 * edge)
        with torch.inference_mode():
            whole = copy.deepcopy(network).double()(mirrored.double())[0].float()
        return whole[:, edge : edge + 1, edge : edge + 1].clamp(0, 1)

    return stylized


def _images(count: int, height: int, width: int) -> Tensor:
    """(N, 3, H, W) uint8: waves and noise, as photos have them, the same ones each time."""
    noise = torch.Generator().manual_seed(count * height * width)
    rows = torch.arange(height)[:, None] / 9
    columns = torch.arange(width) / 13
    phases = torch.rand(count, 3, 1, 1, generator=noise) * 6
    waves = torch.sin(rows + phases) * torch.cos(columns - phases)
    grain = torch.rand(count, 3, height, width, generator=noise) - 0.5
    return ((0.5 + 0.35 * waves + 0.2 * grain) * 255).clamp(0, 255).round().to(torch.uint8)
