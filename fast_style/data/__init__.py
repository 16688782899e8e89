"""Content images: which photos there are, their pixels, and the batches made of them."""

from fast_style.data.batches import (
    ContentBatch,
    ContentImages,
    Draw,
    EndlessShuffle,
    center_crop,
    center_crops,
    content_batches,
    read_each,
)
from fast_style.data.photos import DataError, Skipped, fingerprint
from fast_style.data.preparation import decoded_edge

__all__ = [
    "ContentBatch",
    "ContentImages",
    "DataError",
    "Draw",
    "EndlessShuffle",
    "Skipped",
    "center_crop",
    "center_crops",
    "content_batches",
    "decoded_edge",
    "fingerprint",
    "read_each",
]
