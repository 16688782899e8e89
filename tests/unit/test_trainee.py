import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_equal_bits
from synthetic import TERMS

from fast_style.config import Config, ConfigError
from fast_style.data import content_batches
from fast_style.devices import autocast
from fast_style.images import to_float
from fast_style.training import forward, train
from fast_style.training.forward import Forward, choose_compiling, worth_compiling
from fast_style.training.inputs import prepare
from fast_style.training.schedule import Plan
from fast_style.training.trainee import Trainee, train_step

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
        changes = {"loss.padding": "replicate", "training.compile": compiled}
        config = tiny_config({**TERMS, **changes, "training.learning_rate": 1e-4})
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


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_content_images_to_losses_are_one_graph_with_the_bits_of_an_eager_step(
    trainee: Trainee, dtype: torch.dtype
) -> None:
    content = torch.rand(2, 3, 32, 32)
    half = Forward(trainee.network, trainee.inputs.criterion)
    results = []
    for evaluate in (
        half.evaluate,
        torch.compile(half.evaluate, backend="aot_eager", fullgraph=True, dynamic=False),
    ):
        half.zero_grad(set_to_none=True)
        with autocast(content.device, dtype):
            losses = evaluate(content)
        losses.total.backward()
        gradients = [weight.grad.clone() for weight in half.parameters()]
        results.append([*losses.items().values(), *gradients])
    for eager, compiled in zip(*results, strict=True):
        assert torch.equal(compiled, eager)


@pytest.fixture
def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile on the CPU as on CUDA, where long runs are compiled by default; nothing can."""
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(forward, "worth_compiling", lambda *_: True)
    cpp_builder.cpp_compiler_search.cache_clear()
    torch._dynamo.reset()
    with config.patch({"cpp.cxx": (None, "/nonexistent/c++"), "force_disable_caches": True}):
        yield
    cpp_builder.cpp_compiler_search.cache_clear()


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_run_goes_on_where_compiling_fails(
    tiny_config: MakeConfig,
    broken_compiler: None,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    config = tiny_config({"training.steps": 2, "data.workers": 0})
    assert train(config, tmp_path / "run", device="cpu").finished
    (line,) = [r.getMessage() for r in caplog.records if r.name == forward.__name__]
    assert line.startswith("compiling failed, so training goes on without it (")
    assert "ompiler" in line
    assert "\n" not in line
    # What was tried has left no trace: the weights are those of a run that never compiled.
    trainee = Trainee(config, prepare(config, device="cpu"))
    state = torch.load(tmp_path / "run" / "state-00000002.pt", weights_only=True)
    for batch in islice(content_batches(trainee.inputs.images, config.training.batch_size), 2):
        trainee.update(to_float(batch.pixels))
    assert_equal_bits(state["network"], trainee.state()["network"])


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_who_insists_on_compiling_is_told_in_one_line_why_it_failed(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no kernel for this card")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    config = tiny_config({"training.compile": True})
    trainee = Trainee(config, prepare(config, device="cpu"))
    with pytest.raises(ConfigError) as caught:
        trainee.update(torch.rand(2, 3, 32, 32))
    line = str(caught.value)
    assert line.startswith("training.compile: true, but compiling failed (")
    assert "no kernel for this card" in line
    assert "\n" not in line


def test_without_triton_or_a_c_compiler_nothing_is_tried(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config({"training.steps": 40_000}).training
    # There is no GPU here, so none that Triton would know.
    assert choose_compiling(config, torch.device("cuda")) is False
    assert "no Triton for this GPU" in caplog.text
    assert choose_compiling(config, torch.device("cpu")) is False


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
