"""Running an exported model: ONNX Runtime or OpenVINO, NumPy and Pillow, and no PyTorch.

`PortableStylizer("wave.onnx")(pixels)` is what `Stylizer` is for a .pth, for a whole image at once.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fast_style.errors import UserError
from fast_style.export.pixels import (
    Floats,
    Pixels,
    from_linear_light,
    like,
    recolored,
    resized,
    to_float,
    to_linear_light,
    with_luma_of,
)
from fast_style.export.strips import HELD_BYTES, STAGES, Stage, stylize_in_strips
from fast_style.memory import available_ram

Backend = Literal["onnxruntime", "openvino"]
Precision = Literal["auto", "float32", "bf16"]
PreserveColor = Literal["off", "luma", "histogram"]
# What the maps of a whole image take, for each channel of the network's width.
_BYTES_PER_PIXEL = 20
# Where the model has graphs for strips, larger images go through them: by then the maps of a whole
# image have left every cache, and take 1.3 GB at width 16.
_STRIPS_FROM = 4_000_000


class PortableStylizer:
    """Applies an exported model to pixels.

    `backend` is the program that runs it; "openvino" also computes in bf16, which `precision`
    "auto" chooses where the CPU has it. The rest is as in `Stylizer`. Raises UserError.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        backend: Backend = "onnxruntime",
        precision: Precision = "float32",
        strength: float = 1.0,
        preserve_color: PreserveColor = "off",
        size: int | None = None,
    ) -> None:
        path = Path(model)
        if not path.is_file():
            raise UserError(f"{path}: no such model file")
        if not 0 <= strength <= 1:
            raise UserError(f"strength {strength!r} is impossible: it must be between 0 and 1")
        if backend == "openvino":
            load: Callable[[Path], _Graph] = partial(_openvino, precision=precision)
        else:
            if precision == "bf16":
                raise UserError("precision bf16 needs backend openvino: ONNX Runtime has none")
            load = _onnxruntime
        graph = load(path)
        self._graph, shape, self.about = graph.run, graph.shape, graph.about
        self._stages = _stages(path, load, of=self.about)
        self.takes_floats = len(shape) == 4 and shape[1] == 3
        if not self.takes_floats and (len(shape) != 4 or shape[3] != 3):
            raise UserError(f"{path}: is no model that fast-style export wrote: it takes {shape}")
        fixed = shape[2:] if self.takes_floats else shape[1:3]
        if self.takes_floats:
            self._stages = None
        self._fixed = (fixed[0], fixed[1]) if all(isinstance(n, int) for n in fixed) else None
        self._width = int(self.about.get("width", 32))
        self._strength = strength
        self._preserve_color = preserve_color
        self._size = size

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what an image of so many pixels becomes."""
        if not self._size:
            return height, width
        scale = self._size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __call__(self, pixels: Pixels) -> Pixels:
        """(H, W, 3) uint8 or uint16 -> the same type, at the size of `output_size`.

        Raises UserError for a size that the model does not take, or that the memory does not hold.
        """
        height, width = self.output_size(*pixels.shape[:2])
        self._check_size(height, width)
        if pixels.shape[:2] != (height, width):
            pixels = like(resized(to_float(pixels), height, width), pixels)
        plain = self._strength == 1 and self._preserve_color == "off"
        if self.takes_floats:
            planes = np.ascontiguousarray(to_float(pixels).transpose(2, 0, 1))
            stylized = self._run(planes[None])[0].transpose(1, 2, 0)
        elif pixels.dtype == np.uint8:
            pixels = np.ascontiguousarray(pixels)
            if self._stages and height * width > _STRIPS_FROM:
                stylized = stylize_in_strips(pixels, self._stages())
            else:
                stylized = self._run(pixels[None])[0]
            if plain:
                return stylized
            stylized = to_float(stylized)
        else:
            raise UserError("this model takes 8 bits a channel: export it with --io float")
        return like(self._finished(stylized, pixels), pixels)

    def _check_size(self, height: int, width: int) -> None:
        if self._fixed and self._fixed != (height, width):
            of = "x".join(map(str, self._fixed))
            raise UserError(
                f"this model takes {of} pixels (height x width), not {height}x{width}: export it "
                "without --size"
            )
        strips = self._stages and height * width > _STRIPS_FROM
        each = HELD_BYTES if strips else _BYTES_PER_PIXEL
        if height * width * self._width * each > available_ram():
            cure = "" if strips else "a model that was exported with --strips, "
            raise UserError(
                f"{width}×{height} is too large for the memory there is: try a smaller --size, "
                f"{cure}or the model's .pth"
            )

    def _run(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        (output,) = self._graph({"image": images}).values()
        return output

    def _finished(self, stylized: Floats, pixels: Pixels) -> Floats:
        if self._strength == 1 and self._preserve_color == "off":
            return stylized
        content = to_float(pixels)
        if self._preserve_color == "luma":
            stylized = with_luma_of(stylized, content)
        elif self._preserve_color == "histogram":
            # As of a picture of `pixels`' depth, which `Stylizer` has at this point.
            stylized = recolored(to_float(like(stylized, pixels)), content)
        stylized = stylized.clip(0, 1)
        if self._strength == 1:
            return stylized
        photo, style = to_linear_light(content), to_linear_light(stylized)
        return from_linear_light(photo + self._strength * (style - photo))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graph:
    """What runs a graph, the shape of its first input, and what its file says of itself."""

    run: Stage
    shape: list[Any]
    about: dict[str, str]


def _thread_count() -> int:
    """Return what OMP_NUM_THREADS asks for, as PyTorch does; 0 is what the runtime takes itself."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() else 0


def _stages(
    path: Path, load: Callable[[Path], _Graph], *, of: dict[str, str]
) -> Callable[[], dict[str, Stage]] | None:
    """Return what loads the graphs for strips that lie beside a model, None where there are none.

    Some of them are none: those of an export that was killed. Raises UserError where they are
    another model's, or another form's.
    """
    files = strips_files(path)
    if not all(file.is_file() for file in files.values()):
        return None

    @cache
    def loaded() -> dict[str, Stage]:
        graphs = {stage: load(file) for stage, file in files.items()}
        for stage, graph in graphs.items():
            for what, of_what in (("checksum", "model"), ("edge", "--edge")):
                if graph.about.get(what) != of.get(what):
                    raise UserError(
                        f"{files[stage]}: is of another {of_what} than {path}: export that again, "
                        f"or remove {strips_folder(path)}"
                    )
        return {stage: graph.run for stage, graph in graphs.items()}

    return loaded


def strips_folder(path: Path) -> Path:
    """Return the folder of an exported model's graphs for strips."""
    return path.with_suffix(".strips")


def strips_files(path: Path) -> dict[str, Path]:
    """Return the files of an exported model's graphs for strips, by their stages."""
    return {stage: strips_folder(path) / f"{stage}.onnx" for stage in STAGES}


def _onnxruntime(path: Path) -> _Graph:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"{path}: running it needs pip install 'fast-style[export]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _thread_count()
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        # As fast on an idle machine; spinning threads would take a busy one's cores from others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its classes are not public
        raise UserError(f"{path}: cannot be run: {str(error).splitlines()[0]}") from None
    names = [output.name for output in session.get_outputs()]
    return _Graph(
        run=lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True)),
        shape=session.get_inputs()[0].shape,
        about=dict(session.get_modelmeta().custom_metadata_map),
    )


@cache
def openvino_core() -> Any:
    """Return the `openvino.Core` of this process. Raises UserError where there is none.

    It lives as long as the process. Its plugin for CPUs gives the thread that loads it a stack for
    signals, and frees that when it goes; where it goes in another thread, the next signal to the
    first one, Ctrl-C or a child's end, is a segmentation fault.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise UserError("backend openvino needs pip install 'fast-style[openvino]'") from None
    return openvino.Core()


def _openvino(path: Path, *, precision: Precision) -> _Graph:
    core = openvino_core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = ("bf16" if "BF16" in able else "f32") if precision == "auto" else precision
    if wanted == "bf16" and "BF16" not in able:
        raise UserError("precision bf16: this CPU has none: use float32 or auto")
    try:
        model = core.read_model(path)
        # Compiling adds names of its own.
        names = [output.any_name for output in model.outputs]
        hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": wanted.replace("float32", "f32")}
        hints["INFERENCE_NUM_THREADS"] = _thread_count()
        compiled = core.compile_model(model, "CPU", hints)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be run: {str(error).splitlines()[0]}") from None
    about = dict(model.rt_info).get("framework", {})
    return _Graph(
        run=lambda feeds: dict(zip(names, compiled(dict(feeds)).values(), strict=True)),
        shape=[
            axis.get_length() if axis.is_static else str(axis)
            for axis in model.input(0).partial_shape
        ],
        about={name: str(value.value) for name, value in about.items()},
    )
