"""Which colours a file's numbers are, where other fields than an ICC profile describe them."""

import struct
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from fast_style.images import boxes, profiles
from fast_style.images.metadata import read_exif

# EXIF 2.3, section 4.6.5, and DCF 2.0: the interoperability index of Adobe RGB.
_UNCALIBRATED = 0xFFFF
_ADOBE_INDEX = "R03"
_INDEX_TAG = 1
# ITU-T H.273: colour primaries, and transfer characteristics, of a PNG's cICP. Those of television
# (5 and 6) differ from sRGB's by less than is seen.
_PRIMARIES = {
    1: profiles.SRGB,
    5: profiles.SRGB,
    6: profiles.SRGB,
    9: profiles.BT_2020,
    12: profiles.DISPLAY_P3,
}
_SRGB_TRANSFERS = (1, 6, 13, 14, 15)
_POWERS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}
_UNSPECIFIED = 2
# A PNG's values for sRGB, and how far others may be from them and still mean sRGB.
_SRGB_GAMMA = 1 / 2.2
_CLOSE = 0.01


def profile_of(file: BinaryIO, image: Image.Image, notes: list[str]) -> bytes:
    """Return the ICC profile of a file, or of the colours that it names; empty for sRGB."""
    if image.format == "PNG":
        code = _png_chunk(file, b"cICP")
        if len(code) == 4:
            return _coded(code[0], code[1], notes)
    profile = image.info.get("icc_profile") or b""
    if profile or image.mode == "LAB":
        return b"" if image.mode == "LAB" else bytes(profile)
    if image.format in ("AVIF", "HEIF"):
        found = boxes.color_code(file)
        coded = _coded(*found, notes) if found and _UNSPECIFIED not in found else b""
        if coded:
            return coded
    if image.format == "PNG" and "srgb" not in image.info:
        return _measured(image)
    if image.format in ("JPEG", "MPO", "TIFF", "WEBP", "HEIF", "AVIF") and _is_adobe(image):
        return profiles.rgb_profile(profiles.ADOBE, profiles.ADOBE_GAMMA)
    return b""


def _is_adobe(image: Image.Image) -> bool:
    if image.mode not in ("RGB", "RGBA"):
        return False
    exif = read_exif(image)
    try:
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        if camera.get(ExifTags.Base.ColorSpace) != _UNCALIBRATED:
            return False
        index = exif.get_ifd(ExifTags.IFD.Interop).get(_INDEX_TAG, "")
    except Exception:  # damaged tags do not cost the picture
        return False
    text = index.decode("latin-1") if isinstance(index, bytes) else str(index)
    return text.rstrip("\0 ") == _ADOBE_INDEX


def _measured(image: Image.Image) -> bytes:
    """Make a profile of a PNG's gAMA and cHRM; empty where they are those of sRGB."""
    gamma = image.info.get("gamma") or _SRGB_GAMMA
    white_x, white_y, *others = image.info.get("chromaticity") or (0.0,) * 8
    colors = (*zip(others[0::2], others[1::2], strict=True), (white_x, white_y))
    if not all(y > 0 and x >= 0 and x + y <= 1 for x, y in colors):
        colors = profiles.SRGB
    off = max(abs(a - b) for one, two in zip(colors, profiles.SRGB, strict=True)
              for a, b in zip(one, two, strict=True))  # fmt: skip
    if (off < _CLOSE and abs(gamma - _SRGB_GAMMA) < _CLOSE) or not 0.1 <= gamma <= 10:
        return b""
    return profiles.rgb_profile(colors, 1 / gamma)


def _coded(primaries: int, transfer: int, notes: list[str]) -> bytes:
    """Make a profile of numbers of H.273, as a PNG's cICP has them; empty for sRGB."""
    if transfer in _HDR:
        raise UnidentifiedImageError(
            f"holds {_HDR[transfer]}, light for HDR screens: convert it to sRGB first"
        )
    colors = _PRIMARIES.get(primaries)
    if colors is None or (transfer not in _SRGB_TRANSFERS and transfer not in _POWERS):
        notes.append(f"its colours, {primaries} {transfer} of H.273, were taken for sRGB")
        return b""
    if transfer in _SRGB_TRANSFERS:
        if colors is profiles.SRGB:
            return b""
        return profiles.rgb_profile(colors, profiles.srgb_light)
    return profiles.rgb_profile(colors, _POWERS[transfer])


def _png_chunk(file: BinaryIO, wanted: bytes) -> bytes:
    """Return the data of a PNG's chunk before its pixels; empty where there is none."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == wanted:
            data = file.read(min(length, 1 << 10))
            file.seek(0)
            return data
        if kind in (b"IDAT", b"IEND"):
            break
        file.seek(length + 4, 1)
    file.seek(0)
    return b""
