"""Image files <-> float32 RGB tensors (..., 3, H, W) in [0, 1].

The only room that knows of 0 to 255, file formats, colour profiles and orientation tags.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from fast_style.files import atomic_write

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif")
)

# A decompression bomb has more; Pillow's own limit of 179 megapixels would stop real scans.
MAX_PIXELS = 1_000_000_000


class ImageError(ValueError):
    """An image file cannot be read or written."""


def load_image(path: str | Path) -> Tensor:
    """Read a file as (3, H, W) float32 RGB in [0, 1], upright, in sRGB; transparency on white.

    Raises ImageError.
    """
    return to_float(image_to_tensor(open_rgb(path)))


def save_image(image: Tensor, path: str | Path, *, quality: int = 95) -> Path:
    """Write (3, H, W) RGB in [0, 1], clamped and rounded to 8 bits; the extension is the format.

    The file appears whole or not at all. Raises ImageError.
    """
    path = Path(path)
    picture = Image.fromarray(to_uint8(image).cpu().permute(1, 2, 0).contiguous().numpy())
    if path.suffix.lower() not in Image.registered_extensions():
        raise ImageError(f"{path}: unknown image format {path.suffix!r}: use .jpg, .png or .webp")
    options = {} if path.suffix.lower() not in (".jpg", ".jpeg", ".webp") else {"quality": quality}
    try:
        with atomic_write(path) as file:
            picture.save(file, Image.registered_extensions()[path.suffix.lower()], **options)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def open_rgb(path: str | Path, *, at_least: int = 0) -> Image.Image:
    """Read a file as an upright 8-bit RGB Pillow image in sRGB; transparency on white.

    A JPEG may come smaller than it is, by a power of two, as long as its short side stays at least
    `at_least` pixels (0: full size): decoding it so is several times faster. Raises ImageError.
    """
    with _reading(path), _open(path) as image:
        if at_least:
            # Draft mode takes the largest reduction that leaves both sides at least this large.
            image.draft("RGB", (at_least, at_least))
        image.load()
        profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
        return _to_srgb(_to_rgb(upright), profile)


def read_size(path: str | Path) -> tuple[int, int]:
    """Read a file's width and height, as stored, from its header. Raises ImageError."""
    with _reading(path), _open(path) as image:
        return image.size


def image_to_tensor(image: Image.Image) -> Tensor:
    """8-bit RGB Pillow image -> (3, H, W) uint8, a view of channels-last memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_float(pixels: Tensor) -> Tensor:
    """Uint8 in [0, 255] -> float32 in [0, 1]."""
    return pixels.float() / 255


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] -> uint8 in [0, 255]: clamped, then rounded."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """(..., 3, H, W) -> (..., 3, height, width): bicubic, antialiased, clamped to [0, 1]."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1).reshape(*image.shape[:-2], height, width)


def resize_long_edge(image: Tensor, long_edge: int) -> Tensor:
    """Resize to a long edge of so many pixels, keeping the proportions (0: leave as it is)."""
    height, width = image.shape[-2:]
    if not long_edge:
        return image
    scale = long_edge / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turn everything that Pillow raises on a bad file into an ImageError that names it."""
    Image.MAX_IMAGE_PIXELS = None  # Pillow's limit holds for the whole process; ours is above
    try:
        yield
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image file") from None
    except ImageError:
        raise
    except UnidentifiedImageError:
        empty = Path(path).is_file() and not Path(path).stat().st_size
        raise ImageError(f"{path}: {'is empty' if empty else 'not an image file'}") from None
    # Pillow's decoders raise nearly anything on damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError) as error:
        raise ImageError(f"{path}: damaged or unreadable: {error}") from None
    except (MemoryError, OverflowError) as error:
        raise ImageError(f"{path}: too large to be read: {error}") from None


def _open(path: str | Path) -> Image.Image:
    image = Image.open(path)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageError(f"{path}: {image.width}×{image.height} is over {MAX_PIXELS:,} pixels")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel; Pillow's own conversion to 8 bits clips instead of scaling.
        values = np.asarray(image, dtype=np.float64) / 257
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        image = Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "CMYK" else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from an embedded ICC profile to sRGB; a damaged profile is as good as none."""
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return image.convert("RGB")
