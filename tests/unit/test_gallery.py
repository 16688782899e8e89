from pathlib import Path

import pytest
from gallery import main
from PIL import Image
from synthetic import photo, write_photos

from fast_style.checkpoints.files import save_model
from fast_style.networks.transformer import TransformerNet

CREDITS = """file,set,repo,licence,source_url
photo-000.png,Unsplash,someone/photos,Unsplash License,
photo-001.png,COCO,,CC BY 4.0,https://example.org/1.jpg
photo-002.png,,,CC0,
photo-003.png,COCO,,,
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network: TransformerNet) -> Path:
    """A user's folder: photos, two models, the style image of one of them, credits, docs."""
    write_photos(tmp_path / "photos", 5, height=60, width=80)
    (tmp_path / "models").mkdir()
    for name in ("sea", "wood"):
        metadata = {"config": {"style": {"image": f"styles/{name}.png"}}}
        save_model(tmp_path / "models" / f"{name}.pth", tiny_network, metadata=metadata)
    (tmp_path / "styles").mkdir()
    photo(60).save(tmp_path / "styles" / "sea.png")
    (tmp_path / "credits.csv").write_text(CREDITS)
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    words = ["--photos", "photos", "--models", "models", "-o", "docs/gallery.md", "--size", "40"]
    return main([*words, "--device", "cpu", *arguments])


def pictures(user: Path) -> list[str]:
    return sorted(path.name for path in (user / "docs/images/gallery").iterdir())


def test_the_page_shows_every_photo_in_every_style(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--credits", "credits.csv") == 0
    names = [f"photo-00{i}" for i in range(3)]
    expected = [f"{name}{style}.jpg" for name in names for style in ("", "-sea", "-wood")]
    assert pictures(user) == sorted([*expected, "style-sea.jpg"])
    with Image.open(user / "docs/images/gallery/photo-000-sea.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (40, 30))
    page = (user / "docs/gallery.md").read_text()
    lines = page.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [line.count("|") for line in table] == [5] * 5
    assert table[0] == "| | photo-000 | photo-001 | photo-002 |"
    assert "![the style image of sea](images/gallery/style-sea.jpg)<br>`sea`" in table[3]
    assert table[4].startswith("| `wood` | ![photo-000 in wood](images/gallery/photo-000-wood.jpg)")
    assert "The style image of `wood` is not in the repository" in page
    assert "* *photo-000*: Unsplash, Unsplash License, from someone/photos" in lines
    assert "* *photo-001*: COCO, CC BY 4.0, <https://example.org/1.jpg>" in lines
    assert "* *photo-002*: CC0" in lines
    assert lines[-1] == (
        "Made by `python scripts/gallery.py --photos photos --models models "
        "--credits credits.csv -o docs/gallery.md`."
    )
    for name in pictures(user):
        assert f"(images/gallery/{name})" in page
    assert capsys.readouterr().out.splitlines()[-1].startswith("docs/gallery.md: 10 pictures, 0.")


def test_photos_are_named_with_or_without_their_ending(user: Path) -> None:
    assert run("--photo", "photo-004", "--photo", "photo-001.png") == 0
    assert "| | photo-004 | photo-001 |" in (user / "docs/gallery.md").read_text()


def test_what_an_earlier_gallery_has_left_is_removed(user: Path) -> None:
    assert run() == 0
    (user / "models/wood.pth").unlink()
    assert run() == 0
    assert not [name for name in pictures(user) if "wood" in name]


def test_style_images_may_lie_elsewhere_and_paths_of_this_machine_stay_out(
    user: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("paintings")
    photo(61).save(elsewhere / "wood.png")
    assert run("--styles", str(elsewhere)) == 0
    page = (user / "docs/gallery.md").read_text()
    assert "style-wood.jpg" in page
    assert "is not in the repository" not in page
    assert str(elsewhere.parent) not in page
    assert f"--styles {elsewhere.name} " in page


def test_quality_falls_until_the_pictures_are_light_enough(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    heavy = sum(path.stat().st_size for path in (user / "docs/images/gallery").iterdir())
    assert run("--megabytes", str(0.9 * heavy / 1e6)) == 0
    light = sum(path.stat().st_size for path in (user / "docs/images/gallery").iterdir())
    assert light <= 0.9 * heavy


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--photos", "gone"], "gone: no such folder of photos"),
        (["--photo", "gone"], "--photo gone: is not among the photos: photo-000, "),
        (["--photo", "photo-000", "--photo", "photo-000.png"], "the same name twice"),
        (["--models", "docs"], "docs: holds no models (.pth)"),
        (["--models", "bad"], "damaged"),
        (["--credits", "gone.csv"], "gone.csv: cannot be read"),
        (["--credits", "photos/photo-000.png"], "photo-000.png: cannot be read"),
        (["--credits", "empty.csv"], "empty.csv: has no column 'file'"),
        (["--credits", "credits.csv", "--photo", "photo-003"], "the credits name no licence"),
        (["--credits", "credits.csv", "--photo", "photo-004"], "is not in the credits"),
        (["-o", "docs"], "docs: is a folder; name a file"),
        (["-o", "gone/gallery.md"], "there is no folder gone"),
        (["--megabytes", "0.001"], "choose a smaller --size"),
        (["--size", "3"], "--size 3 is impossible"),
        (["--device", "gpu"], "unknown device 'gpu'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    user: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    (user / "bad").mkdir()
    (user / "bad" / "a.pth").write_bytes(b"no model")
    (user / "empty.csv").write_text("")
    before = files_below(user)
    assert run(*arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert part in error
    assert files_below(user) == before
