"""A clip of twenty seconds, with a camera that moves, things that cross it, and a cut."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from synthetic import photo

pytest.importorskip("av", reason="needs PyAV: pip install 'fast-style[video]'")

from clips import Pixels, read_clip, scene, write_clip

from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.video import Coding, stylize_clip

SECONDS, RATE = 20, 10
COUNT = SECONDS * RATE


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    background = np.asarray(photo(1, 80, 130))
    things = [np.asarray(photo(seed, 18, 24)) for seed in (2, 3)]
    frames = scene(background, things, COUNT, height=48, width=72)
    return write_clip(tmp_path_factory.mktemp("clip") / "scene.mp4", frames, rate=Fraction(RATE))


def resident() -> int:
    """Return the bytes of memory that this process has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def near(first: Pixels, second: Pixels) -> float:
    return float(np.abs(first.astype(int) - second).mean())


def test_a_long_clip_keeps_its_frames_and_takes_the_memory_of_a_short_one(
    clip: Path, tmp_path: Path, tiny_network: TransformerNet
) -> None:
    stylizer, memory = Stylizer(tiny_network), {}

    def on_frame(done: int, total: int | None) -> None:
        if done in (50, COUNT - 5) and Path("/proc/self/statm").exists():
            memory[done] = resident()

    output, lossless = tmp_path / "out.mkv", Coding(codec="ffv1")
    result = stylize_clip(stylizer, clip, output, workers=1, coding=lossless, on_frame=on_frame)
    assert (result.frames, result.steadied) == (COUNT, True)
    before, given = read_clip(clip)
    after, made = read_clip(output)
    assert before == after
    assert after[-1] == SECONDS - Fraction(1, RATE)
    if memory:
        assert memory[COUNT - 5] - memory[50] < 30e6
    # Nothing of the scene before is seen right after a cut, and each frame is that of its time.
    cut = COUNT // 2
    old, new, seen = (one.astype(float) for one in (made[cut - 1], stylizer(given[cut]), made[cut]))
    assert abs(((seen - new) * (old - new)).sum() / np.square(old - new).sum()) < 0.1
    for index in range(10, COUNT, 70):
        here, elsewhere = (near(made[index], stylizer(given[i])) for i in (index, index - 9))
        assert here < elsewhere
