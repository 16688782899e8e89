import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("av", reason="needs PyAV: pip install 'fast-style[video]'")

from clips import moving, write_clip
from plain_steadying import PlainSteadier

from fast_style.checkpoints.files import save_model
from fast_style.commands import evaluate
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.video import blocks, measure_stability, stability, stylize_clip
from fast_style.video.matching import matched
from fast_style.video.reading import FileSource
from fast_style.video.steadying import Steadier


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Draw (3, H, W) uint8 that looks different everywhere."""
    random = np.random.RandomState(seed)
    coarse = random.uniform(0, 255, (3, height // 4 + 2, width // 4 + 2))
    fine = np.repeat(np.repeat(coarse, 4, 1), 4, 2)[:, :height, :width]
    blurred = sum(np.roll(fine, (i, j), (1, 2)) for i in range(-2, 3) for j in range(-2, 3)) / 25
    return torch.from_numpy(blurred.round().astype(np.uint8))


def strokes(frame: Tensor, index: int) -> Tensor:
    """Stand in for a network that flickers: strokes that are elsewhere in every frame."""
    generator = torch.Generator().manual_seed(index)
    noise = torch.randint(-40, 41, frame.shape, generator=generator)
    return (frame.int() + noise).clamp(0, 255).to(torch.uint8)


def window(photo: Tensor, x: int, y: int, height: int = 64, width: int = 96) -> Tensor:
    return photo[:, y : y + height, x : x + width].contiguous()


def vectors(x: float, y: float, height: int = 64, width: int = 96) -> np.ndarray:
    field = np.empty((height // 8, width // 8, 2), np.float32)
    field[...] = (x, y)
    return field


def flicker(frames: list[Tensor], step: tuple[int, int]) -> float:
    x, y = step
    pairs = itertools.pairwise(frames[2:])
    moved = [
        before[:, y:, x:].float() - after[:, : after.shape[1] - y, : after.shape[2] - x].float()
        for before, after in pairs
    ]
    return float(torch.stack([one[:, 8:-8, 8:-8].abs().mean() for one in moved]).mean())


def test_strokes_follow_a_pan() -> None:
    photo = texture(120, 160)
    frames = [window(photo, 3 * i, i) for i in range(8)]
    looks = [strokes(frame, i) for i, frame in enumerate(frames)]
    steadier = Steadier()
    steadied = [
        steadier.add(frame, look, vectors(3, 1) if i else None)
        for i, (frame, look) in enumerate(zip(frames, looks, strict=True))
    ]
    assert flicker(steadied, (3, 1)) < 0.5 * flicker(looks, (3, 1))


def test_vectors_that_point_further_back_are_understood() -> None:
    photo = texture(120, 160)
    frames = [window(photo, 3 * i, i) for i in range(8)]
    looks = [strokes(frame, i) for i, frame in enumerate(frames)]
    steadier = Steadier()
    steadied = [
        steadier.add(frame, look, vectors(6, 2) if i else None)
        for i, (frame, look) in enumerate(zip(frames, looks, strict=True))
    ]
    assert flicker(steadied, (3, 1)) < 0.5 * flicker(looks, (3, 1))


def test_wrong_vectors_are_not_followed() -> None:
    """Those of an encoder serve its bits, not the truth: standing still fits better here."""
    photo = window(texture(120, 160), 0, 0)
    looks = [strokes(photo, i) for i in range(8)]
    steadier = Steadier()
    steadied = [steadier.add(photo, look, vectors(9, -5)) for look in looks]
    assert flicker(steadied, (0, 0)) < 0.5 * flicker(looks, (0, 0))


def test_a_keyframe_goes_on_as_the_frames_before_it() -> None:
    photo = texture(120, 160)
    frames = [window(photo, 3 * i, i) for i in range(8)]
    looks = [strokes(frame, i) for i, frame in enumerate(frames)]
    steadier = Steadier()
    steadied = [
        steadier.add(frame, look, None if i in (0, 5) else vectors(3, 1))
        for i, (frame, look) in enumerate(zip(frames, looks, strict=True))
    ]
    assert flicker(steadied[3:], (3, 1)) < 0.5 * flicker(looks[3:], (3, 1))


def test_a_cut_shows_nothing_of_the_scene_before() -> None:
    first, second = window(texture(120, 160, 1), 0, 0), window(texture(120, 160, 2), 0, 0)
    steadier = Steadier()
    steadier.add(first, first, None)
    after = steadier.add(second, second, vectors(0, 0))
    ghost = (after.float() - second.float()).abs()
    assert ghost.mean() < 0.02 * (first.float() - second.float()).abs().mean()


def test_no_ghost_is_left_behind_a_moving_object() -> None:
    """A square crosses a photo that pans: where it has just been, only the photo is seen."""
    photo = texture(160, 240)
    color = torch.tensor([250, 30, 40], dtype=torch.uint8)[:, None, None]
    steadier = Steadier()
    for i in range(12):
        empty = window(photo, 2 * i, i, 96, 128)
        left = 6 + 7 * i
        frame = empty.clone()
        frame[:, 30:54, left : left + 24] = color
        steadied = steadier.add(frame, strokes(frame, i), vectors(2, 1, 96, 128) if i else None)
        if i:
            behind = np.s_[:, 30:54, left - 7 : left]
            photo_there, seen = (one[behind].float().mean((1, 2)) for one in (empty, steadied))
            ghost = (seen - photo_there).abs()
            square = (color.float()[:, 0, 0] - photo_there).abs()
            assert (ghost < 0.1 * square + 5).all()


def test_a_state_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving(8))
    frames = list(FileSource(clip).frames(motion=True))
    looks = [strokes(frame.pixels, i) for i, frame in enumerate(frames)]
    whole = Steadier()
    for frame, look in zip(frames[:4], looks[:4], strict=True):
        whole.add(frame.pixels, look, frame.motion)
    resumed = Steadier(whole.state.clone())
    whole.forget_motion()
    for frame, look in zip(frames[4:], looks[4:], strict=True):
        wanted = whole.add(frame.pixels, look, frame.motion)
        assert torch.equal(resumed.add(frame.pixels, look, frame.motion), wanted)


def wandering(height: int, width: int) -> Iterator[tuple[Tensor, Tensor, np.ndarray | None]]:
    """Make photos that pan under noise, with a cut, looks, and vectors of which some are wrong."""
    random = np.random.RandomState(height)
    photos = [texture(height + 20, width + 40, seed) for seed in (1, 2)]
    for i in range(10):
        photo = window(photos[i // 7], 3 * i, i, height, width)
        noise = torch.from_numpy(random.randint(-3, 4, photo.shape))
        photo = (photo + noise).clamp(0, 255).to(torch.uint8)
        motion = np.full((-(-height // 8), -(-width // 8), 2), (3, 1), np.float32)
        motion += random.choice([0, 0, 0, 0.25, 3, -40], motion.shape).astype(np.float32)
        motion[random.uniform(size=motion.shape[:2]) < 0.2] = np.nan
        yield photo, strokes(photo, i), None if i == 4 else motion


@pytest.mark.parametrize("size", [(96, 160), (101, 83), (64, 90), (9, 121), (4, 30)])
def test_what_is_fast_gives_the_bits_of_what_is_plain(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_STRIP", 1)  # several strips, though the photos are small
    fast, plain = Steadier(), PlainSteadier()
    for photo, look, motion in wandering(*size):
        assert torch.equal(fast.add(photo, look, motion), plain.add(photo, look, motion))
        assert plain.photo is not None
        assert plain.look is not None
        assert torch.equal(fast.state, torch.cat([plain.photo, plain.look], -2))


def test_how_pixels_lie_in_memory_changes_no_bit() -> None:
    planes, pixels = Steadier(), Steadier()
    for photo, look, motion in wandering(64, 90):
        by_pixel = (one.permute(1, 2, 0).contiguous().permute(2, 0, 1) for one in (photo, look))
        assert torch.equal(planes.add(photo, look, motion), pixels.add(*by_pixel, motion))


def test_a_result_of_another_size_is_steadied_too() -> None:
    photo = texture(120, 160)
    frames = [window(photo, 3 * i, i) for i in range(6)]
    looks = [
        strokes(torch.from_numpy(np.repeat(np.repeat(frame.numpy(), 2, 1), 2, 2)), i)
        for i, frame in enumerate(frames)
    ]
    steadier = Steadier()
    steadied = [
        steadier.add(frame, look, vectors(3, 1) if i else None)
        for i, (frame, look) in enumerate(zip(frames, looks, strict=True))
    ]
    assert flicker(steadied, (6, 2)) < 0.5 * flicker(looks, (6, 2))


def test_a_streams_vectors_say_how_it_pans(tmp_path: Path) -> None:
    photo = texture(120, 200).permute(1, 2, 0).numpy()
    frames = [photo[i : i + 96, 3 * i : 3 * i + 128] for i in range(12)]
    clip = write_clip(tmp_path / "a.mp4", frames, options={"crf": "18", "bf": "0", "refs": "1"})
    found = [frame.motion for frame in FileSource(clip).frames(motion=True)]
    assert found[0] is None
    medians = [np.nanmedian(motion.reshape(-1, 2), 0) for motion in found[1:] if motion is not None]
    assert len(medians) == 11
    assert np.allclose(np.median(medians, 0), (3, 1), atol=0.25)


@pytest.mark.parametrize(("degrees", "turned"), [(90, (-1, 3)), (180, (-3, -1)), (270, (1, -3))])
def test_vectors_turn_with_the_clip(tmp_path: Path, degrees: int, turned: tuple[int, int]) -> None:
    from clips import turn

    photo = texture(120, 200).permute(1, 2, 0).numpy()
    frames = [photo[i : i + 96, 3 * i : 3 * i + 128] for i in range(6)]
    clip = write_clip(tmp_path / "a.mp4", frames, options={"crf": "18", "bf": "0", "refs": "1"})
    turn(clip, degrees)
    found = [frame.motion for frame in FileSource(clip).frames(motion=True)]
    medians = [np.nanmedian(motion.reshape(-1, 2), 0) for motion in found[1:] if motion is not None]
    assert np.allclose(np.median(medians, 0), turned, atol=0.25)


def test_what_changes_nothing_flickers_as_its_input(
    tiny_network: TransformerNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "_FRAMES", 7)
    photos = [texture(190, 260).float() / 255]
    scores = measure_stability(Stylizer(tiny_network, strength=0), photos)
    assert [one.motion for one in scores] == ["pan (3, 1)", "still, noise 2", "still, light ±6 %"]
    for one in scores:
        assert one.stylized == pytest.approx(one.clip, abs=2)
        assert one.steadied < one.stylized + 0.5
        assert one.sharpness > 0.85


def test_evaluate_prints_the_scores(
    tiny_network: TransformerNet,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stability, "_FRAMES", 7)
    save_model(tmp_path / "tiny.pth", tiny_network, metadata={"config": {}, "step": 0})
    arguments = ["--model", str(tmp_path / "tiny.pth"), "--images", str(photos), "--n", "1"]
    arguments += ["--video-stability", "--json", str(tmp_path / "scores.json")]
    assert evaluate.main(arguments) == 0
    assert "| pan (3, 1) |" in capsys.readouterr().out
    assert '"motion": "still, noise 2"' in (tmp_path / "scores.json").read_text(encoding="utf-8")
    # What it would have to leave undone is refused.
    for option in ("--stamp", "--plot=curve.png", "--log-dir=log", "--card"):
        assert evaluate.main([*arguments, option]) == 2
        assert "--video-stability: " in capsys.readouterr().err


@pytest.mark.parametrize("step", [(3, 1), (0, 0), (-7, 4), (14, -11)])
def test_matching_finds_how_a_photo_pans(step: tuple[int, int]) -> None:
    photo = texture(160, 200)
    before, now = (window(photo, 40 + i * step[0], 40 + i * step[1]) for i in (0, 1))
    found = matched(before, now)
    assert found.shape == (8, 12, 2)
    assert np.array_equal(np.median(found.reshape(-1, 2), 0), step)
    assert (found[2:-2, 2:-2] == step).all(-1).mean() > 0.85


def test_matching_finds_what_moves_before_a_photo_that_stands() -> None:
    photo, object_ = window(texture(120, 160), 0, 0), texture(24, 24, 7)
    before, now = photo.clone(), photo.clone()
    before[:, 20:44, 30:54] = object_
    now[:, 20:44, 36:60] = object_
    found = matched(before, now)
    assert (found[3:5, 5:7] == (-6, 0)).all()
    assert (found[:, 10:] == 0).all()


def test_matching_leaves_noise_on_a_plain_wall_where_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    before, now = (
        (128 + 2 * torch.randn(3, 64, 96, generator=generator)).to(torch.uint8) for _ in range(2)
    )
    assert np.abs(matched(before, now)).max(-1).mean() < 2


def test_strokes_follow_a_pan_without_vectors() -> None:
    photo = texture(120, 160)
    frames = [window(photo, 3 * i, i) for i in range(8)]
    looks = [strokes(frame, i) for i, frame in enumerate(frames)]
    steadier = Steadier(matching=True)
    steadied = [steadier.add(frame, look, None) for frame, look in zip(frames, looks, strict=True)]
    assert flicker(steadied, (3, 1)) < 0.5 * flicker(looks, (3, 1))


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libx265"])
def test_a_clip_without_vectors_is_steadied_when_asked_for(
    tmp_path: Path, tiny_network: TransformerNet, codec: str
) -> None:
    photo = texture(120, 200).permute(1, 2, 0).numpy()
    frames = [photo[i : i + 96, 3 * i : 3 * i + 128] for i in range(6)]
    options = {"crf": "18", "x265-params": "log-level=none:pools=none"}
    clip = write_clip(tmp_path / "a.mkv", frames, codec=codec, options=options)
    stylizer = Stylizer(tiny_network)
    notes: list[str] = []
    for name, steady in (("plain", None), ("steady", True)):
        result = stylize_clip(
            stylizer, clip, tmp_path / f"{name}.mkv", steady=steady, on_note=notes.append
        )
        assert result.steadied is bool(steady)
    assert notes == []
    plain, steadied = (
        [frame.pixels for frame in FileSource(tmp_path / f"{name}.mkv").frames()]
        for name in ("plain", "steady")
    )
    assert flicker(steadied, (3, 1)) < flicker(plain, (3, 1))
