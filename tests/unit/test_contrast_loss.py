"""The contrast term: colours that spread as far as the style image's cost nothing."""

import numpy as np
import pytest
import torch
from synthetic import photo
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.contrast import ContrastLoss
from fast_style.objective.losses import Losses, PerceptualLoss


def noise(height: int, width: int, *, seed: int = 0, images: int = 1) -> Tensor:
    return torch.rand(images, 3, height, width, generator=torch.Generator().manual_seed(seed))


def a_photo(seed: int) -> Tensor:
    return to_tensor(photo(seed, 96, 128))[None]


def contrast_loss(pictures: Tensor, *styles: Tensor) -> Tensor:
    return ContrastLoss([(style, 1 / len(styles)) for style in styles])(pictures)


def plainly(picture: Tensor, style: Tensor) -> float:
    """(3, H, W), (3, h, w) -> the contrast loss, as its definition says it."""
    total = 0.0
    values, vectors = np.linalg.eigh(np.cov(style.double().flatten(1).numpy(), bias=True))
    least = max(values.max() / 16, (16 / 255) ** 2)
    whitening = vectors @ np.diag(np.maximum(values, least) ** -0.5) @ vectors.T
    for block in (1, 8):
        mean, covariance = [], []
        for image in (picture, style):
            height, width = (side // block * block for side in image.shape[1:])
            blocks = image.double()[:, :height, :width].unfold(1, block, block)
            colors = blocks.unfold(2, block, block).mean((3, 4)).flatten(1).numpy()
            mean.append(colors.mean(1))
            covariance.append(np.cov(colors, bias=True))
        squares = ((whitening @ (mean[0] - mean[1])) ** 2).sum()
        squares += ((whitening @ (covariance[0] - covariance[1]) @ whitening) ** 2).sum()
        total += 2 * (np.sqrt(1 + squares / 3) - 1)
    return total / 2


def test_the_value_is_that_of_the_definition() -> None:
    pictures, style = torch.cat((a_photo(1), a_photo(2))), a_photo(3)[..., :90]
    expected = (plainly(pictures[0], style[0]) + plainly(pictures[1], style[0])) / 2
    assert contrast_loss(pictures, style).item() == pytest.approx(expected, rel=1e-4)


def test_a_trace_of_colour_weighs_little_and_a_second_hue_as_light_does() -> None:
    grey = a_photo(1).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    tint = torch.tensor([1.0, 0, -1]).view(1, 3, 1, 1) * (a_photo(2)[:, :1] - 0.5)
    faint, strong = (grey + share * tint for share in (0.02, 0.5))
    assert contrast_loss(grey, faint).item() < 0.01
    assert contrast_loss(grey, strong).item() > 0.15
    style = torch.cat((grey, faint)), [faint[0], strong[0]]
    for pictures, one in zip(*style, strict=True):
        expected = plainly(pictures, one)
        assert contrast_loss(pictures[None], one[None]).item() == pytest.approx(expected, rel=1e-3)


def test_it_is_0_for_the_style_image_and_wherever_its_blocks_lie() -> None:
    style = a_photo(1)
    assert contrast_loss(style, style).item() == pytest.approx(0, abs=1e-6)
    for moved in (style.flip(2), style.flip(3), style.roll(16, 3)):
        assert contrast_loss(moved, style).item() == pytest.approx(0, abs=1e-6)


def test_a_flat_picture_costs_the_most_and_what_is_dull_less() -> None:
    style = a_photo(1)
    mean = style.mean((2, 3), keepdim=True)
    losses = [
        contrast_loss(mean + share * (style - mean), style).item()
        for share in (0, 0.5, 0.8, 1, 1.2)
    ]
    assert 0.4 < losses[0] < 2 * (2**0.5 - 1)
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[4] > losses[3]


def test_fine_lines_are_no_substitute_for_large_shapes() -> None:
    style = a_photo(1)
    pixels = style.flatten(2)[..., torch.randperm(96 * 128)].reshape(style.shape)
    assert contrast_loss(pixels, style).item() > 0.1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 90), (8, 8), (70, 66)])
@pytest.mark.parametrize("style", [noise(1, 1), noise(40, 5), torch.full((1, 3, 64, 64), 0.5)])
def test_images_of_any_size_and_flat_styles_have_one(
    height: int, width: int, style: Tensor
) -> None:
    pictures = noise(height, width, images=2).requires_grad_()
    loss = contrast_loss(pictures, style)
    loss.backward()
    assert pictures.grad is not None
    assert pictures.grad.isfinite().all()
    assert 0 < loss.item() < 50


def test_under_autocast_it_is_in_float32() -> None:
    picture, style = a_photo(1), a_photo(2)
    plain = contrast_loss(picture, style)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrast_loss(picture, style), plain)


def test_its_gradient_gives_a_dull_picture_the_styles_colours() -> None:
    style = a_photo(1)
    picture = (0.4 + 0.3 * (a_photo(2) - 0.5)).requires_grad_()
    before = contrast_loss(picture, style).item()
    optimizer = torch.optim.Adam([picture], lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        contrast_loss(picture, style).backward()
        optimizer.step()
    assert contrast_loss(picture, style).item() < 0.02 * before


def test_the_objective_has_it_where_it_has_a_weight_for_several_style_images_too() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_2"])
    styles, picture = [a_photo(1), a_photo(2)], a_photo(3)

    def losses(weight: float) -> Losses:
        layers = {"relu1_2": 1.0}
        criterion = PerceptualLoss(
            vgg,
            styles,
            content_layers=layers,
            style_layers=layers,
            contrast_weight=weight,
            style_shares=[3, 1],
        )
        assert criterion.optional_terms == (("contrast",) if weight else ())
        return criterion(picture, criterion.content_targets(picture))

    without, having = losses(0), losses(2)
    loss = ContrastLoss([(styles[0], 0.75), (styles[1], 0.25)])
    assert without.contrast is None
    assert having.contrast is not None
    assert having.contrast.item() == pytest.approx(2 * loss(picture).item())
    assert having.total.item() == pytest.approx(without.total.item() + having.contrast.item())
