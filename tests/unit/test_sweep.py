"""Sweeps of a tiny config: the plan, the pictures, the sheet, going on, and what fails."""

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from synthetic import photo, write_photos
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_style.baseline.optimization import OptimizationError
from fast_style.checkpoints.files import save_model
from fast_style.commands import main
from fast_style.config import ConfigError
from fast_style.evaluation import sweep
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization.sheets import comparison_sheet

TinyYaml = Callable[..., Path]
AXIS = ("--set", "loss.style_weight=0.1,1")
QUICK = ("--size", "40", "--n", "2", "--device", "cpu")


pytestmark = pytest.mark.usefixtures("signal_handlers_restored")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_yaml: TinyYaml) -> Path:
    """A user's folder with tiny.yaml, which holds out one photo."""
    tiny_yaml()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    try:
        return main(["sweep", "--config", "tiny.yaml", *arguments])
    except SystemExit as end:  # argparse ends so
        return int(end.code or 0)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.png") if not path.name.startswith("sheet"))


def labels(combinations: list[sweep.Combination]) -> list[str]:
    return [str(combination) for combination in combinations]


def test_axes_are_combined_and_single_values_hold_for_all(user: Path) -> None:
    plan = sweep.plan(
        "tiny.yaml", ["loss.style_weight=0.1,1e1", "style.size=24,32", "loss.tv_weight=7"]
    )
    assert labels(plan) == [
        "loss.style_weight=0.1, style.size=24",
        "loss.style_weight=0.1, style.size=32",
        "loss.style_weight=1e1, style.size=24",
        "loss.style_weight=1e1, style.size=32",
    ]
    assert [c.config.loss.style_weight for c in plan] == [0.1, 0.1, 10, 10]
    assert [c.config.style.size for c in plan] == [24, 32, 24, 32]
    assert {c.config.loss.tv_weight for c in plan} == {7}


def test_values_are_yaml_and_their_own_commas_part_nothing(user: Path) -> None:
    plan = sweep.plan(
        "tiny.yaml",
        ["loss.style_layers=[relu1_2, relu2_2],{relu1_1: 1, relu2_2: 0.5},relu2_1"],
    )
    assert [dict(c.config.loss.style_layers) for c in plan] == [
        {"relu1_2": 1, "relu2_2": 1},
        {"relu1_1": 1, "relu2_2": 0.5},
        {"relu2_1": 1},
    ]
    plan = sweep.plan("tiny.yaml", ["data.description='a, b',\"c, d\"", "loss.tv_weight=1,2"])
    assert [c.config.data.description for c in plan] == ["a, b"] * 2 + ["c, d"] * 2


def test_sixty_four_combinations_are_the_most(user: Path) -> None:
    values = ",".join(str(value) for value in range(1, 9))
    assert len(sweep.plan("tiny.yaml", [f"style.size={values}", f"loss.tv_weight={values}"])) == 64
    with pytest.raises(ConfigError, match=r"8 x 9 = 72 combinations: more than 64"):
        sweep.plan("tiny.yaml", [f"style.size={values}", f"loss.tv_weight={values},9"])


MISTAKES = [
    ([], "a sweep needs a setting with several values"),
    (["--set", "loss.tv_weight=1"], "a sweep needs a setting with several values"),
    (["--set", "loss.tv_weigth=1,2"], "loss.tv_weigth: unknown key; did you mean 'tv_weight'?"),
    (["--set", "loss.tv_weight=1,-2"], "loss.tv_weight: -2.0 is impossible"),
    (["--set", "loss.tv_weight=1,two"], "loss.tv_weight: is 'two' (a text), expected a number"),
    (["--set", "loss.tv_weight=1,,2"], "holds an empty value; nothing at all is written null"),
    (["--set", "loss.tv_weight="], "holds an empty value"),
    (["--set", "loss.style_layers=[relu1_2],[relu2_2"], "the value is not valid YAML"),
    (["--set", "loss.tv_weight"], "expected key=value,value"),
    (["--set", "=1,2"], "expected key=value,value"),
    ([*AXIS, *AXIS], "loss.style_weight=...: is given twice"),
    (["--set", "training.steps=100,200"], "the length of a sweep's trainings is --steps"),
    ([*AXIS, "--set", "training.steps=100"], "the length of a sweep's trainings is --steps"),
    (["--set", "loss.stability_weight=1,2"], "changes no Gatys preview: use --mode train"),
    (["--recipe", "gatys", "--set", "optimization.steps=9,10"], "is decided by --steps"),
    (["--recipe", "gatys,johnson", "--set", "content.long_edge=9"], "is decided by --size"),
    (["--set", "training.learning_rate=1,2"], "changes no Gatys preview: use --mode train"),
    (["--set", "network.width=4,8"], "network.width=...: changes no Gatys preview"),
    (["--set", "name=a,b"], "name=...: changes no Gatys preview"),
    (["--set", "style.image=STYLE,gone.jpg"], "style.image: gone.jpg: no such image file"),
    ([*AXIS, "--set", "loss.weights=gone.pth"], "gone.pth: no such weights file"),
    ([*AXIS, "--set", "training.init_from=gone", "--mode", "train"], "no model 'gone'"),
    ([*AXIS, "--images", "gone"], "gone: no such folder of photos"),
    ([*AXIS, "--set", "data.train=gone"], "gone: no such folder of photos"),
    ([*AXIS, "--device", "gpu"], "unknown device 'gpu'"),
    ([*AXIS, "-o", "tiny.yaml"], "tiny.yaml: tiny.yaml is a file, not a folder"),
    ([*AXIS, "-o", "tiny.yaml/new"], "tiny.yaml/new: "),
    ([*AXIS, "--steps", "0"], "'0' is not a whole number from 1 on"),
    ([*AXIS, "--size", "big"], "'big' is not a whole number from 1 on"),
    ([*AXIS, "--mode", "guess"], "invalid choice: 'guess'"),
]


@pytest.mark.parametrize(("arguments", "part"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    user: Path,
    style_file: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    before = files_below(user)
    assert run(*(word.replace("STYLE", str(style_file)) for word in arguments)) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert part in errors[0]
    assert captured.err.splitlines()[-1] == errors[0]
    assert captured.out == ""
    assert files_below(user) == before


def test_a_missing_config_is_one_line(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--config", "gone.yaml", *AXIS]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: gone.yaml: no such config file. Shipped are autumn, candy, ")
    assert line.endswith(", wave; any other is named by its path")


def test_gatys_previews_make_a_sheet_with_a_column_for_each_combination(
    user: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*AXIS, *QUICK, "--steps", "4", "--images", str(photos)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == (
        "2 combinations, photos photo-000, photo-004: 4 Gatys previews of 4 steps, pictures of "
        "40 pixels, into checkpoints/sweep-tiny"
    )
    assert "s a step: about" in out[1]
    assert out[2].startswith("1 of 2: loss.style_weight=0.1 (")
    assert out[3].startswith("2 of 2: loss.style_weight=1 (")
    assert out[4] == "checkpoints/sweep-tiny/sheet.png"
    made = pictures(user / "checkpoints/sweep-tiny")
    assert [path.name for path in made] == ["0-photo-000.png", "1-photo-004.png"] * 2
    assert len({path.read_bytes() for path in made}) == 4
    with Image.open("checkpoints/sweep-tiny/sheet.png") as sheet:
        assert sheet.width == 12 + 3 * (40 + 12)  # the photo and two columns


def test_the_held_out_photos_are_taken_where_none_are_named(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*AXIS, *QUICK, "--steps", "1") == 0
    out = capsys.readouterr().out
    assert out.startswith("2 combinations, photos photo-000: 2 Gatys previews of 1 steps")
    assert "a step" not in out.partition("\n")[2]  # too few steps to measure


def test_numbers_lie_beside_the_sheet(user: Path, photos: Path) -> None:
    steps = ("--set", "loss.contrast_weight=3", "--steps", "3", "--images", str(photos))
    assert run(*AXIS, *QUICK, *steps) == 0
    folder = user / "checkpoints" / "sweep-tiny"
    found = json.loads((folder / "sweep.json").read_text())
    assert (found["mode"], found["steps"], found["size"]) == ("optimize", 3, 40)
    settings = [combination["settings"] for combination in found["combinations"]]
    assert settings == [{"loss.style_weight": "0.1"}, {"loss.style_weight": "1"}]
    for combination in found["combinations"]:
        assert combination["error"] is None
        for picture in combination["pictures"]:
            assert (folder / picture["picture"]).is_file()
            terms = sum(picture[term] for term in ("content", "style", "tv", "contrast"))
            assert picture["contrast"] > 0
            assert picture["grid"] is None
            assert picture["total"] == pytest.approx(terms)
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [row["loss.style_weight"] for row in rows] == ["0.1", "0.1", "1", "1"]
    pictures = [one for entry in found["combinations"] for one in entry["pictures"]]
    assert [float(row["total"]) for row in rows] == [picture["total"] for picture in pictures]
    # Pictures that are there keep their numbers.
    (folder / "sweep.json").unlink()
    assert run(*AXIS, *QUICK, *steps) == 0
    assert json.loads((folder / "sweep.json").read_text()) == found


def test_another_sweep_in_the_folder_keeps_its_sheet(user: Path, photos: Path) -> None:
    steps = ("--steps", "1", "--images", str(photos))
    assert run(*AXIS, *QUICK, *steps) == 0
    folder = user / "checkpoints" / "sweep-tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(before) == {"sheet.png", "sweep.csv", "sweep.json"}
    assert run("--set", "loss.tv_weight=0,9", *QUICK, *steps) == 0
    name = json.loads(before["sweep.json"])["sweep"]
    for file in before:
        kept = folder / f"{Path(file).stem}-{name}{Path(file).suffix}"
        assert kept.read_bytes() == before[file]
    assert len([path for path in folder.iterdir() if path.is_file()]) == 6


def test_a_dry_run_writes_nothing_and_estimates(
    user: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((user / "tiny.yaml").read_text())
    config["data"]["cache"] = str(user / "cache")
    (user / "tiny.yaml").write_text(yaml.safe_dump(config))
    before = files_below(user)
    for mode in ("optimize", "train"):
        options = ("--steps", "50", "--images", str(photos), "--mode", mode, "--dry-run")
        assert run(*AXIS, *QUICK, *options) == 0
        said = capsys.readouterr().out
        assert "2 combinations, photos photo-000, photo-004" in said
        assert " s a step: about " in said
        assert files_below(user) == before


def test_recipes_are_an_axis_too(
    user: Path, photos: Path, vgg_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, weight in (("soft", 0.01), ("hard", 10.0)):
        recipe = {
            "loss": {
                "weights": str(vgg_file),
                "content_layers": ["relu2_2"],
                "style_layers": ["relu1_2"],
                "style_weight": weight,
            },
            "style": {"size": 32},
        }
        (user / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    recipes = ("--recipe", "soft.yaml,hard.yaml", "--set", "style.size=24,32")
    options = (*QUICK, "--steps", "2", "--images", str(photos))
    assert run(*recipes, *options) == 0
    assert "4 combinations" in capsys.readouterr().out
    rows = list(
        csv.DictReader((user / "checkpoints/sweep-tiny/sweep.csv").read_text().splitlines())
    )
    pairs = [(row["recipe"], row["style.size"]) for row in rows[::2]]
    assert pairs == [
        ("soft.yaml", "24"), ("soft.yaml", "32"), ("hard.yaml", "24"), ("hard.yaml", "32")
    ]  # fmt: skip
    assert float(rows[4]["style"]) > 100 * float(rows[0]["style"])
    assert run(*recipes, *options, "--mode", "train") == 2
    assert "--recipe: makes pictures by optimisation" in capsys.readouterr().err
    assert run("--recipe", "soft.yaml,soff", *options) == 2
    assert "unknown recipe 'soff'" in capsys.readouterr().err


def test_strength_is_measured_at_the_photos(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "loss.strength=0.1,10", "--set", "loss.style_weight=5"]
    assert run(*settings, *QUICK, "--steps", "3") == 0
    weak, strong = (path.read_bytes() for path in pictures(user))
    assert weak != strong


def test_finished_pictures_are_kept_and_the_same_command_goes_on(
    user: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*AXIS, *QUICK, "--steps", "3", "--images", str(photos))
    assert run(*command) == 0
    folder = user / "checkpoints/sweep-tiny"
    whole = (folder / "sheet.png").read_bytes()
    made = pictures(folder)
    made[1].unlink()
    before = {path: path.stat().st_mtime_ns for path in made if path.exists()}
    capsys.readouterr()
    assert run(*command) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 combinations (1 of them there already), photos ")
    assert "1 Gatys previews of 3 steps" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (folder / "sheet.png").read_bytes() == whole

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(sweep, "_optimized", never)
    assert run(*command) == 0  # nothing is left to do
    assert (folder / "sheet.png").read_bytes() == whole


@pytest.mark.parametrize(
    "change", [("--steps", "4"), ("--size", "41"), ("--set", "loss.tv_weight=2"), ("--n", "1")]
)
def test_what_another_sweep_has_made_is_not_taken(user: Path, change: tuple[str, str]) -> None:
    command = (*AXIS, *QUICK, "--steps", "3")
    assert run(*command) == 0
    before = set(pictures(user))
    assert run(*command, *change) == 0
    after = set(pictures(user))
    assert before < after if change[0] != "--n" else before == after  # one photo is held out


def test_a_photo_or_style_image_that_changes_is_seen(user: Path, photos: Path) -> None:
    own = user / "own"
    paths = write_photos(own, 2)
    photo(60, 40, 44).save(user / "style.png")
    command = (*AXIS, *QUICK, "--steps", "1", "--images", "own", "--set", "style.image=style.png")
    counts = []
    for change in (
        lambda: None,
        lambda: photo(9).save(paths[0]),
        lambda: photo(61).save("style.png"),
    ):
        change()
        assert run(*command) == 0
        counts.append(len(pictures(user / "checkpoints")))
    assert counts == [4, 8, 12]


def test_a_stopped_sweep_says_so_and_goes_on(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def stop_in_the_second(image: object, *_: object) -> None:
        done.append(1)
        if len(done) == 5:
            signal.raise_signal(signal.SIGTERM)

    real = sweep.optimize_image

    def optimize(*arguments: object, report: Callable[..., None], **options: object) -> object:
        def both(*heard: object) -> None:
            report(*heard)
            stop_in_the_second(None)

        return real(*arguments, report=both, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "optimize_image", optimize)
    command = (*AXIS, *QUICK, "--steps", "3")
    assert run(*command) == 128 + signal.SIGTERM
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == (
        "stopped in loss.style_weight=1; the same command goes on"
    )
    assert len(pictures(user)) == 1
    assert (user / "checkpoints/sweep-tiny/sheet.png").is_file()  # what there is so far
    monkeypatch.undo()
    monkeypatch.chdir(user)
    assert run(*command) == 0
    assert len(pictures(user)) == 2


def test_a_combination_that_fails_is_an_empty_cell_and_the_others_go_on(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # relu3_1 exists, but the file of weights ends before it.
    settings = ("--set", "loss.content_layers=relu2_2,relu3_1,relu1_2")
    assert run(*settings, *QUICK, "--steps", "1", "--log-dir", "log") == 1
    captured = capsys.readouterr()
    (error,) = (line for line in captured.err.splitlines() if line.startswith("error:"))
    assert error.startswith("error: loss.content_layers=relu3_1: ")
    assert "features.10.weight is missing" in error
    assert captured.out.splitlines()[-1] == "checkpoints/sweep-tiny/sheet.png"
    assert len(pictures(user)) == 2
    events = EventAccumulator("log").Reload()
    assert {tag for tag in events.Tags()["images"] if tag != "sweep"} == {
        "sweep/loss.content_layers=relu2_2/photo-000",
        "sweep/loss.content_layers=relu1_2/photo-000",
    }
    assert "sweep" in events.Tags()["images"]
    (message,) = events.Tensors("messages/text_summary")
    assert b"relu3_1: " in message.tensor_proto.string_val[0]


def test_an_objective_that_diverges_is_one_of_the_failures(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise OptimizationError("step 0: the loss is NaN or infinite\n(style)")

    monkeypatch.setattr(sweep, "optimize_image", diverge)
    assert run(*AXIS, *QUICK) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if "error:" in line] == [
        f"error: loss.style_weight={weight}: step 0: the loss is NaN or infinite (style)"
        for weight in ("0.1", "1")
    ]
    assert not (user / "checkpoints").exists()  # no picture, no sheet


def test_a_full_disk_is_told(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep.Path, "mkdir", full)
    assert run(*AXIS, *QUICK, "--steps", "1") == 1
    assert "No space left on device" in capsys.readouterr().err


def test_short_trainings_make_the_pictures_too(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--set", "training.learning_rate=1e-4,1e-1", *QUICK)
    command = (*command, "--mode", "train", "--steps", "6")
    assert run(*command) == 0
    out = capsys.readouterr().out
    assert "2 trainings of 6 steps" in out
    assert "s a step: about" in out
    made = pictures(user)
    assert len({path.read_bytes() for path in made}) == len(made) == 2
    for path in made:
        # The model stays beside its pictures, the states for resuming go.
        assert (path.parent / "tiny.pth").is_file()
        assert not list(path.parent.glob("state-*"))
    whole = (user / "checkpoints/sweep-tiny/sheet.png").read_bytes()
    made[0].unlink()
    assert run(*command) == 0
    assert (user / "checkpoints/sweep-tiny/sheet.png").read_bytes() == whole


def test_another_model_to_begin_with_or_other_photos_make_other_pictures(
    user: Path, photos: Path, tiny_network: TransformerNet
) -> None:
    shutil.copytree(photos, user / "own")
    begin = ("--set", "training.init_from=begin.pth", "--set", "data.train=own")
    command = ("--set", "loss.tv_weight=1,2", *QUICK, "--images", str(photos), *begin)
    command = (*command, "--mode", "train", "--steps", "1")
    counts = []
    for change in (
        lambda: save_model(user / "begin.pth", tiny_network),
        lambda: save_model(user / "begin.pth", TransformerNet(4, 1)),
        lambda: shutil.copy(user / "own/photo-000.png", user / "own/more.png"),
    ):
        change()
        sweep._trained_on.cache_clear()  # each command is a process of its own
        assert run(*command) == 0
        counts.append(len(pictures(user / "checkpoints")))
    assert counts == [4, 8, 12]


def test_photos_that_cannot_be_read_are_left_out(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = user / "own"
    write_photos(own, 25)
    (own / "photo-000.png").write_bytes(b"damaged")
    assert run(*AXIS, *QUICK, "--steps", "1", "--images", "own") == 1
    assert "photos photo-001, photo-013" in capsys.readouterr().out


def test_the_sheet_has_one_style_image_or_one_for_each_column(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        photo(60 + index, 40, 44).save(user / f"style-{index}.png")
    assert run("--set", "style.image=style-0.png,style-1.png", *QUICK, "--steps", "1") == 0
    picture = torch.rand(3, 30, 40)
    rows = [("a", picture, [picture, picture]), ("b", picture[:, :20], [picture[:, :20], "no"])]
    heads = [("k=1", "long.key.of.a.setting=1.5"), ("k=2",)]
    one, two = (
        comparison_sheet(rows, columns=heads, styles=[("style", torch.rand(3, 9, 40))] * count)
        for count in (1, 2)
    )
    assert one.shape == two.shape
    assert one.shape[2] == 12 + 3 * 52
    corner = (slice(None), slice(12, 21), slice(12, 52))
    assert (one[corner] < 1).any()
    assert (two[corner] == 1).all()
    # The photo and its pictures, and an empty frame, are where they belong.
    top = one.shape[1] - 2 * (28 + 12) - 50
    assert torch.allclose(one[:, top : top + 30, 12:52], picture, atol=0.003)
    assert torch.allclose(one[:, top : top + 30, 116:156], picture, atol=0.003)
    assert (one[:, top + 71 : top + 73, 118:120] == 1).all()


def test_even_a_word_too_long_for_its_frame_is_drawn() -> None:
    picture = torch.rand(3, 12, 16)
    reason = "failed: " + 40 * "verylongword" + " and many more words" * 40
    sheet = comparison_sheet(
        [("a", picture, [reason])], columns=[("k=1",)], styles=[("s", picture)]
    )
    assert sheet.shape[2] == 12 + 2 * 28
