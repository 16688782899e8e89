import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import assert_equal_bits, run, weights_of

from fast_style.config import Config, ConfigError
from fast_style.config.recipes import load_recipe
from fast_style.objective.stability import Disturbance, draw_disturbance
from fast_style.training.inputs import prepare
from fast_style.training.trainee import Trainee

MakeConfig = Callable[..., Config]
CPU = torch.device("cpu")


def moved_by(x: int, y: int, *, size: int, light: float = 1.0, zoom: float = 1.0) -> Disturbance:
    """A disturbance that shows at each place what was x to the right and y below of it."""
    motion = torch.tensor([[[zoom, 0, 2 * x / size], [0, zoom, 2 * y / size]]])
    return Disturbance(
        motion=motion, light=torch.full((1, 1, 1, 1), light), noise=torch.zeros(1, 3, size, size)
    )


def test_a_motion_by_whole_pixels_shows_the_very_pixels() -> None:
    photo = torch.rand(1, 3, 32, 32)
    moved = moved_by(3, 1, size=32).moved(photo)
    torch.testing.assert_close(moved[..., :31, :29], photo[..., 1:, 3:], rtol=0, atol=1e-5)


def test_light_is_on_the_photo_and_not_on_its_picture() -> None:
    photo = torch.rand(1, 3, 32, 32) * 0.9
    relit = moved_by(0, 0, size=32, light=1.05)
    torch.testing.assert_close(relit.of(photo), photo * 1.05, rtol=0, atol=1e-5)
    torch.testing.assert_close(relit.moved(photo), photo, rtol=0, atol=1e-5)


def test_a_picture_that_moves_with_its_photo_is_stable_and_one_that_stays_is_not() -> None:
    picture, disturbance = torch.rand(1, 3, 32, 32), moved_by(3, 1, size=32)
    assert disturbance.difference(picture, disturbance.moved(picture)) < 1e-9
    # By hand: pixels 8 from both edges, in this picture and in the one before.
    still = (picture[..., 8:-9, 8:-11] - picture[..., 9:-8, 11:-8]).square().mean()
    assert disturbance.difference(picture, picture).item() == pytest.approx(still.item(), rel=1e-4)


def test_pixels_that_only_one_picture_shows_do_not_count() -> None:
    picture, disturbance = torch.rand(1, 3, 48, 48), moved_by(-8, 8, size=48, zoom=1.03)
    again = disturbance.moved(picture)
    again[0, :, disturbance.shared(48)[0] == 0] = 100
    assert disturbance.difference(picture, again) == 0


def test_each_image_of_a_batch_counts_alike() -> None:
    first, second = moved_by(8, 8, size=32), moved_by(0, 0, size=32)
    both = Disturbance(
        **{
            field.name: torch.cat([getattr(one, field.name) for one in (first, second)])
            for field in dataclasses.fields(Disturbance)
        }
    )
    images, again = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    each = [
        one.difference(images[i : i + 1], again[i : i + 1]) for i, one in enumerate((first, second))
    ]
    torch.testing.assert_close(both.difference(images, again), torch.stack(each).mean())


def test_a_draw_is_a_function_of_seed_and_step_and_processes_share_it() -> None:
    def draw(seed: int, step: int, count: int = 4, **share: tuple[int, int]) -> Disturbance:
        return draw_disturbance(seed, step, count=count, size=32, device=CPU, **share)

    one, again = draw(1, 2), draw(1, 2)
    halves = [draw(1, 2, 2, share=(part, 2)) for part in (0, 1)]
    for field in dataclasses.fields(Disturbance):
        whole = getattr(one, field.name)
        assert torch.equal(whole, getattr(again, field.name))
        assert torch.equal(whole, torch.cat([getattr(half, field.name) for half in halves]))
    assert not torch.equal(one.motion, draw(1, 3).motion)
    assert not torch.equal(one.motion, draw(2, 2).motion)


def test_draws_stay_within_what_is_promised() -> None:
    many = draw_disturbance(0, 0, count=200, size=32, device=CPU)
    zoom, shift = many.motion[:, 0, 0], many.motion[:, :, 2] * 16
    assert torch.equal(many.motion[:, 1, 1], zoom)
    assert shift.abs().max() == 8
    assert torch.allclose(shift, shift.round())
    assert 0.97 <= zoom.min() < 0.98
    assert 1.02 < zoom.max() <= 1.03
    assert 60 < (zoom == 1).sum() < 140
    assert many.light.sub(1).abs().max() <= 0.05
    deviations = many.noise.std((1, 2, 3)) * 255
    assert deviations.max() == pytest.approx(4, abs=0.2)


def test_a_step_reports_the_term_and_it_is_part_of_the_total(tiny_config: MakeConfig) -> None:
    config = tiny_config({"loss.stability_weight": 10})
    trainee = Trainee(config, prepare(config, device="cpu"))
    losses, _ = trainee.update(torch.rand(2, 3, 32, 32))
    terms = losses.items()
    assert list(terms) == ["content", "style", "tv", "total", "stability"]
    assert terms["stability"] > 0
    total = terms["content"] + terms["style"] + terms["tv"] + terms["stability"]
    torch.testing.assert_close(terms["total"], total)
    # What is validated is the perceptual loss, whatever the weight.
    assert "stability" not in trainee.validate()


def test_without_a_weight_there_is_no_second_pass(tiny_config: MakeConfig) -> None:
    config = tiny_config()
    trainee = Trainee(config, prepare(config, device="cpu"))
    passes = []
    trainee.network.register_forward_hook(lambda *_: passes.append(1))
    losses, _ = trainee.update(torch.rand(2, 3, 32, 32))
    assert losses.stability is None
    assert len(passes) == 1


def test_training_with_the_term_makes_a_network_steadier(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    def instability(weight: float) -> float:
        config = tiny_config({"loss.stability_weight": weight, "training.steps": 40})
        trainee = Trainee(config, prepare(config, device="cpu"))
        generator = torch.Generator().manual_seed(3)
        for _ in range(40):
            trainee.update(torch.rand(2, 3, 32, 32, generator=generator))
        photos = torch.rand(8, 3, 32, 32, generator=generator)
        disturbance = draw_disturbance(9, 0, count=8, size=32, device=CPU)
        with torch.no_grad():
            pictures, again = (trainee.network(one) for one in (photos, disturbance.of(photos)))
            return disturbance.difference(pictures, again).item()

    assert instability(1e6) < 0.5 * instability(0)


def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config({"loss.stability_weight": 10})
    run(config, tmp_path / "unbroken")
    stops = iter([False] * 5 + [True])
    run(config, tmp_path / "resumed", should_stop=lambda: next(stops))
    run(config, tmp_path / "resumed")
    assert_equal_bits(weights_of(tmp_path / "unbroken"), weights_of(tmp_path / "resumed"))


def test_the_table_of_losses_has_a_column_for_it(tmp_path: Path) -> None:
    from fast_style.training.monitors import MetricsMonitor

    monitor = MetricsMonitor(tmp_path)
    monitor.start(0, 10, "loss: {stability_weight: 60}")
    terms = {"content": 1.0, "style": 2.0, "tv": 3.0, "total": 6.0}
    monitor.scalars(0, {f"loss_validation/{name}": value for name, value in terms.items()})
    terms |= {"total": 10.0, "stability": 4.0}
    monitor.scalars(1, {f"loss/{name}": value for name, value in terms.items()})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,part,content,style,tv,total,stability,learning_rate,images_per_second",
        "0,validation,1.0,2.0,3.0,6.0,,,",
        "1,training,1.0,2.0,3.0,10.0,4.0,,",
    ]


def test_the_baseline_refuses_it_by_name() -> None:
    with pytest.raises(ConfigError, match=r"loss\.stability_weight: is of training alone"):
        load_recipe("johnson", overrides=["loss.stability_weight=1"])
