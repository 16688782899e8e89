import logging
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import photo, write_photos

from fast_style.data import (
    ContentBatch,
    ContentImages,
    DataError,
    Draw,
    EndlessShuffle,
    center_crop,
    content_batches,
    find_images,
    hold_out,
    scan_images,
)

RED = (220, 30, 60)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


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


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such folder of photos"):
        find_images([tmp_path / "gone"])


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        find_images([tmp_path])
    assert f"{tmp_path}: holds no image files" in str(caught.value)
    assert ".jpg" in str(caught.value)


def write_palette_with_transparency(path: Path) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.paste(1, (20, 0, 40, 40))
    image.save(path, transparency=1)


def write_16_bit(path: Path) -> None:
    Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(path)


def write_animation(path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, "blue", "green")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def write_rotated(path: Path) -> None:
    """Write a picture that is red above and blue below once it is turned as its tag says."""
    image = Image.new("RGB", (40, 40), RED)
    image.paste((0, 0, 255), (0, 20, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image.rotate(90, expand=True).save(path, exif=exif, quality=95)


def write_rgba(path: Path) -> None:
    image = Image.new("RGBA", (40, 40), (*RED, 255))
    image.paste((0, 0, 0, 0), (20, 0, 40, 40))
    image.save(path)


def solid(mode: str, colour: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (40, 40), colour).save(path)  # type: ignore[arg-type]


def write_cmyk(path: Path) -> None:
    Image.new("RGB", (40, 40), RED).convert("CMYK").save(path, quality=95)


WHITE = (255, 255, 255)
# The file, how it is written, and the colours at (5, 5), (35, 5) and (5, 35), as (x, y).
READABLE = {
    "grey.jpg": (solid("L", 80), (80,) * 3, (80,) * 3, (80,) * 3),
    "greyalpha.png": (solid("LA", (80, 255)), (80,) * 3, (80,) * 3, (80,) * 3),
    "bilevel.png": (solid("1", 1), WHITE, WHITE, WHITE),
    "cmyk.jpg": (write_cmyk, RED, RED, RED),
    "rgba.png": (write_rgba, RED, WHITE, RED),
    "palette.png": (solid("P", 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    "transparent.png": (write_palette_with_transparency, RED, WHITE, RED),
    "sixteen.png": (write_16_bit, (156,) * 3, (156,) * 3, (156,) * 3),
    "animated.gif": (write_animation, RED, RED, RED),
    "rotated.jpg": (write_rotated, RED, RED, (0, 0, 255)),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_of_image_is_read_right(tmp_path: Path, name: str) -> None:
    write, *colours = READABLE[name]
    path = tmp_path / name
    write(path)
    assert scan_images([path]).usable == [path]
    pixels = center_crop(path, 40).permute(1, 2, 0)
    for (x, y), colour in zip([(5, 5), (35, 5), (5, 35)], colours, strict=True):
        assert pixels[y, x].tolist() == pytest.approx(colour, abs=6), (x, y)


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_of_image_gives_a_crop(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    READABLE[name][0](path)
    pixels, source, unreadable = ContentImages([path], 32)[Draw(0, 0)]
    assert (pixels.shape, pixels.dtype) == ((3, 32, 32), torch.uint8)
    assert (source, unreadable) == (str(path), [])


def truncated(path: Path) -> None:
    photo(1, 64, 64).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "empty.jpg": lambda path: path.write_bytes(b""),
    "cut.jpg": truncated,
    "cut.png": truncated,
    "text.jpg": lambda path: path.write_text("<html>404 Not Found</html>"),
    "link.jpg": lambda path: path.symlink_to(path.with_name("nowhere")),
}


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


def test_more_than_one_in_twenty_unreadable_stops_with_the_list(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, 30, height=16, width=16)
    broken = [tmp_path / name for name in ("x.jpg", "y.jpg")]
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        scan_images([*paths, *broken])
    message = str(caught.value)
    assert "2 of 32 content images are unreadable, more than 5%" in message
    assert all(str(path) in message for path in broken)


def test_tiny_images_only_are_no_content_images(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="none of the 1 content images can be used"):
        scan_images([tmp_path / "a.png"])


def take(
    images: ContentImages, count: int, *, first_step: int = 0, workers: int = 0
) -> list[ContentBatch]:
    batches = content_batches(images, 3, first_step=first_step, workers=workers)
    return list(islice(batches, count))


# Where there is one core, torch advises against two workers; from Python 3.12 on, Python warns that
# a process with threads is forked. Neither matters here.
with_workers = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=with_workers)])
def test_what_a_step_sees_does_not_depend_on_workers_or_on_where_the_run_began(
    photos: Path, workers: int
) -> None:
    images = ContentImages(find_images([photos]), 32, seed=5)
    unbroken = take(images, 7)
    resumed = take(images, 4, first_step=3, workers=workers)
    for expected, batch in zip(unbroken[3:], resumed, strict=True):
        assert batch.paths == expected.paths
        assert torch.equal(batch.pixels, expected.pixels)


def test_another_seed_gives_another_order_and_other_crops(photos: Path) -> None:
    paths = find_images([photos])
    one, other = (take(ContentImages(paths, 32, seed=seed), 4) for seed in (0, 1))
    assert [b.paths for b in one] != [b.paths for b in other]
    crops = [ContentImages(paths, 32, seed=seed)[Draw(0, 0)][0] for seed in (0, 1)]
    assert not torch.equal(*crops)


def test_the_same_image_is_cropped_anew_at_every_position(photos: Path) -> None:
    images = ContentImages(find_images([photos]), 32, flip=False)
    crops = {images[Draw(0, position)][0].numpy().tobytes() for position in range(10)}
    assert len(crops) > 7


@pytest.mark.parametrize(("size", "batch_size"), [(1, 4), (7, 3), (10, 4), (8, 8)])
def test_each_epoch_is_a_permutation_and_each_another(size: int, batch_size: int) -> None:
    shuffle = EndlessShuffle(size, batch_size, seed=3)
    draws = [draw for batch in islice(shuffle, 5 * size) for draw in batch]
    assert [draw.position for draw in draws] == list(range(len(draws)))
    epochs = [
        [draw.image for draw in draws[i : i + size]] for i in range(0, len(draws) - size, size)
    ]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    if size > 1:
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_flips_happen_about_half_the_time_and_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "edge.png"
    image = Image.new("RGB", (40, 40))
    image.paste((255, 255, 255), (20, 0, 40, 40))
    image.save(path)

    def flipped(flip: bool) -> int:
        images = ContentImages([path], 32, min_crop=1, flip=flip)
        crops = (images[Draw(0, position)][0] for position in range(40))
        return sum(int(crop[0, 0, 0] > crop[0, 0, -1]) for crop in crops)

    assert flipped(False) == 0
    assert 10 < flipped(True) < 30


def test_crops_are_as_large_as_min_crop_says(tmp_path: Path) -> None:
    """A ramp of columns shows the crop's side by how much of it is seen."""
    path = tmp_path / "ramp.png"
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    Image.fromarray(np.stack([ramp] * 3, axis=-1)).save(path)
    images = ContentImages([path], 64, min_crop=0.5, flip=False)
    spans = []
    for position in range(40):
        row = images[Draw(0, position)][0][0, 0].int()
        spans.append(int(row.max() - row.min()) / 200)
    assert 0.47 < min(spans) < 0.6
    assert 0.9 < max(spans) <= 1


def test_a_large_jpeg_is_decoded_no_smaller_than_the_crop_needs(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    pixels[::8, :] = 255  # lines that vanish where it is read too small
    Image.fromarray(pixels).save(path, quality=95)
    crop = ContentImages([path], 256, min_crop=1, flip=False)[Draw(0, 0)][0]
    assert crop.float().std() > 40


def breaking(tmp_path: Path, count: int, broken: int) -> tuple[ContentImages, list[Path]]:
    """Make `count` images of which the first `broken` go bad after they were found."""
    paths = write_photos(tmp_path, count, height=16, width=16)
    images = ContentImages(paths, 16)
    for path in paths[:broken]:
        path.write_bytes(b"no image any more")
    return images, paths[:broken]


def test_a_file_that_breaks_later_is_replaced_by_the_next_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, (broken,) = breaking(tmp_path, 6, 1)
    with caplog.at_level(logging.WARNING):
        batches = take(images, 10)  # five epochs
    assert caplog.messages == [f"skipped: {broken}: not an image file"]
    seen = Counter(path for batch in batches for path in batch.paths)
    assert str(broken) not in seen
    assert seen[str(tmp_path / "photo-001.png")] == 10


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=with_workers)])
@pytest.mark.parametrize(("count", "broken"), [(6, 2), (3, 3)])
def test_many_files_that_break_later_end_the_run_with_their_names(
    tmp_path: Path, count: int, broken: int, workers: int
) -> None:
    images, paths = breaking(tmp_path, count, broken)
    with pytest.raises(DataError) as caught:
        take(images, 10, workers=workers)
    message = str(caught.value)
    assert f"{broken} of {count} content images are unreadable" in message
    assert all(str(path) in message for path in paths)
    assert "Traceback" not in message


@pytest.mark.parametrize(("total", "count", "expected"), [(100, 16, 16), (20, 16, 4), (3, 1, 1)])
def test_held_out_images_are_not_trained_on(total: int, count: int, expected: int) -> None:
    paths = [Path(f"{i:03d}.png") for i in range(total)]
    training, held = hold_out(paths, count)
    assert len(held) == expected
    assert not set(training) & set(held)
    assert sorted([*training, *held]) == paths


def test_a_single_image_is_trained_on_and_held_out() -> None:
    assert hold_out([Path("a.png")], 16) == ([Path("a.png")], [Path("a.png")])


def test_the_center_crop_is_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    image = Image.new("RGB", (100, 40), RED)
    image.paste((0, 0, 255), (30, 0, 70, 40))
    image.save(path)
    crop = center_crop(path, 20)
    assert crop.shape == (3, 20, 20)
    inside = crop[:, 2:-2, 2:-2].flatten(1)  # the resampling sees the red beside the edge
    assert inside.min(dim=1).values.tolist() == inside.max(dim=1).values.tolist() == [0, 0, 255]


def test_no_images_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="no content images"):
        ContentImages([], 32)


def test_a_scan_of_a_removed_folder_names_its_files(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 2)
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match=r"photo-000\.png: no such image file"):
        scan_images(paths)
