"""What several processes share, as far as one can see it. (With real processes: e2e.)"""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from fast_style import distributed
from fast_style.data import ContentImages, EndlessShuffle, content_batches


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_shares_of_a_batch_make_up_the_batch(count: int) -> None:
    whole = EndlessShuffle(10, 6, seed=3, first_step=4)
    shares = [EndlessShuffle(10, 6, seed=3, first_step=4, share=(k, count)) for k in range(count)]
    for batch, *parts in islice(zip(whole, *shares, strict=True), 5):
        assert {len(part) for part in parts} == {6 // count}
        assert [draw for part in parts for draw in part] == batch


def test_the_shares_hold_the_pixels_of_the_batch(photos: Path) -> None:
    images = ContentImages(sorted(photos.iterdir()), 32)
    whole = next(content_batches(images, 4, first_step=7))
    shares = [next(content_batches(images, 4, first_step=7, share=(k, 2))) for k in range(2)]
    assert torch.equal(torch.cat([share.pixels for share in shares]), whole.pixels)
    assert [path for share in shares for path in share.paths] == whole.paths


def test_a_process_of_its_own_gets_back_what_it_gives() -> None:
    with distributed.joined():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        values = torch.tensor([1.0, 2.0])
        assert distributed.total(values) is values
        assert distributed.mean(values) is values
        assert distributed.from_main("a") == "a"
        assert distributed.gathered(["a", "b"]) == ["a", "b"]
        assert distributed.any_says(True)
        assert not distributed.any_says(False)
        assert distributed.local_device("cuda:7") == "cuda:7"
        network = nn.Linear(2, 2)
        assert distributed.wrap(network, torch.device("cpu")) is network
        error = KeyError("a")
        assert distributed.told_once(error) is error
        with pytest.raises(KeyError, match="a"), distributed.together():
            raise error
        with pytest.raises(RuntimeError, match="gloo"), distributed.joined():
            raise RuntimeError("gloo")


@pytest.mark.parametrize(
    ("device", "part"),
    [
        ("cuda", "2 processes, but 1 GPUs on this machine"),
        ("auto", "2 processes, but 1 GPUs on this machine"),
        ("cuda:1", "'cuda:1' is not for several processes"),
        ("mps", "'mps' is not for several processes"),
    ],
)
def test_several_processes_need_as_many_gpus(
    monkeypatch: pytest.MonkeyPatch, device: str, part: str
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match=part):
        distributed.local_device(device)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(distributed, "rank", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.local_device("auto") == "cuda:1"
    assert chosen == [1]
    assert distributed.local_device("cpu") == "cpu"
