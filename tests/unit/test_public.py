"""The names that `import fast_style` offers."""

import ast
import importlib
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import fast_style


@pytest.mark.parametrize("name", fast_style.__all__)
def test_a_public_name_is_there(name: str) -> None:
    value = getattr(fast_style, name)
    assert name == "__version__" or value.__name__ == name


def test_the_type_checker_sees_the_same_names_in_the_same_rooms() -> None:
    tree = ast.parse(Path(fast_style.__file__).read_text())
    seen = {
        name.name: imported.module.removeprefix("fast_style.")
        for block in tree.body
        if isinstance(block, ast.If)
        for imported in block.body
        if isinstance(imported, ast.ImportFrom) and imported.module
        for name in imported.names
    }
    assert seen == fast_style._ROOM_OF
    assert sorted([*seen, "__version__"]) == sorted(fast_style.__all__)


def test_help_and_completion_know_the_public_names() -> None:
    assert set(fast_style.__all__) <= set(dir(fast_style))
    page = pydoc.plain(pydoc.render_doc(fast_style))
    for name in ("class Stylizer", "stylize_file(", "load_model(", "shipped_models("):
        assert name in page


def test_the_shipped_models_are_listed_by_name() -> None:
    names = [path.stem for path in fast_style.shipped_models()]
    assert "wave" in names
    assert names == sorted(names)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'fast_style' has no attribute 'Styliser'"):
        fast_style.Styliser  # noqa: B018


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, fast_style; print({'torch', 'PIL', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# What the modules of these names held before they became rooms.
BEFORE = {
    "config": """
        BaselineConfig BaselineContentConfig BaselineLossConfig BaselineStyleConfig Config
        ConfigError DataConfig LossConfig NetworkConfig OptimizationConfig RECIPES
        StyleConfig TrainingConfig build config_from_dict flatten load_config load_recipe
        load_yaml locate to_dict
    """,
    "images": """
        EXTENSIONS ImageError Picture check_fits fill_transparent format_of from_float
        from_linear_light image_to_tensor load_image nearest_format open_rgb read_picture
        read_size resize resize_long_edge save_image scaled_size set_depth to_float
        to_linear_light to_uint8 write_picture
    """,
    "data": """
        ContentBatch ContentImages DataError Draw EndlessShuffle center_crop center_crops
        content_batches decoded_edge fingerprint
    """,
    "training": """
        Result default_run_dir train
    """,
    "stylization": """
        PreserveColor Stylizer Tile begin_picture stylize_file stylize_picture
    """,
    "evaluation": """
        Certificate ImageResult Initial TABLE_STEPS certify draw_plot format_table
        training_objective
    """,
}


@pytest.mark.parametrize(("room", "name"), [(r, n) for r, ns in BEFORE.items() for n in ns.split()])
def test_a_public_import_path_of_before_still_works(room: str, name: str) -> None:
    assert hasattr(importlib.import_module(f"fast_style.{room}"), name)
