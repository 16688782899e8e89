"""An exported model in each runtime: size, parity, cold start, memory and speed.

Each runtime has a process of its own for every measurement, and they take turns. Seconds are those
of the CPU, with one thread: what other programs take from a shared machine is not among them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.resident import resident
from fast_style.commands import main as program
from fast_style.commands.options import count

Pixels = npt.NDArray[np.uint8]

RUNTIMES = (
    "Stylizer",
    "Stylizer, bf16",
    "ONNX Runtime",
    "ONNX Runtime, textbook graph",
    "OpenVINO",
    "OpenVINO, bf16",
)
_EDGES = (512, 1024)
_PREPARED = "prepare"
# Height and width; odd ones, and one with more columns than rows.
_PARITY = ((61, 83), (203, 130), (256, 256), (512, 512))
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# A child is said to have had the memory of the process that started it: this one is small.
_STARTER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime,
                  1024 * usage.ru_maxrss]))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="wave", help="(default: wave)")
    parser.add_argument("--runs", type=count, default=3, help="runs of each measurement")
    parser.add_argument("--rounds", type=count, default=2, help="processes of each runtime")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "RUNTIME"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    if options.child:
        folder, runtime = options.child
        if runtime == _PREPARED:
            return _prepare(Path(folder), options.model)
        print(json.dumps(_measured(Path(folder), runtime, options)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _child(folder, _PREPARED, options)
        found: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in RUNTIMES}
        for _ in range(options.rounds):
            for runtime, rounds in found.items():
                rounds.append({**_in_a_child(folder, runtime, options), **_cold(folder, runtime)})
        parity = {runtime: _parity(folder, runtime) for runtime in RUNTIMES}
        sizes = {"Stylizer": (folder / "model.pth").stat().st_size}
        sizes["ONNX Runtime"] = (folder / "model.onnx").stat().st_size
        sizes["ONNX Runtime, textbook graph"] = (folder / "textbook.onnx").stat().st_size
    print("| runtime | MB | differs by at most | cold start | memory, 1024² | 512² | 1024² |")
    print("|---|---|---|---|---|---|---|")
    for runtime, rounds in found.items():
        value = {name: median(one[name] for one in rounds) for name in rounds[0]}
        size = f"{sizes[runtime] / 1e6:.2f}" if runtime in sizes else ""
        print(
            f"| {runtime} | {size} | {parity[runtime]} | {value['cold']:.2f} s, "
            f"{value['cold_memory'] / 1e6:.0f} MB | {value['memory'] / 1e6:.0f} MB | "
            f"{value['512']:.0f} ms | {value['1024']:.0f} ms |"
        )
    for edge in _EDGES:
        ours, textbook = (
            median(one[str(edge)] for one in found[name])
            for name in ("ONNX Runtime", "ONNX Runtime, textbook graph")
        )
        print(f"ours against the textbook graph at {edge}: {textbook / ours:.2f} times as fast")
    return 0


def _prepare(folder: Path, name: str) -> int:
    from benchmarks.textbook import textbook_bytes
    from fast_style.checkpoints.files import find_model, load_model, save_model

    model = load_model(find_model(name))
    save_model(folder / "model.pth", model.network, metadata=model.metadata)
    assert (
        program(["export", "--model", str(folder / "model.pth"), "-o", f"{folder}/model.onnx"]) == 0
    )
    (folder / "textbook.onnx").write_bytes(textbook_bytes(model.network))
    for edge in _EDGES:
        Image.fromarray(photo(edge, edge)).save(folder / f"{edge}.png")
    return 0


def photo(height: int, width: int) -> Pixels:
    """Waves and grain, as photos have them."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 9 + k) * np.cos(columns / 13 - k) for k in range(3)]
    grain = np.random.default_rng(height * width).random((height, width, 3)) - 0.5
    return ((0.5 + 0.35 * np.stack(waves, -1) + 0.2 * grain).clip(0, 1) * 255).astype(np.uint8)


def _stylizer(folder: Path, runtime: str) -> Callable[[Pixels], Pixels]:
    precision = "bf16" if runtime.endswith("bf16") else "float32"
    if runtime.startswith("Stylizer"):
        from fast_style import Stylizer
        from fast_style.memory import keep_freed_memory

        keep_freed_memory()
        return Stylizer(folder / "model.pth", device="cpu", precision=precision)  # type: ignore[arg-type]
    from fast_style.export.portable import PortableStylizer

    file = "textbook.onnx" if runtime.endswith("graph") else "model.onnx"
    backend = "openvino" if runtime.startswith("OpenVINO") else "onnxruntime"
    return PortableStylizer(folder / file, backend=backend, precision=precision)  # type: ignore[arg-type]


def _in_a_child(folder: Path, runtime: str, options: argparse.Namespace) -> dict[str, float]:
    return dict(json.loads(_child(folder, runtime, options).splitlines()[-1]))


def _child(folder: Path, runtime: str, options: argparse.Namespace) -> str:
    """Run this module alone: the benchmarks beside it import PyTorch."""
    arguments = ["--runs", str(options.runs), "--model", options.model]
    arguments += ["--child", str(folder), runtime]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.exported", *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **_ONE_THREAD},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _measured(folder: Path, runtime: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU milliseconds of a run at each size, and the memory of the largest."""
    stylize = _stylizer(folder, runtime)
    values: dict[str, float] = {}
    for edge in _EDGES:
        image = photo(edge, edge)
        stylize(image)
        times = []
        for _ in range(options.runs):
            begun = time.process_time()
            stylize(image)
            times.append(time.process_time() - begun)
        values[str(edge)] = 1000 * median(times)
    values["memory"] = resident(most=True)
    return values


def _cold(folder: Path, runtime: str) -> dict[str, float]:
    """Return the CPU seconds, and the memory, of a command that stylizes a file of 512x512."""
    file = "textbook.onnx" if runtime.endswith("graph") else "model.onnx"
    model = "model.pth" if runtime.startswith("Stylizer") else file
    arguments = ["stylize", "--model", str(folder / model), str(folder / "512.png")]
    arguments += ["-o", str(folder / "out.png"), "--overwrite"]
    if runtime.startswith("OpenVINO"):
        arguments += ["--backend", "openvino"]
    if runtime.endswith("bf16"):
        arguments += ["--precision", "bf16"]
    done = subprocess.run(
        [sys.executable, "-c", _STARTER, sys.executable, "-m", "fast_style", *arguments],
        env={**os.environ, **_ONE_THREAD},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    code, seconds, memory = json.loads(done.stdout)
    assert code == 0, arguments
    return {"cold": seconds, "cold_memory": memory}


def _parity(folder: Path, runtime: str) -> str:
    """Return how far a runtime is from `Stylizer` in float32, at the worst of some sizes."""
    if runtime == "Stylizer":
        return ""
    stylize, reference = (_stylizer(folder, name) for name in (runtime, "Stylizer"))
    most, share, error = 0, 0.0, 0.0
    for height, width in _PARITY:
        if runtime.endswith("graph"):
            height, width = height // 4 * 4, width // 4 * 4
        image = photo(height, width)
        apart = np.abs(stylize(image.copy()).astype(int) - reference(image.copy()).astype(int))
        most = max(most, int(apart.max()))
        share = max(share, float((apart.max(-1) > 0).mean()))
        error = max(error, float(np.square(apart).mean()))
    decibels = f"{10 * np.log10(255**2 / error):.0f} dB" if error else "equal"
    return f"{most}/255, in {share:.2%} of pixels, {decibels}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
