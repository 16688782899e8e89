import contextlib
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_style import __version__
from fast_style.checkpoints.files import (
    CheckpointError,
    find_model,
    find_states,
    load_model,
    load_state,
    save_model,
    save_state,
)
from fast_style.config import ConfigError, config_from_stored
from fast_style.files import remove_unfinished
from fast_style.networks.building import build_network
from fast_style.networks.transformer import TransformerNet

STATE = {"network": {"head.bias": torch.tensor([1.0, 2.0])}, "last_fault": None}


def message_for(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_model_comes_back_bit_for_bit(tmp_path: Path, tiny_network: TransformerNet) -> None:
    metadata = {"name": "sea", "step": 7, "config": {"style": {"image": "s.jpg"}}}
    path = save_model(tmp_path / "sea.pth", tiny_network, metadata=metadata)
    model = load_model(path)
    assert (model.network.width, model.network.num_residual_blocks) == (4, 1)
    before, after = tiny_network.state_dict(), model.network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert model.metadata == {"version": __version__, **metadata}
    image = torch.rand(1, 3, 13, 18)
    with torch.no_grad():
        assert torch.equal(model.network(image), load_model(path).network(image))


def test_a_loaded_network_is_frozen_and_in_evaluation_mode(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    network = load_model(save_model(tmp_path / "a.pth", tiny_network)).network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_loading_draws_no_random_numbers(tmp_path: Path, tiny_network: TransformerNet) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network)
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_float16_model_is_half_as_large_and_loads_as_float32(tmp_path: Path) -> None:
    network = TransformerNet(width=8, num_residual_blocks=2)
    whole = save_model(tmp_path / "whole.pth", network)
    half = save_model(tmp_path / "half.pth", network, dtype=torch.float16)
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    for key, value in load_model(half).network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, network.state_dict()[key].half().float())


def test_saving_leaves_the_network_as_it_is(tmp_path: Path, tiny_network: TransformerNet) -> None:
    save_model(tmp_path / "half.pth", tiny_network, dtype=torch.float16)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in tiny_network.parameters())


def test_a_model_file_is_plain_data(tmp_path: Path, tiny_network: TransformerNet) -> None:
    data = torch.load(save_model(tmp_path / "a.pth", tiny_network), weights_only=True)
    assert set(data) == {"format", "network", "weights", "metadata"}
    assert data["format"] == "fast-style/1"
    assert data["network"] == {"width": 4, "num_residual_blocks": 1, "upsampling": "nearest"}


def test_a_state_comes_back_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (3, 90, 1000):
        path = save_state(tmp_path, step, STATE)
        assert path.name == f"state-{step:08d}.pt"
    assert [p.name for p in find_states(tmp_path)] == ["state-00000090.pt", "state-00001000.pt"]
    state = load_state(find_states(tmp_path)[-1])
    assert state["step"] == 1000
    assert state["last_fault"] is None
    assert torch.equal(state["network"]["head.bias"], STATE["network"]["head.bias"])


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    assert message_for(tmp_path / "gone.pth").endswith("no such file")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    message_for(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.999])
def test_a_truncated_model_is_refused(
    tmp_path: Path, tiny_network: TransformerNet, kept: float
) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    assert "damaged" in message_for(path)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damaged") / "whole.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TransformerNet(width=1, num_residual_blocks=0)
    return save_model(path, network)


GARBAGE_WARNING = "ignore:Detected pickle protocol:UserWarning"  # torch's, on some garbage


@pytest.mark.filterwarnings(GARBAGE_WARNING)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1))))
def test_a_damaged_model_is_refused_or_read_and_nothing_else(
    small_model: Path, changes: list[tuple[float, bytes]]
) -> None:
    data = bytearray(small_model.read_bytes())
    for place, written in changes:
        start = int(place * len(data))
        data[start : start + len(written)] = written
    damaged = small_model.with_name("damaged.pth")
    damaged.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        load_model(damaged)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("written", [b"\x00", b"}", b"0", b"\x80"])
def test_a_model_damaged_in_its_first_bytes_is_refused(
    small_model: Path, place: int, written: bytes
) -> None:
    data = bytearray(small_model.read_bytes())
    data[place : place + 1] = written
    damaged = small_model.with_name("damaged.pth")
    damaged.write_bytes(data)
    message_for(damaged)


@pytest.mark.filterwarnings(GARBAGE_WARNING)
@given(garbage=st.binary(max_size=60) | st.binary(max_size=60).map(lambda b: b"\x80\x02" + b))
def test_garbage_is_refused(small_model: Path, garbage: bytes) -> None:
    path = small_model.with_name("garbage.pth")
    path.write_bytes(garbage)
    message_for(path)


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_refused_and_never_runs(tmp_path: Path, writer: str) -> None:
    path, witness = tmp_path / "hostile.pth", tmp_path / "witness"
    content = {"format": "fast-style/1", "metadata": Hostile(witness)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert "refused" in message_for(path)
    with pytest.raises(CheckpointError, match="refused"):
        load_state(path)
    assert not witness.exists()
    if writer == "pickle":  # the file does what it is meant to do where it is let
        pickle.loads(path.read_bytes())
        assert witness.exists()


def test_a_training_state_given_as_a_model_points_to_the_model(tmp_path: Path) -> None:
    path = save_state(tmp_path, 3, STATE)
    assert "is a training state, for resuming; the model is the .pth" in message_for(path)


def test_a_model_given_as_a_training_state_is_refused(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network)
    with pytest.raises(CheckpointError, match="not a training state of this program"):
        load_state(path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    torch.save({"format": "fast-style/2", "weights": {}}, tmp_path / "a.pth")
    message = message_for(tmp_path / "a.pth")
    assert "is a fast-style/2 file; this version reads fast-style/1: update fast-style" in message


@pytest.mark.parametrize(
    "content", [{"conv1.conv2d.weight": torch.zeros(1)}, {"state_dict": {}}, {}, {1: 2}]
)
def test_another_projects_file_is_refused_with_what_was_found(
    tmp_path: Path, content: dict[object, object]
) -> None:
    torch.save(content, tmp_path / "a.pth")
    message = message_for(tmp_path / "a.pth")
    assert f"not a fast-style/1 model: found {len(content)} keys" in message
    assert all(str(key) in message for key in content)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    assert "holds a Tensor, not a model" in message_for(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {}},
        {"weights": {"head.bias": "text"}},
        {"weights": None},
        {"network": {"width": 8, "num_residual_blocks": 1}},
        {"network": {"width": "4", "num_residual_blocks": 1}},
        {"network": {"width": -4, "num_residual_blocks": 1}},
        {"network": {"width": 100_000, "num_residual_blocks": 1}},
        {"network": {"width": 4, "num_residual_blocks": 10**9}},
        {"network": {"width": 4, "num_residual_blocks": 10}},
        {"network": {"width": 4, "num_residual_blocks": 1, "upsampling": "bilinear"}},
        {"network": {"depth": 4}},
        {"network": None},
        {"metadata": None},
        {"metadata": 3},
    ],
)
def test_a_model_whose_parts_do_not_fit_is_damaged(
    tmp_path: Path, tiny_network: TransformerNet, change: dict[str, object]
) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network)
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    message = message_for(path)
    assert "a damaged fast-style/1 file" in message
    assert len(message) < 300 + 2 * len(str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_without_numbers_is_refused(
    tmp_path: Path, tiny_network: TransformerNet, value: float
) -> None:
    with torch.no_grad():
        tiny_network.head.bias[1] = value
    path = save_model(tmp_path / "a.pth", tiny_network)
    assert "holds weights that are NaN or infinite" in message_for(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch looks through sparse tensors
@pytest.mark.parametrize("kind", ["sparse", "complex", "quantized"])
def test_weights_that_are_no_plain_numbers_are_refused(
    tmp_path: Path, tiny_network: TransformerNet, kind: str
) -> None:
    change = {
        "sparse": torch.Tensor.to_sparse,
        "complex": lambda weight: weight.to(torch.complex64),
        "quantized": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    }[kind]
    data = torch.load(save_model(tmp_path / "a.pth", tiny_network), weights_only=True)
    data["weights"] = {key: change(value) for key, value in data["weights"].items()}
    torch.save(data, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"b\.pth: "):
        load_model(tmp_path / "b.pth")


@pytest.mark.parametrize("config", [None, "abc", [1], {"loss": "abc"}, {"loss": [1]}])
def test_a_config_of_another_kind_in_a_model_is_one_line(config: object) -> None:
    with pytest.raises(ConfigError, match=r"^the model's config: .*expected 'key: value' lines$"):
        config_from_stored(config, source="the model's config")  # type: ignore[arg-type]


def test_a_model_below_a_home_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no model .~nosuchuser/x\.pth."):
        find_model("~nosuchuser/x.pth")


@contextlib.contextmanager
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let files grow to 1000 bytes and no further, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def failing_flush(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        yield


@contextlib.contextmanager
def failing_rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        yield


@pytest.mark.parametrize("fault", [small_disk, failing_flush, failing_rename])
def test_a_failed_write_leaves_the_old_files_and_nothing_else(
    tmp_path: Path,
    tiny_network: TransformerNet,
    monkeypatch: pytest.MonkeyPatch,
    fault: object,
) -> None:
    model = save_model(tmp_path / "a.pth", tiny_network)
    state = save_state(tmp_path, 3, STATE)
    before = {path: path.read_bytes() for path in (model, state)}
    other = TransformerNet(width=8, num_residual_blocks=2)
    with fault(monkeypatch):  # type: ignore[operator]
        with pytest.raises(CheckpointError) as caught:
            save_model(model, other)
        with pytest.raises(CheckpointError):
            save_state(tmp_path, 4, {"network": other.state_dict()})
    assert str(caught.value).startswith(f"{model}: cannot be written: ")
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_missing_folder_is_named(tmp_path: Path, tiny_network: TransformerNet) -> None:
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        save_model(tmp_path / "gone" / "a.pth", tiny_network)


def test_leftovers_of_killed_writes_are_removed_and_nothing_else(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    model = save_model(tmp_path / "a.pth", tiny_network)
    foreign = tmp_path / "notes.tmp"
    foreign.write_text("mine")

    left = tmp_path / ".a.pth.tmp"
    left.write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == [model, foreign]


def test_a_model_comes_from_bytes_and_from_a_stream(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network, metadata={"name": "a"})
    expected = load_model(path)
    for source in (path.read_bytes(), io.BytesIO(path.read_bytes()), str(path)):
        model = load_model(source)
        assert model.metadata == expected.metadata
        assert torch.equal(model.network.head.weight, expected.network.head.weight)
    with path.open("rb") as file:
        assert load_model(file).metadata == expected.metadata


def test_bytes_that_are_no_model_are_refused() -> None:
    for source in (b"", b"no model", io.BytesIO(b"no model")):
        with pytest.raises(CheckpointError, match="model: "):
            load_model(source)
    with pytest.raises(CheckpointError, match="open its file with mode 'rb'"):
        load_model(io.StringIO("no model"))  # type: ignore[arg-type]


def test_a_model_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("wave", "wave.pth", Path("wave")):
        assert load_model(name).metadata["name"] == "wave"
    with pytest.raises(CheckpointError, match="no model 'wafe'"):
        load_model("wafe")


def test_an_address_is_named_as_it_was_given() -> None:
    with pytest.raises(CheckpointError, match=r"'https://example\.com/wave\.pth'"):
        load_model("https://example.com/wave.pth")


def test_a_network_of_a_kind_that_is_not_known_asks_for_a_newer_version(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    path = save_model(tmp_path / "a.pth", tiny_network)
    data = torch.load(path, weights_only=True)
    assert "kind" not in data["network"], "older versions read it, too"
    data["network"]["kind"] = "residual"
    torch.save(data, path)
    assert load_model(path).network.width == 4
    data["network"]["kind"] = "swirling"
    torch.save(data, path)
    with pytest.raises(CheckpointError, match=r"of kind 'swirling'; .*: update fast-style"):
        load_model(path)
    with pytest.raises(ValueError, match="a network of kind 'swirling'"):
        build_network(data["network"])
