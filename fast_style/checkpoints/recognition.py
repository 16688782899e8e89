"""What a file is that was given as a model and is none, by its first bytes, with the cure."""

import struct
import zipfile
from pathlib import Path

_HEAD = 512
_PICTURES = {
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG": "a PNG",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
}
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull` in its "
    "repository, or download it again",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them: models of PyTorch are read",
    b"\x1f\x8b": "a gzip archive: unpack it, and name the .pth file in it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it, and name the .pth file in it",
    b"Rar!": "a RAR archive: unpack it, and name the .pth file in it",
    b"%PDF": "a PDF, not a model",
    b"\x93NUMPY": "an array of NumPy, not a model",
    b"GGUF": "a GGUF file, of a language model",
    b"{": "JSON, a text and not a model: the weights are in a file beside it",
}
# Torch7 begins with the kind of an object (a table or one of Torch's own) and its number.
_TORCH7 = (struct.pack("<ii", 3, 1), struct.pack("<ii", 4, 1))
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")
_ISO_PICTURES = (b"avi", b"hei", b"hev", b"mif", b"msf")
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".t7", ".onnx")
_SAVE_WEIGHTS = "torch.save(model.state_dict(), 'weights.pth')"


def what_it_is(path: Path) -> str:
    """Return why a file cannot be a checkpoint; empty for one that may be. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is empty: damaged, or a download that was cut short"
    for start, what in _OTHERS.items():
        if head.startswith(start):
            return f"is {what}"
    for start, what in _PICTURES.items():
        if head.startswith(start):
            return f"is {what}, a picture and not a model: name it as the image"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "is a WebP, a picture and not a model: name it as the image"
    if head[4:8] == b"ftyp":
        what = "a picture" if head[8:11] in _ISO_PICTURES else "a clip"
        return f"is {what} and not a model: name it as the image"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it, and name the .pth file in it"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGES):
        return "is a web page, not the file that it links to: download that"
    if head.startswith(_TORCH7):
        return "is a file of Torch7 (Lua), which PyTorch no longer reads"
    if head[0] == 8 and (path.suffix == ".onnx" or b"onnx" in head or b"pytorch" in head[:64]):
        named = "" if path.suffix.lower() == ".onnx" else ", renamed to .onnx"
        return (
            f"is an ONNX file: fast-style stylize --model {path.with_suffix('.onnx').name} runs "
            f"one that this program exported{named}; other commands need weights of PyTorch"
        )
    return _what_zip(path) if head.startswith(b"PK") else ""


def pickled(names: str) -> str:
    """Return the message for a checkpoint that holds objects of the classes `names`."""
    return (
        f"refused: holds pickled code ({names}) rather than plain weights: in the program that "
        f"wrote it, save these alone with {_SAVE_WEIGHTS}"
    )


def unreadable(error: Exception) -> str:
    """Return the message for a file that PyTorch fails on, never with its advice to trust it."""
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if "weights_only" in reason:
        reason = (
            "saved in a form that could hold code: where it was written, save the weights alone "
            f"with {_SAVE_WEIGHTS}"
        )
    return f"damaged or not a PyTorch file: {reason}"


def _what_zip(path: Path) -> str:
    """Return what a zip file is; empty for one of PyTorch's own archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, EOFError):
        return "is damaged or cut short: copy or download it again"
    inside = {Path(name).name for name in names if name.count("/") == 1}
    if "constants.pkl" in inside and any("/code/" in name for name in names):
        return (
            "is TorchScript, a program with its weights: save these alone with "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if "data.pkl" in inside:
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return "is a zip of NumPy arrays (.npz), not a model"
    weights = [name for name in names if Path(name).suffix.lower() in _WEIGHTS]
    if weights:
        more = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
        return f"is a zip with {weights[0]}{more} in it: unpack it, and name the file in it"
    return "is a zip without any weights in it: not a model"
