import logging
import pickle
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import READABLE, RED
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
)
from fast_style.data.cache import ImageCache, open_cache
from fast_style.data.photos import find_images, scan_images
from fast_style.data.preparation import SCALES, read_rgb
from fast_style.images import ImageError, open_rgb
from fast_style.images import pictures as image_files


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


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_of_image_is_made_ready_from_the_pixels_of_every_reader(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    READABLE[name][0](path)
    assert np.array_equal(read_rgb(path, at_least=20), open_rgb(path, at_least=20))


def test_the_short_way_to_a_jpegs_pixels_gives_pillows_or_its_error(tmp_path: Path) -> None:
    """Whole ones of every sampling, damaged ones, ones cut short, and these with an end again."""
    random = np.random.RandomState(0)
    whole = []
    for number in range(12):
        path = tmp_path / "whole.jpg"
        sampling, progressive = number % 3, number % 2 == 1
        size = random.randint(17, 90, 2)
        photo(number, *size).save(path, quality=85, subsampling=sampling, progressive=progressive)
        whole.append(path.read_bytes())
    files = list(whole)
    for data in whole:
        for _ in range(4):
            cut = random.randint(100, len(data))
            damaged = bytearray(data)
            damaged[random.randint(600, len(data))] ^= 1 << random.randint(8)
            files += [data[:cut], data[:cut] + b"\xff\xd9", bytes(damaged)]
    refused = 0
    for number, data in enumerate(files):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        try:
            expected = np.asarray(open_rgb(path, at_least=30))
        except ImageError as error:
            refused += 1
            with pytest.raises(ImageError, match=re.escape(str(error))):
                read_rgb(path, at_least=30)
        else:
            assert np.array_equal(read_rgb(path, at_least=30), expected), number
    assert 20 < refused < len(files) - 20


def test_a_crop_is_cut_out_of_what_the_preparation_makes(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo(3, 70, 90).save(path)
    images = ContentImages([path], 32, flip=False)
    ready = [images.preparation.photo(path, 32, scale) for scale in range(SCALES)]
    for pixels, low in zip(ready, (0.75, 0.875), strict=True):
        assert 32 / (low + 0.125) <= min(pixels.shape[:2]) <= 32 / low + 0.5
        assert pixels.shape[1] / pixels.shape[0] == pytest.approx(90 / 70, abs=0.03)
    found = Counter()
    for position in range(12):
        crop = images[Draw(0, position)][0].permute(1, 2, 0)
        for scale, pixels in enumerate(ready):
            windows = pixels.unfold(0, 32, 1).unfold(1, 32, 1).permute(0, 1, 3, 4, 2)
            found[scale] += int((windows == crop).flatten(2).all(-1).any())
    assert found[0] + found[1] == 12
    assert min(found.values()) > 2


@pytest.mark.parametrize("name", READABLE)
def test_a_plain_photo_has_the_pixels_of_the_way_that_is_for_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    READABLE[name][0](path)
    pixels = np.asarray(open_rgb(path))
    monkeypatch.setattr(image_files, "load_if_plain", lambda *_: False)
    assert np.array_equal(pixels, np.asarray(open_rgb(path)))


def test_the_plain_way_is_taken_by_the_plain_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(image_files, "decode")
    plain = set()
    for name, (write, *_) in READABLE.items():
        write(tmp_path / name)
        try:
            open_rgb(tmp_path / name)
            plain.add(name)
        except NameError:
            pass
    assert plain == {"plain.jpg", "plain.png", "plain.webp"}


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


def test_the_first_steps_see_small_crops(photos: Path) -> None:
    paths = find_images([photos])
    images = ContentImages(paths, 32, first_size=16, first_steps=3)
    assert [batch.pixels.shape[-1] for batch in take(images, 5)] == [16, 16, 16, 32, 32]
    assert [batch.pixels.shape[-1] for batch in take(images, 3, first_step=2)] == [16, 32, 32]
    # Everything else is as it would be without them.
    plain = take(ContentImages(paths, 32), 5)
    assert [batch.paths for batch in plain] == [batch.paths for batch in take(images, 5)]
    assert torch.equal(plain[3].pixels, take(images, 5)[3].pixels)
    # Photos are made ready for all the crops that there are.
    assert images.preparation.sizes == (16, 32)
    assert ContentImages(paths, 32, first_size=64).preparation.sizes == (32,)


def test_mixed_sizes_are_a_function_of_the_step(photos: Path) -> None:
    images = ContentImages(find_images([photos]), 32, mixed_sizes=(16, 24, 40))
    batches = content_batches(images, 2)
    sizes = [next(batches).pixels.shape for _ in range(12)]
    assert {size[2] for size in sizes} == {16, 24, 40}
    assert all(size[:2] == (2, 3) and size[2] == size[3] for size in sizes)
    later = content_batches(images, 2, first_step=7)
    assert [next(later).pixels.shape for _ in range(5)] == sizes[7:]
    halves = [content_batches(images, 2, share=(k, 2)) for k in (0, 1)]
    for size in sizes:
        assert {next(half).pixels.shape for half in halves} == {(1, *size[1:])}
    assert images.preparation.sizes == (16, 24, 40)


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
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    paths = [tmp_path / f"ramp-{number}.png" for number in range(20)]
    for path in paths:
        Image.fromarray(np.stack([ramp] * 3, axis=-1)).save(path)
    images = ContentImages(paths, 64, min_crop=0.5, flip=False)
    spans = []
    for position in range(40):
        row = images[Draw(position % 20, position)][0][0, 0].int()
        spans.append(int(row.max() - row.min()) / 200)
    assert 0.47 < min(spans) < 0.6
    assert 0.9 < max(spans) <= 1
    halves = [sum(low < span <= low + 0.25 for span in spans) for low in (0.5, 0.75)]
    assert min(halves) > 8


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
@pytest.mark.parametrize(("count", "broken"), [(6, 4), (3, 3)])
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


def cached(images: ContentImages, folder: Path) -> ContentImages:
    """Return the same crops out of a cache."""
    paths = [Path(path) for path in images.paths]
    return ContentImages(
        paths,
        images.image_size,
        seed=images.seed,
        min_crop=images.preparation.min_crop,
        cache=open_cache(folder, paths, preparation=images.preparation),
    )


def write_every_kind(folder: Path) -> list[Path]:
    """Write some of every kind, one that is broken, and large JPEGs that are decoded smaller."""
    paths = write_photos(folder, 14)
    for name, (write, *_) in READABLE.items():
        write(folder / name)
        paths.append(folder / name)
    for seed, name in enumerate(("large.jpg", "larger.jpg")):
        photo(seed, 200, 150 * (seed + 1)).save(folder / name)
        paths.append(folder / name)
    photo(5).save(folder / "zz.png")
    (folder / "zz.png").write_bytes((folder / "zz.png").read_bytes()[:-50])
    return [*paths, folder / "zz.png"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=with_workers)])
def test_a_cache_changes_no_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    images = ContentImages(write_every_kind(tmp_path / "photos"), 32, seed=3, min_crop=0.5)
    expected = take(images, 25)  # more than two epochs
    warnings = list(caplog.messages)
    caplog.clear()
    batches = take(cached(images, tmp_path / "cache"), 25, workers=workers)
    assert caplog.messages == warnings
    assert len(warnings) == 1
    assert "zz.png" in warnings[0]
    for batch, other in zip(batches, expected, strict=True):
        assert batch.paths == other.paths
        assert batch.unreadable == other.unreadable
        assert torch.equal(batch.pixels, other.pixels)


def test_a_cache_of_more_images_serves_and_nothing_is_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = find_images([photos])
    some = ContentImages(paths[2:5], 32)
    expected = take(some, 3)
    cache = open_cache(tmp_path, paths, preparation=some.preparation)
    monkeypatch.delattr("fast_style.data.preparation.read_rgb")
    batches = take(ContentImages(paths[2:5], 32, cache=cache), 3)
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.pixels, other.pixels)


def test_a_cache_goes_to_a_worker_that_is_not_forked(photos: Path, tmp_path: Path) -> None:
    images = cached(ContentImages(find_images([photos]), 32), tmp_path)
    sent = pickle.dumps(images)
    assert len(sent) < 5000  # without the pixels
    assert torch.equal(pickle.loads(sent)[Draw(1, 7)][0], images[Draw(1, 7)][0])


def test_a_cache_for_other_crops_is_refused(photos: Path, tmp_path: Path) -> None:
    paths = find_images([photos])
    cache: ImageCache = open_cache(
        tmp_path, paths, preparation=ContentImages(paths, 32).preparation
    )
    with pytest.raises(ValueError, match=r"min_crop=0\.75.*; these crops need .*min_crop=0\.5"):
        ContentImages(paths, 32, min_crop=0.5, cache=cache)
