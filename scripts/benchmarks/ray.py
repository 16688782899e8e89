"""`scripts/benchmark.py ray`: small photos in a store, on Ray's actors, which are killed.

One table: whether the pictures have the bytes of a plain run on a folder, what is left of a run
whose actors or whose driver are killed with -9 at random moments, photos a second beside
torchrun's with as many processes, in turn, and how memory grows. The store is an S3 server on this
machine, and takes its part of the cores. Exit 1 where something is not as expected.
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import s3
from benchmarks.timing import photo_like
from benchmarks.watched import Watched, end
from benchmarks.workshop import Row
from fast_style.checkpoints.files import save_model
from fast_style.commands.options import count
from fast_style.errors import UserError
from fast_style.images import save_image
from fast_style.networks.transformer import TransformerNet
from fast_style.remote import listing

_CHECKS = ("speeds", "actors_killed", "drivers_killed")
_BUCKET = "photos"
_ACTOR = b"ray::MapWorker(MapBatches"
_RATIO = 0.85
# Of memory that a run has taken by its second quarter: what it may grow by up to its last.
_GROWTH = 0.05
# Ray's actors give way to whatever else runs, which torchrun's processes don't.
_FAIR = {"RAY_worker_niceness": "0"}
# Ray's processes end by themselves some seconds after the driver that started them.
_ENDING_SECONDS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--photos", type=count, default=2000, help="(default: 2000)")
    parser.add_argument(
        "--kills", type=count, default=10, help="of actors, and as many of drivers (default: 10)"
    )
    parser.add_argument("--rounds", type=count, default=2, help="of the speeds (default: 2)")
    parser.add_argument("--edge", type=count, default=96, help="pixels (default: 96)")
    parser.add_argument("--width", type=count, default=16, help="of the network (default: 16)")
    parser.add_argument(
        "--checks", default=",".join(_CHECKS), help=f"some of them (default: {','.join(_CHECKS)})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Make every check, and print its rows as they come."""
    if sys.platform != "linux":
        raise UserError("processes to kill are found as Linux shows them")
    for module, what in (("ray", "fast-style[ray]"), ("s3fs", "fast-style[remote]")):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"this benchmark needs pip install '{what}'")
    if unknown := set(options.checks.split(",")).difference(_CHECKS):
        raise UserError(f"--checks {', '.join(unknown)}: the checks are {', '.join(_CHECKS)}")
    failed = 0
    with tempfile.TemporaryDirectory() as scratch, s3.serving(_BUCKET):
        bench = _Bench(Path(scratch), options)
        print(
            f"{options.photos} photos of {options.edge}×{options.edge}, width {options.width}, "
            f"{os.cpu_count()} cores",
            flush=True,
        )
        for check in (getattr(bench, name) for name in options.checks.split(",")):
            begun = time.monotonic()
            for row in check():
                failed += row.is_right is False
                verdict = {None: "", True: "yes", False: "NO"}[row.is_right]
                print(f"{verdict:3} | {row.check:28} | {row.expected:24} | {row.seen}", flush=True)
            print(f"  ({check.__name__}: {time.monotonic() - begun:.0f} s)", flush=True)
    print(f"not as expected: {failed}")
    return 1 if failed else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Speed:
    """Photos a second of a whole command, and between its first and its last picture."""

    whole: float
    steady: float


class _Bench:
    """A folder and a bucket of the same photos, and what a plain run made of the folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._photos = options.photos
        self._kills = options.kills
        self._rounds = options.rounds
        self._random = random.Random(options.seed)
        self._store: Any = s3.store()
        save_model(folder / "wave.pth", TransformerNet(options.width))
        (folder / "in").mkdir()
        for seed in range(options.photos):
            photo = photo_like(options.edge, options.edge, seed=seed)
            save_image(photo, folder / f"in/{seed:05}.jpg", quality=90)
        self._store.put(f"{folder}/in", f"{_BUCKET}/", recursive=True)
        self._plain = self._finished("plain", self._start("in", "plain"))
        self._expected = {path.name: path.read_bytes() for path in (folder / "plain").iterdir()}
        assert len(self._expected) == options.photos

    def speeds(self) -> list[Row]:
        """Time Ray and torchrun in turn, both from the store into the store."""
        cores = os.cpu_count() or 1
        found: dict[str, list[_Speed]] = {"torchrun": [], "ray": []}
        for round_ in range(self._rounds):
            for kind, speeds in found.items():
                name = f"{kind}-{round_}"
                launcher = (
                    ("torch.distributed.run", "--nproc-per-node", str(cores), "-m")
                    if kind == "torchrun"
                    else ()
                )
                more = ("--ray", "auto") if kind == "ray" else ()
                watched = self._start_remote(name, *more, launcher=launcher)
                self._finished(name, watched)
                speeds.append(self._speed(name, watched))
        rows = [
            Row(
                check=f"{kind}, {cores} processes",
                expected="",
                seen=", ".join(
                    f"{speed.steady:.1f} photos/s ({speed.whole:.1f} with the start)"
                    for speed in speeds
                ),
            )
            for kind, speeds in found.items()
        ]
        ratio, whole = (
            median(getattr(speed, what) for speed in found["ray"])
            / median(getattr(speed, what) for speed in found["torchrun"])
            for what in ("steady", "whole")
        )
        rows.append(
            Row(
                check="ray beside torchrun",
                expected=f"at least {_RATIO}",
                seen=f"{ratio:.2f} ({whole:.2f} with the start)",
                is_right=ratio >= _RATIO,
            )
        )
        return [*rows, self._compared("ray-0"), *_memory_rows(watched)]

    def actors_killed(self) -> list[Row]:
        """Kill an actor at random moments of one run."""
        watched = self._start_remote("actors", "--ray", "auto")
        killed = 0
        for moment in self._moments():
            while watched.is_running() and len(watched.times) < moment:
                time.sleep(0.01)
            time.sleep(self._random.uniform(0, 0.5))
            while watched.is_running() and not watched.kill_actor(self._random.randrange(100)):
                time.sleep(0.01)
            killed += watched.is_running()
        self._finished("actors", watched)
        return [
            Row(
                check="actors killed",
                expected=str(self._kills),
                seen=str(killed),
                is_right=killed == self._kills,
            ),
            self._compared("actors"),
            self._reported("actors"),
        ]

    def drivers_killed(self) -> list[Row]:
        """Kill the command at random moments, and each time start the same one at once."""
        killed, kept = 0, 0
        orphans: list[Watched] = []
        for moment in self._moments():
            watched = self._start_remote("drivers", "--ray", "auto")
            while watched.is_running() and kept + len(watched.times) < moment:
                time.sleep(0.01)
            time.sleep(self._random.uniform(0, 0.5))
            if not watched.is_running():
                self._finished("drivers", watched)
            killed += watched.is_running()
            watched.kill()
            orphans.append(watched)
            kept = len(self._made("drivers"))
        self._finished("drivers", self._start_remote("drivers", "--ray", "auto"))
        deadline = time.monotonic() + _ENDING_SECONDS
        while (left := [pid for one in orphans for pid in one.left()]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.5)
        end(left)
        return [
            Row(
                check="drivers killed",
                expected=str(self._kills),
                seen=str(killed),
                is_right=killed == self._kills,
            ),
            Row(
                check="what they leave running",
                expected="nothing",
                seen=f"{len(left)} processes",
                is_right=not left,
            ),
            self._compared("drivers"),
            self._reported("drivers"),
        ]

    def _moments(self) -> list[int]:
        """Return the numbers of pictures after which something is killed."""
        return sorted(self._random.randrange(self._photos * 9 // 10) for _ in range(self._kills))

    def _start_remote(self, name: str, *more: str, launcher: tuple[str, ...] = ()) -> Watched:
        source, target = f"s3://{_BUCKET}/in/", f"s3://{_BUCKET}/{name}/"
        manifest = ("--manifest", f"{name}.json")
        return self._start(source, target, *manifest, *more, launcher=launcher)

    def _start(
        self, source: str, target: str, *more: str, launcher: tuple[str, ...] = ()
    ) -> Watched:
        module = ("-m", *launcher, "fast_style")
        arguments = ("stylize", "--model", "wave.pth", source, "-o", target, "--device", "cpu")
        return Watched(
            [sys.executable, *module, *arguments, *more],
            folder=self._folder,
            environment={**os.environ, **_FAIR, "OMP_NUM_THREADS": "1"},
            actor=_ACTOR,
            mark=".wave.jpg",
        )

    def _finished(self, name: str, watched: Watched) -> Watched:
        """Wait for a run that has to succeed."""
        if code := watched.wait():
            raise UserError(f"{name}: exit {code}: {watched.errors[-1000:]}")
        return watched

    def _made(self, name: str) -> list[str]:
        self._store.invalidate_cache()
        if not self._store.exists(f"{_BUCKET}/{name}"):
            return []
        found = self._store.find(f"{_BUCKET}/{name}")
        return [key for key in found if "/.fast-style/" not in key]

    def _speed(self, name: str, watched: Watched) -> _Speed:
        """Return the speed by the store's clock: what is reported together was made before."""
        made = listing(Path(f"s3://{_BUCKET}/{name}"))
        times = sorted(entry.modified for path, entry in made.items() if path.suffix == ".jpg")
        return _Speed(
            whole=len(times) / watched.times[-1],
            steady=(len(times) - 1) / max(times[-1] - times[0], 1),
        )

    def _compared(self, name: str) -> Row:
        """Compare the pictures in the store with those of the plain run."""
        made = {key.rpartition("/")[2]: data for key, data in self._fetched(name).items()}
        lost = len(self._expected.keys() - made.keys())
        more = len(made.keys() - self._expected.keys())
        other = sum(made[key] != data for key, data in self._expected.items() if key in made)
        return Row(
            check="its pictures",
            expected="the bytes of a plain run",
            seen=f"{len(made)}; {lost} lost, {more} too many, {other} other bytes",
            is_right=not (lost or more or other),
        )

    def _fetched(self, name: str) -> dict[str, bytes]:
        return dict(self._store.cat(self._made(name)))

    def _reported(self, name: str) -> Row:
        """Count the lines of a run's manifest by photo."""
        lines = (self._folder / f"{name}.json").read_text().splitlines()
        seen = Counter(json.loads(line)["input"] for line in lines)
        once = sum(number == 1 for number in seen.values())
        return Row(
            check="its manifest",
            expected="each photo once",
            seen=f"{len(lines)} lines, {once} photos once",
            is_right=len(lines) == once == self._photos,
        )


def _memory_rows(watched: Watched) -> list[Row]:
    """Compare memory in a quarter of a run with the last one."""
    rows = []
    for who in ("command", "actors", "others"):
        before, after = watched.grown(who)
        rows.append(
            Row(
                check=f"memory, {who}",
                expected=f"grows by at most {_GROWTH:.0%}",
                seen=f"{before / 1e6:.0f} MB, later {after / 1e6:.0f}",
                is_right=after <= before * (1 + _GROWTH),
            )
        )
    return rows
