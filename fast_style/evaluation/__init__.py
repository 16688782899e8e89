"""What a network is worth: certificate, report card, sweeps."""

from fast_style.evaluation.certificate import (
    TABLE_STEPS,
    Certificate,
    ImageResult,
    Initial,
    certify,
    training_objective,
)
from fast_style.evaluation.report import draw_plot, format_table

__all__ = [
    "TABLE_STEPS",
    "Certificate",
    "ImageResult",
    "Initial",
    "certify",
    "draw_plot",
    "format_table",
    "training_objective",
]
