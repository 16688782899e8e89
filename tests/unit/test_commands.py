"""The commands in this process: every mistake is one line and exit code 2. (As programs: e2e.)"""

import itertools
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from synthetic import photo

from fast_style.checkpoints.files import find_model, save_model, save_state
from fast_style.commands import main, run
from fast_style.networks.transformer import TransformerNet
from fast_style.training import pace

pytestmark = pytest.mark.usefixtures("signal_handlers_restored")


MEMORY = torch.OutOfMemoryError("CUDA out of memory.\nMore than anyone reads.")


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


def test_a_dry_run_finds_another_run_in_the_folder_and_a_folder_that_cannot_be_made(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("train", "--config", "tiny.yaml", "--run-dir")
    assert exit_code(*train, "run") == 0
    capsys.readouterr()
    dry = ("--dry-run", "--set", "training.steps=5")
    assert exit_code(*train, "run", *dry) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" for 3 steps")  # two are done
    other = one_line_of_error(capsys, *train, "run", *dry, "--set", "training.seed=9")
    assert "training.seed: is 9, but the run in run was begun with 0" in other
    assert "in.png is a file, not a folder" in one_line_of_error(capsys, *train, "in.png/run", *dry)


def test_a_dry_run_counts_small_crops_for_what_they_are(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)  # each step takes a second
    monkeypatch.setattr(pace, "time", clock)
    sizes = ("training.image_size=64", "training.first_size=32", "training.first_share=0.5")
    changes = ("training.steps=100", *sizes)
    settings = itertools.chain.from_iterable(("--set", change) for change in changes)
    command = ("train", "--config", "tiny.yaml", "--run-dir", "new", "--dry-run")
    assert exit_code(*command, *settings) == 0
    # As long as 50 steps of those that were timed, and 50 of four times their area.
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("1.00 s a step, about 4 minutes for 100 steps")


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
@pytest.mark.parametrize("dry", [True, False])
def test_an_impossible_time_limit_is_told_before_anything_else(
    user: Path, capsys: pytest.CaptureFixture[str], minutes: str, dry: bool
) -> None:
    options = ["--dry-run"] if dry else []
    error = one_line_of_error(
        capsys, "train", "--config", "gone.yaml", f"--max-minutes={minutes}", *options
    )
    assert f"--max-minutes: {float(minutes)!r} is impossible: it must be above 0" in error


def test_a_dry_run_says_when_the_time_is_too_short_for_a_step(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(pace, "time", clock)
    command = ("train", "--config", "tiny.yaml", "--run-dir", "new", "--dry-run")
    assert exit_code(*command, "--max-minutes", "0.01") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(
        "1.00 s a step, more than --max-minutes 0.01 leaves: no step would be made"
    )


def test_a_dry_run_of_a_long_training_on_a_cpu_knows_a_shorter_way(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(pace, "time", clock)
    command = ("train", "--config", "tiny.yaml", "--run-dir", "new", "--device", "cpu")
    assert exit_code(*command, "--dry-run", "--set", "training.steps=5000") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    shorter = "# with training.init_from=wave, network.width=16 and --max-minutes 10: "
    assert last.startswith(shorter)
    assert 580 <= int(last.removeprefix(shorter).removesuffix(" steps, ten minutes")) <= 594


def test_after_a_training_the_next_command_is_shown(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("train", "--config", "tiny.yaml", "--run-dir", "new", "--device", "cpu") == 0
    captured = capsys.readouterr()
    model = Path("new/tiny.pth")
    assert captured.out == f"{model}\n"
    assert captured.err.splitlines()[-1] == f"try: fast-style stylize --model {model} photo.jpg"
    # Again: it is finished, and there is no second file of events.
    assert exit_code("train", "--config", "tiny.yaml", "--run-dir", "new", "--device", "cpu") == 0
    assert capsys.readouterr().out == f"{model}\n"
    assert len(list(Path("new").glob("events*"))) == 1
    rows = Path("new/metrics.csv").read_text().splitlines()[1:]
    expected = ["0,validation", "1,training", "2,training", "2,validation"]
    assert [",".join(row.split(",")[:2]) for row in rows] == expected


def test_a_reader_who_goes_is_no_mistake() -> None:
    """As in `... | head -1`."""
    body = "print('x' * 100_000) or print(1, flush=True) or 0"
    code = f"from fast_style.commands import run; raise SystemExit(run(lambda: {body}))"
    command = f'{shlex.quote(sys.executable)} -c "{code}" | head -c 5'
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=100)
    assert (result.stdout, result.stderr) == ("xxxxx", "")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x.json"), MEMORY])
def test_what_the_machine_lacks_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def body() -> int:
        raise error

    assert run(body) == 2
    message = "x.json: No space left on device"
    if error is MEMORY:
        message = "CUDA out of memory. Make the batch or the images smaller."
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 8.00 GB)",
        "Invalid buffer size: 38.15 GB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
    ],
)
def test_all_that_libraries_say_without_memory_is_seen_and_the_keys_that_help_are_named(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    def body() -> int:
        raise RuntimeError(text)

    assert run(body, less_memory="lower training.batch_size") == 2
    said = capsys.readouterr().err
    assert said == f"error: {text.rstrip('.')}. Lower training.batch_size.\n"


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
