"""The benchmarks run and name what they time; their results are not tested."""

import sys
from pathlib import Path

import processes
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (
            "data --runs 1 --images 8 --size 32 --workers 1",
            ("640x480", "usual", "ours, cached", "ours, loader, 1 workers", "images/s"),
        ),
        (
            "stylize --runs 1 --sizes 33x32 --width 2 --batch 2",
            ("33x32", "plain", "ours float32", "one batch", "of peak"),
        ),
        (
            "scale --workers 1,3 --photos 8 --compute 0.01 --latency 0.005 --listed 50",
            ("listing and names", "what is finished", "report and manifest", "of linear"),
        ),
        (
            "train --runs 1 --size 16 --batch-size 2 --width 2 --device cpu",
            ("batch 2, 16x16", "plain", "ours float32", "VGG on the content", "network backward"),
        ),
    ],
)
def test_a_benchmark_prints_its_table(arguments: str, rows: tuple[str, ...]) -> None:
    command = [sys.executable, str(SCRIPT), *arguments.split()]
    result = processes.run(command)
    assert result.returncode == 0, result.stderr
    for row in rows:
        assert row in result.stdout
