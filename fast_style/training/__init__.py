"""Training: the loop and everything it asks."""

from fast_style.training.run import Result, default_run_dir, train

__all__ = [
    "Result",
    "default_run_dir",
    "train",
]
