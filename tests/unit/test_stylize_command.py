"""Which files are stylized into which names, and what the command reports of them."""

import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from synthetic import photo
from torch import Tensor

from fast_style.checkpoints.files import save_model
from fast_style.commands.stylize import main
from fast_style.images import ImageError, deep, read_picture, write_picture
from fast_style.networks.streaming import StreamingTransformer
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization.jobs import plan_jobs

Command = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stylize(folder: Path, tiny_network: TransformerNet) -> Command:
    """Run the command with a tiny model called wave."""
    (folder / "models").mkdir()
    model = save_model(folder / "models" / "wave.pth", tiny_network)
    return lambda *arguments: main(["--model", str(model), *map(str, arguments)])


def put(*names: str) -> None:
    """Write a small picture under each name."""
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photo(seed, 16, 20).save(name)


def save_signed(name: str) -> None:
    """Write a small picture that is signed by this program."""
    put(name)
    write_picture(read_picture(name), name)


def planned(*arguments: str, **options: object) -> dict[str, str]:
    jobs, errors = plan_jobs(arguments, "wave", **options)  # type: ignore[arg-type]
    assert not errors
    return {job.input.as_posix(): job.output.as_posix() for job in jobs}


def test_an_output_is_beside_its_input_and_named_after_the_model(folder: Path) -> None:
    put("in/a.jpg", "in/b.PNG", "in/c.gif")
    assert planned("in") == {
        "in/a.jpg": "in/a.wave.jpg",
        "in/b.PNG": "in/b.wave.PNG",
        "in/c.gif": "in/c.gif.wave.png",
    }


@pytest.mark.parametrize("extension", [None, ".png", ".jpg"])
def test_names_differ_and_depend_on_neighbours_of_the_same_output_only(
    folder: Path, extension: str | None
) -> None:
    names = ["a.jpg", "a.png", "a.gif", "a.jpeg", "a.gif.png"]
    put(*names)
    together = planned(*names, extension=extension)
    assert len(set(together.values())) == len(names)
    for name in ("a.jpg", "a.png", "a.gif", "a.jpeg"):
        alone = planned(name, extension=extension)[name]
        assert alone == together[name] or alone == "a.gif.wave.png"


def test_equal_names_of_two_folders_are_kept_apart(folder: Path) -> None:
    put("x/a.jpg", "y/a.jpg", "y/b.jpg")
    assert planned("x/a.jpg", "y/a.jpg", "y/b.jpg", output="out") == {
        "x/a.jpg": "out/x/a.jpg.wave.jpg",
        "y/a.jpg": "out/y/a.jpg.wave.jpg",
        "y/b.jpg": "out/b.wave.jpg",
    }


def test_a_tree_is_mirrored(folder: Path) -> None:
    put("in/a.png", "in/x/a.png", "in/x/y/b.png", "in/.hidden.png")
    Path("in/notes.txt").write_text("no image")
    assert planned("in", output="out") == {"in/a.png": "out/a.wave.png"}
    tree = {
        "in/a.png": "out/a.wave.png",
        "in/x/a.png": "out/x/a.wave.png",
        "in/x/y/b.png": "out/x/y/b.wave.png",
    }
    assert planned("in", output="out", recursive=True) == tree
    assert planned("in/**/*.png", output="out") == tree
    assert planned("in/x/*.png", "in/x/a.png") == {"in/x/a.png": "in/x/a.wave.png"}


@pytest.mark.parametrize(
    ("arguments", "output", "message"),
    [
        (["gone.jpg"], None, "gone.jpg: no such image file or folder"),
        (["*.gone"], None, r"\*.gone: matches no images"),
        (["empty"], None, "empty: holds no images; --recursive looks"),
        (["a.png", "b.png"], "c.png", "c.png: is one file, but there may be several images"),
        (["."], "c.png", "c.png: is one file"),
        (["a.png"], "a.png", "a.png: is an input, and inputs are never overwritten"),
        (["a.png"], "link.png", "link.png: is an input"),
        (["-", "a.png"], None, "must be the only one"),
        (["-"], "empty", "name a file for standard input"),
    ],
)
def test_a_mistake_is_named_before_any_work(
    folder: Path, arguments: list[str], output: str | None, message: str
) -> None:
    put("a.png", "b.png", "empty/deeper/c.png")
    Path("link.png").symlink_to("a.png")
    with pytest.raises(ImageError, match=message):
        planned(*arguments, output=output)


def test_a_folder_is_stylized_once(stylize: Command, capsys: pytest.CaptureFixture[str]) -> None:
    put("in/a.png", "in/b.jpg", "in/c.gif", "in/d.bmp", "in/e.f.png")
    assert stylize("in") == 0
    outputs = ["a.wave.png", "b.wave.jpg", "c.gif.wave.png", "d.wave.bmp", "e.f.wave.png"]
    names = sorted([*outputs, "a.png", "b.jpg", "c.gif", "d.bmp", "e.f.png"])
    assert sorted(path.name for path in Path("in").iterdir()) == names
    capsys.readouterr()
    assert stylize("in") == 0
    assert "5 already there, skipped, --overwrite redoes" in capsys.readouterr().err
    assert stylize("in", "-o", "in", "--overwrite") == 0
    assert stylize(*Path("in").glob("*.*")) == 0
    assert sorted(path.name for path in Path("in").iterdir()) == names


def test_a_model_with_a_dot_in_its_name_finds_its_outputs(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("in/a.png", "in/b.c.jpg", "in/d.bmp")
    models = ["models/w.v2.pth", "models/wave.pth"]
    Path(models[0]).write_bytes(Path(models[1]).read_bytes())
    for count in (6, 6):
        assert main(["in", "--model", models[0]]) == 0
        assert len(list(Path("in").iterdir())) == count
    assert "3 already there, skipped" in capsys.readouterr().err
    assert main(["in", "--model", models[0], "--overwrite"]) == 0
    # A BMP holds no signature: to another model it is a photo.
    Path("in/d.w.v2.bmp").unlink()
    for model in (models[1], *models):
        assert main(["in", "--model", model]) == 0
    assert sorted(path.name for path in Path("in").glob("[ab].*")) == [
        "a.png", "a.w.v2.png", "a.wave.png", "b.c.jpg", "b.c.w.v2.jpg", "b.c.wave.jpg"
    ]  # fmt: skip


def test_an_output_whose_source_is_gone_is_not_its_neighbours(folder: Path) -> None:
    put("in/a.png")
    save_signed("in/a.b.wave.png")
    assert planned("in") == {
        "in/a.png": "in/a.wave.png",
        "in/a.b.wave.png": "in/a.b.wave.wave.png",
    }


def test_an_output_that_lost_its_signature_is_no_input(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("in/a.png", "in/b.png")
    assert stylize("in") == 0
    put("in/a.wave.png")  # as an optimiser leaves it
    before = {path: path.read_bytes() for path in Path("in").iterdir()}
    for images in ("in", "in/*.png"):
        assert stylize(images) == 0
        assert "2 already there, skipped" in capsys.readouterr().err
    assert planned("in", output=str(Path("in").absolute())).keys() == {"in/a.png", "in/b.png"}
    assert stylize("in", "--overwrite") == 2
    assert stylize("in/a.png", "in/a.wave.png") == 2
    assert stylize("in", "in/a.wave.png") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all("in/a.wave.png: is an input, and inputs are never" in line for line in said)
    assert {path: path.read_bytes() for path in Path("in").iterdir()} == before


def test_a_photo_that_a_link_leads_to_is_not_left_out(folder: Path) -> None:
    put("in/a.png", "in/b.png")
    Path("in/a.wave.png").symlink_to("b.png")
    with pytest.raises(ImageError, match=r"in/a.wave.png: is an input"):
        planned("in")


def test_an_output_folder_inside_the_input_is_no_input(stylize: Command) -> None:
    put("in/a.png", "in/x/b.png")
    Path("in/loop.png").symlink_to("loop.png")
    Path("in/gone.png").symlink_to("nothing.png")
    for _ in range(2):
        assert stylize("in", "--recursive", "-o", "in/out") == 0
    assert sorted(str(path) for path in Path("in/out").rglob("*.*")) == [
        "in/out/a.wave.png",
        "in/out/x/b.wave.png",
    ]


def test_an_output_alone_may_be_stylized_again(stylize: Command) -> None:
    put("a.png")
    assert stylize("a.png") == 0
    assert stylize("a.wave.png") == 0
    assert Path("a.wave.wave.png").is_file()


def test_bad_files_are_reported_and_the_rest_goes_on(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("in/a.png", "in/z.png")
    Path("in/empty.jpg").write_bytes(b"")
    Path("in/cut.png").write_bytes(Path("in/a.png").read_bytes()[:200])
    assert stylize("in", "-o", "out", "--manifest", "m.json") == 1
    said = capsys.readouterr()
    assert "error: in/empty.jpg: is empty\n" in said.err
    assert "error: in/cut.png: damaged or unreadable" in said.err
    assert "2 stylized, 2 failed" in said.err
    assert [line.split(" (")[0] for line in said.out.splitlines()] == [
        "out/a.wave.png",
        "out/z.wave.png",
    ]
    entries = [json.loads(line) for line in Path("m.json").read_text().splitlines()]
    assert [entry["input"] for entry in entries] == [
        "in/a.png",
        "in/cut.png",
        "in/empty.jpg",
        "in/z.png",
    ]
    assert entries[0]["size"] == [20, 16]
    assert entries[0]["seconds"] >= 0
    assert entries[2]["error"] == "in/empty.jpg: is empty"
    assert entries[2]["size"] is None


def test_what_a_folder_holds_beside_images_is_counted_in_a_line(
    stylize: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no extra is installed
    put("in/a.jfif", "in/b.ppm", "in/out/c.png")
    for name in ("x.psd", "y.PSD", "z.mov", "raw.nef", ".hidden.txt", "noext", "out/made.psd"):
        Path("in", name).write_bytes(b"")
    assert stylize("in", "-o", "in/out", "--recursive") == 0
    said = capsys.readouterr()
    assert (
        "5 files left out: 2 .psd, 1 without extension, 1 .mov, 1 .nef; for cameras' raw files: "
        "pip install 'fast-style[raw]'\n"
    ) in said.err
    assert [line.split(" (")[0] for line in said.out.splitlines()] == [
        "in/out/a.wave.jfif",
        "in/out/b.ppm.wave.png",
    ]
    assert read_picture("in/out/a.wave.jfif").file_format == "JPEG"
    assert stylize("in/a.jfif", "-o", "o.jfif") == 0
    assert "left out" not in capsys.readouterr().err


def test_a_folder_with_brackets_in_its_name_is_no_pattern(stylize: Command) -> None:
    put("holiday [2019]/a.png", "holiday [2019]/day [1]/b.png", "x/y [1]/c.png")
    assert stylize("holiday [2019]/*.png", "-o", "1") == 0
    assert stylize("holiday [2019]/day [1]/*.png", "-o", "2") == 0
    assert stylize("*/y [1]/*.png", "-o", "3") == 0
    assert stylize("holiday ?2019[]]/[ab].png", "-o", "4") == 0
    found = {folder: [path.name for path in Path(folder).rglob("*.png")] for folder in "1234"}
    assert found == {
        "1": ["a.wave.png"],
        "2": ["b.wave.png"],
        "3": ["c.wave.png"],
        "4": ["a.wave.png"],
    }


def test_whatever_a_codec_raises_is_the_photos_own_error(
    stylize: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/a.png", "in/b.png", "in/c.png")
    load = PngImageFile.load

    def fails(self: PngImageFile) -> Any:
        if self.fp is not None and "b.png" in str(getattr(self.fp, "name", "")):
            raise RuntimeError("Invalid image grid\nof two lines")
        return load(self)

    monkeypatch.setattr(PngImageFile, "load", fails)
    assert stylize("in", "-o", "out") == 1
    said = capsys.readouterr().err
    assert "error: in/b.png: damaged or unreadable: Invalid image grid of two lines\n" in said
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.wave.png", "c.wave.png"]


def test_whatever_stylizing_or_writing_raises_is_the_photos_own_error(
    stylize: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/a.png", "in/b.png", "in/c.png")
    strips = StreamingTransformer.strips
    seen: list[int] = []

    def fails(self: StreamingTransformer, image: Tensor, **options: Any) -> Iterator[Any]:
        seen.append(1)
        if len(seen) == 2:
            raise RuntimeError("a kernel failed")
        return strips(self, image, **options)

    monkeypatch.setattr(StreamingTransformer, "strips", fails)
    assert stylize("in", "-o", "out") == 1
    assert "in/b.png: cannot be stylized: RuntimeError: a kernel" in capsys.readouterr().err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.wave.png", "c.wave.png"]


def test_a_write_that_fails_is_reported(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a.png")
    Path("out").write_text("a file where a folder is wanted")
    assert stylize("a.png", "-o", "out/") == 1
    assert "error: out/a.wave.png: cannot be written: File exists" in capsys.readouterr().err


def test_a_picture_too_long_for_its_format_fails_before_the_work_and_the_rest_goes_on(
    stylize: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/b.png")
    photo(1, 1, 16384).save("in/a.png")
    sizes = []
    strips = StreamingTransformer.strips

    def noted(self: StreamingTransformer, image: Tensor, **options: Any) -> Iterator[Any]:
        sizes.append(tuple(image.shape[1:]))
        return strips(self, image, **options)

    monkeypatch.setattr(StreamingTransformer, "strips", noted)
    assert stylize("in", "--format", "webp", "-o", "out") == 1
    said = capsys.readouterr()
    assert "error: out/a.png.wave.webp: cannot be written: 16384×1 is over the 16383" in said.err
    assert "use PNG or TIFF, or a smaller size" in said.err
    assert sizes == [(16, 20)]
    assert [path.name for path in Path("out").iterdir()] == ["b.png.wave.webp"]
    assert stylize("in", "--format", "webp", "-o", "out", "--size", "100") == 0


def test_a_picture_too_large_for_any_memory_fails_alone(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("in/a.png", "in/b.png")
    assert stylize("in", "-o", "out", "--size", "2000000000") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == ("error: in/a.png: out of memory: try --tile 64 or a smaller --size")
    assert len(said) == 3


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a path be unreadable, to root too."""
    names = set()
    scandir, stat = os.scandir, Path.stat

    def check(path: object) -> None:
        if str(path) in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def checked_scandir(path: str) -> Any:
        check(path)
        return scandir(path)

    def checked_stat(path: Path, **options: Any) -> os.stat_result:
        check(path if path.suffix else None)
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", checked_scandir)
    monkeypatch.setattr(Path, "stat", checked_stat)
    return names.add


def test_what_is_unreadable_in_a_folder_is_reported_and_the_rest_goes_on(
    stylize: Command, capsys: pytest.CaptureFixture[str], locked: Callable[[str], None]
) -> None:
    put("in/a.png", "in/b.png", "in/x/c.png")
    locked("in/b.png")
    locked("in/x")
    assert stylize("in", "--recursive", "-o", "out", "--manifest", "m.json") == 1
    assert [path.name for path in Path("out").iterdir()] == ["a.wave.png"]
    said = capsys.readouterr().err
    for name in ("in/b.png", "in/x"):
        assert f"error: {name}: Permission denied\n" in said
    assert said.endswith("1 stylized, 2 failed\n")
    entries = [json.loads(line) for line in Path("m.json").read_text().splitlines()]
    assert {entry["input"] for entry in entries if entry["error"]} == {"in/b.png", "in/x"}
    assert stylize("in", "--recursive", "--sheet", "s.png", "--size", "20") == 1
    assert "error: in/x: Permission denied\n" in capsys.readouterr().err
    assert Path("s.png").is_file()


def test_a_named_folder_that_is_unreadable_is_exit_code_2(
    stylize: Command, capsys: pytest.CaptureFixture[str], locked: Callable[[str], None]
) -> None:
    put("in/a.png")
    locked("in")
    for options in ([], ["--recursive"]):
        assert stylize("in", *options) == 2
        assert capsys.readouterr().err == "error: in: Permission denied\n"


def test_a_name_too_long_for_an_output_is_reported_and_the_rest_goes_on(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"in/{'n' * 250}.png"
    put("in/a.png", name)
    assert stylize("in") == 1
    output = f"in/{'n' * 250}.wave.png"
    said = capsys.readouterr().err
    assert f"error: {name}: its output {output}: File name too long\n" in said
    assert "1 stylized, 1 failed" in said
    assert stylize(name) == 2


def test_a_name_that_is_not_utf_8_is_kept(
    stylize: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"in/\xff.png")
    try:
        put(name)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    said = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(said, encoding="utf-8"))
    assert stylize("in", "--manifest", "m.json") == 0
    (entry,) = map(json.loads, Path("m.json").read_text(encoding="utf-8").splitlines())
    assert entry["input"] == name
    assert Path(entry["output"]).is_file()
    assert stylize("in", "--overwrite", "--json") == 0
    assert json.loads(said.getvalue().splitlines()[-1])["input"] == name


def test_a_manifest_is_that_of_the_last_run(stylize: Command) -> None:
    put("a.png", "b.png")
    for name in ("a.png", "b.png"):
        assert stylize(name, "--manifest", "m.json") == 0
    (entry,) = map(json.loads, Path("m.json").read_text().splitlines())
    assert entry["input"] == "b.png"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("victim.JPG", "is named like an image: name a .json file"),
        ("new.heic", "is named like an image"),
        ("models/wave.pth", "is named like a model"),
        ("photo", "is an input: name another file"),
        ("model", "is the model: name another file"),
        ("output", "is an output: name another file"),
    ],
)
def test_a_manifest_overwrites_no_picture_and_no_model(
    stylize: Command, capsys: pytest.CaptureFixture[str], manifest: str, message: str
) -> None:
    put("photo.png", "victim.JPG", "photo.wave.png")
    Path("photo").write_bytes(Path("photo.png").read_bytes())
    Path("model").symlink_to("models/wave.pth")
    Path("output").symlink_to("photo.wave.png")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert stylize("photo", "--manifest", manifest) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --manifest {manifest}: {message}")
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_json_lines_are_all_that_is_printed(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a.png", "b.gif")
    Path("a.wave.png").write_bytes(b"there")
    assert stylize("a.png", "b.gif", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"input": "a.png", "output": "a.wave.png", "skipped": True}
    assert lines[1]["error"] is None
    assert Path("a.wave.png").read_bytes() == b"there"


def test_standard_input_becomes_standard_output(
    stylize: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.png")
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("a.png").read_bytes())))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output))
    assert stylize("-", "--format", "jpg") == 0
    with Image.open(output) as image:
        assert (image.format, image.size) == ("JPEG", (20, 16))


@pytest.mark.parametrize("options", [[], ["--format", "png"]])
def test_16_bits_go_to_standard_output(
    stylize: Command, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    put("a.jpg")
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output))
    assert stylize("a.jpg", "-o", "-", "--depth", "16", *options) == 0
    assert output.getvalue()[:4] == b"\x89PNG"
    assert output.getvalue()[24] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--model", "wave"], "several --model need --sheet"),
        (["a.png", "-o", "b.xyz"], "cannot write the image format '.xyz'"),
        (["a.png", "-o", "b.jpg", "--format", "png"], "--format png, but b.jpg is JPEG"),
        (["a.png", "-o", "b.jpg", "--depth", "16"], "JPEG holds no 16 bits"),
        (["a.png", "--quality", "0"], "--quality 0 is impossible"),
        (["a.png", "--strength", "2"], "strength 2.0 is impossible"),
        (["a.png", "--tile", "0"], "tile 0"),
        (["-", "--json"], "cannot both go to standard output"),
        (["a.png", "--manifest", "gone/m.json"], "gone/m.json: No such file"),
        (["-", "--sheet", "s.png"], "--sheet reads files"),
        (["a.png", "--sheet", "a.png"], "a.png: is an input"),
        ([".", "--sheet", "a.png"], ".: holds no images"),
        (["a.png", "--sheet", "gone/s.png"], "gone/s.png: there is no folder gone"),
        (["a.png", "--sheet", "s.png", "--quality", "0"], "--quality 0 is impossible"),
        (["a.png", "--sheet", "s.png", "--size", "-5"], "--size -5 is impossible"),
        (["a.png", "--sheet", "s.png", "--size", "0"], "--size 0 is impossible"),
        (["a.png", "--sheet", "s.png", "--size", "2000000000"], "s.png: out of memory"),
        (["a.png", "--sheet", "s.png", "-o", "out"], "--output does nothing for a --sheet"),
        (["a.png", "--sheet", "s.png", "--format", "png"], "--format does nothing"),
        (["a.png", "--sheet", "s.png", "--depth", "8"], "--depth does nothing"),
        (["a.png", "--sheet", "s.png", "--manifest", "m.json"], "--manifest does nothing"),
        (["a.png", "--sheet", "s.png", "--json"], "--json does nothing"),
        (["a.png", "--sheet", "s.png", "--keep-metadata"], "--keep-metadata does nothing"),
        (["a.png", "--size", "0"], "--size 0 is impossible"),
        (["a.png", "--size", f"{10**20}"], f"--size {10**20} is impossible"),
        (["-", "--depth", "16", "--format", "jpg"], "standard output: JPEG holds no 16 bits"),
        ([f"{'n' * 300}.png"], f"{'n' * 300}.png: "),
        (["a.png", "-o", "n" * 300], "n" * 300),
        (["a.png", "--manifest", "n" * 300], f"{'n' * 300}: "),
        (["a.png", "--sheet", f"{'n' * 300}.png"], f"{'n' * 300}.png: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    stylize: Command, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    put("a.png")
    before = sorted(Path().iterdir())
    assert stylize(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("keep", [[], ["--keep-metadata"]])
def test_an_output_made_with_other_settings_is_redone(
    stylize: Command, capsys: pytest.CaptureFixture[str], extension: str, keep: list[str]
) -> None:
    put(f"a.{extension}")
    output = Path(f"a.wave.{extension}")
    assert stylize(f"a.{extension}", "--strength", "0.6", *keep) == 0
    first = output.read_bytes()
    capsys.readouterr()
    assert stylize(f"a.{extension}", "--strength", "0.6", *keep) == 0
    assert "1 already there, skipped" in capsys.readouterr().err
    assert output.read_bytes() == first
    assert stylize(f"a.{extension}", "--strength", "0.3", *keep) == 0
    assert "1 redone with these settings\n" in capsys.readouterr().err
    assert output.read_bytes() != first
    assert stylize(f"a.{extension}", "--strength", "0.6", *keep) == 0
    assert output.read_bytes() == first


def test_an_output_of_a_model_that_has_changed_is_redone(
    stylize: Command, tiny_network: TransformerNet
) -> None:
    put("a.png")
    assert stylize("a.png") == 0
    first = Path("a.wave.png").read_bytes()
    with torch.no_grad():
        next(tiny_network.parameters()).mul_(2)
    save_model("models/wave.pth", tiny_network)
    assert stylize("a.png") == 0
    assert Path("a.wave.png").read_bytes() != first


def test_what_does_not_say_how_it_was_made_is_left_alone(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a.png", "b.png", "c.png", "d.bmp")
    assert stylize("d.bmp") == 0
    Path("a.wave.png").write_bytes(b"no picture")
    put("b.wave.png")
    save_signed("c.wave.png")  # as an earlier version wrote it
    before = {path: path.read_bytes() for path in Path().glob("*.wave.*")}
    capsys.readouterr()
    assert stylize("a.png", "b.png", "c.png", "d.bmp", "--strength", "0.5") == 0
    assert "4 already there, skipped, --overwrite redoes" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().glob("*.wave.*")} == before


def test_a_missing_model_is_exit_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("a.png")
    assert main(["a.png"]) == 2
    assert "error: --model is missing" in capsys.readouterr().err
    assert main(["--model", "gone", "a.png"]) == 2


@pytest.mark.skipif(not deep.available(), reason="needs pip install 'fast-style[formats]'")
def test_16_bits_are_written(stylize: Command) -> None:
    put("a.png")
    assert stylize("a.png", "--depth", "16") == 0
    assert Path("a.wave.png").read_bytes()[24] == 16
    assert stylize("a.wave.png", "-o", "again.png") == 0
    assert Path("again.png").read_bytes()[24] == 16
    assert stylize("a.wave.png", "-o", "eight.png", "--depth", "8") == 0
    assert Path("eight.png").read_bytes()[24] == 8


def test_transparency_stays_and_does_not_bleed(stylize: Command) -> None:
    rgba = photo(1, 24, 24).convert("RGBA")
    alpha = Image.new("L", rgba.size, 255)
    alpha.paste(0, (0, 0, 12, 24))
    results = []
    for number, hidden in enumerate(("red", "lime")):
        image = Image.new("RGBA", rgba.size, hidden)
        image.paste(rgba, mask=alpha)
        image.putalpha(alpha)
        image.save(f"{number}.png")
        assert stylize(f"{number}.png") == 0
        with Image.open(f"{number}.wave.png") as stylized:
            results.append(stylized.tobytes())
            assert stylized.getchannel("A").tobytes() == alpha.tobytes()
    assert results[0] == results[1]
    assert stylize("0.png", "--size", "12", "-o", "small.png") == 0
    with Image.open("small.png") as small:
        assert (small.size, small.mode) == ((12, 12), "RGBA")


def test_a_sheet_shows_the_photo_and_each_model(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    put("in/a.png", "in/b.png")
    Path("in/bad.png").write_bytes(b"")
    arguments = ["--model", "models/wave.pth", "--sheet", "s.png", "--size", "20"]
    assert stylize("in/a.png", *arguments) == 0
    with Image.open("s.png") as sheet:
        # Two rows of two pictures.
        assert sheet.size == (12 + 2 * (20 + 12), 12 + 2 * (16 + 28 + 12))
        with Image.open("in/a.png") as photograph:
            assert sheet.crop((12, 12, 32, 28)).tobytes() == photograph.tobytes()
    assert stylize("in/a.png", *arguments) == 0
    assert "--overwrite redoes it" in capsys.readouterr().err
    assert stylize("in", *arguments, "--overwrite") == 1
    assert "in/bad.png: is empty" in capsys.readouterr().err
    with Image.open("s.png") as sheet:
        # A row of three for each photo.
        assert sheet.size == (12 + 3 * (20 + 12), 12 + 2 * (16 + 28 + 12))


def test_a_sheet_in_the_folder_that_it_shows_is_not_shown(
    stylize: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    # Named like an output, as its own name is of no meaning here.
    put("in/a.png", "in/a.sheet.png")
    sheets = []
    for images in ("in", "in", "in/*.png"):
        assert stylize(images, "--sheet", "in/s.png", "--size", "20", "--overwrite") == 0
        with Image.open("in/s.png") as sheet:
            sheets.append((sheet.size, sheet.tobytes()))
    assert sheets[0][0][1] == 12 + 2 * (16 + 28 + 12)
    assert sheets[0] == sheets[1] == sheets[2]
    assert stylize("in", "in/s.png", "--sheet", "in/s.png", "--overwrite") == 2
    assert "in/s.png: is an input" in capsys.readouterr().err
