"""`stylize --model M.onnx`: the pictures of `Stylizer`, without PyTorch."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import photo

from fast_style.checkpoints.files import save_model
from fast_style.commands import main
from fast_style.errors import UserError
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer

pytest.importorskip("onnx", reason="pip install 'fast-style[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'fast-style[export]'")

from fast_style.export.portable import PortableStylizer

Stylize = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network: TransformerNet) -> Path:
    """The working folder, with sea.pth, sea.onnx, float.onnx and a.png."""
    monkeypatch.chdir(tmp_path)
    save_model("sea.pth", tiny_network)
    for name, options in {"sea": [], "float": ["--io", "float"]}.items():
        assert main(["export", "--model", "sea.pth", "-o", f"{name}.onnx", *options]) == 0
    photo(3, 45, 61).save("a.png")
    return tmp_path


def stylize(*arguments: str) -> int:
    return main(["stylize", *arguments])


def pixels_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def assert_same_picture(
    one: str | Path, other: str | Path, *, share: float = 0.02, most: int = 1
) -> None:
    first, second = pixels_of(one), pixels_of(other)
    assert first.shape == second.shape
    difference = np.abs(first.astype(int) - second.astype(int))
    assert difference.max() <= most
    assert (difference > 0).mean() <= share
    assert (difference > 1).mean() <= 0.01


@pytest.mark.parametrize("model", ["sea.onnx", "float.onnx"])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--strength", "0.6"],
        ["--preserve-color", "luma"],
        ["--preserve-color", "histogram"],
        ["--preserve-color", "histogram", "--strength", "0.5"],
        ["--size", "40"],
        ["--size", "100", "--strength", "0.8"],
    ],
    ids=" ".join,
)
def test_the_options_do_what_they_do_with_pytorch(
    folder: Path, model: str, options: list[str]
) -> None:
    assert stylize("--model", "sea.pth", "a.png", "-o", "torch.png", *options) == 0
    assert stylize("--model", model, "a.png", "-o", "exported.png", *options) == 0
    # What comes as bytes is rounded once more. Colour transfer magnifies a difference of 1 in a
    # picture that has hardly any spread.
    rounded_twice = model == "sea.onnx" and ("--strength" in options or "luma" in options)
    assert_same_picture(
        "torch.png",
        "exported.png",
        share=0.25 if rounded_twice else 0.03,
        most=10 if "histogram" in options else 1,
    )


@pytest.mark.parametrize("options", [[], ["--size", "50"]], ids=["as it is", "resized"])
def test_transparency_stays_and_invisible_pixels_do_not_matter(
    folder: Path, options: list[str]
) -> None:
    alpha = np.zeros((45, 61), np.uint8)
    alpha[5:30, 8:50] = 255
    alpha[30:33, 8:50] = 100
    values = np.dstack([pixels_of("a.png"), alpha])
    values[alpha == 0, :3] = (255, 0, 255)
    Image.fromarray(values).save("clear.png")
    assert stylize("--model", "sea.pth", "clear.png", "-o", "torch.png", *options) == 0
    assert stylize("--model", "sea.onnx", "clear.png", "-o", "exported.png", *options) == 0
    assert_same_picture("torch.png", "exported.png")


def test_16_bits_stay_where_the_model_takes_floats(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile = pytest.importorskip("tifffile")
    deep = (np.random.default_rng(0).random((30, 40, 3)) * 65535).astype(np.uint16)
    tifffile.imwrite("deep.tiff", deep, photometric="rgb")
    assert stylize("--model", "sea.pth", "deep.tiff", "-o", "torch.tiff") == 0
    assert stylize("--model", "float.onnx", "deep.tiff", "-o", "exported.tiff") == 0
    ours, theirs = tifffile.imread("exported.tiff"), tifffile.imread("torch.tiff")
    assert ours.dtype == np.uint16
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 8
    capsys.readouterr()
    assert stylize("--model", "sea.onnx", "deep.tiff", "-o", "eight.tiff") == 0
    assert "8 of its 16 bits: this model takes 8" in capsys.readouterr().err
    assert tifffile.imread("eight.tiff").dtype == np.uint8


def test_a_folder_is_stylized_once_and_bad_files_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "in").mkdir()
    for name in ("b.jpg", "c.png"):
        photo(4, 30, 20).save(folder / "in" / name)
    (folder / "in" / "broken.png").write_bytes(b"no picture")
    command = ["--model", "sea.onnx", "in", "-o", "out", "--manifest", "all.json"]
    assert stylize(*command) == 1
    assert "broken.png" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["b.sea.jpg", "c.sea.png"]
    lines = [json.loads(line) for line in Path("all.json").read_text().splitlines()]
    assert [bool(line["error"]) for line in lines].count(True) == 1
    (folder / "in" / "broken.png").unlink()
    assert stylize(*command) == 0
    assert "2 already there, skipped" in capsys.readouterr().err
    # Other settings make other pictures.
    assert stylize(*command, "--strength", "0.5") == 0
    assert "2 redone with these settings" in capsys.readouterr().err


def test_standard_input_becomes_standard_output(folder: Path, repository: Path) -> None:
    run = subprocess.run(
        [sys.executable, "scripts/stylize.py", "--model", str(folder / "sea.onnx"), "-", "-o", "-"],
        cwd=repository,
        input=(folder / "a.png").read_bytes(),
        capture_output=True,
        check=True,
    )
    assert Image.open(io.BytesIO(run.stdout)).size == (61, 45)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stroke-scale", "2"], "--stroke-scale needs the model's .pth"),
        (["--wrap", "x"], "--wrap needs the model's .pth"),
        (["--mask", "m.png"], "--mask needs the model's .pth"),
        (["--tile", "64"], "--tile needs the model's .pth"),
        (["--codec", "h264"], "--codec is for clips, and here are none: leave it out"),
        (["--device", "cuda"], "--device cuda: a .onnx model runs on the CPU"),
        (["--precision", "bf16"], "precision bf16 needs backend openvino"),
        (["--precision", "fp16"], "--precision fp16 needs a GPU"),
        (["--sheet", "s.png"], "--sheet draws models of PyTorch"),
        (["--model", "sea.pth"], "--model names one .onnx file here"),
        (["--edge", "none"], "--edge none: sea.onnx was exported with --edge reflect"),
        (["--depth", "16"], "--depth 16: sea.onnx takes 8 bits"),
        (["--strength", "2"], "strength 2.0 is impossible"),
        (["--size", "0"], "--size 0 is impossible"),
    ],
)
def test_what_an_exported_model_cannot_do_is_refused_by_name(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stylize("--model", "sea.onnx", "a.png", "-o", "out.png", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not Path("out.png").exists()


def test_a_clip_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("--model", "sea.onnx", "b.mp4") == 2
    assert "b.mp4: a clip needs the model's .pth: a .onnx stylizes" in capsys.readouterr().err


def test_a_backend_is_refused_with_a_model_of_pytorch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stylize("--model", "sea.pth", "a.png", "--backend", "openvino") == 2
    assert capsys.readouterr().err.startswith("error: --backend runs .onnx models")


@pytest.mark.parametrize("content", [b"", b"no model", None], ids=["empty", "text", "missing"])
def test_what_is_no_model_is_one_line(
    folder: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("wrong.onnx").write_bytes(content)
    assert stylize("--model", "wrong.onnx", "a.png") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: wrong.onnx: ")
    assert error.count("\n") == 1


def test_a_model_of_one_size_names_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--model", "sea.pth", "-o", "fixed.onnx", "--size", "45x61"]) == 0
    assert stylize("--model", "fixed.onnx", "a.png", "-o", "fixed.png") == 0
    assert stylize("--model", "sea.onnx", "a.png", "-o", "any.png") == 0
    assert_same_picture("fixed.png", "any.png")
    photo(3, 30, 30).save("b.png")
    assert stylize("--model", "fixed.onnx", "b.png", "-o", "no.png") == 1
    assert "takes 45x61 pixels (height x width), not 30x30" in capsys.readouterr().err


def test_an_image_too_large_for_the_memory_is_refused_before_the_work(folder: Path) -> None:
    stylizer = PortableStylizer("sea.onnx", size=2**30)
    with pytest.raises(UserError, match="too large for the memory there is"):
        stylizer(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("model", ["sea.onnx", "float.onnx"])
def test_openvino_gives_the_same_picture(
    folder: Path, tiny_network: TransformerNet, model: str, precision: str
) -> None:
    pytest.importorskip("openvino", reason="pip install 'fast-style[openvino]'")
    pixels = pixels_of("a.png")
    found = PortableStylizer(model, backend="openvino", precision=precision)(pixels)
    expected = Stylizer(tiny_network, device="cpu")(pixels)
    error = (found.astype(float) - expected) / 255
    least = 60 if precision == "float32" else 45
    assert -10 * np.log10((error**2).mean() + 1e-12) >= least


# The stylizer goes in another thread than the one that made it; then that one is interrupted.
DROPPED_ELSEWHERE = """
import signal, threading
import numpy as np
from fast_style.export.portable import PortableStylizer

held = [PortableStylizer("sea.onnx", backend="openvino")]
held[0](np.zeros((8, 8, 3), np.uint8))
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_openvinos_stylizer_went_in_another_thread_is_only_a_signal(
    folder: Path,
) -> None:
    pytest.importorskip("openvino", reason="pip install 'fast-style[openvino]'")
    command = [sys.executable, "-c", DROPPED_ELSEWHERE]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "interrupted\n"), result.stderr


def test_torch_is_not_imported_and_openvino_is_chosen_by_name(folder: Path) -> None:
    code = (
        "import sys\nfrom fast_style.commands import main\n"
        "assert main(['stylize', '--model', 'sea.onnx', 'a.png', '--json']) == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}"
        " - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(run.stdout.splitlines()[-1].split())
    assert "onnxruntime" in imported
    assert not imported & {"torch", "torchvision", "yaml", "tqdm", "onnx", "openvino"}


def test_a_stylizer_takes_pixels_and_knows_its_model(
    folder: Path, tiny_network: TransformerNet
) -> None:
    stylizer = PortableStylizer(folder / "sea.onnx")
    assert stylizer.about["edge"] == "reflect"
    pixels = pixels_of("a.png")
    expected = Stylizer(tiny_network, device="cpu").stylize_pixels(
        torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    )
    found = stylizer(pixels)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.permute(1, 2, 0).numpy()).max() <= 1
