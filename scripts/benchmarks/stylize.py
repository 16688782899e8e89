"""`scripts/benchmark.py stylize`: one forward pass, against the plain network.

An image is in memory before and after, so that a GPU gets it and gives it back.
"""

import argparse

import torch

from benchmarks.plain import PlainTransformerNet
from benchmarks.timing import Case, Timed, device_name, interleave, peak_rate, photo_like
from fast_style.commands.options import add_device
from fast_style.devices import (
    Precision,
    has_native_bf16,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from fast_style.networks.transformer import TransformerNet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--runs", type=int, default=7, help="number of timed runs of each (default: 7)"
    )
    sizes = "256x256,512x512,1024x1024,1920x1080"
    parser.add_argument(
        "--sizes", default=sizes, help=f"widths and heights of the images (default: {sizes})"
    )
    parser.add_argument("--width", type=int, default=32, help="width of the network (default: 32)")
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="number of images a run; the network is also timed on all N at once (default: 1)",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Time the plain network, ours, and ours in bf16, at each size."""
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    device = resolve_device(options.device)
    precisions: list[Precision] = ["float32"]
    if has_native_bf16(device):
        precisions.append("bf16")
    peaks = {name: peak_rate(resolve_precision(name, device), device) for name in precisions}
    print(
        f"{device_name(device)}; {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"width {options.width}"
    )
    for precision, peak in peaks.items():
        print(
            f"peak {precision}: {peak / 1e9:.0f} GFLOP/s (3x3 convolution, 128 channels, 512x512)"
        )
    print(f"{'size':>11} {'network':>14} {'ms':>7} {'ratio':>6} {'of peak':>8} {'MB':>6}")
    for width, height in sizes:
        images = (options.batch, options.width, height, width)
        cases: dict[str, Case] = {"plain": _PlainCase(images, device)}
        for precision in precisions:
            cases[f"ours {precision}"] = _OurCase(images, device, precision)
        if options.batch > 1:
            cases["one batch"] = _BatchCase(images, device)
        results = interleave(cases, options.runs, device=device)
        plain = results["plain"].seconds / options.batch
        for name, timing in results.items():
            floating = 2 * _macs_per_pixel(options.width, rewritten=name != "plain")
            peak = peaks["bf16" if name == "ours bf16" else "float32"]
            seconds = timing.seconds / options.batch
            share = floating * height * width / seconds / peak
            print(
                f"{f'{width}x{height}':>11} {name:>14} {seconds * 1e3:7.0f} "
                f"{plain / seconds:6.2f} {share:8.0%} {timing.memory / 1e6:6.0f}"
            )
    return 0


class _PlainCase:
    def __init__(self, images: tuple[int, int, int, int], device: torch.device) -> None:
        self.count, self.channels, self.height, self.width = images
        self.device = device

    def __call__(self) -> Timed:
        network = PlainTransformerNet(_network(self.channels)).eval().to(self.device)
        image = photo_like(self.height, self.width)[None]

        def forward() -> None:
            with torch.no_grad():
                for _ in range(self.count):
                    network(image.to(self.device)).cpu()

        return forward


class _OurCase(_PlainCase):
    def __init__(
        self, images: tuple[int, int, int, int], device: torch.device, precision: Precision
    ) -> None:
        super().__init__(images, device)
        self.precision = precision

    def __call__(self) -> Timed:
        from fast_style.stylization import Stylizer

        keep_freed_memory(up_to=32 << 20)  # as scripts/stylize.py does
        network, device = _network(self.channels), str(self.device)
        stylizer = Stylizer(network, precision=self.precision, device=device)
        image = photo_like(self.height, self.width)

        def forward() -> None:
            for _ in range(self.count):
                stylizer(image).cpu()

        return forward


class _BatchCase(_PlainCase):
    def __call__(self) -> Timed:
        keep_freed_memory()
        network = _network(self.channels).eval().to(self.device)
        images = photo_like(self.height, self.width).repeat(self.count, 1, 1, 1)

        def forward() -> None:
            with torch.no_grad():
                network(images.to(self.device)).cpu()

        return forward


def _network(width: int) -> TransformerNet:
    """Return a network with random weights and, as a trained one has, uneven norms."""
    torch.manual_seed(0)
    network = TransformerNet(width)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network


def _macs_per_pixel(width: int, *, rewritten: bool) -> float:
    """Count the multiplications of one forward pass, as in the paper or as rewritten."""
    w = width
    encoder = 81 * 3 * w + 9 * w * 2 * w / 4 + 9 * 2 * w * 4 * w / 16
    trunk = 10 * 9 * (4 * w) ** 2 / 16
    if rewritten:
        return encoder + trunk + 16 * 4 * w * 2 * w / 16 + 16 * 2 * w * w / 4 + 100 * 12 * w / 4
    return encoder + trunk + 9 * 4 * w * 2 * w / 4 + 9 * 2 * w * w + 81 * 3 * w
