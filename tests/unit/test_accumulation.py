import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from recorder import Recorder
from runs import assert_equal_bits, run, weights_of
from synthetic import TERMS
from torch import Tensor, nn

from fast_style.config import Config, ConfigError
from fast_style.objective.losses import Losses
from fast_style.objective.stability import Disturbance
from fast_style.training.accumulation import in_parts
from fast_style.training.inputs import prepare, prepare_together
from fast_style.training.trainee import Trainee

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(("parts", "stability"), [(2, 0), (4, 0), (2, 10)])
def test_parts_of_a_batch_give_the_losses_and_the_gradients_of_the_whole(
    tiny_config: MakeConfig, parts: int, stability: float
) -> None:
    content = torch.rand(4, 3, 32, 32)
    losses, norms, gradients = [], [], []
    for accumulate in (1, parts):
        settings = {**TERMS, "training.batch_size": 4, "loss.stability_weight": stability}
        config = tiny_config({**settings, "training.accumulate": accumulate})
        trainee = Trainee(config, prepare(config, device="cpu"))
        found, norm = trainee.update(content)
        losses.append([value.item() for value in found.items().values()])
        norms.append(norm.item())
        gradients.append([parameter.grad for parameter in trainee.network.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4 * norms[0])


def test_the_network_sees_one_part_at_a_time(tiny_config: MakeConfig) -> None:
    config = tiny_config({"training.batch_size": 4, "training.accumulate": 2})
    trainee = Trainee(config, prepare(config, device="cpu"))
    seen: list[int] = []
    trainee.network.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    trainee.update(torch.rand(4, 3, 32, 32))
    assert seen == [2, 2]


def test_a_run_in_parts_learns_as_the_whole_does_and_resumes_to_the_bit(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"training.batch_size": 4, "training.steps": 6}
    recorders = [Recorder(), Recorder()]
    run(tiny_config(changes), tmp_path / "whole", monitors=[recorders[0]])
    config = tiny_config({**changes, "training.accumulate": 2})
    run(config, tmp_path / "parts", monitors=[recorders[1]])
    whole, parts = (list(one.values["loss/total"].values()) for one in recorders)
    assert parts == pytest.approx(whole, rel=1e-3)
    stopped = Recorder()
    run(config, tmp_path / "broken", monitors=[stopped], should_stop=lambda: 4 in stopped.steps)
    assert run(config, tmp_path / "broken").finished
    assert_equal_bits(weights_of(tmp_path / "broken"), weights_of(tmp_path / "parts"))


def test_a_run_that_does_not_fit_goes_on_in_parts(tiny_config: MakeConfig, tmp_path: Path) -> None:
    changes = {"training.batch_size": 4, "training.steps": 2}
    run(tiny_config(changes), tmp_path)
    changes |= {"training.steps": 3, "training.accumulate": 4}
    assert run(tiny_config(changes), tmp_path).step == 3


@pytest.mark.parametrize(
    ("images", "parts", "cure"), [(4, 3, "make it 2 or 4, or 1"), (1, 2, "use 1")]
)
def test_parts_that_would_not_be_equal_are_refused(
    tiny_config: MakeConfig, images: int, parts: int, cure: str
) -> None:
    config = tiny_config({"training.batch_size": images, "training.accumulate": parts})
    with pytest.raises(ConfigError) as caught:
        prepare_together(config, device="cpu")
    assert str(caught.value) == (
        f"training.accumulate: {images} images of a step cannot be computed in {parts} equal "
        f"parts: {cure}"
    )


class _Exchanging(nn.Module):
    """Stands for a network that several processes train: notes when gradients are kept back."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_back = False

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        self.kept_back = True
        yield
        self.kept_back = False


def test_processes_exchange_gradients_once_a_step() -> None:
    network, kept_back = _Exchanging(), []

    def losses_of(images: Tensor, how: Disturbance | None) -> Losses:
        mean = images.mean()
        return Losses(content=mean, style=2 * mean, tv=0 * mean)

    losses = in_parts(
        losses_of,
        torch.arange(6.0)[:, None, None, None].expand(6, 3, 2, 2),
        None,
        parts=3,
        backward=lambda total: kept_back.append(network.kept_back),
        module=network,
    )
    assert kept_back == [True, True, False]
    assert (losses.content.item(), losses.total.item()) == (2.5, 7.5)
