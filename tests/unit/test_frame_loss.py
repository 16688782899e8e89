"""The frame term: edges that differ from the inside as the photo's do not."""

from itertools import pairwise

import pytest
import torch
from synthetic import photo
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.frame import frame_loss
from fast_style.objective.losses import Losses, PerceptualLoss

EDGES = (0, 1, 2, 4, 8, 16, 32)


def photos(height: int = 64, width: int = 80) -> Tensor:
    return torch.stack([to_tensor(photo(seed, height, width)) for seed in (1, 2)])


def from_the_edge(height: int, width: int) -> Tensor:
    """(H, W): how many pixels lie between a pixel and the nearest edge."""
    y, x = torch.arange(height), torch.arange(width)
    return torch.minimum(torch.minimum(y, height - 1 - y)[:, None], torch.minimum(x, width - 1 - x))


def framed(images: Tensor, *, width: int, by: float) -> Tensor:
    """Make images brighter in the outermost `width` pixels."""
    return images + by * (from_the_edge(*images.shape[2:]) < width)


def test_the_value_is_that_of_the_definition() -> None:
    before = photos()
    pictures = framed(before.flip(0), width=3, by=0.1)
    away = from_the_edge(64, 80)
    means = []
    for first, end in pairwise(EDGES):
        inside = (away >= first) & (away < end)
        means.append((pictures - before).double()[:, :, inside].mean(2))
    expected = torch.stack([(mean - means[-1]).square() for mean in means[:-1]]).mean()
    loss = frame_loss(pictures, before)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_photos_themselves_cost_nothing_nor_do_other_colours() -> None:
    before = framed(photos(), width=2, by=-0.3)  # a photo may have a frame
    assert frame_loss(before, before).item() == 0
    assert frame_loss(before + torch.rand(1, 3, 1, 1), before).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("by", [0.05, -0.05])
@pytest.mark.parametrize(("width", "bands"), [(1, 1), (2, 2), (8, 4), (16, 5)])
def test_a_frame_costs_by_its_strength_and_its_width(width: int, bands: int, by: float) -> None:
    before = photos()
    loss = frame_loss(framed(before, width=width, by=by), before)
    assert loss.item() == pytest.approx(bands / 5 * by**2, rel=1e-3)


def test_several_pictures_have_the_mean_of_what_each_has() -> None:
    before = photos()
    pictures = torch.cat(
        [framed(one[None], width=4, by=by) for one, by in zip(before, (0.1, -0.1), strict=True)]
    )
    each = [frame_loss(pictures[i : i + 1], before[i : i + 1]).item() for i in (0, 1)]
    assert frame_loss(pictures, before).item() == pytest.approx(sum(each) / 2)
    assert min(each) > 0.005


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 33, 49, 64, 65])
@pytest.mark.parametrize("width", [1, 3, 90])
def test_images_of_any_size_have_one(height: int, width: int) -> None:
    before = torch.rand(2, 3, height, width)
    pictures = framed(before, width=1, by=0.1).requires_grad_()
    loss = frame_loss(pictures, before)
    side = min(height, width)
    bands = sum(2 * edge < side for edge in EDGES[:6])
    assert loss.item() == pytest.approx(0.01 / (bands - 1) if bands > 1 else 0, rel=1e-3)
    if bands > 1:
        loss.backward()
        assert pictures.grad is not None
        assert pictures.grad.isfinite().all()


def test_under_autocast_it_is_in_float32() -> None:
    before = photos()
    pictures = framed(before.flip(0), width=3, by=0.1)
    plain = frame_loss(pictures, before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frame_loss(pictures, before), plain)
    assert frame_loss(pictures.bfloat16(), before).dtype == torch.float32


def test_its_gradient_makes_edges_and_inside_alike() -> None:
    before = photos()
    picture = framed(before, width=8, by=-0.05).requires_grad_()
    optimizer = torch.optim.SGD([picture], lr=1e3)
    for _ in range(50):
        optimizer.zero_grad()
        frame_loss(picture, before).backward()
        optimizer.step()
    excess = (picture - before).mean((0, 1)).detach()
    away = from_the_edge(64, 80)
    inside = excess[away >= 16]
    for first, end in pairwise(EDGES[:5]):
        assert abs(excess[(away >= first) & (away < end)].mean() - inside.mean()) < 0.01
    assert abs(excess.mean() + 0.05 * (away < 8).float().mean()) < 1e-4  # no light is lost


def test_the_objective_has_it_where_it_has_a_weight() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_2"])
    before = photos()
    pictures = framed(before, width=4, by=0.1)

    def losses(weight: float) -> Losses:
        layers = {"relu1_2": 1.0}
        criterion = PerceptualLoss(
            vgg, before[:1], content_layers=layers, style_layers=layers, frame_weight=weight
        )
        assert criterion.optional_terms == (("frame",) if weight else ())
        return criterion(pictures, criterion.content_targets(before))

    without, having = losses(0), losses(100)
    assert without.frame is None
    assert having.frame is not None
    expected = 100 * frame_loss(pictures, before).item()
    assert having.frame.item() == pytest.approx(expected)
    assert having.total.item() == pytest.approx(without.total.item() + expected, rel=1e-5)
