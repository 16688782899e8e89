"""Configs and style images that travel with the package, found by name from any folder."""

from pathlib import Path

import pytest
from synthetic import photo

from fast_style.commands import main
from fast_style.config import ConfigError, find_config, load_config, locate
from fast_style.config.places import CONFIGS, STYLES, config_names
from fast_style.training.inputs import load_style_image

WAVE = Path("styles/wave.jpg")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("named", ["wave", "wave.yaml", "configs/wave.yaml", "configs/wave"])
def test_a_shipped_config_is_found_by_name_from_any_folder(named: str) -> None:
    assert find_config(named) == CONFIGS / "wave.yaml"
    config = load_config(named)
    assert config.name == "wave"
    assert config.style.image == WAVE
    assert config.resolved().style.image == STYLES / "wave.jpg"


def test_a_config_in_the_working_directory_comes_first(elsewhere: Path) -> None:
    (elsewhere / "wave").mkdir()
    assert find_config("wave") == CONFIGS / "wave.yaml"
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs/wave.yaml").touch()
    assert find_config("wave") == Path("configs/wave.yaml")
    (elsewhere / "wave.yaml").touch()
    assert find_config("wave") == find_config("wave.yaml") == Path("wave.yaml")
    assert find_config("configs/wave.yaml") == Path("configs/wave.yaml")


def test_an_unknown_config_gets_the_nearest_name_and_the_list() -> None:
    names = ", ".join(config_names())
    with pytest.raises(ConfigError) as caught:
        find_config("wavee")
    assert str(caught.value) == (
        f"wavee: no such config file; did you mean 'wave'? Shipped are {names}; "
        "any other is named by its path"
    )
    with pytest.raises(ConfigError, match=r"configs/zzz.yaml: no such config file\. Shipped are"):
        find_config("configs/zzz.yaml")
    with pytest.raises(ConfigError, match=r"mine/wave.yaml: no such config file$"):
        find_config("mine/wave.yaml")


def test_a_style_image_in_the_working_directory_comes_first(elsewhere: Path) -> None:
    assert locate(WAVE, key="style.image") == STYLES / "wave.jpg"
    (elsewhere / "styles").mkdir()
    photo(0).save(elsewhere / WAVE)
    assert locate(WAVE, key="style.image") == WAVE
    assert locate(Path("styles/gone.jpg"), key="style.image") == Path("styles/gone.jpg")
    assert locate(Path("wave.jpg"), key="style.image") == Path("wave.jpg")


def test_a_painting_that_is_not_shipped_is_told_with_the_page_that_says_where_it_is(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fast_style.config.places.STYLES", elsewhere / "none")
    page = "https://github.com/fast-style/fast-style/blob/main/styles/README.md"
    with pytest.raises(ConfigError, match=f"no such image file; {page} says where to get it"):
        load_style_image(load_config("great_wave").resolved().style)
    photo(0).save("a.png")
    optimize = ["optimize", "--content", "a.png", "--style", "styles/scream.jpg", "-o", "b.png"]
    assert main(optimize) == 2
    error = f"error: styles/scream.jpg: no such image file; {page} says where to get it\n"
    assert capsys.readouterr().err.endswith(error)
    assert main(["evaluate", "--model", "scream", "--images", "."]) == 2
    assert f"name it with --style; {page} says where" in capsys.readouterr().err


def test_every_room_and_every_kind_of_file_is_in_the_wheels_list(repository: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="it came with Python 3.11")
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {path.parent for path in (repository / "fast_style").rglob("__init__.py")}
    names = {".".join(room.relative_to(repository).parts) for room in rooms}
    folders = settings["package-dir"]
    assert set(settings["packages"]) == names | set(folders)
    assert folders == {"fast_style.configs": "configs", "fast_style.styles": "styles"}
    assert repository / "configs" == CONFIGS
    assert repository / "styles" == STYLES
    ignored = (repository / ".gitignore").read_text().splitlines()
    scans = [line.removeprefix("/styles/") for line in ignored if line.startswith("/styles/")]
    assert settings["exclude-package-data"]["fast_style.styles"] == scans
