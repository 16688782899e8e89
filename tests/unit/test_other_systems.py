"""What differs on Windows and macOS, as far as it can be tried anywhere."""

import ntpath
import os
import pickle
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from synthetic import write_photos

from fast_style import files
from fast_style.data import ContentImages, fingerprint
from fast_style.data.cache import open_cache
from fast_style.data.photos import below_common_folder
from fast_style.data.workers import context
from fast_style.stylization import jobs
from fast_style.stylization.jobs import Found, count_left_out, find_inputs, plan_jobs
from fast_style.stylization.mask_files import MaskFinder


def busy(monkeypatch: pytest.MonkeyPatch, *, times: int, pauses: tuple[float, ...]) -> list[Path]:
    """Have a file's new name refused so often, as where another program has it open."""
    tried: list[Path] = []
    replace = Path.replace

    def refused(path: Path, target: Path) -> Path:
        tried.append(path)
        if len(tried) <= times:
            raise PermissionError(13, "Access is denied", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    monkeypatch.setattr(files, "_PAUSES", pauses)
    return tried


@pytest.fixture
def caseless(tmp_path: Path) -> Path:
    """A folder in which `Photos` and `photos` are one."""
    (tmp_path / "Probe").touch()
    if not (tmp_path / "pROBE").exists():
        pytest.skip("needs a file system to which upper and lower case are the same")
    return tmp_path


def test_a_file_that_is_open_for_a_moment_is_replaced_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    tried = busy(monkeypatch, times=2, pauses=(0, 0, 0))
    with files.atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert len(tried) == 3


@pytest.mark.parametrize("pauses", [(), (0, 0)])
def test_a_file_that_stays_open_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: tuple[float, ...]
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    tried = busy(monkeypatch, times=9, pauses=pauses)
    with pytest.raises(PermissionError), files.atomic_write(path) as file:
        file.write(b"new")
    assert len(tried) == len(pauses) + 1
    assert [other.name for other in tmp_path.iterdir()] == ["model.pth"]
    assert path.read_bytes() == b"old"


def test_photos_on_several_drives_have_their_whole_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="drive"):
        ntpath.commonpath([PureWindowsPath("C:/a"), PureWindowsPath("D:/b")])

    def other_drives(_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    paths = write_photos(tmp_path, 3)
    before = fingerprint(paths)
    monkeypatch.setattr(os.path, "commonpath", other_drives)
    folder, names = below_common_folder(paths)
    assert folder == Path()
    assert names == [str(path).replace(os.sep, "/") for path in paths]
    assert fingerprint(paths) == fingerprint(paths) != before
    images = ContentImages(paths, 16)
    cache = open_cache(tmp_path / "cache", paths, preparation=images.preparation)
    assert cache.photo(str(paths[0]), 16, 0) is not None


def test_outputs_of_photos_on_several_drives_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Windows(PureWindowsPath):
        def absolute(self) -> "Windows":
            return self

    monkeypatch.setattr(os, "path", ntpath)
    monkeypatch.setattr(jobs, "Path", Windows)
    found = [Found(Windows(rf"{drive}:\photos\a.jpg")) for drive in "CD"]  # type: ignore[arg-type]
    named = jobs.named_jobs(found, "wave", Windows("out"), None, None)  # type: ignore[arg-type]
    assert [str(job.output) for job in named] == [
        r"out\C\photos\a.jpg.wave.jpg",
        r"out\D\photos\a.jpg.wave.jpg",
    ]


def test_what_loads_photos_can_be_sent_to_a_process_that_is_not_forked(tmp_path: Path) -> None:
    images = ContentImages(write_photos(tmp_path, 3), 16, first_size=8, first_steps=2)
    received = pickle.loads(pickle.dumps(images))
    assert received.preparation == images.preparation
    assert received.paths == images.paths
    flag = context().Event()
    flag.set()
    assert flag.is_set()


def test_no_link_and_no_two_names_that_differ_in_case_alone_are_kept(repository: Path) -> None:
    """Windows makes a text of a link; macOS and Windows make one file of two such names."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-s"], cwd=repository, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and its folder")
    modes, names = zip(*((line.split()[0], line.split("\t")[1]) for line in listed), strict=True)
    assert "120000" not in modes
    assert len({name.casefold() for name in names}) == len(names)
    forbidden = set('<>:"|?*\\')
    assert not [name for name in names if forbidden & set(name) or name.endswith((" ", "."))]


def test_what_an_outputs_folder_holds_is_no_input_in_whatever_case_it_is_named(
    caseless: Path,
) -> None:
    photos = write_photos(caseless / "Photos", 3)
    write_photos(caseless / "Photos" / "Out", 2)
    (caseless / "Photos" / "Out" / "report.txt").touch()
    output = str(caseless / "PHOTOS" / "out")
    jobs, errors = plan_jobs([str(caseless / "photos")], "wave", output=output, recursive=True)
    assert ([job.input.name for job in jobs], errors) == ([path.name for path in photos], [])
    assert not count_left_out([str(caseless / "photos")], output=output, recursive=True)
    found, _ = find_inputs(
        [str(caseless / "photos")], ["wave"], caseless / "PHOTOS" / photos[0].name.upper()
    )
    assert [path.name for path in found] == [path.name for path in photos[1:]]


def test_a_mask_is_no_photo_in_whatever_case_its_folder_is_named(caseless: Path) -> None:
    masks = write_photos(caseless / "Photos" / "Masks", 1)
    finder = MaskFinder(caseless / "photos" / "MASKS")
    assert finder.has(masks[0])
    assert not finder.has(*write_photos(caseless / "Photos", 1))


def test_text_is_read_and_written_in_utf_8_wherever_a_program_runs(repository: Path) -> None:
    """Windows' own encoding is another: `EncodingWarning` tells of each place that leaves it."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fast_style.config import load_config\n"
        "from fast_style.commands import main\n"
        "load_config('wave'); sys.exit(main(['models']))"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-X",
            "warn_default_encoding",
            "-W",
            "always::EncodingWarning",
            "-c",
            code,
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    ours = [line for line in result.stderr.splitlines() if f"{os.sep}fast_style{os.sep}" in line]
    assert [line for line in ours if "EncodingWarning" in line] == []
