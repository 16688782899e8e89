import os
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image

pytest.importorskip("av", reason="needs PyAV: pip install 'fast-style[video]'")

from clips import moving, read_clip, write_clip

from fast_style.checkpoints.files import save_model
from fast_style.commands import stylize
from fast_style.networks.transformer import TransformerNet

HOLDER = """
import sys, time
from pathlib import Path
from fast_style.locking import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.take()
time.sleep(60)
"""


@pytest.fixture
def model(tiny_network: TransformerNet, tmp_path: Path) -> str:
    save_model(tmp_path / "tiny.pth", tiny_network, metadata={"config": {}, "step": 0})
    return str(tmp_path / "tiny.pth")


def test_a_clip_is_stylized_beside_itself_once(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(5))
    assert stylize.main(["--model", model, str(clip)]) == 0
    output = tmp_path / "a.tiny.mp4"
    told = capsys.readouterr().out
    assert told.startswith(f"{output} (5 frames, ")
    assert "frames/s, steadied)" in told
    os.utime(output, (1e9, 1e9))  # or it would be of this second, the finest that some disks keep
    before = output.stat().st_mtime_ns
    assert stylize.main(["--model", model, str(clip)]) == 0
    assert "already there; --overwrite redoes it" in capsys.readouterr().err
    assert output.stat().st_mtime_ns == before
    assert stylize.main(["--model", model, str(clip), "--overwrite", "--no-steady"]) == 0
    assert "steadied" not in capsys.readouterr().out
    assert output.stat().st_mtime_ns != before


@pytest.mark.skipif(sys.platform == "win32", reason="a held file cannot be read there")
def test_one_process_at_a_time_works_on_a_clip(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, output = write_clip(tmp_path / "a.mp4", moving(3)), tmp_path / "out.mp4"
    lock = tmp_path / ".out.mp4.parts" / "run.lock"
    lock.parent.mkdir()
    holder = processes.start([sys.executable, "-c", HOLDER, str(lock)])
    try:
        while not (lock.exists() and lock.read_text() == f"{holder.pid}\n"):
            assert holder.poll() is None
            time.sleep(0.01)
        assert stylize.main(["--model", model, str(clip), "-o", str(output)]) == 2
        assert capsys.readouterr().err == (
            f"error: {output}: is being made by another process (pid {holder.pid}): wait for it, "
            "stop it, or name another --output\n"
        )
        assert list(lock.parent.iterdir()) == [lock]
    finally:
        holder.kill()
        holder.wait()
    assert stylize.main(["--model", model, str(clip), "-o", str(output)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "out.mp4", "tiny.pth"}


def test_a_gif_becomes_a_gif_still_or_cut_off(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [Image.effect_noise((20, 16), 60) for _ in range(4)]
    pictures[0].save(tmp_path / "still.gif")
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=50)
    data = (tmp_path / "a.gif").read_bytes()
    second = data.index(b"\x21\xf9", data.index(b"\x21\xf9") + 1)
    (tmp_path / "cut.gif").write_bytes(data[: second + 10])
    (tmp_path / "no.gif").write_bytes(b"nothing")
    for name, code, said in (
        ("still", 0, ""),
        ("cut", 1, "what comes after its last frame could not be read"),
        ("no", 2, "no.gif: damaged: cannot identify image file"),
    ):
        output = tmp_path / f"{name}.out.gif"
        arguments = ["--model", model, str(tmp_path / f"{name}.gif"), "-o", str(output)]
        assert stylize.main(arguments) == code
        assert said in capsys.readouterr().err
        assert output.exists() == (code < 2)


def test_several_clips_go_into_a_folder(model: str, tmp_path: Path) -> None:
    clips = [str(write_clip(tmp_path / f"{name}.mkv", moving(3))) for name in "ab"]
    assert stylize.main(["--model", model, *clips, "-o", str(tmp_path / "out/")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.tiny.mkv",
        "b.tiny.mkv",
    ]


def test_looks_and_codings_reach_the_clip(model: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(3))
    arguments = ["--model", model, str(clip), "-o", str(tmp_path / "out.mkv"), "--size", "32"]
    arguments += ["--strength", "0", "--codec", "ffv1", "--workers", "2", "--no-steady"]
    assert stylize.main(arguments) == 0
    _, frames = read_clip(tmp_path / "out.mkv")
    assert frames[0].shape == (24, 32, 3)
    small = np.array(Image.fromarray(read_clip(clip)[1][0]).resize((32, 24), Image.BICUBIC))
    assert np.abs(frames[0].astype(int) - small).mean() < 3


def test_what_is_lost_is_counted_and_the_exit_code_says_so(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "a.mkv", moving(75), options={"crf": "12", "g": "10"})
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    assert stylize.main(["--model", model, str(clip), "--no-steady"]) == 1
    told = capsys.readouterr()
    assert f"error: {clip}: the last " in told.err
    assert "s are missing" in told.err
    assert (tmp_path / "a.tiny.mkv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "photo.jpg"], r"a.mp4 is a clip and photo.jpg is not: stylize them apart"),
        (["a.mp4", "--depth", "16"], r"--depth does nothing for a clip: leave it out"),
        (["a.mp4", "-o", "a.mp4"], r"a.mp4: is the input, which is never overwritten"),
        (["a.mp4", "b.mp4", "-o", "c.mp4"], r"c.mp4: several clips would become one file"),
        (["a.mp4", "-o", "c.txt"], r"c.txt: cannot write a clip as .txt"),
        (["a.mp4", "in/a.mp4", "-o", "out/"], r"would become one file, a.mp4 and in/a.mp4: name"),
        (["a.mp4", "a.tiny.mp4", "--overwrite"], r"a.tiny.mp4: is the input, which is never over"),
        (
            ["in/%d.png", "-o", "in/%d.png", "--overwrite"],
            r"in/1.png: is the input, which is never",
        ),
        (["in/%d.png", "-o", "in/%d.png"], r"in/1.png: is the input, which is never overwritten"),
        (["a.mp4", "-o", "-"], r"-o -: a clip becomes a file on this machine: name one"),
        (["a.mp4", "-o", "s3://b/out/"], r"-o s3://b/out/: a clip becomes a file on this machine"),
        (["s3://b/a.mp4"], r"s3://b/a.mp4: is a clip in a store: copy it to this machine first"),
        (["a.mp4", "--rate", "50"], r"--rate is for numbered pictures: a clip has its own"),
        (["photo.jpg", "--rate", "25"], r"--rate is for clips, and here are none: leave it out"),
        (["photo.jpg", "--no-steady"], r"--steady is for clips, and here are none: leave it out"),
        (["photo.jpg", "--sheet", "s.jpg", "--codec", "vp9"], r"--codec is for clips, and here"),
        (["huge.gif", "-o", "out.gif"], r"huge.gif: damaged: Image size (4294836225 pixels)"),
        (["missing.mp4"], r"missing.mp4: no such file"),
        (["text.mp4"], r"text.mp4: is no video that FFmpeg knows, or damaged"),
    ],
)
def test_mistakes_are_told_in_a_line(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in ("a.mp4", "b.mp4", "in/a.mp4", "a.tiny.mp4"):
        write_clip(tmp_path / name, moving(2))
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(f"in/{number}.png")
    # What Pillow refuses to look at.
    Image.new("P", (8, 8)).save("huge.gif")
    screen = b"GIF89a" + b"\xff" * 4
    Path("huge.gif").write_bytes(screen + Path("huge.gif").read_bytes()[len(screen) :])
    Image.new("RGB", (8, 8)).save("photo.jpg")
    Path("text.mp4").write_text("no video", encoding="utf-8")
    before = files_of(tmp_path)
    assert stylize.main(["--model", model, *arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told
    assert not list(tmp_path.glob(".*"))
    assert files_of(tmp_path) == before


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_clip_that_cannot_be_read_does_not_stop_the_others(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video", encoding="utf-8")
    (tmp_path / "1.png").write_text("no picture", encoding="utf-8")
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    good = write_clip(tmp_path / "good.mp4", moving(2))
    clips = [str(bad), str(tmp_path / "%d.png"), str(folder), str(good)]
    assert stylize.main(["--model", model, *clips]) == 1
    assert capsys.readouterr().err.count("error: ") == 3
    assert (tmp_path / "good.tiny.mp4").exists()


def test_a_clip_whose_size_changes_on_the_way_keeps_its_first_size(
    model: str, tmp_path: Path
) -> None:
    parts = [write_clip(tmp_path / f"{height}.ts", moving(4, height=height)) for height in (48, 32)]
    clip = tmp_path / "broadcast.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    arguments = ["--model", model, str(clip), "-o", str(tmp_path / "out.mkv"), "--strength", "0"]
    assert stylize.main(arguments) in (0, 1)  # what is lost where they meet is said
    _, frames = read_clip(tmp_path / "out.mkv")
    assert len(frames) >= 7
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert np.abs(frames[-1].astype(int) - frames[0]).mean() > 5
