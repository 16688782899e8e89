"""The numbers of a report card, at pictures for which they are known."""

import pytest
import torch
from synthetic import photo, vgg_weights
from torch import Tensor

from fast_style.images import image_to_tensor, to_float
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import PerceptualLoss, gram_matrix
from fast_style.training.artefacts import mesh
from fast_style.training.measures import card_scalars, measure, median, worst_tenth


@pytest.fixture(scope="module")
def style() -> Tensor:
    return picture(1000, 64, 80)[None]


@pytest.fixture(scope="module")
def criterion(style: Tensor) -> PerceptualLoss:
    features = VGGFeatures("vgg16", ["relu1_2", "relu2_2", "relu3_3"])
    features.load_state_dict({f"features.{k}": v for k, v in vgg_weights(convolutions=7).items()})
    return PerceptualLoss(
        features,
        style,
        content_layers={"relu2_2": 1.0, "relu3_3": 1.0},
        style_layers={"relu1_2": 1.0, "relu2_2": 3.0},
    )


def picture(seed: int, height: int = 64, width: int = 64) -> Tensor:
    return to_float(image_to_tensor(photo(seed, height, width)))


def test_the_photo_itself_has_all_its_content_and_none_of_the_style(
    criterion: PerceptualLoss, style: Tensor
) -> None:
    content = picture(1)
    values = measure(content, content, criterion, style)
    assert values["content_lost/relu2_2"] == values["content_lost/relu3_3"] == 0
    assert values["style_left/relu1_2"] == values["style_left/relu2_2"] == 1
    assert values["style_left/mean"] == 1
    assert values["ring"] == pytest.approx(0, abs=1e-4)
    assert values["mesh"] == 0


def test_a_picture_of_one_colour_has_lost_about_all_content_and_all_contrast(
    criterion: PerceptualLoss, style: Tensor
) -> None:
    # A photo so faint that the mean of its features is about those of its mean colour.
    content = 0.5 + 0.1 * (picture(1) - 0.5)
    flat = content.mean((1, 2), keepdim=True).expand_as(content)
    values = measure(content, flat, criterion, style)
    assert values["content_lost/relu2_2"] == pytest.approx(1, abs=0.2)
    assert values["content_lost/relu3_3"] == pytest.approx(1, abs=0.2)
    assert values["contrast/luma"] == pytest.approx(0, abs=1e-5)
    assert values["contrast/chroma"] == pytest.approx(0, abs=1e-5)


def test_the_style_image_itself_leaves_nothing_of_the_style(
    criterion: PerceptualLoss, style: Tensor
) -> None:
    values = measure(picture(1, 64, 80), style[0], criterion, style)
    assert values["style_left/mean"] < 1e-9
    assert values["contrast/luma"] == values["contrast/chroma"] == 1
    assert values["content_lost/relu2_2"] > 0.1


def test_layers_are_measured_for_themselves_whatever_they_weigh(
    criterion: PerceptualLoss, style: Tensor
) -> None:
    content, stylized = picture(1), picture(2)
    values = measure(content, stylized, criterion, style)
    lefts, losts = {}, {}
    for name in ("relu1_2", "relu2_2"):
        before, after, wanted = (
            gram_matrix(criterion.features(image, [name])[name])
            for image in (content[None], stylized[None], style)
        )
        lefts[name] = ((after - wanted) ** 2).sum() / ((before - wanted) ** 2).sum()
    for name in ("relu2_2", "relu3_3"):
        before, after = (
            criterion.features(image[None], [name])[name][0] for image in (content, stylized)
        )
        centered = before - before.mean((1, 2), keepdim=True)
        losts[name] = ((after - before) ** 2).sum() / (centered**2).sum()
    for name, left in lefts.items():
        assert values[f"style_left/{name}"] == pytest.approx(left.item(), rel=1e-4)
    for name, lost in losts.items():
        assert values[f"content_lost/{name}"] == pytest.approx(lost.item(), rel=1e-4)
    mean = (lefts["relu1_2"] + lefts["relu2_2"]) / 2
    assert values["style_left/mean"] == pytest.approx(mean.item(), rel=1e-4)


def test_half_the_contrast_is_one_half(criterion: PerceptualLoss, style: Tensor) -> None:
    faint = 0.5 + 0.5 * (style[0] - 0.5)
    values = measure(picture(1, 64, 80), faint, criterion, style)
    assert values["contrast/luma"] == pytest.approx(0.5, rel=1e-4)
    assert values["contrast/chroma"] == pytest.approx(0.5, rel=1e-4)


def test_a_style_without_colours_has_no_chroma_to_compare_with(
    criterion: PerceptualLoss, style: Tensor
) -> None:
    grey = style.mean(1, keepdim=True).expand_as(style)
    values = measure(picture(1), picture(2), criterion, grey)
    assert "contrast/chroma" not in values
    assert values["contrast/luma"] > 0


@pytest.mark.parametrize("height", [20, -12])
def test_a_frame_is_as_high_as_it_was_drawn(
    criterion: PerceptualLoss, style: Tensor, height: float
) -> None:
    content = 0.25 + 0.5 * picture(1)
    framed = content + 3 / 255  # all of it is a little brighter: no frame
    for edge in (framed[:, 0], framed[:, -1], framed[:, 1:-1, 0], framed[:, 1:-1, -1]):
        edge += height / 255
    assert measure(content, framed, criterion, style)["ring"] == pytest.approx(height, abs=1e-3)
    assert measure(content, content + 3 / 255, criterion, style)["ring"] == pytest.approx(
        0, abs=1e-3
    )


def test_a_drawn_mesh_is_as_strong_as_it_was_drawn() -> None:
    content = torch.full((3, 64, 64), 0.5)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checks = 0.02 * (1 - 2.0 * ((y + x) % 2))
    assert mesh(content, content + checks) == pytest.approx(0.02, rel=1e-3)
    weave = 0.02 * 2**0.5 * torch.cos(torch.pi / 2 * (x + y) + 0.3)  # a period of four
    assert mesh(content, content + weave) == pytest.approx(0.02, rel=0.1)
    coarse = 0.1 * torch.cos(torch.pi / 8 * x)  # of sixteen: strokes
    assert mesh(content, content + coarse) < 0.002


def test_a_mesh_counts_where_the_photo_is_flat_and_beyond_what_it_has_itself() -> None:
    y, x = torch.meshgrid(torch.arange(160), torch.arange(160), indexing="ij")
    checks = 0.05 * (1 - 2.0 * ((y + x) % 2))
    content = torch.full((3, 160, 160), 0.5)
    content[:, 32:] = 0.3 + 0.4 * picture(3, 128, 160)  # below its sky
    foreground = content.clone()
    foreground[:, 32:] += checks[32:]
    sky = content.clone()
    sky[:, :32] += checks[:32]
    assert mesh(content, foreground) == 0
    assert mesh(content, sky) == pytest.approx(0.05, rel=1e-3)
    assert mesh(sky, sky) == 0
    assert mesh(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)) == 0  # too small for a block


def test_a_mesh_raises_the_number_of_the_card(criterion: PerceptualLoss, style: Tensor) -> None:
    content = 0.25 + 0.5 * picture(1)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checks = 4 / 255 * (1 - 2.0 * ((y + x) % 2))
    assert measure(content, content + checks, criterion, style)["mesh"] == pytest.approx(4, rel=0.1)


def test_the_worst_tenth_are_the_worst_photos_at_least_one() -> None:
    twenty = [float(n) for n in range(1, 21)]
    assert median(twenty) == 10.5
    assert worst_tenth("style_left/mean", twenty) == 19  # two of twenty are there or worse
    assert worst_tenth("style_left/mean", twenty[:10]) == 10
    assert worst_tenth("style_left/mean", twenty[:3]) == 3
    assert worst_tenth("ring", [1.0, -7.0, 3.0]) == -7  # a dark frame is one, too
    assert worst_tenth("contrast/luma", [0.5, 1.0, 1.9]) == 0.5  # half is farther than 1.9 times


def test_what_a_training_reports_are_the_medians_by_tag(
    criterion: PerceptualLoss, style: Tensor
) -> None:
    content = torch.stack([picture(seed) for seed in (1, 2, 3)])
    stylized = 0.5 * content + 0.5 * style[..., :64].flip(-1)
    scalars = card_scalars(content, stylized, criterion, style)
    each = [measure(x, y, criterion, style) for x, y in zip(content, stylized, strict=True)]
    assert set(scalars) == {f"report_card/{name}" for name in each[0]}
    for name in each[0]:
        assert scalars[f"report_card/{name}"] == sorted(values[name] for values in each)[1]


def test_a_picture_too_small_for_rings_is_refused(criterion: PerceptualLoss, style: Tensor) -> None:
    with pytest.raises(ValueError, match=r"31×40 is too small for a ring.* at least 32"):
        measure(picture(1, 40, 31), picture(2, 40, 31), criterion, style)
