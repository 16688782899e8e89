"""`scripts/benchmark.py stylize`: our speed beside the plain implementation's.

Ratios hold where absolute times do not: both run on the same machine in the same minutes, in turn,
each in a process of its own, and medians are compared.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_style.commands import run
from fast_style.devices import (
    Precision,
    has_native_bf16,
    keep_freed_memory,
    resolve_precision,
)
from fast_style.networks.transformer import (
    OUTPUT_SCALE,
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    TransformerNet,
    UpsampleBlock,
)

# A case gives the function that is timed; it is built inside the process that runs it.
Case = Callable[[], Callable[[], object]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    stylize = benchmarks.add_parser(
        "stylize", help="one forward pass on the CPU, against the plain network"
    )
    stylize.add_argument("--runs", type=int, default=7, help="counted runs of each (default 7)")
    stylize.add_argument("--sizes", default="256x256,512x512,1024x1024,1920x1080")
    stylize.add_argument("--width", type=int, default=32, help="the network's width")
    options = parser.parse_args(arguments)
    return run(lambda: _stylize(options))


class PlainTransformerNet(nn.Module):
    """The transformer network as PyTorch's own example writes it: module by module, NCHW."""

    def __init__(self, network: TransformerNet) -> None:
        super().__init__()
        encoder = [
            layer
            for block in cast(Iterable[ConvBlock], network.encoder)
            for layer in (*_plain_conv(block.conv), _plain_norm(block.norm), nn.ReLU())
        ]
        decoder = [
            layer
            for block in cast(Iterable[UpsampleBlock], network.decoder)
            for layer in (
                nn.Upsample(scale_factor=2, mode="nearest"),
                *_plain_conv(block.conv),
                _plain_norm(block.norm),
                nn.ReLU(),
            )
        ]
        self.encoder = nn.Sequential(*encoder)
        self.residual_blocks = nn.ModuleList(
            nn.Sequential(
                *_plain_conv(block.conv1),
                _plain_norm(block.norm1),
                nn.ReLU(),
                *_plain_conv(block.conv2),
                _plain_norm(block.norm2),
            )
            for block in cast(Iterable[ResidualBlock], network.residual_blocks)
        )
        self.decoder = nn.Sequential(*decoder, *_plain_conv(network.head))

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x - 0.5)
        for block in self.residual_blocks:
            x = x + block(x)
        return self.decoder(x) * OUTPUT_SCALE + 0.5


def _plain_conv(conv: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    size, stride = conv.kernel_size[0], conv.stride[0]
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride)
    plain.load_state_dict(conv.state_dict())
    return nn.ReflectionPad2d(size // 2), plain


def _plain_norm(norm: InstanceNorm) -> nn.Module:
    plain = nn.InstanceNorm2d(len(norm.bias), affine=True)
    plain.load_state_dict(norm.state_dict())
    return plain


def photo_like(height: int, width: int, *, seed: int = 0) -> Tensor:
    """Give a (3, H, W) picture in [0, 1] with structure at every scale, as photos have."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        noise = torch.randn(1, 3, min(cells, height), min(cells, width), generator=generator)
        layer = F.interpolate(noise, (height, width), mode="bilinear")
        image = image + layer / float(cells) ** 0.5
    return (0.5 + image[0] / 4).clamp(0, 1)


def _stylize(options: argparse.Namespace) -> int:
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    cpu = torch.device("cpu")
    precisions: list[Precision] = ["float32"]
    if has_native_bf16(cpu):
        precisions.append("bf16")
    peaks = {name: _peak(resolve_precision(name, cpu)) for name in precisions}
    print(f"{torch.get_num_threads()} threads; torch {torch.__version__}; width {options.width}")
    for precision, peak in peaks.items():
        print(
            f"peak {precision}: {peak / 1e9:.0f} GFLOP/s (3x3 convolution, 128 channels, 512x512)"
        )
    print(f"{'size':>11} {'network':>14} {'ms':>7} {'ratio':>6} {'of peak':>8} {'MB':>6}")
    for width, height in sizes:
        cases: dict[str, Case] = {"plain": _PlainCase(options.width, height, width)}
        for precision in precisions:
            cases[f"ours {precision}"] = _OurCase(options.width, height, width, precision)
        results = _interleave(cases, options.runs)
        plain = results["plain"][0]
        for name, (seconds, memory) in results.items():
            floating = 2 * _macs_per_pixel(options.width, rewritten=name != "plain")
            peak = peaks["bf16" if name == "ours bf16" else "float32"]
            share = floating * height * width / seconds / peak
            print(
                f"{f'{width}x{height}':>11} {name:>14} {seconds * 1e3:7.0f} "
                f"{plain / seconds:6.2f} {share:8.0%} {memory / 1e6:6.0f}"
            )
    return 0


class _PlainCase:
    def __init__(self, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width

    def __call__(self) -> Callable[[], object]:
        network = PlainTransformerNet(_network(self.channels)).eval()
        image = photo_like(self.height, self.width)[None]

        def forward() -> Tensor:
            with torch.no_grad():
                return network(image)

        return forward


class _OurCase(_PlainCase):
    def __init__(self, channels: int, height: int, width: int, precision: Precision) -> None:
        super().__init__(channels, height, width)
        self.precision = precision

    def __call__(self) -> Callable[[], object]:
        from fast_style.stylization import Stylizer

        keep_freed_memory(up_to=32 << 20)  # as scripts/stylize.py does
        stylizer = Stylizer(_network(self.channels), precision=self.precision, device="cpu")
        image = photo_like(self.height, self.width)
        return lambda: stylizer(image)


def _network(width: int) -> TransformerNet:
    """Give a network with random weights and, as a trained one has, uneven norms."""
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


def _peak(dtype: torch.dtype) -> float:
    """Measure the machine's best rate of floating-point operations, a second, on a convolution."""
    x = torch.randn(1, 128, 512, 512).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3).to(dtype, memory_format=torch.channels_last)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        F.conv2d(x, kernel)
        best = min(best, time.perf_counter() - start)
    return 2 * 9 * 128 * 128 * 510 * 510 / best


def _interleave(cases: dict[str, Case], runs: int) -> dict[str, tuple[float, int]]:
    """Time the cases in turn; give each one's median seconds and peak memory growth in bytes."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    processes = []
    for name, case in cases.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, case), daemon=True)
        process.start()
        pipes[name] = ours
        processes.append(process)
        ours.recv()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    memory = dict.fromkeys(cases, 0)
    for turn in range(runs + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            elapsed, grown = pipe.recv()
            memory[name] = max(memory[name], grown)
            if turn:  # the first is the warm-up
                seconds[name].append(elapsed)
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return {name: (statistics.median(seconds[name]), memory[name]) for name in cases}


def _serve(pipe: Connection, case: Case) -> None:
    function = case()
    base = _resident("VmRSS")
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent was interrupted
        pipe.send(None)
        while pipe.recv():
            start = time.perf_counter()
            function()
            pipe.send((time.perf_counter() - start, _resident("VmHWM") - base))


def _resident(field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
