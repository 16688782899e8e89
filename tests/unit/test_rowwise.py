"""PNG and TIFF written while their rows are still coming."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks.timing import photo_like
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fast_style.images import ImageError, Picture, deep, read_picture, rowwise, write_picture
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer, begin_picture, stylize_picture
from fast_style.stylization.batch import Saving, run_jobs
from fast_style.stylization.jobs import Job

needs_codecs = pytest.mark.skipif(
    not deep.available(), reason="needs pip install 'fast-style[formats]'"
)


def noise(height: int, width: int, *, bits: int, alpha: bool) -> Picture:
    generator = torch.Generator().manual_seed(height * width)
    values = torch.randint(0, 1 << bits, (4, height, width), generator=generator)
    values = values.to(torch.uint8 if bits == 8 else torch.uint16)
    return Picture(pixels=values[:3], alpha=values[3] if alpha else None)


def spans(height: int, step: int) -> Iterator[slice]:
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


@needs_codecs
@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(1, 2000),
    st.sampled_from([8, 16]),
    st.booleans(),
    st.sampled_from(["PNG", "TIFF"]),
)
def test_is_read_again_as_it_was(
    height: int, width: int, step: int, band: int, bits: int, alpha: bool, file_format: str
) -> None:
    picture, file = noise(height, width, bits=bits, alpha=alpha), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowwise, "_BAND_BYTES", band)
        write_picture(picture, file, file_format=file_format, ready=spans(height, step))
    again = read_picture(file)
    assert torch.equal(again.pixels, picture.pixels)
    assert (again.alpha is None) is not alpha
    if picture.alpha is not None and again.alpha is not None:
        assert torch.equal(again.alpha, picture.alpha)
    file.seek(0)
    with Image.open(file) as image:
        image.load()  # by a decoder that checks each chunk's sum
        assert image.size == (width, height)


def test_a_png_is_as_small_as_pillow_makes_it() -> None:
    pixels = (photo_like(300, 400) * 255).to(torch.uint8)
    ours, pillows = io.BytesIO(), io.BytesIO()
    write_picture(Picture(pixels=pixels), ours)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(pillows, "PNG")
    assert len(ours.getvalue()) < 1.03 * len(pillows.getvalue())


@pytest.mark.parametrize("extension", ["png", pytest.param("tif", marks=needs_codecs)])
def test_rows_are_on_the_disk_before_the_last_ones_are_there(
    tmp_path: Path, extension: str
) -> None:
    picture = noise(1000, 500, bits=8, alpha=False)
    expected = picture.pixels.clone()
    picture.pixels[:, 500:] = 0
    sizes = []

    def ready() -> Iterator[slice]:
        yield slice(0, 500)
        sizes.extend(path.stat().st_size for path in tmp_path.iterdir())
        picture.pixels[:, 500:] = expected[:, 500:]
        yield slice(500, 1000)

    write_picture(picture, tmp_path / f"a.{extension}", ready=ready())
    assert len(sizes) == 1
    assert sizes[0] > 200_000
    assert torch.equal(read_picture(tmp_path / f"a.{extension}").pixels, expected)


@pytest.mark.parametrize("extension", ["png", "tif", "jpg"])
def test_what_stops_the_rows_leaves_no_file_and_is_passed_on(
    tmp_path: Path, extension: str
) -> None:
    def ready() -> Iterator[slice]:
        yield slice(0, 900)
        raise RuntimeError("no memory")

    picture = noise(1000, 500, bits=8, alpha=False)
    with pytest.raises(RuntimeError, match="no memory"):
        write_picture(picture, tmp_path / f"a.{extension}", ready=ready())
    assert not list(tmp_path.iterdir())
    stream = io.BytesIO()
    with pytest.raises(RuntimeError):
        write_picture(picture, stream, file_format="PNG", ready=ready())
    assert not stream.getvalue()


def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_picture(noise(9, 9, bits=8, alpha=False), path)
    before = path.read_bytes()
    chunk = rowwise._png_chunk

    def full(kind: bytes, data: bytes) -> bytes:
        if kind == b"IDAT":
            raise OSError(28, "No space left on device")
        return chunk(kind, data)

    monkeypatch.setattr(rowwise, "_png_chunk", full)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written: No space left on device$"):
        write_picture(noise(5, 9, bits=8, alpha=False), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("options", [{}, {"preserve_color": "histogram"}, {"stroke_scale": 2.0}])
def test_spans_of_a_begun_picture_are_final_and_cover_it(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    stylizer = Stylizer(TransformerNet(4, 1), tile=64, **options)  # type: ignore[arg-type]
    picture = noise(600, 700, bits=8, alpha=False)
    expected = stylize_picture(stylizer, noise(600, 700, bits=8, alpha=False)).pixels
    stylized, rows = begin_picture(stylizer, picture)
    last = 0
    for span in rows:
        assert span.start == last
        assert torch.equal(stylized.pixels[:, span], expected[:, span])
        last = span.stop
    assert last == 600


def test_a_picture_that_outgrows_the_memory_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stylizer = Stylizer(TransformerNet(4, 1), tile=64)
    for name in ("a", "b", "c"):
        write_picture(noise(600, 700, bits=8, alpha=False), tmp_path / f"{name}.png")
    strips, calls = stylizer._strips, 0

    def failing(image: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        nonlocal calls
        calls += 1
        for i, strip in enumerate(strips(image)):
            if calls == 2 and i == 1:
                raise RuntimeError("not enough memory: you tried to allocate memory")
            yield strip

    monkeypatch.setattr(stylizer, "_strips", failing)
    jobs = [Job(tmp_path / f"{name}.png", tmp_path / "out" / f"{name}.png") for name in "abc"]
    results = list(run_jobs(stylizer, jobs, Saving()))
    assert [bool(result.error) for result in results] == [False, True, False]
    assert "out of memory" in (results[1].error or "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    assert all(result.seconds > 0 for result in results if not result.error)
