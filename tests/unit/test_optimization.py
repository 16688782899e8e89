import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic import vgg_weights
from torch import Tensor

from fast_style.baseline.methods import (
    Adam,
    NormalizedGradient,
    OptimizationError,
    ProjectedLBFGS,
)
from fast_style.baseline.optimization import (
    Baseline,
    fit_content,
    optimize_image,
    scale_sizes,
)
from fast_style.config import (
    BaselineConfig,
    BaselineContentConfig,
    BaselineLossConfig,
    BaselineStyleConfig,
    OptimizationConfig,
)
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import (
    Losses,
    PerceptualLoss,
    absolute_variation,
    gram_matrix,
    power_variation,
)

LAYERS = {"content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_2": 1.0, "relu2_2": 1.0}}


@pytest.fixture(scope="module")
def features() -> VGGFeatures:
    vgg = VGGFeatures("vgg16", ["relu1_2", "relu2_2"])
    vgg.load_state_dict({f"features.{key}": value for key, value in vgg_weights().items()})
    return vgg


@pytest.fixture
def content() -> Tensor:
    return torch.rand(1, 3, 16, 20)


@pytest.fixture
def criterion(features: VGGFeatures) -> PerceptualLoss:
    return PerceptualLoss(
        features,
        torch.rand(1, 3, 18, 18, generator=torch.Generator().manual_seed(3)),
        **LAYERS,
        content_weight=1e-4,
        style_weight=1e-4,
        tv_weight=1.0,
    )


class Record:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.totals: list[float] = []
        self.images: list[Tensor] = []

    def __call__(self, step: int, losses: Losses, image: Tensor) -> None:
        self.steps.append(step)
        self.totals.append(losses.total.item())
        self.images.append(image.clone())


@pytest.mark.parametrize("method", ["lbfgs", "adam", "gradient"])
def test_every_method_lowers_the_objective_step_by_step_and_stays_in_range(
    method: str, criterion: PerceptualLoss, content: Tensor
) -> None:
    options = OptimizationConfig(method=method, steps=25)  # type: ignore[arg-type]
    record = Record()
    outcome = optimize_image(criterion, content, initial=content, options=options, report=record)
    assert record.steps == list(range(26))
    assert outcome.finished
    assert outcome.steps == 25
    kept = criterion(outcome.image, criterion.content_targets(content)).total.item()
    assert kept < 0.7 * record.totals[0]
    assert outcome.image.shape == content.shape
    assert outcome.image.min() >= 0
    assert outcome.image.max() <= 1
    assert torch.equal(record.images[-1], outcome.image)
    assert not outcome.image.requires_grad


def test_step_zero_is_the_objective_at_the_initial_image(
    criterion: PerceptualLoss, content: Tensor
) -> None:
    initial, record = torch.rand_like(content), Record()
    options = OptimizationConfig(steps=1)
    optimize_image(criterion, content, initial=initial, options=options, report=record)
    expected = criterion(initial, criterion.content_targets(content)).total.item()
    assert record.totals[0] == expected


def quadratic(method: ProjectedLBFGS, steps: int, scales: Tensor, target: Tensor) -> list[float]:
    totals = []
    for _ in range(steps):
        difference = method.image - target
        total = (scales * difference.square()).sum()
        method.image.grad = (2 * scales * difference).detach()
        totals.append(total.item())
        method.step(total.item())
    return totals


def test_lbfgs_finds_the_minimum_of_a_stretched_quadratic() -> None:
    image = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    scales = torch.logspace(0, 3, 48).reshape(image.shape)
    target = torch.rand(image.shape)
    method = ProjectedLBFGS(image, OptimizationConfig())
    quadratic(method, 150, scales, target)
    torch.testing.assert_close(method.kept(math.inf), target, atol=1e-3, rtol=0)


def test_lbfgs_projects_onto_the_valid_range_only_where_asked() -> None:
    target = torch.full((1, 3, 4, 4), 1.5)
    for clip, expected in ((True, 1.0), (False, 1.5)):
        image = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
        method = ProjectedLBFGS(image, OptimizationConfig(clip=clip))
        quadratic(method, 30, torch.ones_like(target), target)
        assert method.kept(math.inf).mean().item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("bad", [1e9, math.inf, math.nan])
def test_lbfgs_takes_back_a_step_that_makes_things_worse(bad: float) -> None:
    image = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    start = image.detach().clone()
    image.grad = torch.ones_like(image)
    method = ProjectedLBFGS(image, OptimizationConfig())
    method.step(10.0)
    moved = image.detach() - start
    assert torch.equal(method.kept(bad), start)
    method.step(bad)
    torch.testing.assert_close(image.detach() - start, moved * 0.1, rtol=1e-3, atol=1e-8)
    shortened = image.detach().clone()
    method.step(9.0)
    assert torch.equal(method.kept(math.inf), shortened)


def test_adam_is_tensorflows() -> None:
    """Against TensorFlow's rule: rate * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + epsilon)."""
    options = OptimizationConfig(
        method="adam", learning_rate=0.02, beta1=0.99, epsilon=0.1, clip=False
    )
    image = torch.zeros(1, 3, 2, 2, requires_grad=True)
    method, x, m, v = Adam(image, options), 0.0, 0.0, 0.0
    for step, gradient in enumerate((0.5, -2.0, 3.0, 0.1), start=1):
        image.grad = torch.full_like(image, gradient)
        method.step(0.0)
        m = 0.99 * m + 0.01 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        rate = 0.02 * (1 - 0.999**step) ** 0.5 / (1 - 0.99**step)
        x -= rate * m / (v**0.5 + 0.1)
    torch.testing.assert_close(image.detach(), torch.full_like(image, x))


def test_the_normalized_gradient_moves_by_the_rate_in_standard_deviation() -> None:
    image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    image.grad = 1e6 * torch.randn(1, 3, 8, 8)
    method = NormalizedGradient(image, OptimizationConfig(learning_rate=0.01))
    method.step(0.0)
    assert (image.detach() - 0.5).std(correction=0).item() == pytest.approx(0.01, rel=1e-4)


def test_balancing_makes_the_weights_the_terms_shares(
    features: VGGFeatures, content: Tensor
) -> None:
    """Scaling a term of the objective changes nothing when each is divided by its value."""
    images = []
    for factor in (1.0, 1e6):
        criterion = PerceptualLoss(
            features,
            torch.rand(1, 3, 18, 18, generator=torch.Generator().manual_seed(3)),
            content_layers={"relu2_2": factor},
            style_layers={"relu1_2": 1.0},
            tv_weight=0.3,
        )
        options = OptimizationConfig(method="gradient", balance=True, steps=5)
        initial = torch.rand(content.shape, generator=torch.Generator().manual_seed(4))
        images.append(optimize_image(criterion, content, initial=initial, options=options).image)
    torch.testing.assert_close(images[0], images[1], atol=1e-3, rtol=0)


def test_the_average_begins_as_a_plain_mean(criterion: PerceptualLoss, content: Tensor) -> None:
    plain, averaged = Record(), Record()
    for decay, record in ((0.0, plain), (0.99, averaged)):
        options = OptimizationConfig(method="adam", steps=6, average_decay=decay)
        optimize_image(criterion, content, initial=content, options=options, report=record)
    for count in range(1, 8):
        mean = torch.stack(plain.images[:count]).mean(0)
        torch.testing.assert_close(averaged.images[count - 1], mean)


def test_restarting_spends_one_step_on_the_point_that_was_kept(
    criterion: PerceptualLoss, content: Tensor
) -> None:
    record = Record()
    options = OptimizationConfig(steps=12, restart_every=5)
    optimize_image(criterion, content, initial=content, options=options, report=record)
    for step in (5, 10):
        assert record.totals[step + 1] == pytest.approx(min(record.totals[: step + 1]))


def test_a_run_that_is_stopped_gives_what_it_has(
    criterion: PerceptualLoss, content: Tensor
) -> None:
    record = Record()
    outcome = optimize_image(
        criterion,
        content,
        initial=content,
        options=OptimizationConfig(steps=50),
        report=record,
        should_stop=lambda: len(record.steps) > 3,
    )
    assert not outcome.finished
    assert outcome.steps == 3
    assert torch.equal(outcome.image, record.images[-1])


@pytest.mark.parametrize("method", ["lbfgs", "adam", "gradient"])
def test_a_non_finite_objective_is_an_error(
    method: str, criterion: PerceptualLoss, content: Tensor
) -> None:
    options = OptimizationConfig(method=method, steps=3)  # type: ignore[arg-type]
    initial = torch.full_like(content, math.nan)
    with pytest.raises(OptimizationError, match=r"step 0: the loss is NaN or infinite \(content"):
        optimize_image(criterion, content, initial=initial, options=options)


def test_scales_grow_by_the_square_root_of_two() -> None:
    image = torch.zeros(1, 3, 256, 512)
    assert scale_sizes(image, 128) == [(64, 128), (91, 181), (128, 256), (181, 362), (256, 512)]
    assert scale_sizes(image, 0) == [(256, 512)]
    assert scale_sizes(image, 600) == [(256, 512)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({}, (30, 60)),
        ({"maximum": 40}, (20, 40)),
        ({"maximum": 0}, (30, 60)),
        ({"long_edge": 120}, (60, 120)),
        ({"height": 10}, (10, 20)),
        ({"width": 10}, (5, 10)),
        ({"width": 8, "height": 9}, (9, 8)),
    ],
)
def test_the_content_image_comes_at_the_recipes_size(
    size: dict[str, int], expected: tuple[int, int]
) -> None:
    fitted = fit_content(torch.zeros(1, 3, 30, 60), BaselineContentConfig(**size))
    assert tuple(fitted.shape[-2:]) == expected


Recipe = Callable[..., BaselineConfig]


@pytest.fixture
def recipe(vgg_file: Path) -> Recipe:
    def make(**options: object) -> BaselineConfig:
        return BaselineConfig(
            name="test",
            style=BaselineStyleConfig(fit="content_edge"),
            loss=BaselineLossConfig(
                weights=vgg_file, **LAYERS, strength=1.0, padding="replicate", recompute=True
            ),
            optimization=OptimizationConfig(**options),  # type: ignore[arg-type]
        )

    return make


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_coarse_to_fine_counts_its_steps_and_ends_at_the_full_size(
    method: str, recipe: Recipe
) -> None:
    content, record = torch.rand(1, 3, 24, 32), Record()
    config = recipe(method=method, first_scale=16, first_steps=4, steps=3, average_decay=0.9)
    baseline = Baseline(config, content, [torch.rand(1, 3, 40, 40), torch.rand(1, 3, 30, 50)])
    outcome = baseline.run(report=record)
    assert baseline.steps == 10
    assert record.steps == [0, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10]
    sizes = [tuple(image.shape[-2:]) for image in record.images]
    assert sizes == [(12, 16)] * 5 + [(17, 23)] * 4 + [(24, 32)] * 4
    assert (outcome.steps, outcome.finished) == (10, True)
    assert outcome.image.shape == content.shape


def test_adam_carries_its_moments_up() -> None:
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    method = Adam(image, OptimizationConfig(method="adam"))
    image.grad = torch.ones_like(image)
    method.step(0.0)
    carried = method.carried_to(torch.rand(1, 3, 12, 12))
    assert carried.steps == 1
    torch.testing.assert_close(carried.mean, torch.full((1, 3, 12, 12), 0.1))
    torch.testing.assert_close(carried.square, torch.full((1, 3, 12, 12), 0.001))


@pytest.mark.parametrize("initial", ["content", "style", "noise"])
def test_the_same_seed_gives_the_same_image(initial: str, recipe: Recipe) -> None:
    content, style = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 20, 20)
    config = recipe(initial=initial, steps=3, seed=5)
    first, second = (Baseline(config, content, [style]).run().image for _ in range(2))
    assert torch.equal(first, second)
    other = replace(config, optimization=replace(config.optimization, seed=6))
    same = torch.equal(Baseline(other, content, [style]).run().image, first)
    assert same == (initial != "noise")


def test_an_image_too_small_for_the_smallest_scale_is_named_before_the_run(recipe: Recipe) -> None:
    config = recipe(first_scale=8, steps=3)
    with pytest.raises(ValueError, match="an image of 8×1 is too small for layer relu2_2"):
        Baseline(config, torch.rand(1, 3, 4, 64), [torch.rand(1, 3, 20, 20)])


def test_initial_noise_has_the_recipes_range(recipe: Recipe) -> None:
    record = Record()
    config = recipe(initial="noise", noise_mean=0.5, noise_range=0.1, steps=1)
    Baseline(config, torch.rand(1, 3, 24, 24), [torch.rand(1, 3, 20, 20)]).run(report=record)
    assert 0.45 <= record.images[0].min() < 0.46
    assert 0.54 < record.images[0].max() <= 0.55


def test_strength_needs_something_to_measure(recipe: Recipe) -> None:
    image = torch.rand(1, 3, 20, 20)
    for content, style in ((torch.full((1, 3, 2, 2), 0.5), image), (image, image)):
        with pytest.raises(ValueError, match="strength cannot be measured at relu"):
            Baseline(recipe(steps=1), content, [style])


def test_strength_is_measured_at_the_mixture_of_the_styles(recipe: Recipe) -> None:
    content, *styles = (torch.rand(1, 3, 20, 20) ** power for power in (1, 2, 4))

    def weights(*used: Tensor, shares: list[float] | None = None) -> dict[str, float]:
        baseline = Baseline(recipe(steps=1), content, used, shares=shares)
        return baseline.criterion_at(content).style_layers

    one, other, mixed = weights(styles[0]), weights(styles[1]), weights(*styles)
    for name, weight in mixed.items():
        assert weight != pytest.approx(one[name], rel=0.01)
        assert weight != pytest.approx(other[name], rel=0.01)
    assert weights(*styles, shares=[0, 2]) == pytest.approx(other)


def test_style_shares_mix_the_statistics(features: VGGFeatures) -> None:
    styles = [torch.rand(1, 3, 12, 12), torch.rand(1, 3, 10, 14)]
    only = [PerceptualLoss(features, style, **LAYERS).style_targets for style in styles]
    mixed = PerceptualLoss(features, styles, **LAYERS, style_shares=[3, 1]).style_targets
    for name, target in mixed.items():
        torch.testing.assert_close(target, 0.75 * only[0][name] + 0.25 * only[1][name])
    for shares in ([1.0], [0.0, 0.0], [2.0, -1.0]):
        with pytest.raises(ValueError, match="2 style images, but the shares are"):
            PerceptualLoss(features, styles, **LAYERS, style_shares=shares)


def test_variations_of_a_step_edge_by_hand() -> None:
    # One edge of 0.2 = 51 across, two rows; the third row has none.
    image = torch.zeros(1, 3, 3, 2)
    image[..., :2, 1] = 0.2
    assert absolute_variation(image).item() == pytest.approx(3 * (2 * 51 + 51))
    # On the grid of 2 x 1 corners: two differences across, none down.
    assert power_variation(image).item() == pytest.approx(3 * 2 * (51**2) ** 1.25)
    assert power_variation(torch.cat([image, image])).item() == pytest.approx(6 * 51**2.5)


def test_gram_matrix_with_another_divisor() -> None:
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    expected = torch.tensor([[[5.0, 11.0], [11.0, 25.0]]])
    torch.testing.assert_close(gram_matrix(maps, divisor=1), expected)
    torch.testing.assert_close(gram_matrix(maps, divisor=2), expected / 2)


def test_recomputing_changes_neither_maps_nor_gradients() -> None:
    results = []
    for recompute in (False, True):
        vgg = VGGFeatures("vgg16", ["relu1_2", "relu2_2"], recompute=recompute)
        vgg.load_state_dict({f"features.{key}": value for key, value in vgg_weights().items()})
        image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        image.requires_grad_()
        maps = vgg(image)
        sum(value.square().sum() for value in maps.values()).backward()
        results.append((maps, image.grad))
    torch.testing.assert_close(results[0], results[1])


def test_average_pooling_and_replicate_padding() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_1", "relu2_1"], pooling="average", padding="replicate")
    assert any(isinstance(layer, torch.nn.AvgPool2d) for layer in vgg.features)
    # A flat image stays flat up to its edge.
    maps = vgg(torch.full((1, 3, 8, 8), 0.7))["relu1_1"]
    torch.testing.assert_close(maps, maps[..., 4:5, 4:5].expand_as(maps))


def test_an_image_without_any_slope_stays_as_it_is() -> None:
    """A flat image of which nothing is wanted but smoothness is at its minimum already."""
    image = torch.full((1, 3, 6, 6), 0.5, requires_grad=True)
    method = ProjectedLBFGS(image, OptimizationConfig(method="lbfgs", steps=3, clip=True))
    for _ in range(3):
        image.grad = torch.zeros_like(image)
        method.step(0.0)
    assert torch.equal(image.detach(), torch.full((1, 3, 6, 6), 0.5))
