"""Video: clips in, stylized clips out, with their sound, their times, and steady strokes.

`is_clip` says whether an input is one, `stylize_clip` does it all. PyAV, which carries FFmpeg, is
imported when a clip is opened.
"""

from fast_style.video.clips import VideoError, is_clip
from fast_style.video.coding import Coding
from fast_style.video.stability import Stability, format_stability, measure_stability
from fast_style.video.stylizing import (
    StylizedClip,
    is_finished,
    named_output,
    read_files,
    remove_leftovers,
    stylize_clip,
    written_files,
)

__all__ = [
    "Coding",
    "Stability",
    "StylizedClip",
    "VideoError",
    "format_stability",
    "is_clip",
    "is_finished",
    "measure_stability",
    "named_output",
    "read_files",
    "remove_leftovers",
    "stylize_clip",
    "written_files",
]
