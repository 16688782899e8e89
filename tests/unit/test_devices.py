"""The choice of a device, and what is decided for it in one place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import photo

from fast_style.devices import (
    Arriving,
    exact_device,
    items_with_tf32,
    resolve_device,
    tf32,
)
from fast_style.networks.streaming import StreamingTransformer
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer, batch
from fast_style.stylization.batch import Saving, run_jobs
from fast_style.stylization.jobs import Job

CUDA = torch.device("cuda")


def rounding() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_holds_for_convolutions_and_products_alike_and_ends(allowed: bool) -> None:
    before = rounding()
    with tf32(CUDA, allowed=allowed):
        assert rounding() == (allowed, allowed)
        with tf32(CUDA, allowed=not allowed):
            assert rounding() == (not allowed, not allowed)
        assert rounding() == (allowed, allowed)
    assert rounding() == before
    with tf32(torch.device("cpu"), allowed=allowed):
        assert rounding() == before


def test_tf32_is_the_callers_own_between_the_items_of_an_iterator() -> None:
    before, inside = rounding(), []

    def items() -> Iterator[int]:
        for i in range(3):
            inside.append(rounding())
            yield i

    for i, item in enumerate(items_with_tf32(items(), CUDA, allowed=False)):
        assert item == i
        assert rounding() == before
    assert inside == [(False, False)] * 3


def test_float64_is_computed_where_there_is_float64() -> None:
    for name, exact in (("mps", "cpu"), ("cpu", "cpu"), ("cuda:1", "cuda:1")):
        assert exact_device(torch.device(name)) == torch.device(exact)


def test_the_environment_names_the_device_of_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "cpu"  # as tests/conftest.py has it
    monkeypatch.delenv("FAST_STYLE_DEVICE")
    assert resolve_device("auto").type == "mps"
    monkeypatch.setenv("FAST_STYLE_DEVICE", "gpu")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        resolve_device("auto")


def test_a_numbered_gpu_becomes_the_one_that_threads_use_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]


def test_what_arrives_from_the_cpu_is_there() -> None:
    values = torch.rand(3)
    assert torch.equal(Arriving(values).wait(), values)


def test_a_picture_that_does_not_fit_is_stylized_once_more_with_less_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    network, image = TransformerNet(4, 1), torch.rand(3, 200, 300)
    expected = Stylizer(network, tile=64)(image)
    strips, asked = StreamingTransformer.strips, []

    def scarce(
        self: StreamingTransformer, image: torch.Tensor, **options: Any
    ) -> Iterator[tuple[int, torch.Tensor]]:
        asked.append(options)
        if not options.get("recompute"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from strips(self, image, **options)

    monkeypatch.setattr(StreamingTransformer, "strips", scarce)
    for tile in ("auto", "off"):
        asked.clear()
        assert torch.equal(Stylizer(network, tile=tile)(image), expected)  # type: ignore[arg-type]
        assert asked[1:] == [{"height": 64, "recompute": True}]
        assert "too little memory" in caplog.text


def test_what_is_asked_for_by_a_number_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: Any, **__: Any) -> Iterator[Any]:
        yield from ()
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StreamingTransformer, "strips", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        Stylizer(TransformerNet(4, 1), tile=64)(torch.rand(3, 20, 30))


@pytest.mark.parametrize("threads", [1, 3])
def test_several_threads_read_and_write_a_folder_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(batch, "_threads", lambda device: threads)
    jobs = []
    for i in range(9):
        path = tmp_path / f"{i}.png"
        photo(i, 24, 20 + i).save(path)
        jobs.append(Job(path, tmp_path / "out" / path.name))
    jobs[4].input.write_bytes(b"no picture")
    results = list(run_jobs(Stylizer(TransformerNet(4, 1)), jobs, Saving()))
    assert [result.job for result in results] == jobs
    assert [i for i, result in enumerate(results) if result.error] == [4]
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_one_thread_serves_a_cpu_and_several_a_gpu() -> None:
    assert batch._threads(torch.device("cpu")) == 1
    assert 1 <= batch._threads(CUDA) <= 8
