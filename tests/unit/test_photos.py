import shutil
from pathlib import Path

import numpy as np
import pytest
from kinds import UNREADABLE
from PIL import Image
from synthetic import photo, write_photos

from fast_style.data.photos import (
    DataError,
    find_images,
    fingerprint,
    hold_out,
    inspect_images,
    scan_images,
)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_the_runs_below_the_photos_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "checkpoints/mine/strengths.png", "other/checkpoints/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    photos = [Path("a.png"), Path("other/checkpoints/b.png")]
    assert find_images([Path()]) == photos
    assert find_images([tmp_path]) == [tmp_path / path for path in photos]
    # Unless they are named.
    assert find_images([Path("checkpoints")]) == [Path("checkpoints/mine/strengths.png")]


@pytest.mark.parametrize(
    "layout",
    [
        ["a.jpg", "b.png"],
        ["x/a.jpg", "y/z/b.png"],
        ["a.jpg", "x/b.png", "x/y/c.webp"],
    ],
    ids=["flat", "nested", "mixed"],
)
def test_every_layout_is_found_whole_and_in_order(tmp_path: Path, layout: list[str]) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        photo(0).save(tmp_path / name)
    assert find_images([tmp_path]) == [tmp_path / name for name in layout]


def test_extensions_in_capitals_count_and_other_files_do_not(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.jpeg", "notes.txt", "annotations.json", "noextension"):
        (tmp_path / name).write_bytes(b"")
    assert names(find_images([tmp_path])) == ["a.JPG", "b.jpeg"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".thumbnails/b.png", "sub/.hidden.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        photo(0).save(tmp_path / name)
    assert names(find_images([tmp_path])) == ["a.png", "c.png"]


def test_files_and_folders_may_be_named_together_and_count_once(tmp_path: Path) -> None:
    first, second = write_photos(tmp_path / "photos", 2)
    other = tmp_path / "other.png"
    photo(3).save(other)
    assert find_images([other, first, tmp_path / "photos"]) == [other, first, second]


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    write_photos(tmp_path / "real", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(find_images([tmp_path / "data"])) == 2


def test_links_in_a_circle_count_no_photo_twice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    photos = write_photos(data / "a", 2)
    for name, target in (("up", data), ("out", tmp_path), ("self", data / "a"), ("again", data)):
        (data / "a" / name).symlink_to(target, target_is_directory=True)
    assert find_images([data]) == photos


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such folder of photos"):
        find_images([tmp_path / "gone"])


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        find_images([tmp_path])
    assert f"{tmp_path}: holds no image files" in str(caught.value)
    assert ".jpg" in str(caught.value)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_broken_file_is_skipped_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    paths = write_photos(tmp_path, 20, height=16, width=16)
    UNREADABLE[name](tmp_path / name)
    scan = scan_images([*paths, tmp_path / name])
    assert scan.usable == paths
    assert list(scan.unreadable) == [tmp_path / name]
    assert str(tmp_path / name) in scan.unreadable[tmp_path / name]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"skipped: {tmp_path / name}: ")


@pytest.mark.parametrize("size", [(1, 1), (15, 200)])
def test_a_tiny_image_is_skipped_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: tuple[int, int]
) -> None:
    paths = write_photos(tmp_path, 2)
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", size).save(tiny)
    scan = scan_images([*paths, tiny])
    assert (scan.usable, scan.too_small, scan.unreadable) == (paths, [tiny], {})
    assert caplog.messages == [f"skipped: {tiny}: a side is under 16 pixels"]


def test_more_than_half_unreadable_stops_with_the_list(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, 4, height=16, width=16)
    broken = [tmp_path / f"x{i}.jpg" for i in range(5)]
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        scan_images([*paths, *broken])
    message = str(caught.value)
    assert "5 of 9 content images are unreadable, more than 50%" in message
    assert all(str(path) in message for path in broken)
    assert len(scan_images([*paths, *broken[:4]]).usable) == 4


def test_tiny_images_only_are_no_content_images(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="none of the 1 content images can be used"):
        scan_images([tmp_path / "a.png"])


@pytest.mark.parametrize(("total", "count", "expected"), [(100, 16, 16), (20, 16, 4), (3, 1, 1)])
def test_held_out_images_are_not_trained_on(total: int, count: int, expected: int) -> None:
    paths = [Path(f"{i:03d}.png") for i in range(total)]
    training, held = hold_out(paths, count)
    assert len(held) == expected
    assert not set(training) & set(held)
    assert sorted([*training, *held]) == paths


def test_a_single_image_is_trained_on_and_held_out() -> None:
    assert hold_out([Path("a.png")], 16) == ([Path("a.png")], [Path("a.png")])


def test_a_scan_of_a_removed_folder_names_its_files(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 2)
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match=r"photo-000\.png: no such image file"):
        scan_images(paths)


def test_a_scan_knows_sizes_and_greys_and_tells_them_in_a_line(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, 2)
    for name, size, mode in (("a.jpg", (90, 60), "L"), ("b.png", (20, 30), "RGB")):
        Image.new(mode, size, 70 if mode == "L" else (70, 78, 71)).save(tmp_path / name)
        paths.append(tmp_path / name)
    Image.new("L", (4, 4)).save(tmp_path / "tiny.png")
    (tmp_path / "broken.jpg").write_bytes(b"")
    scan = inspect_images([*paths, tmp_path / "tiny.png", tmp_path / "broken.jpg"])
    assert scan.sizes == [(48, 40), (48, 40), (90, 60), (20, 30)]
    assert (scan.decoded, scan.grey) == (4, 2)
    assert scan.summary() == "4 photos, 20×30 to 90×60, 2 unusable, 50% grey"


def test_only_a_sample_of_a_large_folder_is_decoded(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, 10, height=16, width=16)
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: len(data) // 2])  # its header is whole
    assert inspect_images(paths, decoded=5).usable == paths
    assert inspect_images(paths, decoded=5).decoded == 5
    assert list(inspect_images(paths, decoded=10).unreadable) == [paths[1]]


def test_nearly_grey_is_not_a_colour_and_a_tint_is(tmp_path: Path) -> None:
    pixels = np.full((20, 20, 3), 100, np.uint8)
    for name, blue in (("a.png", 108), ("b.png", 109)):
        pixels[5, 5, 2] = blue
        Image.fromarray(pixels).save(tmp_path / name)
    assert inspect_images([tmp_path / "a.png", tmp_path / "b.png"]).grey == 1


@pytest.mark.parametrize("edge", [0, 1, 2, 3])
@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_a_plain_band_along_any_edge_is_told(tmp_path: Path, edge: int, extension: str) -> None:
    paths = write_photos(tmp_path, 3, height=320, width=320)
    pixels = np.rot90(np.asarray(Image.open(paths[0]).convert("RGB")), edge).copy()
    pixels[-40:] = (123, 116, 104)
    framed = tmp_path / f"framed.{extension}"
    Image.fromarray(np.rot90(pixels, -edge)).save(framed)
    Image.new("RGB", (90, 60), (40, 80, 120)).save(tmp_path / "plain.png")
    scan = inspect_images([*paths[1:], framed, tmp_path / "plain.png"])
    assert (scan.framed, scan.framed_photos) == (1, [framed])
    assert scan.summary().endswith("0% grey, 25% with a plain band along an edge")


def test_a_fingerprint_tells_folders_apart_and_does_not_care_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_photos(tmp_path / "a" / "photos", 3)
    before = fingerprint(paths)
    assert fingerprint(paths) == before
    assert fingerprint(paths[:2]) != before
    assert fingerprint(paths[::-1]) != before
    monkeypatch.chdir(tmp_path)
    assert fingerprint([path.relative_to(tmp_path) for path in paths]) == before
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # with other times
    moved = find_images([tmp_path / "b"])
    assert fingerprint(moved) == before
    moved[1].write_bytes(moved[1].read_bytes() + b"more")
    assert fingerprint(moved) != before
    moved[1].unlink()
    assert fingerprint(moved) != before
    paths[2].rename(paths[2].with_name("renamed.png"))
    assert fingerprint(find_images([tmp_path / "a"])) != before


def test_the_fingerprint_of_several_folders_and_of_one_file(tmp_path: Path) -> None:
    one, other = write_photos(tmp_path / "a", 1), write_photos(tmp_path / "b", 1)
    assert fingerprint(one) == fingerprint(other) != fingerprint([*one, *other])


def test_other_files_are_counted_in_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo(1).save(tmp_path / "a.jfif", "JPEG")
    for name in ("x.psd", "y.mov", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level("INFO"):
        assert names(find_images([tmp_path])) == ["a.jfif"]
    assert caplog.messages == [f"{tmp_path}: 2 files left out: 1 .mov, 1 .psd"]
