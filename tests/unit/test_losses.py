import pytest
import torch
from torch import Tensor

from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import Losses, PerceptualLoss, gram_matrix, total_variation


@pytest.fixture(scope="module")
def vgg() -> VGGFeatures:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return VGGFeatures("vgg16", ["relu1_2", "relu2_2"])


def perceptual_loss(vgg: VGGFeatures, style: Tensor, **changes: object) -> PerceptualLoss:
    settings = {
        "content_layers": {"relu2_2": 1.0},
        "style_layers": {"relu1_2": 1.0, "relu2_2": 1.0},
        "content_weight": 1.0,
        "style_weight": 1.0,
        "tv_weight": 1.0,
        **changes,
    }
    return PerceptualLoss(vgg, style, **settings)  # type: ignore[arg-type]


def evaluate(criterion: PerceptualLoss, stylized: Tensor, content: Tensor) -> Losses:
    return criterion(stylized, criterion.content_targets(content))


@pytest.fixture
def images() -> tuple[Tensor, Tensor, Tensor]:
    """Style (1, 3, 20, 24), content and stylized (3, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(2)
    style = torch.rand(1, 3, 20, 24, generator=generator)
    content, stylized = torch.rand(2, 3, 3, 16, 16, generator=generator)
    return style, content, stylized


def test_gram_matrix_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    # Rows (1, 2) and (3, 4); products 5, 11, 25; divided by C H W = 4.
    assert gram_matrix(features).tolist() == [[[1.25, 2.75], [2.75, 6.25]]]


def test_gram_matrix_is_one_a_image() -> None:
    features = torch.randn(3, 4, 5, 6)
    grams = gram_matrix(features)
    assert grams.shape == (3, 4, 4)
    expected = torch.einsum("nchw,ndhw->ncd", features, features) / (4 * 5 * 6)
    torch.testing.assert_close(grams, expected)


def test_gram_matrix_of_half_precision_does_not_overflow() -> None:
    features = torch.full((1, 64, 32, 32), 300.0, dtype=torch.float16)
    gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram, torch.full((1, 64, 64), 300.0**2 / 64))


@pytest.mark.parametrize("size", [(1, 3), (6, 5)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.bfloat16, 2**-7), (torch.float16, 2**-10)],
)
def test_the_gradient_of_the_gram_matrix(
    dtype: torch.dtype, tolerance: float, size: tuple[int, int]
) -> None:
    features = torch.randn(2, 4, *size).to(dtype).requires_grad_()
    upstream = torch.randn(2, 4, 4)  # of any kind, not symmetric alone
    gram_matrix(features).backward(upstream)
    assert features.grad is not None
    assert features.grad.dtype == dtype
    exact = features.detach().double().requires_grad_()
    gram = torch.einsum("nchw,ndhw->ncd", exact, exact) / (4 * size[0] * size[1])
    gram.backward(upstream.double())
    assert exact.grad is not None
    error = (features.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error < tolerance


def checkerboard(height: int, width: int) -> Tensor:
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    return board.float().expand(1, 3, height, width)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (5, 8)])
def test_total_variation_of_a_checkerboard_is_2(height: int, width: int) -> None:
    assert total_variation(checkerboard(height, width)).item() == 2


@pytest.mark.parametrize(("size", "value"), [((1, 7), 1), ((7, 1), 1), ((1, 1), 0)])
def test_total_variation_of_a_line_has_no_neighbours_across_it(
    size: tuple[int, int], value: float
) -> None:
    assert total_variation(checkerboard(*size)).item() == value


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[0.0, 0.5], [0.25, 0.25]]).expand(2, 3, 2, 2)
    # Down: 0.25^2 and 0.25^2; across: 0.5^2 and 0.
    assert total_variation(image).item() == 0.0625 + 0.125


def test_content_loss_is_zero_at_the_content(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    criterion = perceptual_loss(vgg, style)
    assert evaluate(criterion, content, content).content.item() == 0
    assert evaluate(criterion, stylized, content).content.item() > 0


def test_style_loss_is_zero_at_the_style_image(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    criterion = perceptual_loss(vgg, style)
    elsewhere = evaluate(criterion, stylized, content).style.item()
    assert evaluate(criterion, style, style).style.item() <= 1e-9 * elsewhere


def test_content_loss_is_the_mean_squared_difference_of_the_feature_maps(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    layers = {"relu1_2": 2.0, "relu2_2": 0.5}
    criterion = perceptual_loss(vgg, style, content_layers=layers)
    y, c = vgg(stylized), vgg(content)
    expected = sum(w * (y[n] - c[n]).square().mean() for n, w in layers.items())
    torch.testing.assert_close(evaluate(criterion, stylized, content).content, expected)


def test_style_loss_is_the_mean_squared_difference_of_the_gram_matrices(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    layers = {"relu1_2": 2.0, "relu2_2": 0.5}
    criterion = perceptual_loss(vgg, style, style_layers=layers)
    y, s = vgg(stylized), vgg(style)
    expected = sum(
        w * (gram_matrix(y[n]) - gram_matrix(s[n])).square().mean() for n, w in layers.items()
    )
    torch.testing.assert_close(evaluate(criterion, stylized, content).style, expected)


@pytest.mark.parametrize("term", ["content", "style", "tv"])
def test_a_weight_multiplies_its_term_and_no_other(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor], term: str
) -> None:
    style, content, stylized = images
    once = evaluate(perceptual_loss(vgg, style), stylized, content).items()
    thrice = evaluate(
        perceptual_loss(vgg, style, **{f"{term}_weight": 3.0}), stylized, content
    ).items()
    for name in ("content", "style", "tv"):
        expected = (3 if name == term else 1) * once[name]
        torch.testing.assert_close(thrice[name], expected, rtol=1e-6, atol=0)


def test_the_total_is_the_sum_of_the_terms() -> None:
    losses = Losses(content=torch.tensor(1.0), style=torch.tensor(2.0), tv=torch.tensor(4.0))
    assert losses.total.item() == 7
    reported = {name: value.item() for name, value in losses.items().items()}
    assert reported == {"content": 1, "style": 2, "tv": 4, "total": 7}


def test_losses_of_a_batch_are_the_average_of_its_images(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    criterion = perceptual_loss(vgg, style)
    batch = evaluate(criterion, stylized, content).items()
    single = [
        evaluate(criterion, y[None], c[None]).items()
        for y, c in zip(stylized, content, strict=True)
    ]
    for name, value in batch.items():
        mean = torch.stack([losses[name] for losses in single]).mean()
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=0)


def test_losses_are_float32_under_bf16_autocast(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    criterion = perceptual_loss(vgg, style)
    exact = evaluate(criterion, stylized, content).items()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vgg(content)["relu1_2"].dtype == torch.bfloat16
        losses = evaluate(criterion, stylized, content).items()
        assert gram_matrix(vgg(content)["relu1_2"]).dtype == torch.float32
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0)


def test_gram_matrix_under_autocast_is_that_without(vgg: VGGFeatures) -> None:
    features = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gram_matrix(features)
    assert torch.equal(inside, gram_matrix(features))


def test_gradients_reach_the_stylized_image_and_not_the_targets(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    stylized.requires_grad_()
    criterion = perceptual_loss(vgg, style)
    targets = criterion.content_targets(content)
    criterion(stylized, targets).total.backward()
    assert stylized.grad is not None
    assert stylized.grad.abs().sum() > 0
    assert not any(target.requires_grad for target in targets.values())
    assert not any(target.requires_grad for target in criterion.style_targets.values())


def test_keras_names_mean_the_same_layers(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    style, content, stylized = images
    named = perceptual_loss(
        vgg, style, content_layers={"block2_conv2": 1.0}, style_layers={"block1_conv2": 1.0}
    )
    assert named.content_layers == {"relu2_2": 1.0}
    assert named.style_layers == {"relu1_2": 1.0}
    assert evaluate(named, stylized, content).total.item() > 0


def test_a_layer_the_loss_network_was_built_without_is_named(
    vgg: VGGFeatures, images: tuple[Tensor, Tensor, Tensor]
) -> None:
    with pytest.raises(ValueError, match=r"built without relu1_1, relu3_3"):
        perceptual_loss(vgg, images[0], style_layers={"relu3_3": 1, "relu1_1": 1})
