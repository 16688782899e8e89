"""The grid term: what hangs on the grid of pixels costs, what lies anywhere does not."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import run
from synthetic import photo
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from fast_style.config import Config
from fast_style.objective.grid import grid_loss
from fast_style.training.monitors import MetricsMonitor

AMPLITUDE = 0.02


def waves(period: float, height: int = 128, width: int = 128) -> Tensor:
    """(1, 3, H, W): grey, with waves of `AMPLITUDE` across."""
    x = torch.arange(width) * 2 * math.pi / period
    return (0.5 + AMPLITUDE * torch.cos(x)).expand(1, 3, height, width).clone()


def checks() -> Tensor:
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    return (0.5 + AMPLITUDE * (1 - 2.0 * ((x + y) % 2))).expand(1, 3, -1, -1).clone()


def plainly(picture: Tensor) -> float:
    """(C, 64, 64) -> the grid loss, as its definition says it: without an edge, of one window."""
    y = picture.double()
    total = 0.0
    for plane in y:
        sums: dict[tuple[int, int], list[float]] = {}
        for i in range(64):
            for j in range(64):
                box = [
                    plane[min(max(i + a, 0), 63), min(max(j + b, 0), 63)]
                    for a in (-1, 0, 1, 2)
                    for b in (-1, 0, 1, 2)
                ]
                fine = float(plane[i, j] - sum(box) / 16)
                sums.setdefault((i % 4, j % 4), []).append(0.05 * math.tanh(fine / 0.05))
        means = [sum(values) / len(values) for values in sums.values()]
        middle = sum(means) / 16
        total += sum((mean - middle) ** 2 for mean in means) / 16
    return total / len(y)


def test_the_value_is_that_of_the_definition() -> None:
    picture = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    assert grid_loss(picture).item() == pytest.approx(plainly(picture[0]), rel=1e-4)


@pytest.mark.parametrize("picture", [waves(4), waves(2), waves(4).mT, checks()])
def test_a_pattern_of_four_or_two_pixels_costs(picture: Tensor) -> None:
    # Half of the square of a wave's amplitude, all of that of checks, less what the tanh takes.
    assert 0.3 * AMPLITUDE**2 < grid_loss(picture).item() < AMPLITUDE**2


@pytest.mark.parametrize(
    "picture",
    [
        torch.full((1, 3, 128, 128), 0.7),
        waves(3),
        waves(5),
        waves(8.5),
        torch.linspace(0, 1, 128).expand(1, 3, 128, 128),
        0.5 + AMPLITUDE * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)),
        to_tensor(photo(1, 128, 128))[None],
    ],
)
def test_what_does_not_repeat_so_costs_next_to_nothing(picture: Tensor) -> None:
    assert grid_loss(picture).item() < 0.03 * grid_loss(waves(4)).item()


def test_a_pattern_costs_the_same_wherever_it_begins_and_on_whatever_it_lies() -> None:
    alone = grid_loss(waves(4)).item()
    for shift in (1, 2, 3):
        assert grid_loss(waves(4).roll(shift, -1)).item() == pytest.approx(alone, rel=0.25)
    on_a_ramp = waves(4) + 0.3 * torch.linspace(0, 1, 128)[:, None]
    assert grid_loss(on_a_ramp).item() == pytest.approx(alone, rel=0.25)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 90), (4, 4), (70, 66), (130, 33)])
def test_images_of_any_size_have_one(height: int, width: int) -> None:
    loss = grid_loss(torch.rand(2, 3, height, width))
    assert loss.isfinite()
    assert (loss == 0) == (height < 4)


def test_its_gradient_takes_a_pattern_away_and_leaves_the_rest() -> None:
    under = waves(8.5, 64, 64)
    picture = (under + waves(4, 64, 64) - 0.5).requires_grad_()
    before = grid_loss(picture).item()
    optimizer = torch.optim.SGD([picture], lr=4_000)
    for _ in range(60):
        optimizer.zero_grad()
        grid_loss(picture).backward()
        optimizer.step()
    assert grid_loss(picture).item() < 0.02 * before
    assert (picture - under).square().mean().item() < 0.2 * AMPLITUDE**2 / 2


@pytest.mark.parametrize(("term", "heavy"), [("grid", 3000.0), ("contrast", 2.0), ("frame", 40.0)])
def test_a_run_reports_an_optional_term_where_it_has_a_weight(
    term: str, heavy: float, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    heads = []
    for weight in (0.0, heavy):
        folder = tmp_path / f"{weight:g}"
        config = tiny_config({"training.steps": 2, f"loss.{term}_weight": weight})
        run(config, folder, monitors=[MetricsMonitor(folder)])
        head, *rows = (folder / "metrics.csv").read_text().splitlines()
        heads.append(head.split(","))
    assert term not in heads[0]
    assert {row.split(",")[1] for row in rows} == {"training", "validation"}
    for row in rows:
        assert float(row.split(",")[heads[1].index(term)]) > 0
