"""What a sweep came to, in numbers: `sweep.json` and `sweep.csv` beside its sheet."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fast_style.evaluation.sweep import PICTURE_TERMS, Combination, Job, numbers_of, pictures_of
from fast_style.files import atomic_write

SHEET, _JSON, _CSV = "sheet.png", "sweep.json", "sweep.csv"


def write_numbers(
    combinations: Sequence[Combination], job: Job, failures: Mapping[int, str]
) -> None:
    """Write every combination's settings with the terms of each of its pictures. Raises OSError.

    The terms are weighted, as the objective sums them; a picture that is missing has none.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            "settings": dict(setting.split("=", 1) for setting in combination.settings),
            "error": failures.get(index),
            "pictures": _pictures(combination, job),
        }
        for index, combination in enumerate(combinations)
    ]
    data = {
        "sweep": identity(combinations, job),
        "mode": job.mode,
        "steps": job.steps,
        "size": job.size,
        "combinations": entries,
    }
    with atomic_write(job.folder / _JSON) as file:
        file.write(json.dumps(data, indent=1).encode())
    with atomic_write(job.folder / _CSV) as file:
        file.write(_table(entries).encode())


def keep_another_sweep(combinations: Sequence[Combination], job: Job) -> None:
    """Rename the sheet and the numbers of another sweep in this folder, which ours would replace.

    Raises OSError.
    """
    try:
        other = json.loads((job.folder / _JSON).read_bytes()).get("sweep", "")
    except (OSError, ValueError, AttributeError):
        return
    if not isinstance(other, str) or other == identity(combinations, job):
        return
    for name in (SHEET, _JSON, _CSV):
        path = job.folder / name
        if path.exists():
            path.replace(path.with_name(f"{path.stem}-{other}{path.suffix}"))


def identity(combinations: Sequence[Combination], job: Job) -> str:
    """Return a digest of what a sheet shows: the pictures, which are named by all they depend on.

    More photos or another mode make another sheet.
    """
    names = [str(file) for combination in combinations for file in pictures_of(combination, job)]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]


def _pictures(combination: Combination, job: Job) -> list[dict[str, Any]]:
    return [
        {
            "photo": photo.name,
            "picture": str(file.relative_to(job.folder)) if file.exists() else None,
            **(numbers_of(file) or dict.fromkeys(PICTURE_TERMS)),
        }
        for photo, file in zip(job.photos, pictures_of(combination, job), strict=True)
    ]


def _table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for every picture: settings, photo, terms, and why there are none."""
    text = io.StringIO()
    keys = list(entries[0]["settings"])
    columns = [*keys, "photo", *PICTURE_TERMS, "picture", "error"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        for picture in entry["pictures"]:
            writer.writerow({**entry["settings"], **picture, "error": entry["error"]})
    return text.getvalue()


def sheet_of(folder: Path) -> Path:
    """Return where a sweep's sheet is."""
    return folder / SHEET
