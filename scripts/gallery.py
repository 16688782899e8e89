"""Show photos in every style, as a page.

The page shows each photo, each style image, and what each model makes of each photo; the pictures
are JPEGs in images/gallery beside it. For the shipped models it also writes their cards, models.md.
"""

import csv
import io
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cards import write as write_cards
from torch import Tensor

from fast_style.checkpoints.files import CheckpointError, find_model, load_model, shipped_models
from fast_style.commands import check_writable, exit_code, run
from fast_style.commands.options import Parser, add_device, command_parser
from fast_style.config import ConfigError
from fast_style.config.style_names import named_styles
from fast_style.data.photos import DataError, Skipped, find_images
from fast_style.errors import UserError
from fast_style.files import atomic_write
from fast_style.images import (
    ImageError,
    Picture,
    load_image,
    resize_long_edge,
    to_uint8,
    write_picture,
)
from fast_style.stylization import Stylizer

_PHOTOS = 3
_IMAGES = Path("images/gallery")
_STYLE_EDGE = 320
# From the first quality on, each as long as the pictures weigh too much.
_QUALITIES = (82, 76, 70, 64, 58, 50)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; exit 0 when all is done, 1 with broken photos left out, 2 on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _gallery(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "gallery",
        __doc__,
        examples=(
            "--photos photos/ -o docs/gallery.md",
            "--photos photos/ --photo sea --photo street --size 320 -o page.md",
        ),
    )
    parser.add_argument(
        "--photos", type=Path, required=True, metavar="DIR", help="folder of photos"
    )
    parser.add_argument(
        "--photo",
        action="append",
        metavar="NAME",
        help="show this one of them; may be repeated (default: the first three)",
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder of models (default: the shipped ones)"
    )
    parser.add_argument(
        "--styles",
        type=Path,
        metavar="DIR",
        help="folder of the style images that are not in their place (default: none)",
    )
    parser.add_argument(
        "--credits",
        type=Path,
        metavar="CSV",
        help="table with the columns file, author, licence, source_url (default: no credits)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="page to write, a .md"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=480,
        metavar="PIXELS",
        help="long edge of the pictures, from 16 on (default: 480)",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=4,
        help="the most that all pictures together may weigh (default: 4)",
    )
    add_device(parser)
    return parser


@dataclass(frozen=True, kw_only=True, slots=True)
class _Style:
    """A row of the page: a model and its style image, if that was found."""

    name: str
    model: Path
    image: Tensor | None


def _gallery(options: Namespace) -> int:
    check_writable(options.output)
    if options.size < 16:
        raise UserError(f"--size {options.size} is impossible: it must be at least 16")
    paths = _chosen(find_images([options.photos], named="--photos"), options.photo)
    skipped = Skipped()
    most = None if options.photo else _PHOTOS
    read = _readable(paths, options.size, skipped, most=most)
    known = _credits(options.credits)
    credit_of = {path.stem: _credit(path, known) for path in read}
    photos = {path.stem: photo for path, photo in read.items()}
    models = sorted(options.models.glob("*.pth")) if options.models else shipped_models()
    if not models:
        raise CheckpointError(f"{options.models or 'this version'}: holds no models (.pth)")
    styles = [_style(find_model(model), options.styles) for model in models]
    pictures = _pictures(photos, styles, skipped, device=options.device)
    credit_lines = [credit_of[name] for name in photos if name in pictures]
    files = _encode(pictures, options.megabytes)
    folder = options.output.parent / _IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with atomic_write(folder / f"{name}.jpg") as file:
            file.write(data)
    for old in set(folder.glob("*.jpg")) - {folder / f"{name}.jpg" for name in files}:
        old.unlink()
    with atomic_write(options.output) as file:
        shown = [name for name in photos if name in pictures]
        file.write(_page(shown, styles, credit_lines, _command(options)).encode())
    if not options.models:
        write_cards(options.output.with_name("models.md"))
    print(f"{options.output}: {len(files)} pictures, {_megabytes(files):.1f} MB")
    return exit_code(unreadable=len(skipped))


def _readable(
    paths: Sequence[Path], size: int, skipped: Skipped, *, most: int | None
) -> dict[Path, Tensor]:
    """Read the photos that can be read, at most so many."""
    photos: dict[Path, Tensor] = {}
    for path in paths:
        if len(photos) == most:
            break
        try:
            photos[path] = resize_long_edge(load_image(path), size)
        except ImageError as error:
            skipped.add(str(error))
    if not photos:
        raise DataError(f"--photos: none of the {len(paths)} photos can be read")
    return photos


def _pictures(
    photos: Mapping[str, Tensor], styles: Sequence[_Style], skipped: Skipped, *, device: str
) -> dict[str, Tensor]:
    """Stylize the photos; one that cannot be is left out of the page."""
    pictures = dict(photos)
    for style in styles:
        if style.image is not None:
            pictures[f"style-{style.name}"] = style.image
        stylizer = Stylizer.load(style.model, device=device)
        for name in [name for name in photos if name in pictures]:
            try:
                pictures[f"{name}-{style.name}"] = stylizer(photos[name])
                print(f"{name} in {style.name}", flush=True)
            except Exception as error:  # of this photo: the others go on
                reason = " ".join(str(error).split())
                skipped.add(f"{name}: cannot be stylized: {type(error).__name__}: {reason}")
                for other in (name, *(f"{name}-{s.name}" for s in styles)):
                    pictures.pop(other, None)
    return pictures


def _chosen(paths: Sequence[Path], names: Sequence[str] | None) -> list[Path]:
    """Find the named photos, by file name with or without its ending."""
    if not names:
        return list(paths)
    chosen = []
    for name in names:
        found = [path for path in paths if name in (path.name, path.stem)]
        if len(found) != 1:
            what = "is ambiguous" if found else "is not among the photos"
            known = ", ".join(path.stem for path in (found or paths)[:20])
            raise UserError(f"--photo {name}: {what}: {known}")
        chosen.append(found[0])
    if len({path.stem for path in chosen}) < len(chosen):
        raise UserError("--photo: the same name twice")
    return chosen


def _credits(path: Path | None) -> dict[str, Mapping[str, str]] | None:
    """Read a CSV with a line for each file."""
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not rows or "file" not in rows[0]:
        raise ConfigError(f"{path}: has no column 'file'")
    return {row["file"]: row for row in rows}


def _credit(path: Path, known: Mapping[str, Mapping[str, str]] | None) -> str:
    """Return a photo's line of attribution."""
    if known is None:
        return f"*{_title(path.stem)}*"
    if path.name not in known:
        raise ConfigError(f"{path.name}: is not in the credits")
    row = known[path.name]
    licence = row.get("licence") or row.get("license")
    if not licence:
        raise ConfigError(f"{path.name}: the credits name no licence")
    names = [row.get(column) for column in ("title", "author", "set")]
    line = f"*{_title(path.stem)}*: {', '.join(part for part in (*names, licence) if part)}"
    if source := row.get("source_url") or row.get("source"):
        return f"{line}, <{source}>"
    return f"{line}, from {row['repo']}" if row.get("repo") else line


def _title(stem: str) -> str:
    return stem.replace("_", " ")


def _style(model: Path, folder: Path | None) -> _Style:
    shares = named_styles(load_model(model).metadata.get("config"))
    named = max(shares, key=shares.__getitem__, default=None)  # of several, the one that counts
    places = [Path(named)] if named else []
    if folder and named:
        places.insert(0, folder / Path(named).name)
    found = next((place for place in places if place.is_file()), None)
    image = None if found is None else resize_long_edge(load_image(found), _STYLE_EDGE)
    return _Style(name=model.stem, model=model, image=image)


def _encode(pictures: Mapping[str, Tensor], megabytes: float) -> dict[str, bytes]:
    """Encode as JPEG, at the best quality at which all together weigh little enough."""
    for quality in _QUALITIES:
        files = {name: _jpeg(picture, quality) for name, picture in pictures.items()}
        if _megabytes(files) <= megabytes:
            return files
    raise UserError(
        f"{len(files)} pictures weigh {_megabytes(files):.1f} MB, more than {megabytes:g} (at "
        f"quality {_QUALITIES[-1]}): choose a smaller --size"
    )


def _jpeg(picture: Tensor, quality: int) -> bytes:
    file = io.BytesIO()
    pixels = to_uint8(picture).cpu()
    write_picture(Picture(pixels=pixels), file, file_format="JPEG", quality=quality)
    return file.getvalue()


def _megabytes(files: Mapping[str, bytes]) -> float:
    return sum(len(data) for data in files.values()) / 1e6


def _command(options: Namespace) -> str:
    """Return the command that makes the page, with other folders by their names alone."""
    words = ["python", "scripts/gallery.py"]
    for flag in ("photos", "models", "styles", "credits"):
        if path := getattr(options, flag):
            words += [f"--{flag}", _shown(path)]
    for name in options.photo or ():
        words += ["--photo", name]
    return shlex.join([*words, "-o", _shown(options.output)])


def _shown(path: Path) -> str:
    return path.name if path.is_absolute() or ".." in path.parts else str(path)


def _page(
    photos: Sequence[str], styles: Sequence[_Style], credit_lines: Sequence[str], command: str
) -> str:
    """Write the page: a table with a row for each style."""
    lines = [
        "# Gallery",
        "",
        "Each photo in every shipped style: one forward pass.",
        "",
        f"| | {' | '.join(map(_title, photos))} |",
        "|---" * (1 + len(photos)) + "|",
        "| | " + " | ".join(_image(name, _title(name)) for name in photos) + " |",
    ]
    for style in styles:
        head = f"`{style.name}`"
        if style.image is not None:
            head = f"{_image(f'style-{style.name}', f'the style image of {style.name}')}<br>{head}"
        cells = [
            _image(f"{name}-{style.name}", f"{_title(name)} in {style.name}") for name in photos
        ]
        lines.append(f"| {head} | {' | '.join(cells)} |")
    missing = [f"`{style.name}`" for style in styles if style.image is None]
    if missing:
        lines += [
            "",
            f"The style image of {', '.join(missing)} is not in the repository: "
            "[styles/README.md](../styles/README.md) says where it is.",
        ]
    lines += ["", "Photos:", "", *(f"* {line}" for line in credit_lines)]
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def _image(name: str, description: str) -> str:
    return f"![{description}]({_IMAGES.as_posix()}/{quote(name)}.jpg)"


if __name__ == "__main__":
    raise SystemExit(main())
