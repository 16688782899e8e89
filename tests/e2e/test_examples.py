"""The notebooks in examples/, run from the first cell to the last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": "."}})
client.execute()
assert not any(cell.get("outputs") for cell in nbformat.read(sys.argv[1], as_version=4).cells)
print(sum(bool(cell.get("outputs")) for cell in notebook.cells))
"""


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("notebook", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_a_notebook_runs_from_the_first_cell_to_the_last(notebook: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("skimage")
    folders = {name: str(tmp_path) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR")}
    run = subprocess.run(
        [sys.executable, "-c", RUN, notebook],
        cwd=EXAMPLES,
        env={**os.environ, **folders},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout.split()[-1]) >= 4  # cells that show something
