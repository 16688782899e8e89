"""Check folders of photos before a training: sizes, damage, duplicates, speed of loading.

Every file is decoded, so that a broken one is named now and not hours into a training.
"""

import json
import math
import time
from argparse import Namespace
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fast_style.commands import program, run
from fast_style.commands.options import Parser, command_parser, pixels
from fast_style.config import DataConfig, TrainingConfig
from fast_style.data import ContentImages, Draw
from fast_style.data.cache import bytes_needed
from fast_style.data.photos import (
    MAXIMUM_UNREADABLE,
    MINIMUM_EDGE,
    Scan,
    bytes_of,
    content_of,
    find_images,
    inspect_images,
)
from fast_style.data.preparation import Preparation
from fast_style.data.workers import cores, number_of_workers

# The most photos on which the loader is timed, and the most seconds.
_TIMED_PHOTOS = 400
_TIMED_SECONDS = 3
_FRAMED_HINT = " (a frame or padding is trained on as well: better cropped away; --json names them)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check; exit 0 when all files are usable, 1 when some are not, 2 on a mistake."""
    options = parser().parse_args(arguments)
    return run(lambda: _check(options), options=options)


def parser() -> Parser:
    """Return the parser of the command's options."""
    parser = command_parser(
        "check-data",
        __doc__,
        examples=("photos/", "photos/ more/photo.jpg --image-size 192 --json"),
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="folder of photos, or one photo"
    )
    size = TrainingConfig().image_size
    parser.add_argument(
        "--image-size",
        type=pixels,
        default=size,
        metavar="PIXELS",
        help=f"side of the training's square crops, from 1 on (default: {size})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print every number as JSON (default: as text)"
    )
    return parser


def _check(options: Namespace) -> int:
    paths = find_images(options.folders)
    scan = inspect_images(paths, decoded=len(paths))
    report = _report(scan, options.image_size)
    print(json.dumps(report, indent=2) if options.json else _as_text(report))
    return 1 if scan.unreadable or scan.too_small else 0


def _report(scan: Scan, image_size: int) -> dict[str, Any]:
    """Return everything that the command reports, as plain data."""
    report: dict[str, Any] = {
        "files": len(scan.usable) + len(scan.unreadable) + len(scan.too_small),
        "usable": len(scan.usable),
        "unreadable": {str(path): reason for path, reason in scan.unreadable.items()},
        "too_small": [str(path) for path in scan.too_small],
        "grey_share": round(scan.grey_share, 4),
        "framed_share": round(scan.framed_share, 4),
        "framed": [str(path) for path in scan.framed_photos],
        "duplicates": _duplicates(scan.usable),
        "image_size": image_size,
    }
    if not scan.usable:
        return report
    by_area = sorted(scan.sizes, key=math.prod)
    training, data = TrainingConfig(), DataConfig(train=())
    workers = min(number_of_workers(data.workers, "cpu"), cores())
    rate = _loading_rate(scan.usable, image_size)
    sizes = (training.first_size,) if training.first_size < image_size else ()
    preparation = Preparation(sizes=(*sizes, image_size), min_crop=data.min_crop)
    draws = training.steps * training.batch_size
    return report | {
        "smallest": by_area[0],
        "median": by_area[len(by_area) // 2],
        "largest": by_area[-1],
        "below_image_size": sum(min(size) < image_size for size in scan.sizes),
        "images_per_second_and_core": round(rate, 1),
        "workers": workers,
        "steps": training.steps,
        "batch_size": training.batch_size,
        "epochs": round(draws / len(scan.usable), 2),
        "loading_seconds": round(draws / rate / workers, 1),
        "cache_bytes": bytes_needed(scan.usable, preparation=preparation),
    }


def _duplicates(paths: Sequence[Path]) -> list[list[str]]:
    """Group the files that have the same bytes; only files of equal size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        by_size.setdefault(bytes_of(path), []).append(path)
    groups: dict[bytes, list[str]] = {}
    for same_size in by_size.values():
        for path in same_size if len(same_size) > 1 else ():
            groups.setdefault(sha256(content_of(path)).digest(), []).append(str(path))
    return [group for group in groups.values() if len(group) > 1]


def _loading_rate(paths: Sequence[Path], image_size: int) -> float:
    """Time what a worker does, decoding and cropping, in images a second."""
    images = ContentImages(paths[:: math.ceil(len(paths) / _TIMED_PHOTOS)], image_size)
    images[Draw(0, 0)]  # the first loads the decoders
    start, count = time.perf_counter(), 0
    while count < _TIMED_PHOTOS and (not count or time.perf_counter() - start < _TIMED_SECONDS):
        images[Draw(count % len(images), count)]
        count += 1
    return count / (time.perf_counter() - start)


def _as_text(report: dict[str, Any]) -> str:
    files, usable = report["files"], report["usable"]
    unreadable, too_small = report["unreadable"], report["too_small"]
    lines = [f"{files:,} image files, {usable:,} usable"]
    if unreadable:
        limit = "more" if len(unreadable) > MAXIMUM_UNREADABLE * files else "no more"
        lines.append(
            f"unreadable: {len(unreadable):,}, {limit} than the {MAXIMUM_UNREADABLE:.0%} that a "
            "training goes on with"
        )
        lines += [f"  {reason}" for reason in unreadable.values()]
    if too_small:
        lines.append(f"too small, with a side under {MINIMUM_EDGE} pixels: {len(too_small):,}")
        lines += [f"  {path}" for path in too_small]
    if not usable:
        return "\n".join(lines)
    sizes = [
        f"{'×'.join(map(str, report[key]))} {key}" for key in ("smallest", "median", "largest")
    ]
    size, below = report["image_size"], report["below_image_size"]
    lines.append(f"sizes: {', '.join(sizes)}; {below:,} with a side under {size}, to be enlarged")
    lines.append(f"without colours: {report['grey_share']:.1%}")
    framed = report["framed_share"]
    lines.append(f"with a plain band along an edge: {framed:.1%}{_FRAMED_HINT if framed else ''}")
    duplicates = report["duplicates"]
    lines.append(f"duplicates: {sum(map(len, duplicates)) - len(duplicates):,}")
    lines += [f"  {' = '.join(group)}" for group in duplicates]
    rate, workers, batch_size = (
        report[key] for key in ("images_per_second_and_core", "workers", "batch_size")
    )
    lines += [
        f"loading: {rate:,.0f} images/s a core, so data.workers {workers} feeds a step of "
        f"{batch_size} every {batch_size / rate / workers * 1e3:.1f} ms",
        f"  (how long the step itself takes: {program('train')} --dry-run)",
        f"{report['steps']:,} steps of {batch_size}: each photo {report['epochs']:,.1f} times, "
        f"{report['loading_seconds'] / 60:,.1f} minutes of loading beside the steps",
        f"data.cache would take {report['cache_bytes'] / 1e9:,.2f} GB",
    ]
    return "\n".join(lines)
