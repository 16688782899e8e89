"""The contact sheet: photos, and what each of several models makes of them, with labels."""

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fast_style.images import from_float, image_to_tensor, to_float
from fast_style.stylization import Stylizer

_GAP = 12
_LABEL_HEIGHT = 28
_FONT_SIZE = 18
_INK = (40, 40, 40)


def contact_sheet(
    photos: Sequence[tuple[str, Tensor]], stylizers: Sequence[tuple[str, Stylizer]]
) -> Tensor:
    """Named photos (3, h, w) in [0, 1] -> (3, H, W): each photo, then each model's picture of it.

    A row for each photo; a single photo's pictures are arranged near a square.
    """
    cells = []
    for name, photo in photos:
        cells.append((name, photo))
        cells += [(label, stylizer(photo)) for label, stylizer in stylizers]
    per_row = len(stylizers) + 1
    columns = math.ceil(math.sqrt(per_row)) if len(photos) == 1 else per_row
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return to_float(image_to_tensor(_paste(rows)))


def _paste(rows: Sequence[Sequence[tuple[str, Tensor]]]) -> Image.Image:
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
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (label, picture) in enumerate(row):
            left = _GAP + column * (width + _GAP)
            pixels = from_float(picture, torch.uint8).permute(1, 2, 0).contiguous().cpu()
            sheet.paste(Image.fromarray(pixels.numpy()), (left, top))
            place = (left, top + height + 4)
            draw.text(place, _shortened(label, font, width), fill=_INK, font=font)
        top += height + _LABEL_HEIGHT + _GAP
    return sheet


def _shortened(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(f"{label}…") > width:
        label = label[:-1]
    return f"{label}…"
