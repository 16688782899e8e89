from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.video import Coding, VideoError, is_clip, named_output, stylize_clip
from fast_style.video.pictures import AnimationSource

av = pytest.importorskip("av", reason="needs PyAV: pip install 'fast-style[video]'")

from clips import moving, packets, read_clip, turn, write_clip  # noqa: E402

NTSC = Fraction(30000, 1001)
TRANSFER = {"PQ": 16, "HLG": 18}


@pytest.fixture(scope="module")
def photo() -> Stylizer:
    """Gives the photo back: what changes is the fault of the video's way."""
    return Stylizer(TransformerNet(width=2, num_residual_blocks=1), strength=0)


@pytest.fixture
def stylizer(tiny_network: TransformerNet) -> Stylizer:
    return Stylizer(tiny_network)


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    pairs = zip(first, second, strict=True)
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))


UNEVEN = [0, 1001, 2002, 3203, 3204, 9009, 9010, 30000, 30001, 30777]


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_every_frame_keeps_its_time(photo: Stylizer, tmp_path: Path, ending: str) -> None:
    clip = write_clip(
        tmp_path / "a.mp4", moving(10), rate=NTSC, time_base=Fraction(1, 30000), times=UNEVEN
    )
    result = stylize_clip(photo, clip, tmp_path / f"out.{ending}", steady=False)
    times, _ = read_clip(tmp_path / f"out.{ending}")
    assert times == [Fraction(time, 30000) for time in UNEVEN]
    assert result.frames == 10
    assert not result.damage


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_matroska_keeps_times_to_the_millisecond(
    photo: Stylizer, tmp_path: Path, ending: str
) -> None:
    clip = write_clip(
        tmp_path / "a.mp4", moving(10), rate=NTSC, time_base=Fraction(1, 30000), times=UNEVEN
    )
    stylize_clip(photo, clip, tmp_path / f"out.{ending}", steady=False)
    times, _ = read_clip(tmp_path / f"out.{ending}")
    wanted = [Fraction(time, 30000) for time in UNEVEN]
    assert [round(time * 1000) for time in times] == [round(time * 1000) for time in wanted]


def test_segments_join_without_a_seam_in_uneven_times(photo: Stylizer, tmp_path: Path) -> None:
    """A clip of one frame a second in its first half, of 30 in its second: many B-frames."""
    times = [*range(0, 25 * 30, 30), *range(750, 775)]
    clip = write_clip(
        tmp_path / "a.mp4", moving(50), rate=Fraction(2), time_base=Fraction(1, 30), times=times
    )
    stylize_clip(photo, clip, tmp_path / "out.mp4", steady=False)
    assert read_clip(tmp_path / "out.mp4")[0] == [Fraction(time, 30) for time in times]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_is_copied_packet_for_packet(photo: Stylizer, tmp_path: Path, ending: str) -> None:
    clip = write_clip(tmp_path / f"a.{ending}", moving(25), sound=True)
    stylize_clip(photo, clip, tmp_path / f"out.{ending}", steady=False)
    before, after = packets(clip, "audio"), packets(tmp_path / f"out.{ending}", "audio")
    assert len(before) > 40
    assert before == after


def test_subtitles_are_copied(photo: Stylizer, tmp_path: Path) -> None:
    text = tmp_path / "a.srt"
    text.write_text("1\n00:00:00,100 --> 00:00:00,500\nHello\n\n", encoding="utf-8")
    write_clip(tmp_path / "a.mkv", moving(12), subtitles=text)
    stylize_clip(photo, tmp_path / "a.mkv", tmp_path / "out.mkv", steady=False)
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(tmp_path / "a.mkv", "subtitle")
    assert packets(tmp_path / "out.mkv", "subtitle")[0][0] == b"Hello"


def test_sound_that_the_format_lacks_is_left_out_and_said(photo: Stylizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(8), sound=True)
    notes: list[str] = []
    stylize_clip(photo, clip, tmp_path / "out.webm", steady=False, on_note=notes.append)
    assert notes == ["its audio track (aac) is left out: webm has none of that kind"]


COLORS = [
    (235, 235, 235),
    (16, 16, 16),
    (200, 40, 40),
    (40, 180, 60),
    (30, 60, 200),
    (220, 200, 30),
]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 6])
def test_colors_come_back_and_keep_their_tags(
    photo: Stylizer, tmp_path: Path, matrix: int, full_range: bool
) -> None:
    patches = np.zeros((32, 96, 3), np.uint8)
    for index, color in enumerate(COLORS):
        patches[:, 16 * index : 16 * index + 16] = color
    tags = {"colorspace": matrix, "color_primaries": matrix, "color_trc": matrix}
    tags["color_range"] = 2 if full_range else 1
    clip = write_clip(tmp_path / "a.mp4", [patches] * 3, tags=tags, options={"crf": "1"})
    for output, codec in (("out.mp4", None), ("out.webm", None), ("out.mkv", "ffv1")):
        pixel_format = "yuv420p" if codec else None
        coding = Coding(codec=codec, pixel_format=pixel_format)
        stylize_clip(photo, clip, tmp_path / output, coding=coding, steady=False)
        with av.open(str(tmp_path / output)) as file:
            context = file.streams.video[0].codec_context
            assert {name: getattr(context, name) for name in tags} == tags
    _, frames = read_clip(tmp_path / "out.mkv")  # lossless
    _, before = read_clip(clip)
    for index in range(len(COLORS)):
        inside = np.s_[8:24, 16 * index + 4 : 16 * index + 12]
        middle, wanted = (one[0][inside].reshape(-1, 3).mean(0) for one in (frames, before))
        assert np.abs(middle - wanted).max() < 3
        assert np.abs(middle - COLORS[index]).max() < 5


@pytest.mark.parametrize("name", ["PQ", "HLG"])
def test_hdr_is_refused_with_what_to_do(photo: Stylizer, tmp_path: Path, name: str) -> None:
    tags = {"color_trc": TRANSFER[name], "color_primaries": 9, "colorspace": 9}
    clip = write_clip(tmp_path / "a.mp4", moving(2), tags=tags)
    with pytest.raises(VideoError, match=rf"is HDR \({name}\).*ffmpeg -i IN -vf zscale"):
        stylize_clip(photo, clip, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_is_stylized_upright(photo: Stylizer, tmp_path: Path, degrees: int) -> None:
    frames = moving(4)
    clip = write_clip(tmp_path / "a.mp4", frames)
    turn(clip, degrees)
    result = stylize_clip(photo, clip, tmp_path / "out.mp4", steady=False)
    assert result.size == ((48, 64) if degrees != 180 else (64, 48))
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert next(file.decode(video=0)).rotation == 0
    _, upright = read_clip(tmp_path / "out.mp4")
    assert difference(upright, [np.rot90(frame, -degrees // 90) for frame in frames]) < 11


def test_an_odd_size_gets_its_edge_twice_and_is_said(photo: Stylizer, tmp_path: Path) -> None:
    frames = moving(4, height=33, width=51)
    clip = write_clip(tmp_path / "a.mkv", frames, pixel_format="yuv444p")
    notes: list[str] = []
    stylize_clip(photo, clip, tmp_path / "out.mp4", steady=False, on_note=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("51×33 becomes 52×34, its edge repeated: yuv420p")
    _, after = read_clip(tmp_path / "out.mp4")
    assert difference([frame[:33, :51] for frame in after], frames) < 8
    assert (
        difference([frame[33:34, :51] for frame in after], [frame[32:33] for frame in frames]) < 9
    )


@pytest.mark.parametrize(
    ("ending", "coding"),
    [
        ("mp4", Coding(pixel_format="yuv444p")),
        ("webm", Coding()),
        ("mkv", Coding(codec="ffv1")),
        ("gif", Coding()),
    ],
)
def test_an_odd_size_is_kept_where_that_can_be(
    photo: Stylizer, tmp_path: Path, ending: str, coding: Coding
) -> None:
    frames = moving(4, height=33, width=51)
    clip = write_clip(tmp_path / "a.mkv", frames, pixel_format="yuv444p")
    notes: list[str] = []
    output = tmp_path / f"out.{ending}"
    stylize_clip(photo, clip, output, coding=coding, steady=False, on_note=notes.append)
    _, after = read_clip(output)
    assert after[0].shape == (33, 51, 3)
    assert difference(after, frames) < 14
    assert not notes


@pytest.mark.parametrize("codec", ["hevc", "av1", "prores", "ffv1"])
def test_other_codecs_hold_the_frames(photo: Stylizer, tmp_path: Path, codec: str) -> None:
    frames = moving(5, height=64, width=64)
    clip = write_clip(tmp_path / "a.mp4", frames)
    stylize_clip(photo, clip, tmp_path / "out.mkv", coding=Coding(codec=codec), steady=False)
    times, after = read_clip(tmp_path / "out.mkv")
    assert len(times) == 5
    assert difference(after, read_clip(clip)[1]) < 6


def test_quality_makes_files_larger_and_better(photo: Stylizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(8))
    sizes, errors = [], []
    for quality in (40, 70, 95):
        output = tmp_path / f"{quality}.mp4"
        stylize_clip(photo, clip, output, coding=Coding(quality=quality), steady=False)
        sizes.append(output.stat().st_size)
        errors.append(difference(read_clip(output)[1], read_clip(clip)[1]))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def animation(path: Path, *, transparent: bool = False) -> list[np.ndarray]:
    frames = moving(5)
    images = []
    for frame in frames:
        alpha = np.full(frame.shape[:2], 255, np.uint8)
        alpha[:9, :9] = 0 if transparent else 255
        images.append(Image.fromarray(np.dstack([frame, alpha])))
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[40, 80, 40, 200, 120], loop=3
    )
    return frames


@pytest.mark.parametrize("source", ["gif", "webp"])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations_keep_times_loops_and_transparency(
    photo: Stylizer, tmp_path: Path, source: str, ending: str
) -> None:
    frames = animation(tmp_path / f"a.{source}", transparent=True)
    output = tmp_path / f"out.{ending}"
    stylize_clip(photo, tmp_path / f"a.{source}", output)
    with Image.open(output) as image:
        assert image.info["loop"] == 3
        durations = []
        for index, frame in enumerate(frames):
            image.seek(index)
            pixels = np.array(image.convert("RGBA"))
            durations.append(image.info["duration"])
            assert (pixels[:8, :8, 3] == 0).all()
            assert (pixels[10:, :, 3] == 255).all()
            assert difference([pixels[10:, :, :3]], [frame[10:]]) < 14
    assert durations == [40, 80, 40, 200, 120]


def test_an_animation_becomes_a_video(photo: Stylizer, tmp_path: Path) -> None:
    frames = animation(tmp_path / "a.gif")
    stylize_clip(photo, tmp_path / "a.gif", tmp_path / "out.mp4")
    times, after = read_clip(tmp_path / "out.mp4")
    assert times == [Fraction(ms, 1000) for ms in (0, 40, 120, 160, 360)]
    assert difference(after, frames) < 10


def test_numbered_pictures_become_a_video_and_back(photo: Stylizer, tmp_path: Path) -> None:
    for index, frame in enumerate(moving(4)):
        Image.fromarray(frame).save(tmp_path / f"in-{index + 7:03d}.png")
    output = tmp_path / "out.mkv"
    lossless = Coding(codec="ffv1")
    stylize_clip(photo, tmp_path / "in-%03d.png", output, coding=lossless, rate=NTSC)
    times, _ = read_clip(output)
    assert [round(time * 1000) for time in times] == [0, 33, 67, 100]
    stylize_clip(photo, output, tmp_path / "back-%d.png", steady=False)
    for index, frame in enumerate(moving(4)):
        with Image.open(tmp_path / f"back-{index + 1}.png") as image:
            assert np.array_equal(np.array(image), frame)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1", "prores", "ffv1"])
def test_a_codec_gives_the_same_bits_in_every_run(
    photo: Stylizer, tmp_path: Path, codec: str
) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(9))
    outputs = []
    for index in range(3):
        output = tmp_path / f"{index}.mkv"
        stylize_clip(photo, clip, output, coding=Coding(codec=codec), steady=False)
        outputs.append([data for data, _ in packets(output, "video")])
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.parametrize("steady", [False, True])
def test_the_number_of_workers_changes_no_bit(
    stylizer: Stylizer, tmp_path: Path, steady: bool
) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(12))
    outputs = []
    for workers in (1, 2, 4):
        output = tmp_path / f"{workers}.mp4"
        stylize_clip(stylizer, clip, output, workers=workers, steady=steady)
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_threads_of_pytorch_are_as_before(photo: Stylizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(3))
    torch.set_num_threads(2)
    try:
        stylize_clip(photo, clip, tmp_path / "out.mp4")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_clip_looks_as_its_frames_would_as_photos(
    tiny_network: TransformerNet, tmp_path: Path
) -> None:
    """All looks, frame by frame, in a lossless file."""
    looks: list[Callable[[], Stylizer]] = [
        lambda: Stylizer(tiny_network),
        lambda: Stylizer(tiny_network, strength=0.5, preserve_color="luma"),
        lambda: Stylizer(tiny_network, preserve_color="histogram"),
        lambda: Stylizer(tiny_network, size=40, stroke_scale=2),
    ]
    frames = moving(3)
    clip = write_clip(
        tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0", options={"level": "3"}
    )
    for index, look in enumerate(looks):
        output = tmp_path / f"{index}.mkv"
        stylize_clip(look(), clip, output, coding=Coding(codec="ffv1"), steady=False)
        for frame, got in zip(frames, read_clip(output)[1], strict=True):
            wanted = look().stylize_pixels(torch.from_numpy(frame.copy()).permute(2, 0, 1))
            assert np.array_equal(wanted.permute(1, 2, 0).numpy(), got)


def test_half_a_matroska_gives_what_can_be_read(photo: Stylizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mkv", moving(75), options={"crf": "12", "g": "10"}, sound=True)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    result = stylize_clip(photo, clip, tmp_path / "out.mkv", steady=False)
    assert 10 < result.frames < 65
    assert len(read_clip(tmp_path / "out.mkv")[0]) == result.frames
    assert result.damage.missing_seconds == pytest.approx(3 - result.frames / 25, abs=0.3)
    assert "s are missing" in str(result.damage)


def test_a_packet_that_is_refused_holds_the_frame_before(photo: Stylizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(40), options={"crf": "12", "bf": "0"})
    times, frames = read_clip(clip)
    lost, _ = packets(clip, "video")[20]
    data = clip.read_bytes()
    at = data.index(lost)
    clip.write_bytes(data[:at] + b"\xff" * len(lost) + data[at + len(lost) :])
    result = stylize_clip(photo, clip, tmp_path / "out.mp4", steady=False)
    got, after = read_clip(tmp_path / "out.mp4")
    assert got == times
    assert result.damage.held == 1
    assert str(result.damage) == "1 frame could not be read: the one before it is held"
    assert difference(after[20:21], frames[19:20]) < 7 < difference(after[20:21], frames[20:21])


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animation_that_was_cut_off_gives_what_can_be_read(tmp_path: Path, ending: str) -> None:
    whole = tmp_path / f"a.{ending}"
    pictures = [Image.effect_noise((20, 16), 60) for _ in range(4)]
    pictures[0].save(whole, save_all=True, append_images=pictures[1:], duration=50)
    data, cut = whole.read_bytes(), tmp_path / f"cut.{ending}"
    most = 0
    for length in range(1, len(data), max(1, len(data) // 80)):
        cut.write_bytes(data[:length])
        try:
            source = AnimationSource(cut)
            frames = len(list(source.frames()))
        except VideoError:
            continue
        assert source.damage or frames == 4 or ending == "gif"  # which has no number of its frames
        most = max(most, frames)
    assert most == (0 if ending == "webp" else 4)  # whose library reads whole files only


def test_an_mp4_that_was_cut_off_says_why_nothing_can_be_read(
    photo: Stylizer, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(20))
    clip.write_bytes(clip.read_bytes()[:3000])
    with pytest.raises(VideoError, match=r"a\.mp4: .* lacks its index, moov"):
        stylize_clip(photo, clip, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_an_intact_clip_has_no_damage_in_any_format(photo: Stylizer, tmp_path: Path) -> None:
    """B-frames, hidden frames and sound that ends elsewhere are no losses."""
    kinds = [("mp4", "libx264"), ("mkv", "libx265"), ("webm", "libvpx-vp9"), ("mkv", "libsvtav1")]
    for index, (ending, codec) in enumerate([*kinds, ("avi", "mpeg4"), ("ts", "mpeg2video")]):
        clip = write_clip(
            tmp_path / f"{index}.{ending}",
            moving(30, height=64, width=64),
            codec=codec,
            options={"bf": "2"} if codec in ("mpeg4", "mpeg2video") else {"crf": "20"},
            sound=ending in ("mp4", "mkv"),
        )
        result = stylize_clip(photo, clip, tmp_path / f"out-{index}.mkv", steady=False)
        assert not result.damage, (ending, codec, str(result.damage))
        assert result.frames == len(read_clip(clip)[0])


@pytest.mark.parametrize(
    ("output", "coding", "message"),
    [
        ("out.xyz", Coding(), r"out\.xyz: cannot write a clip as \.xyz: use \.gif, "),
        ("out.webm", Coding(codec="h264"), r"holds vp9 or av1, not h264: .* \.mp4, \.m4v"),
        ("out.mp4", Coding(codec="h265"), r"unknown codec 'h265': use one of h264, hevc"),
        ("out.mp4", Coding(pixel_format="rgb8"), r"--pixel-format rgb8: libx264 has yuv420p"),
        ("out.mp4", Coding(quality=0), r"--quality 0 is impossible"),
        ("out-%d.png", Coding(codec="av1"), r"--codec av1: .* is pictures, which have none"),
    ],
)
def test_an_impossible_output_is_refused_before_the_work(
    photo: Stylizer, tmp_path: Path, output: str, coding: Coding, message: str
) -> None:
    with pytest.raises(VideoError, match=message):
        stylize_clip(photo, tmp_path / "missing.mp4", tmp_path / output, coding=coding)


def test_clips_are_known_by_name_and_animations_by_what_they_become(tmp_path: Path) -> None:
    animation(tmp_path / "a.gif")
    Image.new("RGB", (8, 8)).save(tmp_path / "still.gif")
    assert is_clip("a.MOV")
    assert is_clip(str(tmp_path / "in-%04d.png"))
    assert not is_clip(str(tmp_path / "a.gif"))
    assert is_clip(str(tmp_path / "a.gif"), "out.mp4")
    assert is_clip(str(tmp_path / "a.gif"), "out.webp")
    assert not is_clip(str(tmp_path / "a.gif"), "out.png")
    assert is_clip(str(tmp_path / "still.gif"), "out.gif")  # no photo is written so
    assert not is_clip(str(tmp_path / "still.gif"), "out.webp")
    assert not is_clip("photo.jpg", "out.mp4")


def test_outputs_are_named_after_their_clips(tmp_path: Path) -> None:
    assert named_output("a/b.mp4", "wave", None) == Path("a/b.wave.mp4")
    assert named_output("a/b.avi", "wave", None) == Path("a/b.wave.mkv")
    assert named_output("a/b.mp4", "wave", str(tmp_path)) == tmp_path / "b.wave.mp4"
    assert named_output("a/b.mp4", "wave", "c.webm") == Path("c.webm")
