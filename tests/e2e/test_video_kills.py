"""A clip's run is killed again and again; the same command goes on, and the frames are the same."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch

pytest.importorskip("av", reason="needs PyAV: pip install 'fast-style[video]'")

from clips import moving, packets, write_clip

from fast_style.checkpoints.files import save_model
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.video import stylize_clip, stylizing

# Imports once, then makes a child for every line that comes: PyTorch takes seconds to import.
NURSERY = """
import os, sys
import torch
from pathlib import Path
import av
from fast_style.checkpoints.files import load_model
from fast_style.stylization import Stylizer
from fast_style.video import stylize_clip, stylizing
torch.set_num_threads(1)
stylizing._SEGMENT_PIXELS = 0
stylizing._LEAST_SEGMENT_SECONDS = 1
model, clip, output = (Path(name) for name in sys.argv[1:])
stylizer = Stylizer(load_model(model).network)
print("ready", flush=True)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        stylize_clip(stylizer, clip, output, workers=2, steady=True)
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_fifty_kills_leave_the_same_frames(
    tiny_network: TransformerNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving(48, height=24, width=32), rate=Fraction(8))
    save_model(tmp_path / "tiny.pth", tiny_network, metadata={"config": {}, "step": 0})
    unbroken, output = tmp_path / "unbroken.mp4", tmp_path / "killed.mp4"
    monkeypatch.setattr(stylizing, "_SEGMENT_PIXELS", 0)
    monkeypatch.setattr(stylizing, "_LEAST_SEGMENT_SECONDS", 1)
    start = time.perf_counter()
    stylize_clip(Stylizer(tiny_network), clip, unbroken, workers=1, steady=True)
    seconds = time.perf_counter() - start
    arguments = [sys.executable, "-c", NURSERY, tmp_path / "tiny.pth", clip, output]
    chance = random.Random(0)
    kills = resumed = 0
    with subprocess.Popen(
        [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        assert nursery.stdout.readline() == "ready\n"
        while kills < 50:
            print(file=nursery.stdin, flush=True)
            child = int(nursery.stdout.readline())
            # Longer and longer, so that segments are finished on a busy machine too.
            time.sleep(chance.uniform(0, 0.3 + kills / 100) * seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            if nursery.stdout.readline() == "killed\n":
                kills += 1
                resumed += any((tmp_path / ".killed.mp4.parts").glob("*.packets"))
                continue
            assert packets(output, "video") == packets(unbroken, "video")
            output.unlink()
        nursery.stdin.close()
    assert torch.get_num_threads() == 1
    assert resumed > 0
    stylize_clip(Stylizer(tiny_network), clip, output, workers=4, steady=True)
    assert output.read_bytes() == unbroken.read_bytes()
    assert not (tmp_path / ".killed.mp4.parts").exists()
