import shutil
from collections.abc import Callable

import pytest
import torch

from fast_style.config import Config, ConfigError
from fast_style.data import content_batches
from fast_style.training.inputs import prepare
from fast_style.training.schedule import Plan
from fast_style.training.trainee import Trainee, train_step, worth_compiling

MakeConfig = Callable[..., Config]


@pytest.fixture
def trainee(tiny_config: MakeConfig) -> Trainee:
    config = tiny_config()
    return Trainee(config, prepare(config, device="cpu"))


def test_building_a_trainee_draws_none_of_the_processs_random_numbers(
    tiny_config: MakeConfig,
) -> None:
    config = tiny_config()
    inputs = prepare(config, device="cpu")
    before = torch.get_rng_state()
    Trainee(config, inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_gradient_is_clipped_to_the_norm_asked_for(trainee: Trainee) -> None:
    content = torch.rand(2, 3, 32, 32)
    _, norm = train_step(
        trainee.network,
        trainee.inputs.criterion,
        trainee.optimizer,
        content,
        scaler=trainee.scaler,
        max_gradient_norm=1e-3,
    )
    squares = [p.grad.square().sum() for p in trainee.network.parameters() if p.grad is not None]
    assert norm.item() > 1e-2  # as it was before
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_plan_says_how_many_steps_see_small_crops(tiny_config: MakeConfig) -> None:
    sizes = {"training.image_size": 48, "training.first_size": 32}
    config = tiny_config({**sizes, "training.steps": 20, "training.first_share": 0.4})
    trainee = Trainee(config, prepare(config, device="cpu"))
    images = trainee.inputs.images
    assert images.first_steps == 8
    batches = content_batches(images, 1, size_at=trainee.crop_size_at)
    trainee.follow(Plan(steps=5))
    assert [next(batches).pixels.shape[-1] for _ in range(4)] == [32, 32, 48, 48]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_step_gives_the_losses_and_the_state_of_an_eager_one(
    tiny_config: MakeConfig,
) -> None:
    content = torch.rand(5, 2, 3, 32, 32)
    totals, states = [], []
    for compiled in (False, True):
        config = tiny_config({"training.compile": compiled, "training.learning_rate": 1e-4})
        trainee = Trainee(config, prepare(config, device="cpu"))
        totals.append([trainee.update(images)[0].total.item() for images in content])
        states.append(trainee.state())
        trainee.restore(states[-1])
        assert trainee.stylize(content[0]).shape == content[0].shape
    assert totals[1] == pytest.approx(totals[0], rel=1e-4)
    eager, compiled_state = states
    for part in ("network", "average"):
        assert list(compiled_state[part]) == list(eager[part])
        for key, value in eager[part].items():
            # What is left of a bias before a norm is rounding.
            torch.testing.assert_close(compiled_state[part][key], value, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("device", "steps", "choice", "compiles"),
    [
        ("cpu", 40_000, "auto", False),
        ("cuda", 40_000, "auto", True),
        ("cuda", 300, "auto", False),
        ("cuda", 300, True, True),
        ("cuda", 40_000, False, False),
        ("mps", 40_000, "auto", False),
    ],
)
def test_long_runs_on_cuda_are_compiled_unless_told_otherwise(
    tiny_config: MakeConfig, device: str, steps: int, choice: str | bool, compiles: bool
) -> None:
    config = tiny_config({"training.steps": steps, "training.compile": choice})
    assert worth_compiling(config.training, torch.device(device)) is compiles


def test_what_to_compile_is_auto_true_or_false(tiny_config: MakeConfig) -> None:
    assert tiny_config().training.compile == "auto"
    for value in (1, "yes", "True", None):
        with pytest.raises(ConfigError, match=r"training\.compile: .* is not one of auto, true"):
            tiny_config({"training.compile": value})
