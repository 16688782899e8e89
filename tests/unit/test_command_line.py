"""What all commands have in common: how errors end, what --help says, what was typed."""

import argparse
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import photo

from fast_style import __version__
from fast_style.baseline.optimization import OptimizationError
from fast_style.checkpoints.files import CheckpointError, find_model, load_model, save_model
from fast_style.commands import COMMANDS, main, program, run
from fast_style.commands.options import Parser
from fast_style.config import ConfigError
from fast_style.data.photos import DataError
from fast_style.errors import ProcessLostError, ToldElsewhereError, UserError
from fast_style.images.decoding import ImageError
from fast_style.networks.transformer import TransformerNet
from fast_style.objective.weights import WeightsError
from fast_style.training.faults import TrainingError

MODULES = [*(name.replace("-", "_") for name in COMMANDS), "gallery"]


def parser_of(module: str) -> Parser:
    name = module if module == "gallery" else f"fast_style.commands.{module}"
    return importlib.import_module(name).parser()


def failing(error: Exception) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that is a mistake, and return its one line."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse ends so
        code = int(end.code or 0)
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    "kind",
    [
        CheckpointError,
        ConfigError,
        DataError,
        ImageError,
        OptimizationError,
        ProcessLostError,
        TrainingError,
        WeightsError,
    ],
)
def test_every_error_that_a_user_can_mend_has_one_base(kind: type[Exception]) -> None:
    assert issubclass(kind, UserError)
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("kind", [OptimizationError, ProcessLostError, TrainingError])
def test_what_was_a_runtime_error_still_is_one(kind: type[Exception]) -> None:
    assert issubclass(kind, RuntimeError)


def test_a_users_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(ConfigError("x.yaml: no such file"))) == 2
    assert capsys.readouterr().err == "error: x.yaml: no such file\n"


@pytest.mark.parametrize("error", [ValueError("not enough values"), KeyError("a"), RuntimeError()])
def test_a_bug_keeps_its_traceback_and_says_that_it_is_one(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert run(failing(error)) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-2].startswith(type(error).__name__)
    assert any("in body" in line for line in lines)
    assert f"this is a bug in fast-style {__version__}" in lines[-1]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 8 bytes")])
def test_too_little_memory_is_no_bug(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    assert run(failing(error)) == 2
    assert capsys.readouterr().err.endswith("Make the batch or the images smaller.\n")


def test_an_error_that_another_process_reports_is_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(failing(ToldElsewhereError("process 1"))) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train", ["--config", "gone.yaml"]),
        ("stylize", ["--model", "gone", "in.jpg"]),
        ("optimize", ["--content", "a", "--style", "b", "-o", "c.png", "--recipe", "gone"]),
        ("evaluate", ["--model", "gone", "--images", "photos"]),
        ("sweep", ["--config", "gone.yaml", "--set", "loss.strength=1,2"]),
        ("models", ["gone"]),
        ("convert", ["gone.pth", "new.pth"]),
        ("check-data", ["gone"]),
    ],
)
@pytest.mark.usefixtures("signal_handlers_restored")
def test_every_command_shows_the_traceback_of_a_mistake_on_demand(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_of(capsys, command, *arguments)
    assert main([command, *arguments, "--traceback"]) == 2
    shown = capsys.readouterr().err
    monkeypatch.setenv("FAST_STYLE_TRACEBACK", "1")
    assert main([command, *arguments]) == 2
    for text in (shown, capsys.readouterr().err):
        assert text.startswith("Traceback")
        assert text.endswith(f"\n{line}")


@pytest.mark.parametrize("module", MODULES)
def test_every_option_is_explained_with_its_default(module: str) -> None:
    for action in parser_of(module)._actions:
        assert action.help, action.dest
        if action.option_strings and "help" not in action.dest and not action.required:
            assert re.search(r"\((default:|required|at least one)", action.help), action.dest
        if isinstance(action.default, int | float) and not isinstance(action.default, bool):
            assert f"(default: {action.default:g}" in action.help, action.dest
        if isinstance(action.default, str) and action.default != argparse.SUPPRESS:
            assert f"(default: {action.default})" in action.help, action.dest


@pytest.mark.parametrize("module", MODULES)
def test_every_commands_help_ends_with_two_examples_that_can_be_parsed(module: str) -> None:
    parser = parser_of(module)
    head, *examples = (parser.epilog or "").splitlines()
    assert head == "examples:"
    assert len(examples) == 2
    for example in examples:
        assert example.startswith(f"  {parser.prog}")
        parser.parse_args(example.removeprefix(f"  {parser.prog}").split())
    assert parser.format_help().rstrip().endswith(examples[1].rstrip())


@pytest.mark.parametrize("module", MODULES)
def test_no_help_speaks_of_scripts_that_an_installed_program_lacks(module: str) -> None:
    assert "scripts/" not in parser_of(module).format_help()


def test_a_script_names_the_scripts_beside_it(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    scripts = repository / "scripts"
    monkeypatch.setattr(sys, "argv", [str(scripts / "train.py")])
    assert program("check-data") == str(scripts / "check_data.py")
    assert program("gallery") == str(scripts / "gallery.py")
    assert program() == "fast-style"
    monkeypatch.setattr(sys, "argv", [str(scripts.parent / "train.py")])
    assert program("stylize") == "fast-style stylize"


@pytest.mark.parametrize(
    ("called", "usage"),
    [
        ("/usr/bin/fast-style", "usage: fast-style check-data "),
        ("scripts/check_data.py", "usage: scripts/check_data.py "),
        ("/usr/lib/fast_style/__main__.py", "usage: python -m fast_style check-data "),
        ("-c", "usage: fast-style check-data "),
    ],
)
def test_the_usage_begins_with_what_was_typed(
    monkeypatch: pytest.MonkeyPatch, called: str, usage: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert parser_of("check_data").format_usage().startswith(usage)


def test_a_mistake_of_the_command_line_is_one_line_that_names_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = error_of(capsys, "train")
    assert "--config" in said
    assert said.endswith("fast-style train --help lists the options\n")


@pytest.mark.parametrize(("typed", "meant"), [("stylise", "stylize"), ("model", "models")])
def test_an_unknown_command_gets_the_nearest_one(
    capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    assert f"did you mean '{meant}'?" in error_of(capsys, typed)


def test_the_version_and_the_module_can_be_run_without_loading_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "fast_style", "--version"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True
    )
    assert result.stdout == f"fast-style {__version__}\n"
    assert not re.search(r"\| +(torch|PIL|numpy)$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from fast_style.commands import main; main(['--version'])", "PASSIVE"),
        ("import torch; from fast_style.commands import main; main(['--version'])", None),
        ("import fast_style; fast_style.Stylizer; fast_style.train", None),
        ("import fast_style.commands.train", None),
    ],
)
def test_a_program_tells_openmp_how_to_wait_and_the_library_leaves_the_environment_alone(
    code: str, said: str | None
) -> None:
    before = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    show = "import os; was = dict(os.environ); {}; now = dict(os.environ)"
    show += "; print(now.pop('OMP_WAIT_POLICY', None), now == was)"
    command = [sys.executable, "-c", show.format(code)]
    result = subprocess.run(command, capture_output=True, text=True, env=before, check=True)
    assert result.stdout.splitlines()[-1] == f"{said} True"


def test_a_wish_for_another_way_to_wait_is_respected() -> None:
    code = "import os; from fast_style.commands import main; main(['--version'])"
    command = [sys.executable, "-c", f"{code}; print(os.environ['OMP_WAIT_POLICY'])"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "ACTIVE"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines()[-1] == "ACTIVE"


def test_a_models_name_gets_the_nearest_one_and_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network: TransformerNet
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no model 'wavee'; did you mean 'wave'\?.*starry"):
        find_model("wavee")
    (tmp_path / "checkpoints/seaside").mkdir(parents=True)
    save_model(tmp_path / "checkpoints/seaside/seaside.pth", tiny_network)
    with pytest.raises(CheckpointError, match="did you mean 'seaside'"):
        find_model("seasid")
    with pytest.raises(CheckpointError, match="it is an address: download the file"):
        find_model("https://example.com/wave.pth")


@pytest.mark.parametrize("name", ["run/sea.pth", "run/run.pth"])
def test_a_runs_folder_names_the_model_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network: TransformerNet, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    save_model(tmp_path / name, tiny_network)
    assert find_model("run") == find_model("run/") == Path(name)
    if name == "run/run.pth":
        save_model(tmp_path / "run/other.pth", tiny_network)
        assert find_model("run") == Path(name)
    monkeypatch.chdir(tmp_path / "run")
    assert find_model(".").resolve() == tmp_path / name


def test_a_folder_of_several_models_names_none(
    tmp_path: Path, tiny_network: TransformerNet
) -> None:
    for name in ("a.pth", "b.pth"):
        save_model(tmp_path / name, tiny_network)
    with pytest.raises(CheckpointError, match="no model"):
        find_model(tmp_path)


def test_a_config_or_a_picture_is_no_model_and_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    photo(0).save(tmp_path / "a.jpg")
    with pytest.raises(CheckpointError, match=r"is a config, not a model: fast-style train --conf"):
        load_model(tmp_path / "a.yaml")
    with pytest.raises(CheckpointError, match=r"a\.jpg: is a JPEG, a picture and not a model"):
        load_model(tmp_path / "a.jpg")


@pytest.mark.usefixtures("signal_handlers_restored")
def test_a_key_of_another_section_is_named_whole(
    capsys: pytest.CaptureFixture[str], tiny_yaml: Callable[..., Path]
) -> None:
    said = error_of(capsys, "train", "--config", str(tiny_yaml()), "--set", "steps=3")
    assert "steps: unknown key; did you mean 'training.steps'?" in said


@pytest.mark.usefixtures("signal_handlers_restored")
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_path_that_is_beside_the_config_is_found_out(
    capsys: pytest.CaptureFixture[str],
    tiny_yaml: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    config = tiny_yaml({"style.image": "painting.png"})
    photo(0).save(tmp_path / "painting.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    axis = ["--set", "loss.tv_weight=1,2"] if command == "sweep" else []
    said = error_of(capsys, command, "--config", str(Path("..", config.name)), *axis)
    assert "style.image: painting.png: is not in" in said
    assert "but beside the config: write ../painting.png" in said


@pytest.mark.usefixtures("signal_handlers_restored")
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "--set", "data.train=gone"], "data.train: gone: no such folder of photos"),
        (["train", "--set", "data.train=empty"], "data.train: empty: holds no image files"),
        (["train", "--set", "data.validation=gone"], "data.validation: gone: no such folder"),
        (["sweep", "--set", "loss.tv_weight=1,2", "--images", "gone"], "--images: gone: no such"),
    ],
)
def test_a_folder_of_photos_is_named_with_its_key(
    capsys: pytest.CaptureFixture[str],
    tiny_yaml: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    tiny_yaml()
    command, *options = arguments
    assert part in error_of(capsys, command, "--config", "tiny.yaml", *options)


def test_evaluate_says_how_to_name_a_style_image_that_is_not_there(
    capsys: pytest.CaptureFixture[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_network: TransformerNet,
) -> None:
    monkeypatch.chdir(tmp_path)
    for image in ("styles/gone.jpg", "package:not_installed/gone.jpg"):
        metadata = {"config": {"style": {"image": image}}}
        save_model(tmp_path / "a.pth", tiny_network, metadata=metadata)
        said = error_of(capsys, "evaluate", "--model", "a.pth", "--images", str(photos))
        assert f"the model's style image, {image}, is not here" in said
        assert "name it with --style" in said
