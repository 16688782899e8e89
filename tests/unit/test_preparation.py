import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from synthetic import photo, write_photos

from fast_style.config import Config, ConfigError, StyleConfig
from fast_style.data import DataError, Draw
from fast_style.data.photos import Scan, hold_out, inspect_images
from fast_style.training.inputs import load_style_image, prepare


def message_for(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_style_image(StyleConfig(image=path))
    return str(caught.value)


def test_the_style_image_has_the_long_edge_of_its_statistics(tmp_path: Path) -> None:
    photo(1, 40, 80).save(tmp_path / "a.png")
    assert load_style_image(StyleConfig(image=tmp_path / "a.png", size=60)).shape == (1, 3, 30, 60)
    assert load_style_image(StyleConfig(image=tmp_path / "a.png", size=0)).shape == (1, 3, 40, 80)


def test_a_missing_painting_is_told_with_its_source(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    message = message_for(Path("styles/no_such_painting.jpg"))
    assert message == (
        "style.image: styles/no_such_painting.jpg: no such image file; "
        "styles/README.md says where to get it"
    )


def test_a_missing_style_image_of_ones_own_is_told_with_the_folder_it_was_looked_for_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("not about pictures")
    monkeypatch.chdir(tmp_path)
    looked = f"no such image file in {tmp_path}, where relative paths begin"
    assert message_for(Path("a.jpg")) == f"style.image: a.jpg: {looked}"
    assert message_for(Path("styles/wave.jpg")) == f"style.image: styles/wave.jpg: {looked}"
    absolute = tmp_path / "a.jpg"
    assert message_for(absolute) == f"style.image: {absolute}: no such image file"


def test_a_damaged_style_image_is_not_called_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no picture")
    message = message_for(path)
    assert message.startswith(f"style.image: {path}: ")
    assert "no such" not in message


def test_a_held_out_photo_that_only_now_turns_out_broken_is_left_out(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def scan(paths: Sequence[Path], **_: object) -> Scan:
        return inspect_images(paths, decoded=3)  # files 0, 4 and 8

    monkeypatch.setattr("fast_style.training.inputs.scan_images", scan)
    photos = write_photos(tmp_path / "photos", 10)
    config = tiny_config({"data.train": str(tmp_path / "photos"), "data.held_out": 2})
    held = hold_out(photos, 2)[1]
    broken = held[1]
    assert broken == photos[5]
    broken.write_bytes(broken.read_bytes()[:-200])
    inputs = prepare(config, device="cpu")
    assert len(inputs.validation) == 1
    assert broken.stem not in inputs.previews
    assert f"skipped: {broken}" in caplog.text


def test_the_photos_are_told_in_a_line(
    tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        prepare(tiny_config(), device="cpu")
    told = "8 photos, 48×40 to 48×40, 0 unusable, 0% grey; 7 to train on, 1 held out"
    assert f"content images: {told}" in caplog.messages


def test_a_cache_is_filled_where_one_is_asked_for_and_serves_any_split(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    changes = {"data.cache": str(tmp_path / "cache")}
    expected = prepare(tiny_config(), device="cpu").images
    images = prepare(tiny_config(changes), device="cpu").images
    assert images.cache is not None
    assert images.cache.photo(images.paths[0], 32, 0) is not None
    assert all(torch.equal(images[Draw(i, i)][0], expected[Draw(i, i)][0]) for i in range(7))
    written = images.cache.file.stat().st_mtime_ns
    prepare(tiny_config({**changes, "data.held_out": 2}), device="cpu")
    assert images.cache.file.stat().st_mtime_ns == written


def test_a_cache_that_cannot_be_written_is_named(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data\.cache: .*file: cannot be written: "):
        prepare(tiny_config({"data.cache": str(tmp_path / "file")}), device="cpu")


def test_previews_of_photos_with_one_name_are_told_apart(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    for seed, place in enumerate(("a/1.png", "b/1.png", "b/2.png", "c/a/1.png")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        photo(seed, 40, 48).save(tmp_path / place)
    inputs = prepare(tiny_config({"data.validation": [str(tmp_path)]}), device="cpu")
    assert list(inputs.previews) == ["a-1-1", "b-1", "2", "a-1-4"]
    contents = list(inputs.previews.values())
    assert not any(torch.equal(contents[0], other) for other in contents[1:])


@pytest.mark.parametrize(
    ("size", "alpha", "told"),
    [((15, 80), 255, "is only 15×80 pixels"), ((80, 80), 0, "is wholly transparent"),
     ((80, 80), 255, "")],
)  # fmt: skip
def test_a_poor_style_image_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: tuple[int, int], alpha: int, told: str
) -> None:
    Image.new("RGBA", size, (9, 99, 200, alpha)).save(tmp_path / "a.png")
    load_style_image(StyleConfig(image=tmp_path / "a.png"))
    assert [told in message for message in caplog.messages] == ([True] if told else [])
