"""Make the page that paints in a browser: a folder for any static host, or for fast-style serve.

The page is web/. Beside it come each style's graphs, its thumbnail, and ONNX Runtime from the npm
registry, of the version and with the checksum that web/runtime.json names.
"""

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fast_style.checkpoints.files import find_model, load_model, shipped_models
from fast_style.commands import run
from fast_style.commands.options import Parser, command_parser
from fast_style.errors import UserError
from fast_style.export.gate import check_parity, onnxruntime_session, strips_runtime
from fast_style.export.half import halved
from fast_style.export.onnx import GraphForm, onnx_bytes
from fast_style.export.origin import origin_of
from fast_style.export.stages import stage_bytes
from fast_style.files import atomic_write
from fast_style.stylization import Stylizer

_ROOT = Path(__file__).parents[1]
_SOURCES = _ROOT / "web"
_SAMPLE = _ROOT / "docs/images/gallery/unsplash_Bryggen.jpg"
_THUMBNAIL = (300, 225)
# Files whose compressed copy is worth having beside them.
_COMPRESSED = (".wasm", ".mjs", ".onnx", ".js", ".css")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; exit 0 when all of it is there, 2 with one line on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _page(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser("page", __doc__, examples=("-o build/web", "-o site --model my.pth"))
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("build/web"),
        metavar="DIR",
        help="folder to write (default: build/web)",
    )
    parser.add_argument(
        "--model",
        action="append",
        help="a style to offer, by its model's name or file; may be repeated (default: all that "
        "are shipped)",
    )
    return parser


def _page(options: Namespace) -> int:
    output: Path = options.output
    names = options.model or [path.stem for path in shipped_models()]
    archive = _runtime_archive(output.parent)
    for folder in ("vendor", "models", "thumbs"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for source in _SOURCES.iterdir():
        shutil.copyfile(source, output / source.name)
    shutil.copyfile(_SAMPLE, output / "sample.jpg")
    _unpack(archive, output / "vendor")
    styles = [_style(name, output) for name in names]
    text = json.dumps({"styles": styles}, indent=2) + "\n"
    (output / "styles.json").write_text(text, encoding="utf-8")
    for path in output.rglob("*"):
        if path.suffix in _COMPRESSED:
            _compress(path)
    print(f"{output}: {len(styles)} styles; fast-style serve --web {output} shows it")
    return 0


def _runtime_archive(folder: Path) -> Path:
    """Return ONNX Runtime's package, as npm has it, after its checksum. Raises UserError."""
    runtime = json.loads((_SOURCES / "runtime.json").read_text(encoding="utf-8"))
    path = folder / f"{runtime['package']}-{runtime['version']}.tgz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise UserError("the page's runtime is fetched with npm: install it (Debian: npm)")
        with tempfile.TemporaryDirectory() as scratch:
            what = f"{runtime['package']}@{runtime['version']}"
            fetch = [npm, "pack", what, "--silent", "--pack-destination", scratch]
            done = subprocess.run(fetch, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"npm pack {what} failed: {(done.stderr or done.stdout).strip()}")
            with atomic_write(path) as file:
                file.write(next(Path(scratch).iterdir()).read_bytes())
    found = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != runtime["integrity"]:
        raise UserError(f"{path}: is not what web/runtime.json names: delete it and try again")
    return path


def _unpack(archive: Path, folder: Path) -> None:
    files = json.loads((_SOURCES / "runtime.json").read_text(encoding="utf-8"))["files"]
    with tarfile.open(archive) as tar:
        for name in files:
            file = tar.extractfile(f"package/{name}")
            assert file is not None, name
            (folder / Path(name).name).write_bytes(file.read())


def _style(name: str, output: Path) -> dict[str, Any]:
    """Write a style's graphs and thumbnail; return what the page is told of it."""
    source = find_model(name)
    model = halved(load_model(source), name=str(source))
    origin = origin_of(source, model)
    form = GraphForm(half=True)
    whole = onnx_bytes(model.network, form, origin.as_text())
    check_parity(onnxruntime_session(whole), model.network, form)
    models = output / "models"
    (models / f"{origin.style}.onnx").write_bytes(whole)
    (models / origin.style).mkdir(exist_ok=True)
    stages = stage_bytes(model.network, half=True, about=origin.as_text())
    small = [(1, 64, 64), (1, 101, 77)]
    check_parity(strips_runtime(stages, strip_pixels=3000), model.network, form, shapes=small)
    for stage, content in stages.items():
        (models / origin.style / f"{stage}.onnx").write_bytes(content)
    with Image.open(_SAMPLE) as photo:
        width = photo.height * 4 // 3
        left = (photo.width - width) // 2
        cut = photo.convert("RGB").crop((left, 0, left + width, photo.height))
    thumbnail = Stylizer(model)(cut).resize(_THUMBNAIL, Image.Resampling.LANCZOS)
    thumbnail.save(output / "thumbs" / f"{origin.style}.jpg", quality=84)
    return {
        "name": origin.style,
        "title": origin.style.replace("_", " ").capitalize(),
        "channels": model.network.width,
        "licence": origin.licence or "not stated",
    }


def _compress(path: Path) -> None:
    # Without a time, the same bytes each time.
    packed = gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)
    path.with_name(path.name + ".gz").write_bytes(packed)


if __name__ == "__main__":
    raise SystemExit(main())
