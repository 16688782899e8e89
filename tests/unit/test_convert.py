from pathlib import Path

import pytest
import torch

from fast_style.checkpoints.files import load_model, save_model
from fast_style.commands import main
from fast_style.networks.transformer import TransformerNet


def stored_dtypes(path: Path) -> set[torch.dtype]:
    weights = torch.load(path, weights_only=True)["weights"]
    return {weight.dtype for weight in weights.values()}


def test_half_stores_float16_and_keeps_the_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = TransformerNet(width=16)
    metadata = {"name": "sea", "step": 7, "version": "0.0.1", "quality": [{"size": 256}]}
    source, output = save_model(tmp_path / "a.pth", network, metadata=metadata), tmp_path / "b.pth"
    assert main(["convert", str(source), str(output), "--half"]) == 0
    assert capsys.readouterr().out == f"{output}: from fast-style/1, width 16, float16\n"
    assert stored_dtypes(output) == {torch.float16}
    assert stored_dtypes(source) == {torch.float32}
    assert output.stat().st_size < 0.52 * source.stat().st_size
    halved = load_model(output)
    assert halved.metadata == metadata
    for name, weight in network.state_dict().items():
        assert torch.equal(halved.network.state_dict()[name], weight.half().float())


def test_a_half_model_comes_back_whole_and_unchanged(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    half = save_model(tmp_path / "a.pth", tiny_network, dtype=torch.float16)
    for output, options in ((tmp_path / "b.pth", []), (tmp_path / "c.pth", ["--half"])):
        assert main(["convert", str(half), str(output), *options]) == 0
        before = load_model(half).network.state_dict()
        after = load_model(output).network.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_too_large_for_float16_are_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, tiny_network: TransformerNet, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.no_grad():
        next(tiny_network.parameters()).view(-1)[0] = 7e4
    source = save_model(tmp_path / "a.pth", tiny_network)
    assert main(["convert", str(source), str(tmp_path / "b.pth"), "--half"]) == 2
    assert capsys.readouterr().err == (
        f"error: {source}: its weights are too large for float16: leave out --half\n"
    )
    assert not (tmp_path / "b.pth").exists()
    assert main(["convert", str(source), str(tmp_path / "b.pth")]) == 0
