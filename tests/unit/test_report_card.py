"""A model's report card: what it judges, what it says, and the command that prints it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from synthetic import photo, vgg_weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from fast_style.checkpoints.files import Model, load_model, save_model
from fast_style.commands import main
from fast_style.config import ConfigError
from fast_style.evaluation.report_card import (
    PhotoMarks,
    Reference,
    ReportCard,
    examine,
    format_cards,
    reference,
)
from fast_style.images import image_to_tensor, load_image, to_float
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.training.measures import measure

TinyData = Callable[..., dict[str, Any]]


def marks(photo: str, left: float, ring: float = 0.0, *alarms: str) -> PhotoMarks:
    values = {"content_lost/relu2_2": 1.5, "style_left/mean": left, "ring": ring, "mesh": 2.0}
    return PhotoMarks(photo=photo, values=values, alarms=alarms)


@pytest.fixture
def card() -> ReportCard:
    photos = (
        marks("a.jpg", 0.1, 4),
        marks("b.jpg", 0.3, -9, "flat: so it is"),
        marks("c.jpg", 0.2),
    )
    return ReportCard(model="ours", size=256, photos=photos)


def test_a_card_gives_the_median_and_the_worst_tenth(card: ReportCard) -> None:
    assert card.median("style_left/mean") == 0.2
    assert card.worst_tenth("style_left/mean") == 0.3
    assert (card.median("ring"), card.worst_tenth("ring")) == (0, -9)
    assert card.summary() == {
        "size": 256,
        "photos": 3,
        "alarms": 1,
        "median": {
            "content_lost/relu2_2": 1.5,
            "style_left/mean": 0.2,
            "ring": 0,
            "mesh": 2,
        },
        "worst_tenth": {
            "content_lost/relu2_2": 1.5,
            "style_left/mean": 0.3,
            "ring": -9,
            "mesh": 2,
        },
    }
    assert json.loads(json.dumps(card.to_dict()))["per_photo"][1]["alarms"] == ["flat: so it is"]


def test_cards_stand_side_by_side(card: ReportCard) -> None:
    other = ReportCard(model="another", size=256, photos=(marks("a.jpg", 0.5),) * 3)
    lines = format_cards([card, other]).splitlines()
    assert lines[0] == "3 photos, 256×256"
    assert lines[1].split() == ["ours", "another"]
    assert lines[2].split() == ["median", "worst", "tenth"] * 2
    assert lines[4].split() == ["style", "left", "mean", "0.200", "0.300", "0.500", "0.500"]
    assert lines[5].split() == ["ring,", "of", "255", "+0.0", "-9.0", "+0.0", "+0.0"]
    assert lines[7].split() == ["alarms", "1", "0"]
    assert lines[8] == "ours: b.jpg: flat: so it is"
    assert {len(line) for line in lines[2:7]} == {len(lines[2])}


@pytest.fixture(scope="module")
def deep_vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG-16 up to relu4_3."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16_features.pth"
    torch.save(vgg_weights(convolutions=10), path)
    return path


@pytest.fixture
def model(tiny_data: TinyData, tiny_network: TransformerNet, deep_vgg_file: Path) -> Model:
    data = tiny_data({"loss.weights": str(deep_vgg_file)})
    return Model(network=tiny_network, metadata={"config": data})


def squares(*seeds: int) -> dict[str, Tensor]:
    return {f"{seed}.png": to_float(image_to_tensor(photo(seed, 40, 40))) for seed in seeds}


def test_what_is_judged_is_what_users_get(model: Model) -> None:
    judged_by = reference([model], device="cpu")
    stylizer = Stylizer(model.network, device="cpu")
    heard: list[PhotoMarks] = []
    card = examine(stylizer, judged_by, squares(1, 2), model="tiny", on_photo=heard.append)
    assert list(card.photos) == heard
    assert [one.photo for one in card.photos] == ["1.png", "2.png"]
    assert card.size == 40
    for one, content in zip(card.photos, squares(1, 2).values(), strict=True):
        picture = stylizer(content)
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert one.values == measure(
            content, picture, judged_by.criterion, judged_by.styles.images[0]
        )


def test_content_is_judged_at_the_same_layers_whatever_the_model_was_trained_with(
    model: Model, tiny_data: TinyData, deep_vgg_file: Path
) -> None:
    judged_by = reference([model], device="cpu")
    assert list(judged_by.criterion.content_layers) == ["relu2_2", "relu3_3"]
    assert list(judged_by.criterion.style_layers) == ["relu1_2", "relu2_2"]
    changes = {
        "loss.weights": str(deep_vgg_file),
        "loss.content_layers": {"block2_conv2": 2, "relu4_1": 3, "relu1_1": 0},
        "loss.style_layers": {"relu3_1": 7, "relu1_2": 0},
    }
    other = Model(network=model.network, metadata={"config": tiny_data(changes)})
    judged_by = reference([other], device="cpu")
    assert judged_by.criterion.content_layers == {"relu2_2": 1, "relu3_3": 1, "relu4_1": 1}
    assert judged_by.criterion.style_layers == {"relu3_1": 1}


def test_an_imported_model_is_judged_by_the_style_that_is_named(
    model: Model, style_file: Path, deep_vgg_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = Model(network=model.network, metadata={"imported_from": "elsewhere"})
    with pytest.raises(ConfigError, match="its style image is unknown: name it with --style"):
        reference([imported], device="cpu")
    monkeypatch.setenv("FAST_STYLE_WEIGHTS", str(deep_vgg_file.parent))
    judged_by = reference([imported], style_image=style_file, device="cpu")
    assert max(judged_by.styles.images[0].shape) == 512
    assert list(judged_by.criterion.style_layers) == ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    assert judged_by.name == f"{style_file} at 512 pixels"
    small = reference([imported], style_image=style_file, style_size=48, device="cpu")
    assert max(small.styles.images[0].shape) == 48
    # Beside one of ours, that one's style is both's.
    both = reference([imported, model], device="cpu")
    assert torch.equal(both.styles.images[0], reference([model], device="cpu").styles.images[0])


def test_squares_too_small_to_be_judged_are_a_mistake(model: Model) -> None:
    judged_by: Reference = reference([model], device="cpu")
    stylizer = Stylizer(model.network, device="cpu")
    tiny = {"a": torch.rand(3, 31, 31)}
    with pytest.raises(ConfigError, match="squares of 31 pixels are too small to judge: take 32"):
        examine(stylizer, judged_by, tiny, model="tiny")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model) -> Path:
    """A user's folder with a model `tiny`, and other.pth, which holds no config."""
    (tmp_path / "checkpoints").mkdir()
    save_model(tmp_path / "checkpoints/tiny.pth", model.network, metadata=model.metadata)
    save_model(tmp_path / "other.pth", TransformerNet(width=4, num_residual_blocks=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(photos: Path, *arguments: str) -> int:
    try:
        return main(["evaluate", "--images", str(photos), "--device", "cpu", *arguments])
    except SystemExit as end:  # argparse ends so
        return int(end.code or 0)


def test_a_card_is_printed_and_written(
    user: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--sizes", "32,40", "--n", "3", "--json", "card.json", "--log-dir", "log")
    assert evaluate(photos, "--model", "tiny", "--card", "--stamp", *options) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("judged by ")
    assert [line for line in printed if line.startswith("3 photos")] == [
        "3 photos, 32×32",
        "3 photos, 40×40",
    ]
    data = json.loads(Path("card.json").read_text())
    assert [card["size"] for card in data["cards"]] == [32, 40]
    assert all(card["median"]["style_left/mean"] > 0 for card in data["cards"])
    assert [len(card["per_photo"]) for card in data["cards"]] == [3, 3]
    stamped = load_model("checkpoints/tiny.pth").metadata["card"]
    assert stamped[1]["median"] == data["cards"][1]["median"]
    log = EventAccumulator("log")
    log.Reload()
    (event,) = log.Scalars("card/tiny/40/style_left/mean")
    assert event.value == pytest.approx(stamped[1]["median"]["style_left/mean"])
    assert log.Tags()["images"] == ["card"]


def test_two_models_are_put_side_by_side_from_the_same_photos(
    user: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--n", "2", "--sizes", "48", "--sheet", "sheet.png")
    assert evaluate(photos, "--model", "tiny", "--against", "other.pth", *options) == 0
    printed = capsys.readouterr().out
    assert any(line.split() == ["tiny", "other"] for line in printed.splitlines())
    assert printed.splitlines()[-1] == "sheet.png"
    with Image.open("sheet.png") as sheet:
        assert sheet.width == 12 + 3 * (48 + 12)  # the photo and two pictures
    last = load_image("sheet.png")[:, -88:-40, -60:-12]
    network = load_model("other.pth").network
    name = sorted(photos.iterdir())[4]  # the second of two, evenly spaced among eight
    square = (
        Image.open(name).convert("RGB").resize((48, 48), Image.Resampling.BICUBIC, (4, 0, 44, 40))
    )
    picture = Stylizer(network, device="cpu")(to_float(image_to_tensor(square)))
    assert (last - picture).abs().max() < 0.003


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "other.pth", "--card"], "name it with --style"),
        (["--model", "tiny", "--card", "--style", "gone.jpg"], "gone.jpg: no such image file"),
        (["--model", "tiny", "--against", "gone"], "no model 'gone'"),
        (["--model", "tiny", "--card", "--sizes", "16"], "too small to judge"),
        (["--model", "tiny", "--card", "--plot", "a.png"], "--plot: draws the comparison"),
        (["--model", "tiny", "--sheet", "gone/a.png"], "there is no folder gone"),
        (["--model", "tiny", "--sheet", "a.txt"], "a.txt"),
        (["--model", "tiny", "--style-size", "0"], "'0' is not a number of pixels"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    user: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    before = sorted(user.rglob("*"))
    assert evaluate(photos, *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert part in errors[0]
    assert sorted(user.rglob("*")) == before
