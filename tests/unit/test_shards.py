"""Training photos in tar shards, here and in a store."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from synthetic import tiny_config_data, write_photos

from fast_style.commands import main
from fast_style.config import config_from_dict
from fast_style.data import fingerprint
from fast_style.data.photos import find_images
from fast_style.images import ImageError, open_rgb
from fast_style.shards import INDEX, ShardError
from fast_style.training import train


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of two shards with the photos of the folder `photos` beside it, in their order."""
    write_photos(tmp_path / "photos", 6)
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / f"shards/{shard}.tar", "w") as tar:
            for name in names[3 * shard : 3 * shard + 3]:
                tar.add(tmp_path / "photos" / name, name)
                (tmp_path / "label.txt").write_text("a label", encoding="ascii")
                tar.add(tmp_path / "label.txt", f"{Path(name).stem}.txt")
    return tmp_path / "shards"


@pytest.fixture
def far(shards: Path) -> Iterator[Path]:
    """The same shards in a store."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for path in shards.iterdir():
        store.pipe_file(f"/shards/{path.name}", path.read_bytes())
    yield Path("memory://shards")
    store.store.clear()


def test_photos_are_found_by_an_index_that_is_made_once(shards: Path) -> None:
    plain = find_images([shards.parent / "photos"])
    photos = find_images([shards])
    assert [path.name for path in photos] == [path.name for path in plain]
    for photo, same in zip(photos, plain, strict=True):
        assert open_rgb(photo).tobytes() == open_rgb(same).tobytes()
    index = shards / INDEX
    assert set(json.loads(index.read_text())["shards"]) == {"0.tar", "1.tar"}
    made = index.stat().st_mtime_ns
    assert find_images([shards]) == photos
    assert find_images([shards / "1.tar"]) == photos[3:]
    assert index.stat().st_mtime_ns == made


def test_a_shard_that_was_written_anew_is_indexed_anew(shards: Path) -> None:
    before = find_images([shards])
    photo = shards.parent / "photos" / before[0].name
    with tarfile.open(shards / "1.tar", "a") as tar:
        tar.add(photo, "z.jpg")
    after = find_images([shards])
    assert after == [*before, shards / "1.tar/z.jpg"]
    assert open_rgb(after[-1]).tobytes() == open_rgb(photo).tobytes()
    assert fingerprint(before) != fingerprint(after)


def test_shards_beside_photos_are_left_out(shards: Path) -> None:
    write_photos(shards, 1)
    assert [path.suffix for path in find_images([shards])] == [".png"]


def test_what_is_no_tar_and_what_is_no_photo_in_one_is_named(shards: Path) -> None:
    with pytest.raises(ImageError, match=r"0.tar/gone.jpg: no such image file"):
        open_rgb(shards / "0.tar/gone.jpg")
    (shards / "2.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ShardError, match=r"2.tar: a damaged or compressed tar"):
        find_images([shards])


def test_shards_in_a_store_hold_the_same_photos(shards: Path, far: Path) -> None:
    photos = find_images([far])
    assert [p.relative_to(far) for p in photos] == [
        p.relative_to(shards) for p in find_images([shards])
    ]
    assert fingerprint(photos) == fingerprint(find_images([shards]))
    for photo, same in zip(photos, find_images([shards]), strict=True):
        assert open_rgb(photo).tobytes() == open_rgb(same).tobytes()


def test_a_training_from_shards_has_the_bits_of_one_from_the_folder(
    shards: Path, far: Path, vgg_file: Path, tmp_path: Path
) -> None:
    weights = []
    for place in (tmp_path / "photos", shards, far):
        style = tmp_path / "photos/photo-000.png"
        data = tiny_config_data(photos=place, style=style, weights=vgg_file)
        result = train(config_from_dict(data), tmp_path / f"run-{len(weights)}", device="cpu")
        weights.append(torch.load(result.model, weights_only=True)["weights"])
    for name, values in weights[0].items():
        assert torch.equal(weights[1][name], values)
        assert torch.equal(weights[2][name], values)


def test_names_that_tar_writes_of_a_whole_folder_are_found(shards: Path) -> None:
    photo = shards.parent / "photos/photo-000.png"
    with tarfile.open(shards / "0.tar", "w") as tar:
        tar.add(photo, "./a.png")
        tar.add(photo, "./sub//b.png")
        tar.add(photo, "/c.png")
    photos = find_images([shards / "0.tar"])
    assert photos == [shards / "0.tar" / name for name in ("a.png", "c.png", "sub/b.png")]
    for path in photos:
        assert open_rgb(path).tobytes() == open_rgb(photo).tobytes()


def test_an_index_that_is_out_of_date_and_cannot_be_written_is_not_believed(shards: Path) -> None:
    find_images([shards])
    index, size = (shards / INDEX).read_bytes(), (shards / "0.tar").stat().st_size
    photo = shards.parent / "photos/photo-005.png"
    with tarfile.open(shards / "0.tar", "w") as tar:
        tar.add(photo, "photo-000.png")
    with (shards / "0.tar").open("ab") as file:  # of as many bytes, as tars are rounded up
        file.truncate(size)
    (shards / INDEX).unlink()
    (shards / INDEX).mkdir()  # not even root can write there
    assert open_rgb(find_images([shards])[0]).tobytes() == open_rgb(photo).tobytes()
    (shards / INDEX).rmdir()
    (shards / INDEX).write_bytes(index)
    assert open_rgb(find_images([shards])[0]).tobytes() == open_rgb(photo).tobytes()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"format": "fast-style-shards/2", "shards": []}',
        '{"format": "fast-style-shards/2", "shards": {"0.tar": {"size": 1}}}',
        '{"format": "fast-style-shards/2", "shards": {"0.tar": {"size": 1, "modified": 1, '
        '"photos": {"a.png": 3}}}}',
        "[" * 100_000,
    ],
)
def test_an_index_that_holds_something_else_is_made_anew(shards: Path, text: str) -> None:
    (shards / INDEX).write_text(text)
    assert len(find_images([shards])) == 6
    assert set(json.loads((shards / INDEX).read_text())["shards"]) == {"0.tar", "1.tar"}


def test_a_folder_that_is_named_like_a_shard_is_a_folder(shards: Path) -> None:
    photo = shards.parent / "photos/photo-000.png"
    folder = shards.rename(shards.with_name("all.tar"))
    assert len(find_images([folder])) == 6
    (folder / "empty.tar").mkdir()
    assert len(find_images([folder])) == 6
    own = folder / "own.png"
    own.write_bytes(photo.read_bytes())
    assert open_rgb(own).tobytes() == open_rgb(photo).tobytes()
    assert find_images([folder]) == [own]


def test_one_shard_that_is_named_needs_nothing_of_those_beside_it(shards: Path) -> None:
    (shards / "2.tar").write_bytes(b"no tar at all" * 100)
    assert len(find_images([shards / "1.tar"])) == 3
    assert len(find_images([shards / "0.tar"])) == 3
    assert set(json.loads((shards / INDEX).read_text())["shards"]) == {"0.tar", "1.tar"}


def test_shards_that_are_read_are_not_said_to_be_left_out(
    shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        find_images([shards])
        find_images([shards])
        assert "left out" not in caplog.text
        (shards / "note.txt").write_text("a note")
        find_images([shards])
    assert "1 file left out: 1 .txt" in caplog.text


def test_shards_are_checked_as_folders_are(
    shards: Path, far: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = shards.parent / "photos/photo-000.png"
    with tarfile.open(shards / "1.tar", "a") as tar:
        tar.add(photo, "again.png")
    assert main(["check-data", str(shards), "--image-size", "32"]) == 0
    out = capsys.readouterr().out
    assert "7 image files, 7 usable" in out
    assert f"{shards}/0.tar/photo-000.png = {shards}/1.tar/again.png" in out
    assert main(["check-data", str(far), "--image-size", "32"]) == 0
    assert "6 image files, 6 usable" in capsys.readouterr().out
