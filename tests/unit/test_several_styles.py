"""A style of several images with shares: in a config, a training, and all that judges its model."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from recorder import Recorder
from runs import assert_equal_bits, run, weights_of
from synthetic import photo, tiny_config_data, vgg_weights

from fast_style.checkpoints.files import Model, load_model, save_model
from fast_style.commands import main
from fast_style.config import (
    Config,
    ConfigError,
    StyleConfig,
    config_from_dict,
    config_from_stored,
    load_config,
    to_dict,
)
from fast_style.config.places import STYLES
from fast_style.evaluation import training_objective
from fast_style.evaluation.report_card import reference
from fast_style.export.origin import origin_of
from fast_style.networks.transformer import TransformerNet
from fast_style.objective.losses import gram_matrix
from fast_style.training.inputs import prepare
from fast_style.training.measures import measure

REST = {"name": "tiny", "data": {"train": "photos"}}
TinyData = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def paintings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two pictures of other proportions."""
    monkeypatch.chdir(tmp_path)
    photo(1001, 40, 40).save("a.png")
    photo(1002, 40, 48).save("b.png")
    return tmp_path


@pytest.fixture(scope="module")
def deep_vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG-16 up to relu4_3, as a report card needs them."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16_features.pth"
    torch.save(vgg_weights(convolutions=10), path)
    return path


@pytest.fixture
def data(photos: Path, style_file: Path, deep_vgg_file: Path) -> dict[str, Any]:
    made = tiny_config_data(photos=photos, style=style_file, weights=deep_vgg_file)
    return {**made, "style": {"images": {"a.png": 2, "b.png": 1}, "size": 32}}


def config_of(style: object) -> Config:
    return config_from_dict({**REST, "style": style}, source="a.yaml")


def test_images_have_shares_or_are_a_list_of_equal_ones() -> None:
    config = config_of({"images": {"a.jpg": 2, "b.jpg": "5e-1"}})
    assert config.style.shares == {Path("a.jpg"): 2, Path("b.jpg"): 0.5}
    assert config.style.image is None
    for listed in (["a.jpg", "b.jpg"], {"a.jpg": 1, "b.jpg": 1}):
        assert config_of({"images": listed}).style.shares == {Path("a.jpg"): 1, Path("b.jpg"): 1}
    assert config_of({"image": "a.jpg"}).style.shares == {Path("a.jpg"): 1}
    assert config_of({"images": "a.jpg"}).style.shares == {Path("a.jpg"): 1}


def test_what_is_written_of_several_images_is_read_again() -> None:
    for style in ({"images": {"b.jpg": 2, "a.jpg": 1}}, {"image": "a.jpg"}):
        config = config_of(style)
        plain = yaml.safe_load(yaml.safe_dump(to_dict(config), sort_keys=False))
        assert config_from_dict(plain) == config_from_stored(plain, source="a state") == config
        assert list(config_from_dict(plain).style.shares) == list(config.style.shares)
    old = to_dict(config)
    del old["style"]["images"]  # as versions that knew one image wrote it
    assert config_from_stored(old, source="a state") == config


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({}, "style.image: is missing: name one picture there, or several as style.images, "),
        ({"image": None, "images": []}, "style.image: is missing: name one picture there, or "),
        (
            {"image": "c.jpg", "images": ["a.jpg", "b.jpg"]},
            "style.image: c.jpg: is given beside style.images: remove one of them, or add the ",
        ),
        ({"images": ["a.jpg", "a.jpg"]}, "style.images: a.jpg: is named twice: give it a larger "),
        ({"images": {"a.jpg": -1}}, "style.images.a.jpg: -1.0 is impossible: it must be at least"),
        ({"images": {"a.jpg": "x"}}, "style.images.a.jpg: is 'x' (a text), expected a number"),
        ({"images": {"a.jpg": 0, "b.jpg": 0}}, "style.images: all shares are 0: give a picture "),
        ({"images": 3}, "style.images: is 3 (a whole number), expected paths, as in [a.jpg, b"),
        ({"images": [3]}, "style.images: is 3 (a whole number), expected a path"),
    ],
)
def test_a_mistake_names_the_keys_and_the_cure(style: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(style)
    assert str(caught.value).startswith(f"a.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_each_image_is_found_as_a_single_one_is() -> None:
    found = config_of({"images": {"styles/wave.jpg": 1, "a.png": 2}}).resolved().style
    assert found.shares == {STYLES / "wave.jpg": 1, Path("a.png"): 2}
    # Two ways to one file.
    both = {"styles/wave.jpg": 1, str(STYLES / "wave.jpg"): 3}
    assert config_of({"images": both}).resolved().style.shares == {STYLES / "wave.jpg": 4}
    with pytest.raises(ConfigError, match=r"^style\.images: package:no_such_package/a\.jpg: "):
        config_of({"images": ["package:no_such_package/a.jpg"]}).resolved()


def test_an_image_beside_the_config_is_told(
    data: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sub").mkdir()
    Path("b.png").rename("sub/b.png")
    Path("sub/tiny.yaml").write_text(yaml.safe_dump(data))
    assert main(["train", "--config", "sub/tiny.yaml"]) == 2
    assert "sub/tiny.yaml: style.images: b.png: is not in" in capsys.readouterr().err


@pytest.mark.parametrize("strength", [None, 1.0])
def test_the_objective_is_the_average_in_these_shares(
    data: dict[str, Any], strength: float | None
) -> None:
    if strength:
        data["loss"] = {k: v for k, v in data["loss"].items() if k != "style_weight"}
        data["loss"]["strength"] = strength
    inputs = prepare(config_from_dict(data), device="cpu")
    alone = [
        prepare(config_from_dict({**data, "style": {"image": name, "size": 32}}), device="cpu")
        for name in ("a.png", "b.png")
    ]
    for name, target in inputs.criterion.style_targets.items():
        grams = [
            gram_matrix(one.criterion.features(one.styles.images[0], [name])[name]) for one in alone
        ]
        assert torch.allclose(target, (2 * grams[0] + grams[1]) / 3, rtol=1e-5)
        assert not torch.allclose(target, grams[0], rtol=1e-2)
    weights = [one.loss.style_layers["relu2_2"] for one in (inputs, *alone)]
    assert (len(set(weights)) == 3) is bool(strength)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["a.png", "gone.png"]}, r"^style\.images: gone\.png: no such image file"),
        ({"images": ["a.png", "b.png"], "size": 1}, r"^style\.images: a\.png: .*too small"),
    ],
)
def test_the_image_that_cannot_be_used_is_named(
    data: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(config_from_dict({**data, "style": changes}), device="cpu")


def test_one_image_with_a_share_trains_the_bits_of_one_without(
    data: dict[str, Any], tmp_path: Path
) -> None:
    data["training"]["steps"] = 3
    for folder, style in (("one", {"image": "a.png"}), ("share", {"images": {"a.png": 7}})):
        run(config_from_dict({**data, "style": {**style, "size": 32}}), tmp_path / folder)
    assert_equal_bits(weights_of(tmp_path / "one"), weights_of(tmp_path / "share"))


def test_a_run_of_several_shows_them_goes_on_and_knows_its_pictures(
    data: dict[str, Any], tmp_path: Path
) -> None:
    data["training"]["steps"] = 4
    recorder = Recorder()
    run(config_from_dict(data), tmp_path / "whole", monitors=[recorder])
    shown = recorder.images["style"][0]
    assert shown.shape == (3, 27, 27 + 32)  # both as high as the lower one
    assert recorder.values["report_card/contrast/luma"]
    data["training"]["steps"] = 2
    run(config_from_dict(data), tmp_path / "parts")
    data["training"]["steps"] = 4
    run(config_from_dict(data), tmp_path / "parts")
    assert_equal_bits(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    for style in ({"a.png": 2, "b.png": 3}, {"a.png": 2}):
        other = config_from_dict({**data, "style": {"images": style, "size": 32}})
        with pytest.raises(ConfigError, match=r"^style\.images\.b\.png: is .*change it back"):
            run(other, tmp_path / "parts")
    photo(7, 40, 48).save("b.png")
    with pytest.raises(ConfigError, match=r"^style\.images: b\.png is another picture than"):
        run(config_from_dict(data), tmp_path / "parts")


def test_a_model_is_judged_by_all_images_of_its_training(
    data: dict[str, Any], tiny_network: TransformerNet
) -> None:
    model = Model(network=tiny_network, metadata={"config": data})
    trained = prepare(config_from_dict(data), device="cpu").criterion.style_targets
    assert_equal_bits(training_objective(model, device="cpu").style_targets, trained)
    judged_by = reference([model], device="cpu")
    assert judged_by.name == judged_by.label == "a.png (2), b.png (1) at 32 pixels"
    assert_equal_bits(judged_by.criterion.style_targets, trained)
    content, picture = torch.rand(2, 3, 32, 32)
    contrast = [
        measure(content, picture, judged_by.criterion, images, style_shares=shares)["contrast/luma"]
        for images, shares in [
            (judged_by.styles.images, judged_by.styles.shares),
            *((image, None) for image in judged_by.styles.images),
        ]
    ]
    # The pictures' deviation over the mean one of the styles.
    assert 1 / contrast[0] == pytest.approx((2 / contrast[1] + 1 / contrast[2]) / 3)


def test_images_that_moved_are_named_by_their_folder(
    data: dict[str, Any], tiny_network: TransformerNet
) -> None:
    model = Model(network=tiny_network, metadata={"config": data})
    before = training_objective(model, device="cpu").style_targets
    Path("moved").mkdir()
    for name in ("a.png", "b.png"):
        Path(name).rename(f"moved/{name}")
    after = training_objective(model, style_image=Path("moved"), device="cpu").style_targets
    assert_equal_bits(after, before)
    folder = reference([model], style_image=Path("moved"), device="cpu")
    assert folder.name == "moved/a.png (2), moved/b.png (1) at 32 pixels"
    alone = reference([model], style_image=Path("moved/a.png"), device="cpu")
    assert alone.name == "moved/a.png at 32 pixels"
    with pytest.raises(ConfigError, match=r"2 style images, a\.png \(2\), b\.png \(1\): name the "):
        training_objective(model, style_image=Path("moved/a.png"), device="cpu")


def test_evaluate_says_which_image_is_not_here(
    data: dict[str, Any],
    tiny_network: TransformerNet,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(Path("m.pth"), tiny_network, metadata={"config": data})
    Path("b.png").unlink()
    assert main(["evaluate", "--model", "m.pth", "--images", str(photos), "--sizes", "32"]) == 2
    said = capsys.readouterr().err
    assert "the model's style image, b.png, is not here" in said
    assert "name the folder of all 2 with --style" in said


def test_a_card_of_two_models_tells_of_another_mixture(
    data: dict[str, Any],
    tiny_network: TransformerNet,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    same = {**data, "style": {"images": {"b.png": 2, "a.png": 4}}}
    other = {**data, "style": {"images": ["a.png", "b.png"]}}
    for name, config in (("m", data), ("same", same), ("other", other)):
        save_model(Path(f"{name}.pth"), tiny_network, metadata={"config": config})
    card = ["evaluate", "--model", "m.pth", "--images", str(photos), "--sizes", "32", "--n", "1"]
    assert main([*card, "--against", "same.pth"]) == 0
    assert "was trained with" not in capsys.readouterr().out
    assert main([*card, "--against", "other.pth", "--sheet", "sheet.png"]) == 0
    said = capsys.readouterr().out
    assert "judged by a.png (2), b.png (1) at 32 pixels" in said
    assert "other was trained with a.png, b.png: by another style image" in said
    assert Path("sheet.png").is_file()


def test_models_and_exports_name_all_images(
    data: dict[str, Any], tiny_network: TransformerNet, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_model(Path("m.pth"), tiny_network, metadata={"config": data})
    assert main(["models", "m.pth"]) == 0
    assert "    style images a.png (2), b.png (1)\n" in capsys.readouterr().out
    assert main(["models", "m.pth", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["style_image"], entry["style_images"]) == (None, {"a.png": 2, "b.png": 1})
    assert origin_of(path, load_model(path)).style_image == "a.png (2), b.png (1)"


def test_a_sweep_compares_shares(data: dict[str, Any], photos: Path) -> None:
    Path("tiny.yaml").write_text(yaml.safe_dump(data))
    shares = "style.images={a.png: 1, b.png: 0},{a.png: 0, b.png: 1}"
    assert len({*swept(photos, "--set", shares)}) == 2
    with Image.open("checkpoints/sweep-tiny/sheet.png") as sheet:
        assert sheet.width == 12 + 3 * (40 + 12)  # the photo and two columns


def test_a_recipe_in_a_sweep_has_the_configs_shares(data: dict[str, Any], photos: Path) -> None:
    recipe = ["--recipe", "gatys", "--set", "loss.tv_weight=0,1"]
    recipe += ["--set", f"loss.weights={data['loss']['weights']}", "--set", "loss.network=vgg16"]
    recipe += ["--set", "loss.style_layers=[relu1_1]", "--set", "loss.content_layers=[relu2_2]"]
    made = []
    for images in ({"a.png": 1, "b.png": 0}, {"a.png": 0, "b.png": 1}):
        data["style"]["images"] = images
        Path("tiny.yaml").write_text(yaml.safe_dump(data))
        made.append({*swept(photos, *recipe)} - {*chain(*made)})
    assert all(made)


def swept(photos: Path, *options: str) -> list[bytes]:
    """Sweep over a photo, and return the pictures that are there then."""
    command = ["sweep", "--config", "tiny.yaml", "--images", str(photos), "--n", "1"]
    assert main([*command, *options, "--steps", "2", "--size", "40"]) == 0
    return [path.read_bytes() for path in Path("checkpoints/sweep-tiny").glob("*/*.png")]


def test_new_leaves_a_config_of_several_images_alone(
    data: dict[str, Any], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.yaml").write_text(yaml.safe_dump(data))
    before = Path("a.yaml").read_bytes()
    assert main(["new", "a.png", str(photos), "--dry-run"]) == 2
    assert (
        "a.yaml: style.image: is a.png b.png there, and a.png in this command"
        in capsys.readouterr().err
    )
    assert Path("a.yaml").read_bytes() == before


def test_a_style_can_be_a_member_of_a_set() -> None:
    one = StyleConfig(images={Path("a.jpg"): 2, Path("b.jpg"): 1})
    assert len({one, StyleConfig(images=dict(one.images)), StyleConfig(image=Path("a.jpg"))}) == 2
    assert load_config("wave").style in {StyleConfig(image=Path("styles/wave.jpg"), size=768)}
