"""OpenEXR and Radiance HDR: linear light, brought below white by the documented curve."""

import io
from pathlib import Path

import numpy as np
import pytest

from fast_style.images import ImageError, hdr, read_picture, read_size

LIGHT = np.linspace(0, 4, 37 * 53 * 3, dtype=np.float32).reshape(37, 53, 3)


def shown(light: np.ndarray) -> np.ndarray:
    """Apply the curve by hand, pixel by pixel, then that of sRGB."""
    out = np.empty(light.shape)
    for place in np.ndindex(light.shape[:2]):
        brightest = float(light[place].max())
        scale = (1 - 0.04 / (brightest - 0.6)) / brightest if brightest > 0.8 else 1
        out[place] = light[place] * scale
    return np.where(out <= 0.0031308, out * 12.92, 1.055 * out ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_openexr_is_read(tmp_path: Path, dtype: type[np.floating]) -> None:
    exr = pytest.importorskip("OpenEXR")
    light = LIGHT.astype(dtype)
    exr.File({"type": exr.scanlineimage}, {"RGB": light}).write(str(tmp_path / "a.exr"))
    picture = read_picture(tmp_path / "a.exr")
    found = picture.pixels.permute(1, 2, 0).numpy() / 65535
    assert np.abs(found - shown(light.astype(np.float64))).max() < 1e-3
    assert picture.notes == ("its light, up to 4, was brought below white by a curve",)
    assert read_size(tmp_path / "a.exr") == (53, 37)


def test_an_openexrs_transparency_is_divided_out(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    light = np.full((20, 30, 4), 0.1, np.float32)
    light[..., 3] = 0.5
    exr.File({"type": exr.scanlineimage}, {"RGBA": light}).write(str(tmp_path / "a.exr"))
    picture = read_picture(tmp_path / "a.exr")
    assert picture.alpha is not None
    assert picture.alpha.int().unique().tolist() == [round(0.5 * 65535)]
    assert (
        abs(float(picture.pixels.float().mean()) / 65535 - float(shown(light[..., :3] * 2).mean()))
        < 1e-3
    )
    assert picture.notes == ()


def test_an_openexr_without_colours_is_refused(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    depth = LIGHT[..., 0].copy()
    exr.File({"type": exr.scanlineimage}, {"Z": depth}).write(str(tmp_path / "a.exr"))
    with pytest.raises(ImageError, match=r"a\.exr: damaged or unreadable: holds no colours, but Z"):
        read_picture(tmp_path / "a.exr")


def test_a_radiance_hdr_is_read(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    data = codecs.rgbe_encode(LIGHT, header=True)
    picture = read_picture(io.BytesIO(data))
    found = picture.pixels.permute(1, 2, 0).numpy() / 65535
    assert np.abs(found - shown(LIGHT.astype(np.float64))).max() < 0.02
    (tmp_path / "cut.hdr").write_bytes(data[:300])
    with pytest.raises(ImageError, match=r"cut\.hdr: "):
        read_picture(tmp_path / "cut.hdr")


@pytest.mark.parametrize("head", [b"\x76\x2f\x31\x01", b"#?RADIANCE\n"])
def test_without_the_libraries_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(hdr.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.exr").write_bytes(head + bytes(100))
    with pytest.raises(ImageError, match=r"a\.exr: is .*: reading it needs pip install 'fast-sty"):
        read_picture(tmp_path / "a.exr")


def test_an_openexrs_primaries_count(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    from fast_style.images import profiles

    def light_of(colors: profiles.Chromaticities) -> np.ndarray:
        """By hand: the columns of a matrix to XYZ, of primaries that add up to their white."""
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in colors]).T
        return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])

    for colors in (profiles.BT_2020, profiles.DISPLAY_P3, profiles.SRGB):
        flat = tuple(float(value) for xy in colors for value in xy)
        header = {"type": exr.scanlineimage, "chromaticities": flat}
        exr.File(header, {"RGB": LIGHT / 8}).write(str(tmp_path / "a.exr"))
        linear = LIGHT / 8 @ (np.linalg.inv(light_of(profiles.SRGB)) @ light_of(colors)).T
        found = read_picture(tmp_path / "a.exr").pixels.permute(1, 2, 0).numpy() / 65535
        assert np.abs(found - shown(linear.clip(0, None))).max() < 2e-3
