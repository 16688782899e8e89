"""optimize.py and evaluate.py as a user runs them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
import yaml
from PIL import Image
from synthetic import photo, tiny_config_data, vgg_weights

from fast_style.checkpoints.files import load_model, save_model
from fast_style.networks.transformer import TransformerNet

SCRIPTS = Path(__file__).parents[2] / "scripts"


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPTS / name), *map(str, arguments)]


def run_script(
    name: str, *arguments: object, cwd: Path, code: int = 0
) -> "subprocess.CompletedProcess[str]":
    result = processes.run(command(name, *arguments), cwd=cwd)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture
def user(tmp_path: Path, vgg_file: Path) -> Path:
    """A folder with a photo, two styles, and a recipe for the small loss network."""
    photo(60, 30, 40).save(tmp_path / "in.png")
    photo(61, 40, 40).save(tmp_path / "sea.png")
    photo(62, 40, 30).save(tmp_path / "sky.png")
    recipe = {
        "loss": {
            "weights": str(vgg_file),
            "content_layers": ["relu2_2"],
            "style_layers": ["relu1_2", "relu2_2"],
            "strength": 1,
        },
        "style": {"size": 32},
        "optimization": {"steps": 6},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


BASIC = ("--recipe", "mine.yaml", "--content", "in.png", "--style", "sea.png", "--device", "cpu")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_image_is_optimised_with_report_pictures_and_log(user: Path) -> None:
    run = ("-o", "out.png", "--report", "out.json", "--save-every", "3", "--log-dir", "log")
    result = run_script("optimize.py", *BASIC, *run, cwd=user)
    assert result.stdout == "out.png\n"
    assert "6/6" in result.stderr
    assert "--style: sea.png: is only 40×40 pixels: too few for strokes" in result.stderr
    for name in ("out.png", "out-00000.png", "out-00003.png", "out-00006.png"):
        with Image.open(user / name) as image:
            assert image.size == (40, 30)
    assert (user / "out.png").read_bytes() == (user / "out-00006.png").read_bytes()
    assert any(path.name.startswith("events") for path in (user / "log").iterdir())
    report = json.loads((user / "out.json").read_text(encoding="utf-8"))
    assert [step["step"] for step in report["steps"]] == list(range(7))
    for step in report["steps"]:
        assert step["total"] == pytest.approx(step["content"] + step["style"] + step["tv"])
    assert report["steps"][-1]["total"] < report["steps"][0]["total"]
    assert report["recipe"]["optimization"]["steps"] == 6


def test_the_folders_of_the_outputs_are_made(user: Path) -> None:
    run = ("-o", "new/out.png", "--report", "other/new/out.json", "--set", "optimization.steps=1")
    run_script("optimize.py", *BASIC, *run, cwd=user)
    assert names(user / "new") == {"out.png"}
    assert names(user / "other/new") == {"out.json"}


def test_several_styles_at_an_exact_size(user: Path) -> None:
    more = ("--style", "sky.png", "--shares", "2", "1", "--size", "24x20", "-o", "out.jpg")
    run_script("optimize.py", *BASIC, *more, cwd=user)
    with Image.open(user / "out.jpg") as image:
        assert image.size == (24, 20)


def test_a_folder_of_photos_is_optimised_and_goes_on_where_it_was(user: Path) -> None:
    (user / "photos").mkdir()
    for seed, name in enumerate(("a.png", "b.jpg")):
        photo(seed, 30, 40).save(user / "photos" / name)
    (user / "photos/bad.png").write_bytes(b"nothing")
    run = ("--content", "photos", "-o", "out", "--set", "optimization.steps=2")
    result = run_script("optimize.py", *BASIC, *run, cwd=user, code=1)
    assert names(user / "out") == {"a.sea.png", "b.sea.jpg"}
    assert "error: photos/bad.png: " in result.stderr
    (user / "photos/bad.png").unlink()
    made = (user / "out/a.sea.png").read_bytes()
    (user / "out/b.sea.jpg").unlink()
    result = run_script("optimize.py", *BASIC, *run, cwd=user)
    assert "out/a.sea.png: already there" in result.stderr
    assert result.stdout == "out/b.sea.jpg (2 of 2)\n"
    assert (user / "out/a.sea.png").read_bytes() == made
    run_script("optimize.py", *BASIC, *run, "--set", "optimization.steps=3", cwd=user)
    assert (user / "out/a.sea.png").read_bytes() != made
    run_script(
        "optimize.py", *BASIC, "--content", "photos/a.png", *run[4:], "-o", "1.png", cwd=user
    )
    run_script("optimize.py", *BASIC, *run, cwd=user)
    with Image.open(user / "1.png") as one, Image.open(user / "out/a.sea.png") as same:
        assert one.tobytes() == same.tobytes()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_saves_what_there_is(user: Path) -> None:
    run = ("-o", "out.png", "--report", "out.json", "--save-every", "4")
    endless = ("--set", "optimization.steps=1000000")
    process = subprocess.Popen(
        command("optimize.py", *BASIC, *run, *endless), cwd=user, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not (user / "out-00008.png").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "of 1000000; saved as out.png" in errors
    with Image.open(user / "out.png") as image:
        assert image.size == (40, 30)
    assert len(json.loads((user / "out.json").read_text(encoding="utf-8"))["steps"]) >= 9


MISTAKES = [
    (("--recipe", "jonson"), "unknown recipe 'jonson'; did you mean 'johnson'?"),
    (("--size", "1"), "is too small for layer relu2_2"),
    (("--size", "big"), "--size big: expected a number"),
    (("--size", "0"), "--size 0 is impossible: it must be at least 1"),
    (("--size", "24x0"), "--size 24x0 is impossible"),
    (("--set", "loss.content_layers=relu9_9"), "vgg16 has no layer 'relu9_9'"),
    (("--set", "loss.style_layers=[block1_conv7]"), "did you mean 'relu1_2'?"),
    (
        ("--set", "loss.style_layers={relu1_2: 1, block1_conv2: 2}"),
        "'relu1_2' and 'block1_conv2' are the same layer",
    ),
    (("--content", "gone.png"), "gone.png: no such image file"),
    (("--style", "gone.png"), "gone.png: no such image file"),
    (("--shares", "1", "2"), "1 style images, but the shares are [1.0, 2.0]"),
    (("--shares", "nan"), "--shares nan: must be numbers from 0 on, and one above 0"),
    (("--set", "loss.weights=gone.pth"), "gone.pth: no such weights file"),
    (("-o", "in.png/out.png"), "in.png is a file, not a folder"),
    (("-o", "out.xyz"), "out.xyz: cannot write the image format '.xyz'"),
    (("-o", "out.gif"), "out.gif: cannot write the image format '.gif'"),
    (("--set", "loss.style_weight=500"), "loss.strength: takes the place of loss.content_weight"),
    (
        ("--set", "loss.content_layers={relu2_2: 0}"),
        "strength cannot be measured: the weights of content_layers are all 0",
    ),
    (("--content", "."), "--content is a folder, so name a folder"),
    (("--report", "in.png/out.json"), "in.png is a file, not a folder"),
    (("--device", "tpu"), "tpu"),
    (("--set", "loss.tv_weight=1e300"), "step 0: the loss is NaN or infinite"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=lambda value: "_".join(value[:2]))
def test_a_mistake_is_one_line_and_leaves_nothing(
    user: Path, mistake: tuple[str, ...], message: str
) -> None:
    before = names(user)
    run = ("-o", "out.png", "--log-dir", "log") if "1e300" not in mistake[1] else ("-o", "out.png")
    result = run_script("optimize.py", *BASIC, *run, *mistake, cwd=user, code=2)
    lines = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert result.stderr.splitlines()[-1] == lines[0]
    assert message in lines[0]
    assert names(user) == before


def test_the_loss_networks_maps_are_described(user: Path) -> None:
    torch.save(vgg_weights("vgg16", convolutions=13), user / "vgg.pth")
    arguments = ("--describe", "in.png", "--set", "loss.weights=vgg.pth")
    lines = run_script("optimize.py", *arguments, cwd=user).stdout.splitlines()
    assert lines[0] == "vgg16, in.png at 40×30"
    layers = {line.split()[0]: line for line in lines if line.startswith("relu")}
    assert len(layers) == 13
    assert "64 x 30 x 40" in layers["relu1_1"]
    assert "512 x 1 x 2" in layers["relu5_3"]
    # After a ReLU, most maps have a zero somewhere.
    assert "0.00" in layers["relu1_1"].split()


def test_weights_without_all_layers_cannot_be_described(user: Path, vgg_file: Path) -> None:
    weights = ("--set", f"loss.weights={vgg_file}")
    result = run_script("optimize.py", "--describe", "in.png", *weights, cwd=user, code=2)
    assert "not vgg16 weights: features.10.weight is missing" in result.stderr


@pytest.fixture
def model(user: Path, photos: Path, vgg_file: Path) -> Path:
    config = tiny_config_data(photos=photos, style=user / "sea.png", weights=vgg_file)
    torch.manual_seed(1)
    network = TransformerNet(width=4, num_residual_blocks=1)
    metadata = {"name": "tiny", "step": 3, "config": config}
    return save_model(user / "tiny.pth", network, metadata=metadata, dtype=torch.float16)


def test_a_network_is_certified_and_stamped(user: Path, model: Path, photos: Path) -> None:
    size = model.stat().st_size
    run_options = ("--n", 3, "--sizes", "16,32", "--steps", 4, "--device", "cpu", "--stamp")
    outputs = ("--json", "c.json", "--plot", "c.png", "--log-dir", "log")
    result = run_script(
        "evaluate.py", "--model", model, "--images", photos, *run_options, *outputs, cwd=user
    )
    assert "32×32 from content: 3 images" in result.stdout
    assert f"stamped {model}" in result.stdout
    data = json.loads((user / "c.json").read_text(encoding="utf-8"))
    assert [certificate["size"] for certificate in data["certificates"]] == [16, 32]
    assert len(data["certificates"][0]["per_image"][2]["baseline"]) == 5
    with Image.open(user / "c.png") as plot:
        assert plot.size == (960, 600)
    assert any(path.name.startswith("events") for path in (user / "log").iterdir())
    stamped = load_model(model)
    assert [quality["images"] for quality in stamped.metadata["quality"]] == [3, 3]
    assert stamped.metadata["step"] == 3
    # Still half precision, still the same network.
    assert model.stat().st_size < size + 4000


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (("--model", "gone"), "no model 'gone'"),
        (("--images", "gone"), "gone: no such folder of photos"),
        (("--sizes", "1"), "an image of 1×1 is too small for layer relu2_2"),
        (("--style", "gone.png"), "gone.png: no such image file"),
        (("--plot", "nowhere/c.png"), "there is no folder nowhere"),
        (("--plot", "c.pdf"), "c.pdf: cannot write the image format '.pdf'"),
    ],
    ids=lambda value: value[0].strip("-"),
)
def test_a_mistake_in_evaluation_is_one_line_and_leaves_nothing(
    user: Path, model: Path, photos: Path, mistake: tuple[str, ...], message: str
) -> None:
    before = names(user)
    arguments = ("--model", model, "--images", photos, "--device", "cpu", "--json", "c.json")
    result = run_script("evaluate.py", *arguments, *mistake, cwd=user, code=2)
    assert message in result.stderr.splitlines()[-1]
    assert names(user) == before
