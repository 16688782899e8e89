"""The contact sheet: photos, and what each of several models makes of them, with labels."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fast_style.devices import is_memory_error
from fast_style.images import (
    ImageError,
    from_float,
    image_to_tensor,
    open_rgb,
    resize,
    resize_long_edge,
    save_image,
    to_float,
)
from fast_style.stylization import Stylizer
from fast_style.stylization.masks import fitted, load_mask

_GAP = 12
_LABEL_HEIGHT = 28
_FONT_SIZE = 18
_LINE_HEIGHT = 22
_INK = (40, 40, 40)
_PALE = (200, 200, 200)

# A label and its picture.
_Cell = tuple[str, Tensor]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    photos: Sequence[tuple[str, Tensor]],
    stylizers: Sequence[tuple[str, Stylizer]],
    *,
    masks: Sequence[Tensor | None] = (),
) -> Tensor:
    """Named photos (3, h, w) in [0, 1] -> (3, H, W): each photo, then each model's picture of it.

    A row for each photo; a single photo's pictures are arranged near a square. `masks`, one for
    each photo or none at all, are those of `Stylizer`.
    """
    given = masks or [None] * len(photos)
    pairs = zip(photos, given, strict=True)
    return _arranged([_cells(name, photo, stylizers, mask) for (name, photo), mask in pairs])


def _cells(
    name: str, photo: Tensor, stylizers: Sequence[tuple[str, Stylizer]], mask: Tensor | None
) -> list[_Cell]:
    pictures = [(label, stylizer(photo, mask=mask)) for label, stylizer in stylizers]
    return [(name, photo), *pictures]


def _arranged(photos: Sequence[list[_Cell]]) -> Tensor:
    """Each photo's cells -> (3, H, W)."""
    rows = list(photos)
    if len(rows) == 1:
        cells = rows[0]
        columns = math.ceil(math.sqrt(len(cells)))
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return to_float(image_to_tensor(_paste(rows)))


def save_contact_sheet(
    output: Path,
    paths: Sequence[Path],
    stylizers: Sequence[tuple[str, Stylizer]],
    *,
    edge: int,
    quality: int = 95,
    mask_of: Callable[[Path], Path] | None = None,
    on_error: Callable[[ImageError], None],
) -> int:
    """Write the contact sheet of image files at this long edge; return how many it shows.

    `mask_of` returns the path of a photo's mask. A photo that cannot be read or stylized, or whose
    mask cannot be read, is left out, and `on_error` gets its error; without any no sheet is
    written. Raises ImageError.
    """
    photos = []
    try:
        for path in paths:
            try:
                photo = to_float(image_to_tensor(open_rgb(path, at_least=edge)))
                photo = resize_long_edge(photo, edge)
                mask = _mask(mask_of(path), path, photo) if mask_of else None
                photos.append(_cells(path.name, photo, stylizers, mask))
            except Exception as error:  # of this photo: the others go on
                if is_memory_error(error):
                    raise
                on_error(_error_of(path, error))
        sheet = _arranged(photos) if photos else None
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise ImageError(f"{output}: out of memory: try a --size below {edge}") from None
    if sheet is not None:
        save_image(sheet, output, quality=quality)
    return len(photos)


def _error_of(path: Path, error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    reason = " ".join(str(error).split())
    return ImageError(f"{path}: cannot be stylized: {type(error).__name__}: {reason}")


def _mask(mask: Path, path: Path, photo: Tensor) -> Tensor:
    """Return a photo's mask at its size. Raises ImageError, which names the photo."""
    try:
        return fitted(load_mask(mask), photo.shape[-2:], photo.shape[-2:])
    except ImageError as error:
        raise ImageError(f"{path}: its mask: {error}") from None


def comparison_sheet(
    rows: Sequence[tuple[str, Tensor, Sequence[Tensor | str]]],
    *,
    columns: Sequence[Sequence[str]],
    styles: Sequence[tuple[str, Tensor]],
) -> Tensor:
    """Named photos, each with every column's picture of it, or why there is none -> (3, H, W).

    A column is headed by its lines of text. `styles` are the named style image of all columns,
    which goes to the corner, or one for each.
    """
    cells = [cell for _, photo, row in rows for cell in (photo, *row)]
    width = max(cell.shape[-1] for cell in cells if isinstance(cell, Tensor))
    small = [(name, _to_width(style, width)) for name, style in styles]
    style_height = max(style.shape[-2] for _, style in small) + _LABEL_HEIGHT
    text_height = _LINE_HEIGHT * max(len(lines) for lines in columns)
    heights = [max(c.shape[-2] for c in (p, *r) if isinstance(c, Tensor)) for _, p, r in rows]
    sheet = Image.new(
        "RGB",
        (
            _GAP + (width + _GAP) * (1 + len(columns)),
            _GAP + style_height + text_height + sum(h + _LABEL_HEIGHT + _GAP for h in heights),
        ),
        "white",
    )
    lefts = [_GAP + (width + _GAP) * column for column in range(1 + len(columns))]
    for left, (name, style) in zip(lefts if len(small) == 1 else lefts[1:], small, strict=False):
        _place(sheet, (left, _GAP), style)
        _write(sheet, (left, _GAP + style.shape[-2] + 4), name, width)
    for left, lines in zip(lefts[1:], columns, strict=True):
        for index, line in enumerate(lines):
            place = (left, style_height + text_height - _LINE_HEIGHT * (len(lines) - index))
            _write(sheet, place, line, width, keep_end=True)
    top = _GAP + style_height + text_height
    for (name, photo, row), height in zip(rows, heights, strict=True):
        for left, cell in zip(lefts, (photo, *row), strict=True):
            if isinstance(cell, Tensor):
                _place(sheet, (left, top), cell)
            else:
                _draw_empty(sheet, (left, top), (width, height), cell)
        _write(sheet, (_GAP, top + height + 4), name, width)
        top += height + _LABEL_HEIGHT + _GAP
    return to_float(image_to_tensor(sheet))


def _paste(rows: Sequence[Sequence[_Cell]]) -> Image.Image:
    """Paste rows of labelled pictures, each column as wide as its widest."""
    width = max(picture.shape[-1] for row in rows for _, picture in row)
    heights = [max(picture.shape[-2] for _, picture in row) for row in rows]
    sheet = Image.new(
        "RGB",
        (
            _GAP + (width + _GAP) * max(len(row) for row in rows),
            _GAP + sum(height + _LABEL_HEIGHT + _GAP for height in heights),
        ),
        "white",
    )
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (label, picture) in enumerate(row):
            left = _GAP + column * (width + _GAP)
            _place(sheet, (left, top), picture)
            _write(sheet, (left, top + height + 4), label, width)
        top += height + _LABEL_HEIGHT + _GAP
    return sheet


def _place(sheet: Image.Image, place: tuple[int, int], picture: Tensor) -> None:
    pixels = from_float(picture, torch.uint8).permute(1, 2, 0).contiguous().cpu()
    sheet.paste(Image.fromarray(pixels.numpy()), place)


def _write(
    sheet: Image.Image, place: tuple[int, int], label: str, width: int, *, keep_end: bool = False
) -> None:
    """Write a line, shortened to fit: at its end, or at its beginning."""
    font = ImageFont.load_default(_FONT_SIZE)
    label = (
        _shortened(label[::-1], font, width)[::-1] if keep_end else _shortened(label, font, width)
    )
    ImageDraw.Draw(sheet).text(place, label, fill=_INK, font=font)


def _draw_empty(
    sheet: Image.Image, place: tuple[int, int], size: tuple[int, int], reason: str
) -> None:
    """Draw a frame with the reason in it, as much of it as there is room for."""
    (left, top), (width, height) = place, size
    ImageDraw.Draw(sheet).rectangle((left, top, left + width - 1, top + height - 1), outline=_PALE)
    font = ImageFont.load_default(_FONT_SIZE)
    lines = [""]
    for word in reason.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width - 2 * _GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    for index, line in enumerate(lines[: max(1, (height - _GAP) // _LINE_HEIGHT)]):
        _write(sheet, (left + _GAP, top + _GAP + _LINE_HEIGHT * index), line, width - 2 * _GAP)


def _to_width(image: Tensor, width: int) -> Tensor:
    return resize(image, max(1, round(image.shape[-2] * width / image.shape[-1])), width)


def _shortened(label: str, font: _Font, width: float) -> str:
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(f"{label}…") > width:
        label = label[:-1]
    return f"{label}…"
