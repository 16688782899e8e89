import copy
import functools
import multiprocessing
import os
import re
import runpy
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import yaml
from clock import Clock
from hypothesis import settings
from synthetic import photo, tiny_config_data, vgg_weights, write_photos

from fast_style.config import Config, config_from_dict
from fast_style.images import deep
from fast_style.networks.transformer import TransformerNet
from fast_style.training import pace

REPOSITORY = Path(__file__).parents[1]
MAC = Path(__file__).parent / "mac"

# The same examples every time, no time limit on a busy machine, nothing written beside the tests.
settings.register_profile(
    "fast-style", deadline=None, derandomize=True, database=None, max_examples=30
)
settings.load_profile("fast-style")

# A shell that starts the tests in the background would make what they start deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These tensors are too small to share among threads, and other tests run on the other cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--start-method",
        choices=("fork", "forkserver", "spawn"),
        help="how loading processes start, as on other systems, where it is spawn",
    )
    parser.addoption(
        "--pretend-mps",
        action="store_true",
        help="PyTorch says that there is an Apple GPU, in what the tests start too",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hide accelerators, from the processes that tests start too, unless `-m gpu` asks for them."""
    if method := config.option.start_method:
        os.environ[processes.START_METHOD] = method
        multiprocessing.set_start_method(method, force=True)
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["FAST_STYLE_DEVICE"] = "cpu"
        if config.option.pretend_mps:
            runpy.run_path(str(MAC / "sitecustomize.py"))
            os.environ.update(processes.environment(MAC))
            return
        # "wraps", because the compiler looks for what PyTorch's own function wraps.
        there = torch.backends.mps.is_available
        torch.backends.mps.is_available = functools.wraps(there)(lambda: False)


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The accelerator of this machine, for tests marked `gpu`."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    pytest.skip("there is no accelerator, or it is hidden: it is for `pytest -m gpu`")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["codecs", "without"])
def codecs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the `formats` extra, and as if it were not installed."""
    if request.param == "without":
        monkeypatch.setattr(deep, "available", lambda: False)
    return bool(request.param == "codecs")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the pace of a run is measured."""
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight small photos."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 8)
    return folder


@pytest.fixture(scope="session")
def style_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("style") / "style.png"
    photo(1000, 40, 40).save(path)
    return path


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG-16 up to relu2_2, as a features-only .pth."""
    path = tmp_path_factory.mktemp("vgg") / "random.pth"
    torch.save(vgg_weights(), path)
    return path


ConfigData = Callable[..., dict[str, Any]]


@pytest.fixture
def tiny_data(photos: Path, style_file: Path, vgg_file: Path) -> ConfigData:
    """Make the plain data of a tiny config; changes are {"dotted.key": value}."""
    base = tiny_config_data(photos=photos, style=style_file, weights=vgg_file)

    def make(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        data = copy.deepcopy(base)
        for dotted, value in (changes or {}).items():
            *parents, last = dotted.split(".")
            place = data
            for parent in parents:
                place = place[parent]
            place[last] = value
        return data

    return make


@pytest.fixture
def tiny_config(tiny_data: ConfigData) -> Callable[..., Config]:
    """Make a tiny config; changes are {"dotted.key": value}."""
    return lambda changes=None: config_from_dict(tiny_data(changes))


@pytest.fixture
def tiny_yaml(tiny_data: ConfigData, tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny config to `tmp_path/tiny.yaml`; changes are {"dotted.key": value}."""

    def make(changes: dict[str, Any] | None = None) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(tiny_data(changes)), encoding="utf-8")
        return path

    return make


@pytest.fixture
def tiny_network() -> TransformerNet:
    """A network of width 4 with one residual block, and weights that are not those of an init."""
    network = TransformerNet(width=4, num_residual_blocks=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture
def signal_handlers_restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
