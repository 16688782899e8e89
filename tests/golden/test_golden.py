import json
from pathlib import Path

import numpy as np
import pytest
import torch
from make_golden import run_training, weights_hash

from fast_style.checkpoints.files import load_model
from fast_style.stylization import Stylizer

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model-v1.pth"
STYLIZED = FOLDER / "model-v1-stylized.npz"


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "model-v1.npz") as data:
        return dict(data)


def test_a_version_1_model_loads_with_the_bits_it_was_saved_with(
    expected: dict[str, np.ndarray],
) -> None:
    model = load_model(MODEL)
    assert (model.network.width, model.network.num_residual_blocks) == (4, 1)
    assert model.metadata == {"version": "0.1.0", "name": "golden", "step": 7}
    assert weights_hash(model.network) == str(expected["sha256"])


def test_a_version_1_model_gives_the_output_it_gave(expected: dict[str, np.ndarray]) -> None:
    image = torch.from_numpy(expected["image"])
    with torch.no_grad():
        first, second = (load_model(MODEL).network(image) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, torch.from_numpy(expected["output"]), rtol=0, atol=1e-5)


def test_a_version_1_model_stylizes_as_it_did(expected: dict[str, np.ndarray]) -> None:
    image = torch.from_numpy(expected["image"])
    own = torch.from_numpy(expected["output"]).clamp(0, 1)
    torch.testing.assert_close(Stylizer(MODEL, edge="none")(image), own, rtol=0, atol=1e-5)
    with np.load(STYLIZED) as data:
        without_frame = torch.from_numpy(data["output"])
    torch.testing.assert_close(Stylizer(MODEL)(image), without_frame, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What ten steps give here, and what they gave when the file was made."""
    golden = json.loads((FOLDER / "training.json").read_text())
    return run_training(tmp_path_factory.mktemp("golden")), golden


def test_ten_steps_have_the_losses_they_had(training: tuple[dict, dict]) -> None:
    here, golden = training
    assert len(golden["losses"]) == 10
    for step, (losses, expected) in enumerate(
        zip(here["losses"], golden["losses"], strict=True), start=1
    ):
        assert losses == pytest.approx(expected, rel=1e-4), f"step {step}"


def test_a_training_state_holds_what_it_held(training: tuple[dict, dict]) -> None:
    here, golden = training
    assert here["state"] == golden["state"]
