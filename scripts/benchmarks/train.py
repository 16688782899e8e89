"""`scripts/benchmark.py train`: a training step, against the loop of PyTorch's own example.

The example's loop: its network, VGG-16 to relu4_3 on the stylized and the content images, mean
squared errors of features and Gram matrices, Adam, all in float32 with the default allocator. Ours
is `train_step`, with the allocator set as scripts/train.py sets it.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16

from benchmarks.data import usual_pipeline, write_photos
from benchmarks.plain import PlainTransformerNet
from benchmarks.timing import (
    Timed,
    Timing,
    device_name,
    interleave,
    peak_rate,
    photo_like,
    wait,
)
from fast_style.commands.options import add_device
from fast_style.data import ContentImages, Draw
from fast_style.devices import (
    Precision,
    autocast,
    has_native_bf16,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from fast_style.networks.transformer import TransformerNet
from fast_style.networks.vgg import VGGFeatures
from fast_style.objective.losses import PerceptualLoss
from fast_style.training.trainee import train_step

_CONTENT_LAYERS = {"relu2_2": 1.0}
_STYLE_LAYERS = dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0)
# Where these layers end in torchvision's VGG-16.
_SLICES = ((0, 4), (4, 9), (9, 16), (16, 23))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--runs", type=int, default=5, help="number of timed runs of each (default: 5)"
    )
    parser.add_argument(
        "--batch-size",
        default="4",
        help="images a step, one number or several, as in 4,16,32 (default: 4)",
    )
    parser.add_argument(
        "--size", type=int, default=256, help="side of the square crops, in pixels (default: 256)"
    )
    parser.add_argument("--width", type=int, default=32, help="width of the network (default: 32)")
    add_device(parser)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="time our loop compiled as well, without its compiling (default: only as it is)",
    )
    parser.add_argument(
        "--no-plain", action="store_true", help="leave out the plain loop (default: time both)"
    )


def run(options: argparse.Namespace) -> int:
    """Time whole steps, then steps in parts."""
    device = resolve_device(options.device)
    precisions: list[Precision] = ["float32"]
    if has_native_bf16(device):
        precisions.append("bf16")
    peaks = {p: peak_rate(resolve_precision(p, device), device) for p in precisions}
    print(f"{device_name(device)}; {torch.get_num_threads()} threads; torch {torch.__version__}")
    for precision, peak in peaks.items():
        print(f"peak {precision}: {peak / 1e12:.2f} TFLOP/s (3x3 convolution, 128 channels)")
    for batch_size in map(int, options.batch_size.split(",")):
        shape = (batch_size, options.size, options.width)
        cases: dict[str, _Case] = {}
        if not options.no_plain:
            cases["plain"] = _Case(shape, device, "float32", plain=True)
        for precision in precisions:
            cases[f"ours {precision}"] = _Case(shape, device, precision, plain=False)
            if options.compile:
                cases[f"{precision} compiled"] = _Case(
                    shape, device, precision, plain=False, compiled=True
                )
        print(f"\nbatch {batch_size}, {options.size}x{options.size}, width {options.width}")
        _print_steps(cases, interleave(cases, options.runs, device=device), peaks)
        with tempfile.TemporaryDirectory() as scratch:
            photos = write_photos(Path(scratch, "photos"), batch_size)
            parts = {n: _InParts(case, photos) for n, case in cases.items() if not case.compiled}
            _print_parts(interleave(parts, options.runs, device=device))
    return 0


class _Loop:
    """Our loop: what a step does, whole and by its parts."""

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.dtype = resolve_precision(precision, device)
        self.network = network.to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=True)
        # At scale 1 the scaler is the guard against non-finite gradients, as in training.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)
        features = VGGFeatures("vgg16", {**_CONTENT_LAYERS, **_STYLE_LAYERS}).to(device)
        _draw_weights(features)
        self.criterion = PerceptualLoss(
            features,
            photo_like(512, 512, seed=1)[None].to(device),
            content_layers=_CONTENT_LAYERS,
            style_layers=_STYLE_LAYERS,
        )

    def step(self, content: Tensor) -> None:
        train_step(
            self.network,
            self.criterion,
            self.optimizer,
            content,
            dtype=self.dtype,
            scaler=self.scaler,
        )

    def compile(self) -> None:
        """Have the networks compiled at the first step."""
        self.network = cast(nn.Module, torch.compile(self.network, dynamic=False))
        criterion = copy.copy(self.criterion)
        criterion.features = cast(VGGFeatures, torch.compile(criterion.features, dynamic=False))
        self.criterion = criterion

    def stylize(self, content: Tensor) -> Tensor:
        with autocast(self.device, self.dtype):
            return self.network(content)

    def content_features(self, content: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.dtype):
            return self.criterion.content_targets(content)

    def loss(self, stylized: Tensor, content_features: dict[str, Tensor]) -> Tensor:
        with autocast(self.device, self.dtype):
            return self.criterion(stylized, content_features).total


class _PlainLoop(_Loop):
    """PyTorch's example: both images through all of the loss network, in modules and NCHW."""

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        super().__init__(network, device, precision)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        vgg = vgg16(weights=None).features.requires_grad_(False).to(device)
        _draw_weights(vgg)
        self.slices = [vgg[start:end] for start, end in _SLICES]
        style = photo_like(512, 512, seed=1)[None].to(device)
        self.style_grams = [_plain_gram(features) for features in self._features(style)]

    def step(self, content: Tensor) -> None:
        self.optimizer.zero_grad()
        stylized = self.network(content)
        total = self.loss(stylized, self.content_features(content))
        total.backward()
        self.optimizer.step()
        total.item()

    def content_features(self, content: Tensor) -> dict[str, Tensor]:
        return {"relu2_2": self._features(content)[1]}

    def loss(self, stylized: Tensor, content_features: dict[str, Tensor]) -> Tensor:
        features = self._features(stylized)
        content = F.mse_loss(features[1], content_features["relu2_2"])
        style = stylized.new_zeros(())
        for found, wanted in zip(features, self.style_grams, strict=True):
            style = style + F.mse_loss(_plain_gram(found), wanted.expand(len(stylized), -1, -1))
        return content + 5 * style

    def _features(self, images: Tensor) -> list[Tensor]:
        mean = images.new_tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)
        deviation = images.new_tensor([0.229, 0.224, 0.225]).view(-1, 1, 1)
        x = (images - mean) / deviation
        features = []
        for layers in self.slices:
            x = layers(x)
            features.append(x)
        return features


def _plain_gram(features: Tensor) -> Tensor:
    n, channels, height, width = features.shape
    rows = features.view(n, channels, height * width)
    return rows.bmm(rows.transpose(1, 2)) / (channels * height * width)


def _draw_weights(module: nn.Module) -> None:
    """Draw weights that keep the signal's size; times do not depend on them."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")


class _Case:
    """Ours, or the plain loop, built in the process that runs it; the function is one step."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        device: torch.device,
        precision: Precision,
        *,
        plain: bool,
        compiled: bool = False,
    ) -> None:
        self.shape, self.device, self.precision, self.plain = shape, device, precision, plain
        self.compiled = compiled

    def build(self) -> tuple[_Loop, Tensor]:
        batch_size, size, width = self.shape
        torch.manual_seed(0)
        network = TransformerNet(width)
        content = torch.stack([photo_like(size, size, seed=i) for i in range(batch_size)])
        content = content.to(self.device)
        if self.plain:
            plain = PlainTransformerNet(network)
            return _PlainLoop(plain, self.device, self.precision), content
        keep_freed_memory()  # as scripts/train.py does
        network = network.to(memory_format=torch.channels_last)
        return _Loop(network, self.device, self.precision), content

    def __call__(self) -> Timed:
        loop, content = self.build()
        if self.compiled:
            loop.compile()

        def step() -> None:
            loop.step(content)
            wait(self.device)

        return step

    def flops(self) -> int:
        """Count a step's floating-point operations."""
        loop, content = self.build()
        with FlopCounterMode(display=False) as counter:
            loop.step(content)
        return counter.get_total_flops()


class _InParts:
    """The same step, with the seconds of each part; photos are read by one core, not beside it."""

    def __init__(self, case: _Case, photos: Sequence[Path]) -> None:
        self.case = case
        self.photos = photos

    def __call__(self) -> Timed:
        loop, content = self.case.build()
        size = self.case.shape[1]
        ours = ContentImages(self.photos, size)

        def load() -> None:
            for position, photo in enumerate(self.photos):
                if self.case.plain:
                    usual_pipeline(photo, size)
                else:
                    ours[Draw(position, position)]

        def step() -> dict[str, float]:
            clock = _Clock(self.case.device)
            load()
            clock.lap("data, by one core")
            stylized = loop.stylize(content)
            clock.lap("network forward")
            targets = loop.content_features(content)
            clock.lap("VGG on the content")
            leaf = stylized.detach().requires_grad_()
            total = loop.loss(leaf, targets)
            clock.lap("VGG and loss forward")
            total.backward()
            clock.lap("VGG and loss backward")
            loop.optimizer.zero_grad(set_to_none=True)
            stylized.backward(leaf.grad)
            clock.lap("network backward")
            loop.optimizer.step()
            clock.lap("optimizer")
            return clock.seconds

        return step


class _Clock:
    """Seconds by what was done in them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap as `name`'s."""
        wait(self.device)
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now


def _print_steps(
    cases: Mapping[str, _Case],
    timings: Mapping[str, Timing],
    peaks: Mapping[Precision, float],
) -> None:
    slowest = next(iter(timings.values())).seconds
    print(
        f"{'loop':>14} {'ms':>7} {'ratio':>6} {'images/s':>9} {'TFLOP':>6} {'of peak':>8} {'MB':>6}"
    )
    for name, timing in timings.items():
        case = cases[name]
        flops = case.flops()
        share = flops / timing.seconds / peaks[case.precision]
        print(
            f"{name:>14} {timing.seconds * 1e3:8.0f} {slowest / timing.seconds:8.2f} "
            f"{case.shape[0] / timing.seconds:8.1f} {flops / 1e12:8.3f} {share:8.0%} "
            f"{timing.memory / 1e6:8.0f}"
        )


def _print_parts(timings: Mapping[str, Timing]) -> None:
    print(f"{'ms of a step':>24} " + " ".join(f"{name:>14}" for name in timings))
    for part in next(iter(timings.values())).parts:
        cells = [f"{timing.parts[part] * 1e3:14.0f}" for timing in timings.values()]
        print(f"{part:>24} " + " ".join(cells))
