"""The drawn style images, and the code that draws them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image, ImageChops

STYLES = Path(__file__).parents[2] / "styles"
# Drawn in three seconds; the styles of strokes, which share their code, take up to a minute.
FAST = "candy"


def draw(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "styles.draw", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def drawn_names(repository: Path) -> list[str]:
    result = draw(cwd=repository)
    return result.stderr.rpartition("there are ")[2].strip().split(", ")


def test_every_style_image_is_large_enough(repository: Path) -> None:
    names = drawn_names(repository)
    assert len(names) >= 8
    for name in names:
        with Image.open(STYLES / f"{name}.jpg") as image:
            assert min(image.size) >= 1024, name
            assert image.mode == "RGB"


def test_every_drawn_style_has_its_config_and_its_line_in_the_readme(repository: Path) -> None:
    readme = (STYLES / "README.md").read_text()
    for name in drawn_names(repository):
        assert (repository / "configs" / f"{name}.yaml").is_file()
        assert f"| `{name}.jpg` |" in readme


def test_the_paintings_stay_out_of_the_repository(repository: Path) -> None:
    readme = (STYLES / "README.md").read_text()
    ignored = (repository / ".gitignore").read_text().splitlines()
    for name in ("great_wave", "starry_night", "scream"):
        assert (repository / "configs" / f"{name}.yaml").is_file()
        assert f"| `{name}.jpg` |" in readme
        assert f"/styles/{name}.jpg" in ignored


def test_a_style_is_drawn_alike_to_the_byte_in_two_processes(
    repository: Path, tmp_path: Path
) -> None:
    name = FAST
    folders = [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda folder: draw(name, "-o", str(folder), cwd=repository), folders)
    drawn = []
    for folder, result in zip(folders, results, strict=True):
        assert result.returncode == 0, result.stderr
        target = folder / f"{name}.jpg"
        assert result.stdout.startswith(f"{target}: 1440x1080, ")
        drawn.append(target.read_bytes())
    assert drawn[0] == drawn[1]


def test_a_slow_style_is_drawn_alike_in_two_processes(repository: Path) -> None:
    code = (
        "import sys, styles.draw.mosaic as mosaic\n"
        "mosaic.HEIGHT, mosaic.WIDTH = 270, 360\n"  # at full size a minute
        "sys.stdout.buffer.write(mosaic.draw(0).tobytes())"
    )
    command = [sys.executable, "-c", code]
    first, second = (
        subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
        for _ in range(2)
    )
    assert len(first) == 270 * 360 * 3
    assert first == second


@pytest.mark.slow
def test_another_seed_draws_a_variation(repository: Path, tmp_path: Path) -> None:
    result = draw(FAST, "--seed", "1", "-o", str(tmp_path), cwd=repository)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "candy.jpg") as other, Image.open(STYLES / "candy.jpg") as drawn:
        # Another machine's rounding would move a few pixels by a few levels.
        difference = (
            ImageChops.difference(other, drawn).convert("L").resize((1, 1), Image.Resampling.BOX)
        )
    assert difference.getpixel((0, 0)) > 20
