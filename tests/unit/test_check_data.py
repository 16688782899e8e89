import json
from pathlib import Path
from typing import Any

import pytest
from kinds import UNREADABLE
from PIL import Image
from synthetic import photo, write_photos

from fast_style.commands import main
from fast_style.config import TrainingConfig
from fast_style.data.preparation import Preparation


def report(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert main(["check-data", *map(str, arguments), "--json"]) == code
    return dict(json.loads(capsys.readouterr().out))


def test_a_folder_of_usable_photos_is_told_and_is_a_success(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-data", str(photos)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("8 image files, 8 usable\n")
    assert "48×40 smallest, 48×40 median, 48×40 largest; 8 with a side under 256" in text
    assert "without colours: 0.0%" in text
    assert "with a plain band along an edge: 0.0%\n" in text
    assert "duplicates: 0" in text
    assert "images/s a core" in text
    assert "4,000 steps of 4: each photo 2,000.0 times" in text
    assert "data.cache would take 0.01 GB" in text
    assert "unreadable" not in text


def test_every_number_can_be_had_as_json(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (60, 400), 90).save(tmp_path / "grey.jpg")
    Image.new("L", (300, 20), 90).save(tmp_path / "greyer.jpg")
    paths = [*photos.iterdir(), *tmp_path.iterdir()]
    found = report(capsys, photos, tmp_path, "--image-size", 40)
    assert (found["files"], found["usable"]) == (10, 10)
    assert (found["unreadable"], found["too_small"]) == ({}, [])
    assert (found["smallest"], found["median"], found["largest"]) == ([48, 40], [48, 40], [60, 400])
    assert found["below_image_size"] == 1
    assert found["grey_share"] == 0.2
    assert found["framed_share"] == 0
    training = TrainingConfig()
    assert found["epochs"] == training.steps * training.batch_size / 10
    loading = training.steps * training.batch_size / found["images_per_second_and_core"]
    assert found["loading_seconds"] == pytest.approx(loading / found["workers"], rel=0.05)
    made = Preparation(sizes=(40,), min_crop=0.75)
    ready = [sum(pixels.numel() for pixels in made.photos(path)) for path in paths]
    assert found["cache_bytes"] == sum(ready)


def test_each_file_that_cannot_be_used_is_named_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, 3)
    for name, write in UNREADABLE.items():
        write(tmp_path / name)
    photo(0, 8, 90).save(tmp_path / "tiny.png")
    assert main(["check-data", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "9 image files, 3 usable"
    assert lines[1] == "unreadable: 5, more than the 50% that a training goes on with"
    for name in UNREADABLE:
        assert sum(line.startswith(f"  {tmp_path / name}: ") for line in lines) == 1
    place = lines.index("too small, with a side under 16 pixels: 1")
    assert lines[place + 1] == f"  {tmp_path / 'tiny.png'}"


def test_a_photo_that_is_broken_behind_its_header_is_found_in_a_large_folder_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fast_style.data.photos.DECODED_SAMPLE", 2)
    paths = write_photos(tmp_path, 5)
    paths[1].write_bytes(paths[1].read_bytes()[:-60])
    assert list(report(capsys, tmp_path, code=1)["unreadable"]) == [str(paths[1])]


def test_files_with_the_same_bytes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_photos(tmp_path, 3)
    copy = tmp_path / "sub" / "copy.png"
    copy.parent.mkdir()
    copy.write_bytes(paths[1].read_bytes())
    assert report(capsys, tmp_path)["duplicates"] == [[str(paths[1]), str(copy)]]


def test_a_folder_without_any_usable_photo_is_told_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    assert main(["check-data", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "1 image files, 0 usable",
        "unreadable: 1, more than the 50% that a training goes on with",
        f"  {tmp_path / 'a.jpg'}: is empty",
    ]
    assert report(capsys, tmp_path, code=1)["usable"] == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["gone"], "gone: no such folder of photos"),
        (["empty"], "empty: holds no image files"),
        (["empty", "--image-size", "0"], "'0' is not a number of pixels"),
        ([], "DIR"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    part: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["check-data", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    captured = capsys.readouterr()
    assert part in captured.err.splitlines()[-1]
    assert captured.out == ""
