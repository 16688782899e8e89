"""`scripts/benchmark.py data`: images a second from files to crops, against the usual pipeline.

The usual one is Pillow's and torchvision's: open, Resize, CenterCrop, ToTensor. Ours cuts random
crops, as uint8, out of photos that were scaled for that, or are in our cache. "Scaled one by one"
is what ours was before: each crop is scaled by itself, by Pillow, out of a decoded photo. Every
pipeline has a process of its own, and one thread; its workers are further processes. Where other
programs keep the cores busy, trust the images a second of CPU time, workers' included.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import Case, Timed, interleave, photo_like
from fast_style.data import ContentImages, Draw, content_batches, decoded_edge
from fast_style.data.cache import open_cache
from fast_style.data.photos import find_images
from fast_style.data.workers import PREFETCHED
from fast_style.devices import keep_freed_memory
from fast_style.images import open_rgb, read_size, save_image

_PHOTOS = 64
_HEIGHT, _WIDTH, _QUALITY = 480, 640, 90
_BATCH_SIZE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--runs", type=int, default=21, help="number of timed runs of each (default: 21)"
    )
    parser.add_argument(
        "--images", type=int, default=64, help="number of images a run (default: 64)"
    )
    parser.add_argument(
        "--size", type=int, default=256, help="side of the square crops, in pixels (default: 256)"
    )
    parser.add_argument(
        "--workers",
        default="0,1,2",
        help="numbers of the loader's processes, with commas (default: 0,1,2)",
    )
    parser.add_argument(
        "--folder", type=Path, help=f"folder of photos (default: {_PHOTOS} drawn ones)"
    )


def run(options: argparse.Namespace) -> int:
    """Time every pipeline on the same files."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if options.folder:
            paths = find_images([options.folder])
            paths = paths[:: math.ceil(len(paths) / options.images)]
        else:
            paths = write_photos(Path(scratch, "photos"), min(_PHOTOS, options.images))
        plain = ContentImages(paths, options.size)
        cache = open_cache(Path(scratch, "cache"), paths, preparation=plain.preparation)
        count = options.images // _BATCH_SIZE * _BATCH_SIZE
        cases: dict[str, Case] = {
            "usual": _Usual(paths, options.size, count),
            "scaled one by one": _OneByOne(paths, options.size, count, decoded=False),
            "scaled one by one, decoded": _OneByOne(paths, options.size, count, decoded=True),
        }
        for name, ours in (("ours", plain), ("ours, cached", plain.cached(cache))):
            cases[name] = _Ours(ours, count)
            for workers in map(int, options.workers.split(",")):
                cases[f"{name}, loader, {workers} workers"] = _Loader(ours, count, workers)
        _print_source(paths, options, cache.file.stat().st_size)
        timings = interleave(cases, options.runs)
    usual = timings["usual"]
    print(f"{'pipeline':32} {'images/s':>8} {'ratio':>6} {'a CPU second':>13} {'ratio':>6}")
    for name, timing in timings.items():
        cpu = timing.parts["cpu"]
        print(
            f"{name:32} {count / timing.seconds:8,.0f} {usual.seconds / timing.seconds:6.2f} "
            f"{count / cpu:13,.0f} {usual.parts['cpu'] / cpu:6.2f}"
        )
    return 0


def write_photos(folder: Path, count: int) -> list[Path]:
    """Write photo-like JPEGs into a new folder."""
    folder.mkdir()
    paths = [folder / f"{seed:03d}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        save_image(photo_like(_HEIGHT, _WIDTH, seed=seed), path, quality=_QUALITY)
    return paths


def _print_source(paths: Sequence[Path], options: argparse.Namespace, cache_bytes: int) -> None:
    width, height = np.median([read_size(path) for path in paths], axis=0).astype(int)
    weight = sum(path.stat().st_size for path in paths) / len(paths)
    print(
        f"{len(paths)} photos, {width}x{height} and {weight / 1e3:.0f} kB (median, mean), in "
        f"the page cache; {cache_bytes / len(paths) / 1e3:.0f} kB a photo in our cache\n"
        f"crops of {options.size}; medians of {options.runs} runs in turn; Pillow "
        f"{PIL.__version__}, torch {torch.__version__}"
    )


@dataclass(frozen=True, slots=True)
class _Usual:
    paths: Sequence[Path]
    size: int
    count: int

    def __call__(self) -> Timed:
        def load() -> None:
            for position in range(self.count):
                usual_pipeline(self.paths[position % len(self.paths)], self.size)

        return _with_cpu_time(load)


@dataclass(frozen=True, slots=True)
class _Ours:
    images: ContentImages
    count: int

    def __call__(self) -> Timed:
        keep_freed_memory()  # as the programs do

        def load() -> None:
            for position in range(self.count):
                self.images[Draw(position % len(self.images), position)]

        return _with_cpu_time(load)


@dataclass(frozen=True, slots=True)
class _OneByOne:
    """Each crop scaled by itself: out of a file, or out of a photo that is in memory, decoded."""

    paths: Sequence[Path]
    size: int
    count: int
    decoded: bool

    def __call__(self) -> Timed:
        keep_freed_memory()
        open_photo = partial(open_rgb, at_least=decoded_edge(self.size, 0.75))
        pixels = [np.asarray(open_photo(path)) for path in self.paths if self.decoded]

        def load() -> None:
            for position in range(self.count):
                index = position % len(self.paths)
                if self.decoded:
                    height, width, _ = pixels[index].shape
                    photo = Image.frombuffer(
                        "RGB", (width, height), pixels[index], "raw", "RGB", 0, 1
                    )
                else:
                    photo = open_photo(self.paths[index])
                _scaled_crop(photo, self.size, position)

        return _with_cpu_time(load)


def _scaled_crop(photo: Image.Image, size: int, position: int) -> Tensor:
    random = np.random.default_rng((0, position))
    side = round(min(photo.size) * random.uniform(0.75, 1))
    left, top = (int(random.integers(edge - side + 1)) for edge in photo.size)
    box = (left, top, left + side, top + side)
    crop = photo.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1)


@dataclass(frozen=True, slots=True)
class _Loader:
    images: ContentImages
    count: int
    workers: int

    def __call__(self) -> Timed:
        keep_freed_memory()
        batches = content_batches(self.images, _BATCH_SIZE, workers=self.workers)
        # What was made between two runs does not count.
        ready = PREFETCHED * self.workers

        def load() -> None:
            for _ in islice(batches, ready + self.count // _BATCH_SIZE):
                pass

        return _with_cpu_time(load)


def _with_cpu_time(load: Callable[[], None]) -> Timed:
    torch.set_num_threads(1)

    def timed() -> dict[str, float]:
        start = _cpu_seconds()
        load()
        return {"cpu": _cpu_seconds() - start}

    return timed


def _cpu_seconds() -> float:
    """Return the CPU time of this process and, on Linux, of its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    if not ticks:
        return time.process_time()
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def usual_pipeline(path: Path, size: int) -> Tensor:
    """Return torchvision's Resize(size), CenterCrop(size), ToTensor() of a file."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = size / min(image.size)
    width, height = (max(size, int(edge * scale)) for edge in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255)
