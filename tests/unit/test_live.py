"""Live pictures, headless: SDL's dummy driver, a test pattern, files."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("av")
pytest.importorskip("pygame")

import pygame
from clips import moving, read_clip, write_clip
from PIL import Image
from torch import Tensor

from fast_style.checkpoints.files import Model, save_model
from fast_style.commands import main
from fast_style.networks.transformer import TransformerNet
from fast_style.video import live_looks
from fast_style.video.clips import VideoError
from fast_style.video.live import Newest, Shown, run_live
from fast_style.video.live_input import PatternInput, open_live
from fast_style.video.live_looks import Looks
from fast_style.video.live_output import DeviceOutput, FileOutput
from fast_style.video.live_sizes import Sizes
from fast_style.video.live_window import WindowOutput

EVENTS = pygame.event


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def models(tmp_path: Path, tiny_network: TransformerNet) -> list[Path]:
    other = TransformerNet(4, 1)
    return [
        save_model(tmp_path / f"{name}.pth", network)
        for name, network in (("one", tiny_network), ("two", other))
    ]


class Collector:
    """An output that keeps what it is shown; `wanted` are the wishes at each frame."""

    def __init__(self, wanted: dict[int, str] | None = None) -> None:
        self.shown: list[Shown] = []
        self.lines: list[str] = []
        self.late: list[float] = []
        self._wanted = wanted or {}

    def show(self, shown: Shown, status: str) -> None:
        self.late.append(time.monotonic() - shown.taken)
        self.shown.append(shown)
        self.lines.append(status)

    def wishes(self) -> list[str]:
        wish = self._wanted.pop(len(self.shown), None)
        return [wish] if wish else []

    def close(self) -> None:
        pass


class Ticking:
    """An input of small frames, each full of its number, `rate` a second."""

    def __init__(self, count: int, rate: float) -> None:
        self._count, self._rate = count, rate

    def frames(self, edge: Callable[[], int]) -> Iterator[Tensor]:
        for number in range(self._count):
            yield torch.full((3, 8, 16), number, dtype=torch.uint8)
            time.sleep(1 / self._rate)


class Slow(Looks):
    """Looks that take their time and no processor."""

    seconds = 0.1

    def stylize(self, pixels: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return pixels


def fixed(workers: int = 2) -> Sizes:
    return Sizes(goal=15, workers=workers, fixed=640)


def test_the_newest_takes_the_place_of_what_nobody_has_taken() -> None:
    newest = Newest()
    for value in (1, 2, 3):
        newest.put(torch.full((3, 1, 1), value, dtype=torch.uint8))
    shot = newest.take()
    assert shot is not None
    assert (shot.number, int(shot.pixels[0, 0, 0]), newest.came) == (3, 3, 3)
    newest.close()
    assert newest.take() is None


def test_whoever_waits_for_a_frame_is_woken_at_the_end() -> None:
    newest, taken = Newest(), []
    waiting = threading.Thread(target=lambda: taken.append(newest.take()))
    waiting.start()
    newest.close()
    waiting.join(timeout=5)
    assert taken == [None]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fast_camera_and_a_slow_network_show_no_old_frames(
    models: list[Path], workers: int
) -> None:
    output = Collector()
    report = run_live(Ticking(60, 60), output, Slow(models), sizes=fixed(workers), workers=workers)
    numbers = [shown.number for shown in output.shown]
    assert numbers == sorted(set(numbers))
    assert report.came == 60
    assert 5 <= report.shown < 40  # the others were dropped
    assert report.most_held <= 3
    late = sorted(output.late)
    assert late[len(late) // 2] <= 2 * Slow.seconds


def test_the_last_frame_is_shown_and_then_it_ends(models: list[Path]) -> None:
    output = Collector()
    run_live(Ticking(5, 20), output, Looks(models, strength=0), sizes=fixed())
    assert output.shown[-1].number == 5
    assert int(output.shown[-1].pixels.max()) == 4  # at a strength of 0 the photo itself


def test_what_goes_wrong_while_reading_ends_the_run(models: list[Path]) -> None:
    class Unplugged(Ticking):
        def frames(self, edge: Callable[[], int]) -> Iterator[Tensor]:
            yield from super().frames(edge)
            raise VideoError("the camera was unplugged")

    with pytest.raises(VideoError, match="unplugged"):
        run_live(Unplugged(2, 100), Collector(), Looks(models), sizes=fixed())


def test_keys_change_style_and_strength_save_and_quit(models: list[Path]) -> None:
    wanted = {2: "next", 4: "weaker", 6: "save", 8: "1", 10: "quit"}
    output, looks, saved = Collector(wanted), Looks(models), []
    report = run_live(
        Ticking(1000, 200), output, looks, sizes=fixed(), workers=1, on_picture=saved.append
    )
    assert report.shown == 10
    assert [shown.style for shown in output.shown[:2]] == ["one", "one"]
    assert output.lines[0].startswith("one   strength 1.0")
    assert output.lines[5].startswith("two   strength 0.9")
    assert looks.name == "one"
    assert [shown.number for shown in saved] == [output.shown[5].number]
    assert output.shown[4].style == "two"


def test_strength_stays_between_0_and_1_and_styles_go_round(models: list[Path]) -> None:
    looks = Looks(models, strength=0.1)
    for _ in range(3):
        looks.change("weaker")
    assert looks.strength == 0
    for _ in range(12):
        looks.change("stronger")
    assert looks.strength == 1
    looks.change("previous")
    assert looks.name == "two"
    looks.change("next")
    looks.change("7")  # there are two
    assert looks.name == "one"


def test_a_style_is_named_when_frames_have_it(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, load, named = Looks(models), live_looks.load_model, []

    def slowly(path: Path) -> Model:
        named.append((looks.name, looks.status))  # by those who stylize frames meanwhile
        return load(path)

    monkeypatch.setattr(live_looks, "load_model", slowly)
    looks.change("next")
    assert named == [("one", "one   strength 1.0")]
    assert looks.name == "two"


def test_the_size_falls_until_it_is_fast_enough_and_rises_again() -> None:
    sizes = Sizes(goal=15, workers=1)

    def frames(count: int, pixels_a_second: float) -> None:
        for _ in range(count):
            height, width = sizes.edge * 9 // 16, sizes.edge
            sizes.add(height * width / pixels_a_second, (height, width))

    frames(20, 5 * 640 * 360)  # 5 frames a second at 640: a ninth of the area less
    assert sizes.edge == 320
    assert sizes.status.startswith("320×180   20.0 frames/s")
    frames(200, 100 * 640 * 360)
    assert sizes.edge == 1280
    frames(200, 16 * 640 * 360)
    assert sizes.edge == 640
    frames(200, 0.1 * 640 * 360)
    assert sizes.edge == 240


def test_a_fixed_size_and_a_small_camera_stay_as_they_are() -> None:
    slow, small = fixed(), Sizes(goal=15, workers=1)
    for _ in range(50):
        slow.add(10, (360, 640))
        small.add(0.0001, (120, 160))
    assert slow.edge == 640
    assert small.edge == 640


def test_the_test_pattern_has_the_size_that_is_asked_for_and_moves() -> None:
    edges = iter([640, 320, 320])
    frames = PatternInput(rate=1000).frames(lambda: next(edges))
    first, second, third = (next(frames) for _ in range(3))
    frames.close()  # type: ignore[attr-defined]
    assert [tuple(one.shape) for one in (first, second)] == [(3, 360, 640), (3, 180, 320)]
    assert (second.int() - third.int()).abs().float().mean() > 0.5


def test_a_file_is_played_at_its_own_pace(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving(10))
    start = time.monotonic()
    frames = list(open_live(str(clip)).frames(lambda: 32))
    assert time.monotonic() - start >= 9 / 25
    assert [tuple(frame.shape) for frame in frames] == [(3, 24, 32)] * 10


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/dev/video987", "no camera can be opened there"),
        ("gone.mp4", "no such file; --input is camera, test"),
    ],
)
def test_an_input_that_is_not_there_is_named_with_a_cure(name: str, problem: str) -> None:
    with pytest.raises(VideoError, match=problem) as caught:
        open_live(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_named_with_a_cure() -> None:
    with pytest.raises(VideoError, match=r"/dev/video987: no such device: modprobe v4l2loopback"):
        DeviceOutput("/dev/video987")


def shot(pixels: Tensor, *, at: float = 0.0) -> Shown:
    return Shown(pixels=pixels, number=1, taken=at, style="one", work=0.1)


def test_the_window_shows_the_picture_and_the_line(tmp_path: Path) -> None:
    window = WindowOutput("test")
    pixels = torch.zeros(3, 90, 160, dtype=torch.uint8)
    pixels[0, :, 80:] = 200
    window.show(shot(pixels), "one   strength 1.0")
    window.save_screenshot(tmp_path / "window.png")
    window.close()
    with Image.open(tmp_path / "window.png") as picture:
        seen = picture.convert("RGB")
    assert seen.size == (160, 90)
    assert seen.getpixel((120, 10)) == (200, 0, 0)
    assert seen.getpixel((40, 10)) == (0, 0, 0)
    line = seen.crop((0, 55, 160, 90)).convert("L")
    assert line.getextrema()[1] > 230  # white letters


def test_keys_of_the_window_are_wishes() -> None:
    window = WindowOutput("test")
    window.show(shot(torch.zeros(3, 32, 32, dtype=torch.uint8)), "")
    window.wishes()
    for key, letter in ((pygame.K_n, "n"), (pygame.K_UP, ""), (pygame.K_2, "2"), (pygame.K_x, "x")):
        EVENTS.post(EVENTS.Event(pygame.KEYDOWN, key=key, unicode=letter))
    EVENTS.post(EVENTS.Event(pygame.QUIT))
    assert window.wishes() == ["next", "stronger", "2", "quit"]
    window.close()


def test_a_file_has_the_times_at_which_pictures_were_taken(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    output = FileOutput(path)
    for index, at in enumerate((10.0, 10.1, 10.35)):
        size = (45, 64) if index == 0 else (90, 128)  # the first one's size is the file's
        output.show(shot(torch.full((3, *size), 40 * index, dtype=torch.uint8), at=at), "")
    assert not path.exists()
    output.close()
    times, frames = read_clip(path)
    assert [round(float(one), 3) for one in times] == [0, 0.1, 0.35]
    assert [frame.shape for frame in frames] == [(46, 64, 3)] * 3
    assert [abs(int(frame.mean()) - 40 * i) <= 2 for i, frame in enumerate(frames)] == [True] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_writes_a_file_of_the_test_pattern(
    models: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    signal_handlers_restored: None,
) -> None:
    path = tmp_path / "out.mkv"
    arguments = ["--input", "test", "--output", str(path), "--seconds", "1", "--size", "160"]
    code = main(["live", "--model", *map(str, models), *arguments, "--device", "cpu"])
    assert code == 0
    _, frames = read_clip(path)
    assert len(frames) >= 3
    assert frames[0].shape == (90, 160, 3)
    said = capsys.readouterr().err
    assert main(["live", *arguments]) == 2
    assert "is there already, and is not overwritten" in capsys.readouterr().err
    assert "frames/s" in said
    assert "one   strength 1.0" in said


def test_the_command_opens_a_window_and_saves_on_a_key(
    models: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signal_handlers_restored: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = write_clip(tmp_path / "clip.mp4", moving(30))

    def press(*keys: tuple[int, str]) -> None:
        for key, letter in keys:
            EVENTS.post(EVENTS.Event(pygame.KEYDOWN, key=key, unicode=letter))

    pygame.display.init()  # events want a display; the command's own is the same
    press((pygame.K_2, "2"), (pygame.K_s, "s"))
    assert main(["live", "--model", *map(str, models), "--input", str(clip)]) == 0
    (saved,) = tmp_path.glob("live-*-1.png")  # of the style before or after the key
    said = capsys.readouterr()
    assert said.out == f"{saved.name}\n"
    assert "two   strength 1.0" in said.err
    assert said.err.startswith("n, right: next style; ")
    with Image.open(saved) as picture:
        assert picture.size == (64, 48)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--model", "wave.onnx"], "live runs models of PyTorch"),
        (["--input", "gone.mp4", "--output", "out.mp4"], "gone.mp4: no such file"),
        (["--input", "test", "--output", "out.jpg"], "cannot write a clip as .jpg"),
        (["--input", "test", "--output", "gone/out.mp4"], "there is no folder gone"),
        (["--strength", "2"], "'2' is not a number between 0 and 1"),
        (["--fps", "0"], "'0' is not a number above 0"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["live", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.gif", "%04d.png"])
def test_what_is_no_video_is_refused_before_the_camera_is_waited_for(name: str) -> None:
    with pytest.raises(VideoError, match=r"live pictures go into a video: name a \.mp4"):
        FileOutput(Path(name))
