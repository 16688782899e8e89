"""What a program holds an image in: a tensor, a numpy array or a Pillow image.

Each becomes pixels (..., 3, H, W), uint8, uint16 or float32 in [0, 1], and is made of such pixels
again. What is no such image is refused in one sentence, with the cure.
"""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fast_style.errors import UserError
from fast_style.images import Picture

Array = NDArray[Any]
# What is handed over comes back as the same kind.
Given = TypeVar("Given", Tensor, Array, Image.Image)

# Resampling overshoots [0, 1] a little; floats that lie further outside are in another unit.
_FURTHEST_OUTSIDE = 0.5
# Pillow's modes of 8 bits that it converts to RGB itself.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")


def from_tensor(image: Tensor) -> Tensor:
    """(..., 3, H, W) uint8, uint16 or float -> the same; floats become float32."""
    _check_shape(tuple(image.shape), channels=-3, what="tensor")
    if image.dtype not in (torch.uint8, torch.uint16) and not image.is_floating_point():
        raise TypeError(
            f"a tensor of {image.dtype} is no image: it must be uint8, uint16 or float in [0, 1]: "
            "convert it first, as with image.to(torch.uint8)"
        )
    if not image.is_floating_point():
        return image
    lowest, highest = (float(bound) for bound in image.detach().aminmax())
    if not -_FURTHEST_OUTSIDE <= lowest <= highest <= 1 + _FURTHEST_OUTSIDE:
        raise UserError(
            f"the image has values from {lowest:.4g} to {highest:.4g}: floats must be in [0, 1] "
            "(0 to 255 is what uint8 is for)"
        )
    return image.detach().float()


def to_tensor(pixels: Tensor, *, like: Tensor) -> Tensor:
    """Return pixels in the type of the tensor that was handed over."""
    return pixels.to(like.dtype)


def from_array(image: Array) -> Tensor:
    """(..., H, W, 3) uint8, uint16 or float -> (..., 3, H, W)."""
    _check_shape(image.shape, channels=-1, what="array")
    dtype = np.dtype("float32") if image.dtype.kind == "f" else image.dtype.newbyteorder("=")
    if dtype not in (np.float32, np.uint8, np.uint16):
        raise TypeError(
            f"an array of {image.dtype} is no image: it must be uint8, uint16 or float in [0, 1]: "
            "convert it first, as with image.astype('uint8')"
        )
    return from_tensor(torch.from_numpy(np.array(image, dtype, order="C")).movedim(-1, -3))


def to_array(pixels: Tensor, *, like: Array) -> Array:
    """(..., 3, H, W) -> (..., H, W, 3), in the type of the array that was handed over."""
    return np.ascontiguousarray(pixels.movedim(-3, -1).numpy(), dtype=like.dtype)


def from_pillow(image: Image.Image) -> Picture:
    """Return a Pillow image's 8-bit colours and alpha, in the direction in which it lies."""
    if image.mode not in _MODES:
        raise UserError(
            f"a Pillow image of mode {image.mode} cannot be taken as it is: convert it to RGB "
            "first, or leave its file to stylize_file, which keeps 16 bits a channel"
        )
    if not image.width * image.height:
        raise UserError(f"a Pillow image of {image.width}×{image.height} pixels holds nothing")
    if image.has_transparency_data:
        values = np.array(image.convert("RGBA"))
        alpha = torch.from_numpy(values[..., 3].copy())
    else:
        values, alpha = np.array(image.convert("RGB")), None
    return Picture(pixels=torch.from_numpy(values[..., :3].copy()).permute(2, 0, 1), alpha=alpha)


def to_pillow(picture: Picture, *, like: Image.Image) -> Image.Image:
    """Return an RGB or RGBA image with the information (`Image.info`) of what was handed over."""
    values = picture.pixels.permute(1, 2, 0).numpy()
    if picture.alpha is not None:
        values = np.dstack([values, picture.alpha.numpy()])
    image = Image.fromarray(np.ascontiguousarray(values))
    image.info = {key: value for key, value in like.info.items() if key != "transparency"}
    return image


def refusal(image: object) -> TypeError:
    """Return the error for what is no image at all."""
    if isinstance(image, str | Path):
        cure = f"{str(image)!r} is a path: use stylize_file(stylizer, path, output), or load_image"
    elif isinstance(image, Picture):
        cure = "a Picture is what stylize_picture(stylizer, picture) is for"
    elif isinstance(image, bytes | bytearray):
        cure = "bytes are no image: read_picture(io.BytesIO(data)), then stylize_picture"
    elif isinstance(image, list | tuple):
        cure = f"a {type(image).__name__} is no image: hand over one after the other"
    else:
        cure = f"a {type(image).__name__} is no image"
    return TypeError(f"{cure} (a stylizer takes tensors, numpy arrays and Pillow images)")


def _check_shape(shape: tuple[int, ...], *, channels: int, what: str) -> None:
    """Raise UserError unless a shape has three colour channels where this kind has them."""
    kind, turn, cut, grey = {
        "tensor": (
            "tensor (..., 3, H, W)",
            "image.movedim(-1, -3)",
            "image[..., :3, :, :]",
            "image.expand(3, -1, -1)",
        ),
        "array": (
            "array (..., H, W, 3)",
            "numpy.moveaxis(image, -3, -1)",
            "image[..., :3]",
            "numpy.dstack([image] * 3)",
        ),
    }[what]
    if len(shape) < 3:
        cure = f"of a grey one make {grey}" if len(shape) == 2 else "it has no rows and columns"
    elif 0 in shape:
        cure = "it holds no pixels"
    elif (found := shape[channels]) == 3:
        return
    elif shape[-4 - channels] in (3, 4):
        cure = f"its channels are at the other end: hand over {turn}"
    elif found == 4:
        cure = f"leave its alpha out, as {cut}, or hand over a Pillow image, which keeps it"
    else:
        cure = f"of a grey one make {grey}" if found == 1 else f"it has {found} channels"
    raise UserError(f"an image of shape {shape} is no {kind}: {cure}")
