"""Writing a picture's arrays, whole or not at all, to a file or to a stream."""

import io
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fast_style.files import atomic_write
from fast_style.images import rowwise, table
from fast_style.images.decoding import Channels, ImageError, on_white, with_bits
from fast_style.images.encoding import encode
from fast_style.images.metadata import Metadata, fitting
from fast_style.images.rowwise import Rows
from fast_style.remote import shown


def write_arrays(
    colors: Channels,
    alpha: Channels | None,
    output: Path | BinaryIO,
    *,
    file_format: str,
    quality: int,
    tagged: bool,
    metadata: Metadata,
    ready: Iterable[slice] | None,
    made_with: str,
) -> tuple[str, ...]:
    """Write colors (H, W, 3) and alpha (H, W): see `write_picture` in pictures.py."""
    ready = ready or [slice(0, len(colors))]
    notes: list[str] = []
    as_they_come = file_format in rowwise.formats()
    if not as_they_come:
        for _ in ready:
            pass
        colors, alpha = with_bits(colors, 8), None if alpha is None else with_bits(alpha, 8)
    if alpha is not None and not table.written_as(file_format).alpha:
        notes.append(f"its transparency is now white: {file_format} has none")
        colors, alpha = on_white(colors, alpha), None
    metadata, lost = fitting(metadata, file_format)
    notes += lost
    write = partial(
        encode,
        rows=Rows(colors=colors, alpha=alpha, ready=ready),
        file_format=file_format,
        quality=quality,
        tagged=tagged,
        metadata=replace(metadata, made_with=made_with),
    )
    try:
        if isinstance(output, Path) and as_they_come:
            with atomic_write(output) as file:
                write(file)
            return tuple(notes)
        # Given a file, Pillow takes a short write, as of a full disk, for a whole one; and to a
        # stream a part of a picture is worse than none.
        encoded = io.BytesIO()
        write(encoded)
        with atomic_write(output) if isinstance(output, Path) else nullcontext(output) as file:
            file.write(encoded.getbuffer())
            file.flush()
    except (OSError, ImageError) as error:
        raise unwritable(output, error) from None
    return tuple(notes)


def unwritable(output: Path | BinaryIO, error: Exception) -> ImageError:
    """Return the error for what cannot be written."""
    name = shown(output) if isinstance(output, Path) else "output stream"
    return ImageError(f"{name}: cannot be written: {getattr(error, 'strerror', None) or error}")
