"""The commands in this process: every mistake is one line and exit code 2. (As programs: e2e.)"""

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import photo

from fast_style.checkpoint import find_model, save_model, save_state
from fast_style.commands import main
from fast_style.networks.transformer import TransformerNet

pytestmark = pytest.mark.usefixtures("signal_handlers_restored")


@pytest.fixture
def user(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_yaml: Callable[..., Path],
    tiny_network: TransformerNet,
) -> Path:
    """A user's folder: tiny.yaml, checkpoints/tiny with a model and a state, and in.png."""
    tiny_yaml({"training.steps": 2})
    run = tmp_path / "checkpoints" / "tiny"
    run.mkdir(parents=True)
    save_model(run / "tiny.pth", tiny_network)
    save_state(run, 3, {})
    photo(50, 37, 51).save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def exit_code(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as end:  # argparse ends so
        return int(end.code or 0)


def one_line_of_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert exit_code(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    return errors[0]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "gone.yaml"], "gone.yaml: no such config file"),
        (["--config", "tiny.yaml", "--set", "training.step=3"], "did you mean 'steps'?"),
        (["--config", "tiny.yaml", "--set", "style.image=gone.jpg"], "gone.jpg: no such image"),
        (["--config", "tiny.yaml", "--set", "data.train=gone"], "gone: no such folder of photos"),
        (["--config", "tiny.yaml", "--set", "loss.weights=gone.pth"], "gone.pth: no such weights"),
        (["--config", "tiny.yaml", "--device", "gpu"], "unknown device 'gpu'"),
        (["--config", "tiny.yaml", "--faster"], "--faster"),
        ([], "--config"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_mistake_in_the_training_command_is_one_line_and_leaves_nothing(
    user: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str, dry: bool
) -> None:
    before = files_below(user)
    options = ["--run-dir", "new", *(["--dry-run"] if dry else [])]
    assert part in one_line_of_error(capsys, "train", *arguments, *options)
    assert files_below(user) == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "gone", "in.png"], "gone"),
        (["--model", "gone.pth", "in.png"], "gone.pth"),
        (["--model", "in.png", "in.png"], "in.png"),
        (["--model", "checkpoints/tiny/state-00000003.pt", "in.png"], "is a training state"),
        (["--model", "tiny", "in.png", "--device", "gpu"], "unknown device 'gpu'"),
        (["--model", "tiny", "in.png", "--faster"], "--faster"),
        (["--model", "tiny"], "IMAGE"),
        (["in.png"], "--model"),
    ],
)
def test_a_mistake_in_the_stylizing_command_is_one_line_and_leaves_nothing(
    user: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    before = files_below(user)
    assert part in one_line_of_error(capsys, "stylize", *arguments)
    assert files_below(user) == before


def test_a_photo_that_is_missing_is_named_and_is_no_success(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("stylize", "--model", "tiny", "gone.jpg") in (1, 2)
    assert "gone.jpg: no such image file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("sea", "checkpoints/sea/sea.pth"),
        ("sea.pth", "checkpoints/sea/sea.pth"),
        ("sea", "checkpoints/sea.pth"),
        ("sea.pth", "checkpoints/sea.pth"),
        ("sea.pth", "sea.pth"),
    ],
)
def test_a_model_is_found_by_name(user: Path, name: str, place: str) -> None:
    (user / place).parent.mkdir(exist_ok=True)
    (user / "checkpoints/tiny/tiny.pth").rename(user / place)
    assert find_model(name).resolve() == user / place


@pytest.mark.parametrize("command", ["train", "stylize"])
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--help") == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"), [(["trian"], "unknown command 'trian'"), ([], "a command is missing")]
)
def test_a_wrong_command_gets_the_list_of_commands(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert "stylize" in captured.err
    assert captured.out == ""
