"""Photos, pictures and models in a store: a real one of fsspec, which holds files in memory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image
from synthetic import photo, tiny_config_data, write_photos

from fast_style import commands, remote
from fast_style.checkpoints.files import CheckpointError, find_model, load_model, save_model
from fast_style.commands.stylize import main
from fast_style.config import config_from_dict
from fast_style.data.cache import CacheError, open_cache
from fast_style.data.preparation import Preparation
from fast_style.files import atomic_write
from fast_style.images import ImageError, load_image
from fast_style.networks.transformer import TransformerNet
from fast_style.remote import RemoteError, is_remote, listing, shown
from fast_style.stylization import remote_jobs
from fast_style.training import train

Command = Callable[..., int]


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty store in this process's memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def stylize(
    tmp_path: Path,
    tiny_network: TransformerNet,
    store: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """Run the command in a folder with photos, which are in the store too."""
    monkeypatch.chdir(tmp_path)
    model = save_model(tmp_path / "wave.pth", tiny_network)
    store.pipe_file("/models/wave.pth", model.read_bytes())
    for seed, name in enumerate(("a.png", "b.jpg", "deep/a.png", "deep/a.jpg", "c.gif")):
        path = Path("in") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(seed, 16, 20).save(path)
        store.pipe_file(f"/in/{name}", path.read_bytes())
    return lambda *arguments: main(["--model", str(model), *map(str, arguments)])


@pytest.mark.parametrize(
    ("path", "far"),
    [
        ("s3://bucket/a.jpg", True),
        ("gs://b/c/", True),
        (Path("s3://bucket/a.jpg"), True),
        ("a.jpg", False),
        ("C:/photos/a.jpg", False),
        ("package:skimage/data", False),
        ("https://example.com/wave.pth", False),
        ("-", False),
        (None, False),
    ],
)
def test_what_is_an_address(path: object, far: bool) -> None:
    assert is_remote(path) is far


def test_a_path_carries_an_address() -> None:
    path = Path("s3://bucket/photos") / "a.jpg"
    assert shown(path) == "s3://bucket/photos/a.jpg"
    assert shown("in/a.jpg") == "in/a.jpg"


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(RemoteError) as error:
        listing(Path("s3://key:secret@bucket/in"))
    assert "secret" not in str(error.value)
    assert "credentials" in str(error.value)


def test_an_unknown_store_is_named() -> None:
    with pytest.raises(RemoteError, match="nowhere://a/b"):
        listing(Path("nowhere://a/b"))


def test_a_file_is_there_whole_or_not_at_all(store: fsspec.AbstractFileSystem) -> None:
    def fail_halfway() -> None:
        with atomic_write(Path("memory://out/a")) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert not listing(Path("memory://out"))
    with atomic_write(Path("memory://out/a")) as file:
        file.write(b"whole")
    assert remote.read_bytes(Path("memory://out/a")) == b"whole"


def test_a_folder_in_a_store_is_stylized_with_the_names_and_bytes_of_a_plain_one(
    stylize: Command, store: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stylize("in", "--recursive", "-o", "out") == 0
    far = ("memory://in", "--recursive", "-o", "memory://out/")
    assert stylize(*far, "--manifest", "m.json") == 0
    there = {p: store.cat_file(p) for p in store.find("/out") if ".fast" not in p}
    plain = {f"/{path}": path.read_bytes() for path in Path("out").rglob("*.*")}
    assert there == plain
    entries = [json.loads(line) for line in Path("m.json").read_text().splitlines()]
    assert {entry["output"] for entry in entries} == {f"memory:/{path}" for path in plain}
    assert "s3:/" not in capsys.readouterr().out


def test_what_is_done_is_skipped_by_one_listing_and_redone_for_other_settings(
    stylize: Command,
    store: fsspec.AbstractFileSystem,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = ("memory://in", "-o", "memory://out")
    assert stylize(*far) == 0
    store.rm_file("/out/a.wave.png")
    capsys.readouterr()
    reads: list[str] = []
    read = type(store).cat_file
    monkeypatch.setattr(
        type(store), "cat_file", lambda self, path, *a: reads.append(path) or read(self, path, *a)
    )
    assert stylize(*far) == 0
    assert "1 stylized, 2 already there, skipped" in capsys.readouterr().err
    assert reads == ["/in/a.png"]
    assert stylize(*far, "--strength", "0.5") == 0
    assert "3 redone with these settings" in capsys.readouterr().err
    assert stylize(*far) == 0
    assert "3 redone with these settings" in capsys.readouterr().err
    assert stylize(*far) == 0
    assert "3 already there, skipped" in capsys.readouterr().err


def test_a_bad_photo_in_a_store_stops_nothing(
    stylize: Command, store: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    store.pipe_file("/in/bad.png", b"nothing")
    assert stylize("memory://in/", "-o", "out") == 1
    assert "error: memory://in/bad.png: " in capsys.readouterr().err
    assert len(list(Path("out").iterdir())) == 3


def test_one_photo_and_a_glob_and_local_photos_into_a_store(
    stylize: Command, store: fsspec.AbstractFileSystem
) -> None:
    assert stylize("memory://in/a.png", "-o", "one.png") == 0
    assert stylize("memory://in/*.png", "-o", "memory://globbed/") == 0
    assert stylize("in/a.png", "-o", "memory://near") == 0
    assert store.cat_file("/globbed/a.wave.png") == Path("one.png").read_bytes()
    assert store.cat_file("/near/a.wave.png") == Path("one.png").read_bytes()


def test_masks_in_a_store_are_those_of_a_folder_and_a_new_one_redoes_its_pictures(
    stylize: Command,
    store: fsspec.AbstractFileSystem,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_jobs, "_CLOCK_STEP", 0.001)  # this store's clock has finer ones

    def mask(level: int) -> None:
        Image.new("L", (20, 16), level).save("masks/a.png")
        store.pipe_file("/masks/a.png", Path("masks/a.png").read_bytes())

    Path("masks").mkdir()
    store.rm_file("/in/b.jpg")
    store.rm_file("/in/c.gif")
    mask(90)
    assert stylize("in/a.png", "-o", "out", "--mask", "masks") == 0
    far = ("memory://in/", "-o", "memory://out/", "--mask")
    assert stylize(*far, "memory://masks/") == 0
    made = Path("out/a.wave.png").read_bytes()
    assert store.cat_file("/out/a.wave.png") == made
    assert stylize("in/a.png", "-o", "near", "--mask", "memory://masks/a.png") == 0
    assert Path("near/a.wave.png").read_bytes() == made
    capsys.readouterr()
    for place, level in (("memory://masks/", 200), ("masks", 40)):
        assert stylize(*far, place) == 0
        capsys.readouterr()
        assert stylize(*far, place) == 0
        assert "1 already there, skipped" in capsys.readouterr().err
        mask(level)
        assert stylize(*far, place) == 0
        assert "1 redone" in capsys.readouterr().err
    assert store.cat_file("/out/a.wave.png") != made


def test_a_model_in_a_store_is_found_by_file_and_by_folder(
    stylize: Command, store: fsspec.AbstractFileSystem
) -> None:
    for address in ("memory://models/wave.pth", "memory://models"):
        found = find_model(address)
        assert found.name == "wave.pth"
        assert found.read_bytes() == store.cat_file("/models/wave.pth")
    with pytest.raises(CheckpointError, match=r"memory://models/gone\.pth: No such file"):
        find_model("memory://models/gone.pth")
    assert main(["--model", "memory://models/wave.pth", "in/a.png", "-o", "out/"]) == 0
    assert load_image("out/a.wave.png").shape == (3, 16, 20)


def test_a_photo_that_is_gone_is_named_with_its_address(store: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(ImageError, match=r"memory://in/gone\.png: no such image file"):
        load_image("memory://in/gone.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("memory://in",), "photos in a store need --output"),
        (("memory://empty", "-o", "out"), "memory://empty: "),
        (("memory://in", "-o", "memory://x.png"), "memory://x.png: is one file"),
        (("memory://in/a.png", "-o", "memory://in/a.png"), "memory://in/a.png: is an input"),
        (("memory://in", "-o", "out", "--mask", "memory://none"), "memory://none: holds no masks"),
        (("memory://in", "-o", "out", "--mask", "memory://in"), "--mask memory://in: there are no"),
        (("memory://in", "-o", "out", "--manifest", "memory://m.json"), "--manifest memory://m"),
        (("memory://in", "--sheet", "s.png"), "--sheet draws photos of this machine"),
        (("s3://a:b@c/in", "-o", "out"), "an address with credentials in it"),
    ],
)
def test_a_mistake_is_one_line(
    stylize: Command, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert stylize(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "wave.pth", "s3://b/c.pth"), "s3://b/c.pth: is an address"),
        (
            ("distill", "--model", "wave.pth", "--images", "in", "-o", "s3://b/c.pth"),
            "s3://b/c.pth",
        ),
        (("optimize", "--content", "in", "--style", "in/a.png", "-o", "s3://b/out"), "s3://b/out"),
        (
            ("evaluate", "--model", "memory://models/wave.pth", "--images", "in", "--stamp"),
            "--stamp: memory://models/wave.pth: is an address",
        ),
        (
            ("evaluate", "--card", "--model", "memory://models", "--images", "in", "--stamp"),
            "--stamp: memory://models: is an address",
        ),
    ],
)
def test_an_address_where_none_can_be_is_refused_and_makes_no_folder(
    stylize: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert commands.main([*arguments]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_of_photos_lies_on_this_machine(tmp_path: Path) -> None:
    preparation = Preparation(sizes=(32,), min_crop=0.75)
    with pytest.raises(CacheError, match=r"data\.cache: s3://bucket/cache: "):
        open_cache(Path("s3://bucket/cache"), [tmp_path / "a.png"], preparation=preparation)


def test_a_run_in_a_store_is_resumed_on_another_machine_to_the_bits_of_the_unbroken_run(
    store: fsspec.AbstractFileSystem,
    tmp_path: Path,
    vgg_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in write_photos(tmp_path / "photos", 6):
        store.pipe_file(f"/photos/{path.name}", path.read_bytes())
    style = tmp_path / "photos/photo-000.png"
    data = tiny_config_data(photos=Path("memory://photos"), style=style, weights=vgg_file)
    config = config_from_dict(data)
    monkeypatch.chdir(tmp_path)
    here = config_from_dict({**data, "data": {**data["data"], "train": str(tmp_path / "photos")}})
    unbroken = load_model(train(here, tmp_path / "unbroken", device="cpu").model).network
    steps = config.training.steps
    stops = iter([False] * (steps // 2) + [True] * steps)
    for machine, stop in (("one", lambda: next(stops)), ("two", lambda: False)):
        (tmp_path / machine).mkdir()
        monkeypatch.chdir(tmp_path / machine)
        result = train(config, "memory://run", device="cpu", should_stop=stop)
        assert result.finished == (machine == "two")
        names = {Path(path).name for path in store.find("/run")}
        assert {"config.yaml", f"{config.name}.pth", f"state-{result.step:08d}.pt"} <= names
        assert len(names) <= 4
    resumed = load_model(store.cat_file(f"/run/{config.name}.pth")).network.state_dict()
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed[name], value)
    assert train(config, "memory://run", device="cpu").step == steps
