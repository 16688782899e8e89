from pathlib import Path

import cards
import pytest

from fast_style.checkpoints.files import find_model, load_model, save_model
from fast_style.config import flatten
from fast_style.errors import UserError


def test_a_card_says_what_the_model_file_says() -> None:
    wave = find_model("wave")
    metadata = load_model(wave).metadata
    config = flatten(metadata["config"])
    page = cards.page([wave])
    assert page.count("\n## ") == 1
    assert "`wave.jpg`: a woodblock print" in page
    assert "drawn by this project's own code, MIT licence" in page
    assert f"| photos | {config['data.description']} |" in page
    assert f"{metadata['step']:,} steps" in page
    assert f"crops of {config['training.image_size']} pixels" in page


def test_the_card_of_a_painting_says_where_it_is_and_its_licence() -> None:
    page = cards.page([find_model("great_wave")])
    assert "Katsushika Hokusai" in page
    assert "CC0" in page


def test_a_style_image_of_unknown_licence_has_no_card(tmp_path: Path) -> None:
    wave = load_model(find_model("wave"))
    config = {**wave.metadata["config"], "style": {"image": "styles/mine.jpg", "size": 9}}
    save_model(tmp_path / "mine.pth", wave.network, metadata={**wave.metadata, "config": config})
    with pytest.raises(UserError, match=r"says nothing of 'mine\.jpg'"):
        cards.page([tmp_path / "mine.pth"])


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    cards.write(tmp_path / "models.md")
    assert (tmp_path / "models.md").read_text(encoding="utf-8").startswith("# The shipped models")
