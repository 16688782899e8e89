import hashlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import processes
import pytest
from kinds import READABLE
from PIL import Image
from synthetic import photo, write_photos

from fast_style.data import cache as cache_module
from fast_style.data import preparation as preparation_module
from fast_style.data.cache import CacheError, ImageCache, bytes_needed, open_cache
from fast_style.data.photos import find_images
from fast_style.data.preparation import SCALES, Preparation
from fast_style.images import open_rgb

# Crops of 24 pixels, at most four fifths of a photo's short side: files are decoded for 30.
PREPARATION = Preparation(sizes=(24,), min_crop=0.8)
SMALLER = Preparation(sizes=(16,), min_crop=0.8)
SCALED = [(24, scale) for scale in range(SCALES)]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five photos, each a file of its own that a test may change."""
    return write_photos(tmp_path / "photos", 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were built."""
    built: list[Path] = []
    build = cache_module._build

    def counted(file: Path, *rest: object) -> None:
        built.append(file)
        build(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "_build", counted)
    return built


def assert_holds(cache: ImageCache, paths: list[Path]) -> None:
    for path in paths:
        for size in cache.preparation.sizes:
            for scale in range(SCALES):
                pixels = cache.photo(str(path), size, scale)
                assert pixels is not None, path
                expected = cache.preparation.photo(path, size, scale)
                assert np.array_equal(pixels, expected), (path, size, scale)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_kind_of_image_has_the_pixels_that_it_is_decoded_to(
    tmp_path: Path, folder: Path
) -> None:
    paths = []
    for name, (write, *_) in READABLE.items():
        paths.append(tmp_path / name)
        write(paths[-1])
    paths.append(tmp_path / "large.jpg")
    photo(3, 250, 400).save(paths[-1])
    cache = open_cache(folder, paths, preparation=PREPARATION)
    assert_holds(cache, paths)
    large = cache.photo(str(paths[-1]), *SCALED[0])
    assert large is not None
    assert large.shape[0] == PREPARATION.short_side(paths[-1], *SCALED[0])


def test_a_cache_is_built_once(paths: list[Path], folder: Path, builds: list[Path]) -> None:
    for _ in range(3):
        assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert len(builds) == 1
    assert names_in(folder) == [builds[0].name]


def test_a_relative_path_and_a_moved_folder_of_caches_are_the_same_cache(
    paths: list[Path], folder: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    folder.rename(folder.with_name("moved"))
    monkeypatch.chdir(folder.parent)
    relative = find_images([Path("photos")])
    assert_holds(open_cache(Path("moved"), relative, preparation=PREPARATION), relative)
    assert len(builds) == 1


def replaced(paths: list[Path]) -> list[Path]:
    photo(77).save(paths[2])
    return paths


def touched(paths: list[Path]) -> list[Path]:
    os.utime(paths[2], ns=(0, 1_000_000_007))
    return paths


def added(paths: list[Path]) -> list[Path]:
    photo(78).save(paths[0].with_name("new.png"))
    return [*paths, paths[0].with_name("new.png")]


def removed(paths: list[Path]) -> list[Path]:
    paths[2].unlink()
    return [*paths[:2], *paths[3:]]


def renamed(paths: list[Path]) -> list[Path]:
    other = paths[2].with_name("photo-002b.png")
    paths[2].rename(other)
    return [*paths[:2], other, *paths[3:]]


@pytest.mark.parametrize("change", [replaced, touched, added, removed, renamed])
def test_a_folder_that_changes_has_its_cache_built_anew(
    paths: list[Path],
    folder: Path,
    builds: list[Path],
    caplog: pytest.LogCaptureFixture,
    change: Callable[[list[Path]], list[Path]],
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    changed = change(paths)
    with caplog.at_level(logging.INFO):
        assert_holds(open_cache(folder, changed, preparation=PREPARATION), changed)
    assert "is built anew: the photos have changed, or what decodes them" in caplog.text
    assert len(builds) == 2
    assert names_in(folder) == [builds[0].name]


def test_another_decoder_builds_anew(
    paths: list[Path], folder: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    monkeypatch.setattr("PIL.__version__", "99.0")
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert len(builds) == 2


def test_decoding_of_another_number_builds_anew(
    paths: list[Path], folder: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    monkeypatch.setattr(cache_module, "DECODING", 0)
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert len(builds) == 2


# The hash of what `golden_pixels` decodes, for each number that `cache.DECODING` has had.
GOLDEN = {1: "5c5f19009359861d", 2: "5c5f19009359861d"}


def golden_pixels(folder: Path) -> bytes:
    """Decode one made-up picture of each kind that takes its own way through decoding."""
    y, x = np.mgrid[0:160, 0:200]
    rgb = np.stack([x, 200 - y, (x + 2 * y) % 256], axis=-1).astype(np.uint8)
    large, small = Image.fromarray(rgb), Image.fromarray(rgb[:24, :32])
    grey = np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) * 83
    half = small.convert("RGBA")
    half.putalpha(small.getchannel("B"))
    pictures = {
        "rgb.png": small,
        "rgba.png": half,
        "palette.gif": small.quantize(16),
        "grey.png": small.convert("L"),
        "grey16.png": Image.fromarray(grey),
        "grey16.tif": Image.fromarray(grey),
        "float.tif": Image.fromarray(grey.astype(np.float32) / 65535),
        "bilevel.tif": small.convert("1"),
        "cmyk.tif": small.convert("CMYK"),
        "large.jpg": large,
    }
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = []
    for name, picture in pictures.items():
        picture.save(folder / name, exif=turned)
        pixels.append(np.asarray(open_rgb(folder / name, at_least=20)).tobytes())
    return b"".join(pixels)


def test_decoded_pixels_do_not_change_without_another_number(tmp_path: Path) -> None:
    found = hashlib.sha256(golden_pixels(tmp_path)).hexdigest()[:16]
    assert found == GOLDEN[cache_module.DECODING], (
        "files are decoded to other pixels than before, so caches hold the old ones: raise "
        f"cache.DECODING, and add the new hash to GOLDEN here: {found!r}"
    )


def test_another_size_and_another_folder_have_caches_beside_it(
    paths: list[Path], folder: Path, tmp_path: Path, builds: list[Path]
) -> None:
    others = write_photos(tmp_path / "others" / "photos", 2)
    for _ in range(2):
        assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
        assert_holds(open_cache(folder, paths, preparation=SMALLER), paths)
        assert_holds(open_cache(folder, others, preparation=PREPARATION), others)
    assert len(builds) == len(names_in(folder)) == 3


def test_a_broken_image_is_not_in_it(paths: list[Path], folder: Path, builds: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    paths[3].unlink()
    for _ in range(2):
        cache = open_cache(folder, paths, preparation=PREPARATION)
        assert_holds(cache, [paths[0], paths[2], paths[4]])
        for missing in (paths[1], paths[3], "never heard of"):
            assert cache.photo(str(missing), *SCALED[0]) is None
    assert len(builds) == 1


@pytest.mark.parametrize("kept", [0, 10, 0.5, -60, -1])
def test_a_cache_that_is_cut_short_is_built_anew(
    paths: list[Path], folder: Path, builds: list[Path], kept: float
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    content = builds[0].read_bytes()
    end = int(kept * len(content)) if isinstance(kept, float) else kept
    builds[0].write_bytes(content[:end])
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert len(builds) == 2
    assert builds[0].read_bytes() == content


@pytest.mark.parametrize("at", [-1, -30, -60, -100])
def test_a_damaged_table_or_trailer_is_noticed(
    paths: list[Path], folder: Path, builds: list[Path], at: int
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    content = bytearray(builds[0].read_bytes())
    content[at] ^= 1
    builds[0].write_bytes(content)
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert len(builds) == 2


def test_damaged_pixels_are_never_given_and_the_next_run_builds_anew(
    paths: list[Path], folder: Path, builds: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    content = bytearray(builds[0].read_bytes())
    content[5] ^= 1
    content[builds[0].stat().st_size * 3 // 10] ^= 1  # the second of five photos
    builds[0].write_bytes(content)
    cache = open_cache(folder, paths, preparation=PREPARATION)
    found = [[cache.photo(str(path), *scaled) is None for scaled in SCALED] for path in paths[:2]]
    assert found[0] == [True, False]
    assert sorted(found[1]) == [False, True]
    assert_holds(cache, paths[2:])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"cache: {builds[0]} is damaged")
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert len(builds) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from fast_style.data import cache, preparation
folder, paths = Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]]
decode = preparation.read_rgb
def fatal(path, **options):
    if path == paths[4]:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(path, **options)
preparation.read_rgb = fatal
made = preparation.Preparation(sizes=(24,), min_crop=0.8)
cache.open_cache(folder, paths, preparation=made)
"""


def test_a_build_that_is_killed_leaves_nothing_that_is_believed(
    paths: list[Path], folder: Path, builds: list[Path]
) -> None:
    command = [sys.executable, "-c", KILLED, folder, *paths]
    assert processes.run(command).returncode == -signal.SIGKILL
    (left,) = names_in(folder)
    assert left.startswith(".")
    assert left.endswith(".tmp")
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
    assert names_in(folder) == [builds[0].name]


def test_of_many_that_want_the_same_cache_one_builds_it(
    paths: list[Path], folder: Path, builds: list[Path]
) -> None:
    """Locks are those of open files, so threads stand for processes."""
    with ThreadPoolExecutor(4) as pool:
        caches = list(
            pool.map(lambda _: open_cache(folder, paths, preparation=PREPARATION), range(4))
        )
    for cache in caches:
        assert_holds(cache, paths)
    assert len(builds) == 1


def test_an_open_cache_outlives_its_replacement(paths: list[Path], folder: Path) -> None:
    before = [PREPARATION.photo(path, *SCALED[0]) for path in paths]
    cache = open_cache(folder, paths, preparation=PREPARATION)
    replaced(paths)
    open_cache(folder, paths, preparation=PREPARATION)
    for path, image in zip(paths, before, strict=True):
        assert np.array_equal(cache.photo(str(path), *SCALED[0]), image)  # type: ignore[arg-type]


def message(folder: Path, paths: list[Path]) -> str:
    with pytest.raises(CacheError) as caught:
        open_cache(folder, paths, preparation=PREPARATION)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_in_the_place_of_the_folder_is_named(paths: list[Path], folder: Path) -> None:
    folder.write_text("a file")
    assert message(folder, paths).startswith(f"data.cache: {folder}: cannot be written: ")
    assert message(folder / "sub", paths).startswith(f"data.cache: {folder / 'sub'}: cannot be ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_that_cannot_be_written_to_is_named_but_its_cache_is_read(
    paths: list[Path], folder: Path
) -> None:
    open_cache(folder, paths, preparation=PREPARATION)
    folder.chmod(0o555)
    try:
        assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
        assert message(folder, replaced(paths)) == (
            f"data.cache: {folder}: cannot be written: Permission denied"
        )
    finally:
        folder.chmod(0o755)


def test_a_disk_without_room_is_told_before_anything_is_decoded(
    paths: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder.parent)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.delattr(preparation_module, "read_rgb")
    monkeypatch.setattr(cache_module, "bytes_needed", lambda *_, **__: 2_340_000_000)
    told = f"data.cache: {folder}: about 2.34 GB are needed and 0.00 GB are free"
    assert message(folder, paths) == told
    assert names_in(folder) == []


def test_a_disk_that_becomes_full_leaves_nothing(paths: list[Path], folder: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        assert message(folder, paths).startswith(f"data.cache: {folder}: cannot be written: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(folder) == []
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)


def test_a_build_that_is_interrupted_leaves_nothing(
    paths: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> Image.Image:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation_module, "read_rgb", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_cache(folder, paths, preparation=PREPARATION)
    assert names_in(folder) == []


def test_what_is_needed_is_told_from_the_headers(tmp_path: Path) -> None:
    photo(1, 250, 400).save(tmp_path / "large.jpg")
    photo(1, 40, 60).save(tmp_path / "small.png")
    (tmp_path / "broken.jpg").write_bytes(b"")
    large, small, broken = (tmp_path / name for name in ("large.jpg", "small.png", "broken.jpg"))
    sizes = [sum(photo.numel() for photo in PREPARATION.photos(path)) for path in (large, small)]
    assert bytes_needed([large], preparation=PREPARATION) == sizes[0]
    assert bytes_needed([small, small, broken], preparation=PREPARATION) == 3 * sizes[1]
    assert bytes_needed([broken], preparation=PREPARATION) == 0


def test_many_images_are_decoded_in_order(tmp_path: Path, folder: Path) -> None:
    paths = write_photos(tmp_path / "many", 60, height=20, width=20)
    assert_holds(open_cache(folder, paths, preparation=PREPARATION), paths)
