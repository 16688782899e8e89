"""Content images: which photos there are, their pixels, and the batches made of them."""

from fast_style.data.batches import (
    ContentBatch,
    ContentImages,
    Draw,
    EndlessShuffle,
    center_crop,
    center_crops,
    content_batches,
)
from fast_style.data.photos import DataError, fingerprint
from fast_style.data.preparation import decoded_edge

__all__ = [
    "ContentBatch",
    "ContentImages",
    "DataError",
    "Draw",
    "EndlessShuffle",
    "center_crop",
    "center_crops",
    "content_batches",
    "decoded_edge",
    "fingerprint",
]
