"""What `fast-style new` chooses, shows and refuses. (From beginning to end: e2e.)"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from synthetic import photo, vgg_weights, write_photos
from torch import Tensor

from fast_style.checkpoints.files import load_model, shipped_models
from fast_style.commands import main
from fast_style.config import ConfigError, load_config
from fast_style.creation import new_style
from fast_style.creation.new_style import (
    Wish,
    draw_photos,
    draw_strengths,
    estimate,
    from_nearest_base,
    objective_of,
    plan_style,
)
from fast_style.data import Skipped, center_crops, photos
from fast_style.evaluation.sweep import held_out_images
from fast_style.images import load_image, to_float
from fast_style.training.inputs import with_start

CPU = torch.device("cpu")
PICTURE = "My Painting.png"

pytestmark = pytest.mark.usefixtures("signal_handlers_restored")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of VGG-16 up to relu4_3."""
    folder = tmp_path_factory.mktemp("vgg")
    torch.save(vgg_weights(convolutions=10), folder / "vgg16_features.pth")
    return folder


@pytest.fixture
def user(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a painting and a folder of photos in it."""
    write_photos(tmp_path / "photos", 6)
    photo(7, 40, 48).save(tmp_path / PICTURE)
    monkeypatch.setenv("FAST_STYLE_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wish(**changes: object) -> Wish:
    settings = {"picture": Path(PICTURE), "photos": (Path("photos"),), "image_size": 32, **changes}
    return Wish(**settings)  # type: ignore[arg-type]


def new(*arguments: str) -> int:
    try:
        return main(["new", *arguments, "--image-size", "32", "--device", "cpu"])
    except SystemExit as end:  # argparse ends so
        return int(end.code or 0)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_style_begins_with_the_shipped_base_and_says_no_more_than_it_must(user: Path) -> None:
    style = plan_style(wish(image_size=None), on=CPU)
    config = style.config
    assert config.name == "My_Painting"
    assert style.file == Path("My_Painting.yaml")
    assert str(config.training.init_from) == "wave"
    network = with_start(config).network
    assert (network.width, network.num_residual_blocks) == (16, 5)
    assert (config.training.image_size, config.training.first_size) == (192, 128)
    assert config.training.first_share == 0.25
    assert config.style.size == 48  # not enlarged
    assert config.loss.strength == 1
    assert not style.file.exists()
    style.write()
    assert load_config(style.file) == config
    assert "--config My_Painting.yaml" in style.file.read_text()


def test_a_style_begins_with_the_shipped_model_that_comes_nearest_to_it(user: Path) -> None:
    style = plan_style(wish(), on=CPU)
    held_out = sorted((user / "photos").iterdir())[:1]
    criterion = objective_of(style.config, held_out, CPU).criterion
    crop = to_float(center_crops(held_out, 128)[held_out[0]])[None]
    totals = {}
    for path in shipped_models():
        with torch.no_grad():
            stylized = load_model(path).network(crop).clamp(0, 1)
            losses = criterion(stylized, criterion.content_targets(crop))
            totals[path.stem] = (losses.content + losses.style).item()
    nearest = from_nearest_base(style, criterion, held_out, CPU)
    assert str(nearest.config.training.init_from) == min(totals, key=totals.__getitem__)
    nearest.write()
    assert load_config(nearest.file) == nearest.config
    there = plan_style(wish(), on=CPU)
    assert from_nearest_base(there, criterion, held_out, CPU) is there


def test_a_large_picture_is_taken_at_512_pixels_and_a_gpu_takes_larger_crops(user: Path) -> None:
    photo(7, 400, 1000).save(user / "large.png")
    style = plan_style(wish(picture=Path("large.png"), image_size=None), on=torch.device("cuda"))
    assert style.config.style.size == 512
    assert style.config.training.image_size == 256


def test_a_picture_with_a_shipped_models_name_does_not_hide_that(user: Path) -> None:
    (user / PICTURE).rename(user / "wave.png")
    assert plan_style(wish(picture=Path("wave.png")), on=CPU).config.name == "my_wave"
    with pytest.raises(ConfigError, match="--name wave: is the name of a shipped model"):
        plan_style(wish(picture=Path("wave.png"), name="wave"), on=CPU)


def test_a_config_that_is_there_is_taken_as_it_is_if_it_is_of_the_same_style(user: Path) -> None:
    plan_style(wish(strength=2.0), on=CPU).write()
    file = user / "My_Painting.yaml"
    file.write_text(file.read_text().replace("  image_size:", "  ema_decay: 0.5\n  image_size:"))
    before = file.read_bytes()
    style = plan_style(wish(), on=CPU)
    assert (style.config.training.ema_decay, style.config.loss.strength) == (0.5, 2)
    style.write()
    assert file.read_bytes() == before
    with pytest.raises(ConfigError, match=r"loss\.strength: is 2\.0 there, and 3\.0 in this"):
        plan_style(wish(strength=3.0), on=CPU)
    with pytest.raises(ConfigError, match=r"data\.train: is photos there, and photos more in"):
        plan_style(wish(photos=(Path("photos"), Path("more"))), on=CPU)
    with pytest.raises(ConfigError, match="use --name for a second style"):
        plan_style(wish(picture=Path("other.png"), name="My_Painting"), on=CPU)


def test_the_minutes_are_those_of_preview_and_training_together() -> None:
    for minutes, preview in ((2.0, 0.2), (10.0, 1.0), (60.0, 1.0)):
        assert new_style.preview_minutes(minutes) == pytest.approx(preview)
        assert new_style.training_minutes(minutes) == pytest.approx(minutes - preview)


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_the_steps_that_are_timed_are_computed_as_the_runs_own(user: Path, precision: str) -> None:
    config = plan_style(wish(), on=CPU).config
    config = replace(config, training=replace(config.training, precision=precision))
    held_out = sorted((user / "photos").iterdir())[:1]
    criterion = objective_of(config, held_out, CPU).criterion
    seen = set()
    for part in criterion.features.modules():
        part.register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    estimate(config, criterion, 1.0, CPU)
    assert seen == {precision == "bf16"}


def test_the_preview_is_stronger_from_left_to_right(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_style, "_PREVIEW_SIDE", 40)  # the photos' own
    # The colours come first: enough steps for strokes.
    monkeypatch.setattr(new_style, "_FEWEST_STEPS", 40)
    config = plan_style(wish(), on=CPU).config
    held_out = sorted((user / "photos").iterdir())[:1]
    objective = objective_of(config, held_out, CPU)
    assert draw_strengths(config, objective, held_out, Path("new/sheet.png"), minutes=0.001)
    sheet = load_image("new/sheet.png")
    photo_, *pictures = (cell(sheet, column) for column in range(4))
    changes = [(picture - photo_).square().mean().item() for picture in pictures]
    assert 0 < changes[0] < changes[1] < changes[2]


def cell(sheet: Tensor, column: int) -> Tensor:
    """Cut a picture of 40 x 40 out of the last row of a sheet."""
    left, bottom = 12 + column * (40 + 12), sheet.shape[-2] - 12 - 28
    return sheet[:, bottom - 40 : bottom, left : left + 40]


def test_a_preview_that_is_stopped_is_not_drawn(user: Path) -> None:
    config = plan_style(wish(), on=CPU).config
    held_out = sorted((user / "photos").iterdir())[:1]
    objective = objective_of(config, held_out, CPU)
    sheet = Path("sheet.png")
    assert not draw_strengths(
        config, objective, held_out, sheet, minutes=0.2, should_stop=lambda: True
    )
    assert not sheet.exists()


def test_a_dry_run_says_what_is_too_long_and_writes_nothing(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(user)
    arguments = (PICTURE, "photos", "--dry-run", "--minutes")
    assert new(*arguments, "0.01") == 0
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert re.match(r"My Painting\.png at 48 pixels, strength 1, from \w+, width 16", first)
    assert "s a step: 0.01 minutes are " in second
    assert third.startswith("too long: ")
    assert "it fits with --minutes " in third
    assert last.startswith("My_Painting.yaml would be written")
    assert new(*arguments, "600") == 0
    assert "too long" not in capsys.readouterr().out
    file = user / "My_Painting.yaml"
    plan_style(wish(), on=CPU).write()
    file.write_text(file.read_text().replace("steps: 40000", "steps: 1000"))
    assert new(*arguments, "600") == 0
    out = capsys.readouterr().out
    assert "600 minutes are more than its 1,000 steps (training.steps) need" in out
    file.unlink()
    assert files_below(user) == before


def test_a_dry_run_counts_photos_that_are_broken(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (user / "photos/broken.jpg").write_bytes(b"no photo")
    assert new(PICTURE, "photos", "--dry-run", "--minutes", "0.01") == 1
    assert "1 photo could not be read and was left out" in capsys.readouterr().err


def test_a_held_out_photo_that_the_scan_did_not_decode_ends_nothing(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a large folder only some photos are decoded: here, none.
    monkeypatch.setattr(
        photos, "_inspect", lambda job, inspect=photos._inspect: inspect((job[0], False))
    )
    first, second, *_ = sorted(Path("photos").iterdir())
    first.write_bytes(first.read_bytes()[:-200])
    skipped = Skipped()
    held_out = held_out_images(plan_style(wish(), on=CPU).config, skipped=skipped)
    assert held_out == [second]
    assert len(skipped) == 1
    # One that is gone when the model is done spoils no sheet.
    draw_photos(shipped_models()[0], "mine", [second, first], Path("sheet.png"), device="cpu")
    assert load_image("sheet.png").shape[0] == 3


def test_the_minutes_and_no_small_number_of_steps_end_a_run(user: Path) -> None:
    assert plan_style(wish(), on=CPU).config.training.steps == 40_000


def test_a_config_may_write_the_same_places_in_another_way(user: Path) -> None:
    plan_style(wish(), on=CPU).write()
    file = user / "My_Painting.yaml"
    there = file.read_text()
    file.write_text(there.replace(f"image: {PICTURE}", f"images: {{{PICTURE}: 1}}"))
    places = {"picture": user / PICTURE, "photos": (user / "photos",)}
    config = plan_style(wish(name="My_Painting", **places), on=CPU).config
    assert config.data.train == (Path("photos"),)


def test_a_run_whose_config_is_gone_is_not_begun_anew_in_part(user: Path) -> None:
    style = plan_style(wish(), on=CPU)
    run = user / "checkpoints/My_Painting"
    run.mkdir(parents=True)
    (run / "state-00000010.pt").touch()
    with pytest.raises(ConfigError, match=r"My_Painting\.yaml: is not here, but .* holds a run: "):
        plan_style(wish(), on=CPU)
    plan_style(wish(name="other"), on=CPU)
    style.write()
    plan_style(wish(), on=CPU)


@pytest.mark.parametrize("name", ["a\nb: {.png", "caf\udce9.png", "50% (1).png"])
def test_a_picture_may_have_any_name(user: Path, name: str) -> None:
    (user / PICTURE).rename(user / name)
    style = plan_style(wish(picture=Path(name)), on=CPU)
    style.write()
    assert load_config(style.file) == style.config
    assert style.config.style.image == Path(name)
    assert style.config.name.isprintable()


def test_a_preview_of_a_command_that_was_stopped_is_not_taken_for_this_ones(
    user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(new_style, "_PREVIEW_SIDE", 40)
    monkeypatch.setattr(new_style, "_FEWEST_STEPS", 1)
    preview = user / "checkpoints/My_Painting/strengths.png"
    preview.parent.mkdir(parents=True)
    preview.write_bytes(b"of other strengths")
    arguments = (PICTURE, "photos", "--minutes", "0.002", "--strength", "3")
    assert new(*arguments) == 0
    assert "this run's is 3 " in capsys.readouterr().out
    assert load_image(preview).shape[0] == 3
    made = preview.stat().st_mtime_ns
    capsys.readouterr()
    assert new(*arguments) == 0
    assert preview.stat().st_mtime_ns == made
    # Nothing is left to do: no time of day is promised, and no option named that this has not.
    again = capsys.readouterr()
    assert "done by" not in again.out
    assert "--max-minutes" not in again.out + again.err


def one_line_of_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert new(*arguments) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    return error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["gone.png", "photos"], "gone.png: no such image file"),
        (["photos", "photos"], "photos"),
        (["broken.png", "photos"], "broken.png"),
        ([PICTURE, "gone"], "gone: no such folder of photos"),
        ([PICTURE, "empty"], "empty: holds no image files"),
        ([PICTURE, "photos", "--minutes", "0"], "'0' is not a number of minutes"),
        ([PICTURE, "photos", "--minutes", "nan"], "'nan' is not a number of minutes"),
        ([PICTURE, "photos", "--strength", "-1"], "'-1' is not a strength"),
        ([PICTURE, "photos", "--name", "wave"], "is the name of a shipped model"),
        ([PICTURE, "photos", "--name", "a/b"], "a/b"),
        ([PICTURE], "PHOTOS"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_bad_input_is_one_line_and_leaves_nothing(
    user: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
    dry: bool,
) -> None:
    (user / "empty").mkdir()
    (user / "broken.png").write_bytes(b"not a picture")
    before = files_below(user)
    assert part in one_line_of_error(capsys, *arguments, *(["--dry-run"] if dry else []))
    assert files_below(user) == before


def test_a_config_that_cannot_be_read_is_one_line(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (user / "My_Painting.yaml").write_text("name: [")
    assert "My_Painting.yaml: not valid YAML" in one_line_of_error(capsys, PICTURE, "photos")


def test_weights_that_are_missing_are_told_before_the_photos_are_read(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_style(wish(photos=(Path("gone"),)), on=CPU).write()
    file = user / "My_Painting.yaml"
    file.write_text(file.read_text().replace("loss:", "loss:\n  weights: gone.pth"))
    before = files_below(user)
    assert "gone.pth: no such weights" in one_line_of_error(capsys, PICTURE, "gone")
    assert files_below(user) == before


def test_a_picture_of_one_colour_is_a_style_too(user: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(user / "red.png")
    config = plan_style(wish(picture=Path("red.png")), on=CPU).config
    held_out = sorted((user / "photos").iterdir())[:2]
    assert objective_of(config, held_out, CPU).criterion.style_targets
