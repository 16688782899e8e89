"""What codecs in C print by themselves: a program keeps it from its stderr, a library does not."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import processes
import pytest

PROGRAM = """
import os, sys, threading
from pathlib import Path
from fast_style.images import ImageError, codec_lines, deep, read_picture
if "without" in sys.argv:
    deep.available = lambda: False

def read(path):
    try:
        read_picture(path)
    except ImageError as error:
        print("error:", error, file=sys.stderr)

def body():
    paths = sorted(Path(sys.argv[1]).iterdir())
    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"a line in C, outside\\n")
    return 0

if "library" in sys.argv:
    body()
else:
    from fast_style.commands import run
    run(body)
print("the end", file=sys.stderr)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures whose codecs speak: a TIFF of damaged bytes, an interlaced PNG of 16 bits."""
    from kinds import BROKEN

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "codec.tif").write_bytes(BROKEN["codec.tif"])
    (tmp_path / "in" / "directory.tif").write_bytes(BROKEN["directory.tiff"])
    rows = b"".join(b"\0" + bytes(2 * n) for n in (1, 1, 2, 2, 4, 4, 4, 4))
    head = struct.pack(">IIBBBBB", 8, 2, 16, 0, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows * 4)), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    (tmp_path / "in" / "interlaced.png").write_bytes(data)
    return tmp_path / "in"


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return processes.run([sys.executable, "-c", PROGRAM, *arguments])


@pytest.mark.parametrize("extra", ["with", "without"])
def test_a_program_prints_its_own_lines_and_no_codecs(folder: Path, extra: str) -> None:
    lines = run(folder, extra).stderr.splitlines()
    named = [line for line in lines if line.startswith(f"error: {folder}/")]
    assert {line.split(": ")[1] for line in named} >= {
        str(folder / "codec.tif"),
        str(folder / "directory.tif"),
    }
    assert [line for line in lines if line not in named] == ["a line in C, outside", "the end"]


def test_a_librarys_caller_sees_what_codecs_print(folder: Path) -> None:
    pytest.importorskip("imagecodecs")
    assert "ZIPDecode" in run(folder, "library").stderr


def test_a_child_that_is_forked_in_the_silence_speaks(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from fast_style.commands import run\n"
        "from fast_style.images.codec_lines import hushed\n"
        "def body():\n"
        "    with hushed():\n"
        "        os.write(2, b'not seen\\n')\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            os.write(2, b'the child in C\\n')\n"
        "            print('the child', file=sys.stderr)\n"
        "            os._exit(0)\n"
        "        os.waitpid(child, 0)\n"
        "    return 0\n"
        "run(body)\n"
    )
    lines = processes.run([sys.executable, "-c", program]).stderr.splitlines()
    assert sorted(lines) == ["the child", "the child in C"]


def test_numbers_are_as_they_were(folder: Path) -> None:
    """The silence changes no pixel."""
    from fast_style.images import read_picture
    from fast_style.images.codec_lines import hushed, kept_apart

    pytest.importorskip("imagecodecs")
    before = read_picture(folder / "interlaced.png").pixels
    with kept_apart(), hushed():
        assert np.array_equal(before.numpy(), read_picture(folder / "interlaced.png").pixels)
