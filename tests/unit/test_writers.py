"""A property: what Pillow or tifffile writes, at any depth, is read back as what was written."""

import io
from typing import Any

import numpy as np
import pytest
from gradients import Array, light
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from fast_style.images import read_picture

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

# What each of Pillow's lossless writers takes.
PILLOW = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "TGA": ("L", "LA", "P", "RGB", "RGBA"),
    **({"WEBP": ("RGB", "RGBA")} if features.check("webp") else {}),
    **({"JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16")} if features.check("jpg_2000") else {}),
}
WRITERS = [(name, mode) for name, modes in PILLOW.items() for mode in modes]
OPTIONS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True, "exact": True}}
TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 2**32 - 1)


def numbers(seed: int, shape: tuple[int, ...], top: int) -> Array:
    """Numbers from 0 to `top`, with both of them among them where there is room."""
    values = np.random.default_rng(seed).integers(0, top, shape, np.uint64, endpoint=True)
    values.flat[0], values.flat[-1] = 0, top
    return values


def pillow_image(mode: str, seed: int, size: tuple[int, int]) -> tuple[Image.Image, Array, Any]:
    """Return an image with its colours (H, W, 3) and alpha (H, W) or None, in [0, 1]."""
    height, width = size
    if mode == "1":
        values = numbers(seed, size, 1)
        return Image.fromarray(values.astype(np.uint8) * 255).convert("1"), values[..., None], None
    if mode == "I;16":
        values = numbers(seed, size, 65535)
        return Image.fromarray(values.astype(np.uint16)), values[..., None] / 65535, None
    if mode == "I":
        values = numbers(seed, size, 2**31 - 1).astype(np.int64) * 2 - 2**31 + 1
        shown = (values[..., None] + 2**31) / (2**32 - 1)
        return Image.fromarray(values.astype(np.int32)), shown, None
    if mode == "F":
        values = numbers(seed, size, 10000) / np.float32(10000)
        return Image.fromarray(values.astype(np.float32)), values[..., None], None
    if mode == "P":
        values = numbers(seed, size, 255).astype(np.uint8)
        palette = numbers(seed + 1, (256, 3), 255).astype(np.uint8)
        image = Image.fromarray(values, "P")
        image.putpalette(palette.tobytes())
        return image, palette[values] / 255, None
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = numbers(seed, (height, width, channels), 255).astype(np.uint8)
    image = Image.fromarray(values[..., 0] if channels == 1 else values, mode)
    if mode == "CMYK":
        shown = (1 - values[..., :3] / 255) * (1 - values[..., 3:] / 255)
        return image, shown, None
    if mode in ("LA", "RGBA"):
        return image, values[..., :-1] / 255, values[..., -1] / 255
    return image, values / 255, None


def assert_reads(data: bytes, shown: Array, alpha: Any, *, within: float) -> None:
    picture = read_picture(io.BytesIO(data))
    found = light(picture)
    assert found.shape == (*shown.shape[:2], 3)
    visible = np.ones(shown.shape[:2], bool) if alpha is None else alpha > 0
    assert np.abs(found - shown)[visible].max(initial=0) <= within
    if picture.alpha is None:
        assert alpha is None or (alpha == 1).all()
        return
    top = 255 if picture.alpha.element_size() == 1 else 65535
    assert alpha is not None
    assert np.abs(picture.alpha.numpy() / top - alpha).max() <= 0.5 / 255


@settings(max_examples=150)
@given(st.sampled_from(WRITERS), sizes, seeds, st.sampled_from(TIFF_COMPRESSIONS))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:PIL")
def test_what_pillow_writes_is_read_back(
    writer: tuple[str, str], size: tuple[int, int], seed: int, compression: str
) -> None:
    name, mode = writer
    image, shown, alpha = pillow_image(mode, seed, size)
    options = {"compression": compression} if name == "TIFF" else OPTIONS.get(name, {})
    file = io.BytesIO()
    image.save(file, name, **options)
    # CMYK's formula is rounded twice; the palette of a GIF, and all else, is exact.
    assert_reads(file.getvalue(), shown, alpha, within=1.2 / 255 if mode == "CMYK" else 0.51 / 255)


@settings(max_examples=150)
@given(
    st.sampled_from(("u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8")),
    st.sampled_from(("minisblack", "miniswhite", "rgb", "separated")),
    st.sampled_from((None, 0, 2)),
    st.sampled_from((None, "zlib", "lzw", "packbits", "zstd")),
    st.sampled_from("<>"),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    sizes,
    seeds,
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_tifffile_writes_is_read_back(
    dtype: str,
    photometric: str,
    extra: int | None,
    compression: str | None,
    order: str,
    ways: tuple[bool, bool, bool],
    size: tuple[int, int],
    seed: int,
) -> None:
    planes, tiles, big = ways
    inks = {"rgb": 3, "separated": 4}.get(photometric, 1)
    steps = numbers(seed, (*size, inks + (extra is not None)), 2**20)
    whole = steps / 2**20
    bits = 8 * int(dtype[1])
    if dtype[0] == "f":
        values = whole.astype(order + dtype)
        whole = values.astype(np.float64)
    else:
        low = -(2 ** (bits - 1)) if dtype[0] == "i" else 0
        stored = [step * (2**bits - 1) // 2**20 + low for step in steps.ravel().tolist()]
        values = np.array(stored, dtype=dtype).reshape(whole.shape).astype(order + dtype)
        whole = (values.astype(np.float64) - low) / (2**bits - 1)
    channels = values.shape[2]
    if planes and channels > 1:
        values = values.transpose(2, 0, 1)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        values[..., 0] if channels == 1 else values,
        photometric=photometric,
        extrasamples=None if extra is None else [extra],
        planarconfig=None if channels == 1 else "separate" if planes else "contig",
        compression=compression,
        byteorder=order,
        bigtiff=big,
        tile=(16, 16) if tiles else None,
    )
    shown = whole[..., :inks]
    if photometric == "separated":
        shown = (1 - shown[..., :3]) * (1 - shown[..., 3:])
    elif photometric == "miniswhite":
        shown = 1 - shown
    alpha = whole[..., -1] if extra == 2 else None
    if alpha is not None and dtype[0] == "i":
        alpha = (whole[..., -1] * (2**bits - 1) - 2 ** (bits - 1)).clip(0) / (2 ** (bits - 1) - 1)
    assert_reads(file.getvalue(), shown, alpha, within=1.2 / 255)
