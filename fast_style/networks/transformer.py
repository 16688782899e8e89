"""The transformer network that is trained: a photo in, the stylized photo out, in one pass.

Johnson et al. 2016 (arXiv:1603.08155), supplementary material, with the changes that have become
standard since: instance norm (Ulyanov et al. 2016, arXiv:1607.08022), reflection padding, and
nearest-neighbour upsampling followed by a convolution (Odena et al. 2016).

The layers are written in the form that runs fast, in the channels-last layout; each is exactly the
textbook layer that its docstring names, with the textbook layer's parameters.
"""

from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# "transposed" is what Johnson et al. have, and some other projects' networks; it leaves a
# checkerboard, so networks trained here are "nearest".
Upsampling = Literal["nearest", "transposed"]

# Two stride-2 convolutions: a feature map at the bottom has a quarter of the image's edge.
STRIDE = 4
# Reflecting one pixel at the bottom needs two pixels there.
MINIMUM_EDGE = 2 * STRIDE
# What the head's convolution is multiplied by. It sums thousands of products, so that without this
# one step of Adam would change a pixel by more than its whole range (docs/measurements.md).
OUTPUT_SCALE = 1 / 32


class TransformerNet(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (N, 3, H, W), about [0, 1] (not clamped), for every H, W >= 1.

    `width` is the number of channels at full resolution; the residual blocks have four times as
    many. 1,679,235 parameters at width 32, 424,899 at width 16.
    """

    # The family's name in a config; a model file without one holds this family.
    kind: ClassVar[str] = "residual"

    def __init__(
        self,
        width: int = 32,
        num_residual_blocks: int = 5,
        *,
        upsampling: Upsampling = "nearest",
    ) -> None:
        super().__init__()
        if upsampling not in (known := get_args(Upsampling)):
            raise ValueError(f"upsampling: is {upsampling!r}, not {' or '.join(known)}")
        self.width = width
        self.num_residual_blocks = num_residual_blocks
        self.upsampling = upsampling
        self.encoder = self._build_encoder()
        self.residual_blocks = nn.Sequential(
            *(ResidualBlock(4 * width) for _ in range(num_residual_blocks))
        )
        self.decoder = self._build_decoder()
        # Johnson et al. end in a scaled tanh; a linear head keeps colours from going dull.
        self.head = self._build_head()

    def _build_encoder(self) -> nn.Sequential:
        width = self.width
        return nn.Sequential(
            ConvBlock(3, width, kernel_size=9),
            ConvBlock(width, 2 * width, kernel_size=3, stride=2),
            ConvBlock(2 * width, 4 * width, kernel_size=3, stride=2),
        )

    def _build_decoder(self) -> nn.Sequential:
        width = self.width
        return nn.Sequential(
            UpsampleBlock(4 * width, 2 * width, self.upsampling),
            UpsampleBlock(2 * width, width, self.upsampling),
        )

    def _build_head(self) -> nn.Conv2d:
        return nn.Conv2d(self.width, 3, kernel_size=9)

    def spec(self) -> dict[str, Any]:
        """Return the description from which `networks.building` builds this network again."""
        return {
            "width": self.width,
            "num_residual_blocks": self.num_residual_blocks,
            "upsampling": self.upsampling,
        }

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # Photos have mean and spread; centred input keeps low precision precise.
        x = pad_to_stride(images - 0.5).contiguous(memory_format=torch.channels_last)
        x = self.decoder(self.residual_blocks(self.encoder(x)))
        x = reflect(x, self.head.kernel_size[0] // 2)
        x = conv2d_two_by_two(x, self.head.weight, self.head.bias) * OUTPUT_SCALE + 0.5
        return x[..., :height, :width]


class ConvBlock(nn.Module):
    """Reflection padding, convolution, instance norm, ReLU."""

    def __init__(self, channels: int, out_channels: int, *, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel_size, stride)
        self.norm = InstanceNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(reflect(x, self.conv.kernel_size[0] // 2))
        return F.relu(self.norm(x), inplace=True)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))): nothing after the addition (Gross & Wilber 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3)
        self.norm1 = InstanceNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3)
        self.norm2 = InstanceNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(reflect(x, 1))), inplace=True)
        return x + self.norm2(self.conv2(reflect(y, 1)))


class UpsampleBlock(nn.Module):
    """Upsampling by 2 with a 3x3 kernel, instance norm, ReLU.

    "nearest": nearest-neighbour upsampling and a reflection-padded convolution. "transposed": a
    transposed convolution with stride 2, padding 1 and output padding 1, whose kernel is held as
    (out channels, channels, 3, 3).
    """

    def __init__(
        self, channels: int, out_channels: int, upsampling: Upsampling = "nearest"
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.conv = nn.Conv2d(channels, out_channels, kernel_size=3)
        self.norm = InstanceNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = upsample_conv2d(x, self.conv.weight, self.conv.bias, self.upsampling)
        return F.relu(self.norm(x), inplace=True)


class InstanceNorm(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): each channel of each image to zero mean and unit variance.

    Then an affine map. Equals nn.InstanceNorm2d(affine=True), without its copies between layouts.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            normalized = F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
            if _is_eager_cuda(x):  # it is NCHW, which all that follows would have to copy
                normalized = normalized.contiguous(memory_format=torch.channels_last)
            return normalized
        return torch.cat([self._normalize_one(image) for image in x.split(1)])

    def _normalize_one(self, image: Tensor) -> Tensor:
        # Batch norm over a batch of one is instance norm, and has a channels-last kernel.
        return F.batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)


def stride_padding(size: int) -> tuple[int, str]:
    """Return the pixels that an edge of `size` lacks to a multiple of 4, from 8 on, and their mode.

    They are reflected where the edge is longer than the padding, else replicated.
    """
    missing = max(-size % STRIDE, MINIMUM_EDGE - size)
    return missing, "reflect" if missing < size else "replicate"


def pad_to_stride(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H', W'): padded right and bottom by `stride_padding`."""
    height, width = images.shape[-2:]
    for size, side in ((width, (0, 1, 0, 0)), (height, (0, 0, 0, 1))):
        missing, mode = stride_padding(size)
        if missing:
            images = F.pad(images, [missing * edge for edge in side], mode=mode)
    return images


def upsample_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, upsampling: Upsampling = "nearest"
) -> Tensor:
    """(N, C, H, W) -> (N, D, 2H, 2W): conv3x3(reflect_pad(nearest_upsample(x, 2), 1)).

    After nearest upsampling the 3x3 kernel meets only 2x2 different pixels, so the same sums come
    from one 2x2 convolution with 4 D outputs at the low resolution, with 2.25 times fewer
    multiplications. (Reflecting the upsampled image is replicating the small one.) A transposed
    convolution is one of that form too, beyond whose border there are zeros.
    """
    padded = replicate_one(x) if upsampling == "nearest" else F.pad(x, (1, 1, 1, 1))
    x = conv2d_channels_last(padded, upsample_kernel(weight, upsampling), _repeat(bias, 4))
    return depth_to_space(x)[..., 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)


def upsample_kernel(weight: Tensor, upsampling: Upsampling = "nearest") -> Tensor:
    """(D, C, 3, 3) -> (4 D, C, 2, 2): the kernel with which `upsample_conv2d` convolves.

    Between two rows u, l of the input lie two rows of the output. With w the taps down a column:

        "nearest"       (w0 + w1) u + w2 l   and   w0 u + (w1 + w2) l
        "transposed"    w2 u + w0 l          and   w1 l
    """
    if weight.device.type != "cpu":
        return _upsample_kernel_on_device(weight, upsampling)
    taps = {
        "nearest": [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]],
        "transposed": [[[0, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]],
    }
    matrix = weight.new_tensor(taps[upsampling])
    kernel = torch.einsum("aik,bjl,dckl->abdcij", matrix, matrix, weight)
    return kernel.reshape(-1, weight.shape[1], 2, 2)


def _upsample_kernel_on_device(weight: Tensor, upsampling: Upsampling) -> Tensor:
    """Compute `upsample_kernel` of slices alone.

    A constant from the host would make it wait for a GPU at every step, and forbids CUDA graphs.
    The sums are those of `upsample_kernel` in another order: the CPU keeps its own bits.
    """
    for dim in (2, 3):
        first, middle, last = weight.unbind(dim)
        if upsampling == "nearest":
            taps = [first + middle, last, first, middle + last]
        else:
            taps = [last, first, torch.zeros_like(middle), middle]
        weight = torch.stack(taps, dim)
    squares = weight.unflatten(2, (2, 2)).unflatten(4, (2, 2))  # (D, C, a, i, b, j)
    return squares.permute(2, 4, 0, 1, 3, 5).reshape(-1, weight.shape[1], 2, 2)


def conv2d_two_by_two(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, C, H, W) -> (N, D, H-K+1, W-K+1): conv2d, for few outputs and even output sizes.

    Computes each 2x2 square of outputs as 4 D channels of one convolution with stride 2 and a
    kernel one pixel larger: three outputs alone would leave most of a vector unit idle.
    """
    return depth_to_space(
        conv2d_channels_last(x, two_by_two_kernel(weight), _repeat(bias, 4), stride=2)
    )


def two_by_two_kernel(weight: Tensor) -> Tensor:
    """(D, C, K, K) -> (4 D, C, K+1, K+1): the kernel in its four positions in a 2x2 square."""
    return torch.cat([F.pad(weight, (b, 1 - b, a, 1 - a)) for a in (0, 1) for b in (0, 1)])


def depth_to_space(x: Tensor) -> Tensor:
    """(N, 4 D, H, W) -> (N, D, 2H, 2W): channels (a, b, d) become pixel (a, b) of a 2x2 square."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, height, width, 2, 2, channels // 4)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, channels // 4)
    return x.permute(0, 3, 1, 2)


def conv2d_channels_last(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1
) -> Tensor:
    """Convolve with the kernel in the layout of the feature map."""
    return F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), bias, stride)


def replicate_one(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H+2, W+2): replication padding by 1."""
    if _is_eager_cuda(x):
        return _pad_pixels(x, 1, "replicate")
    if _is_slow_in_torch(x):
        return cast(Tensor, _Mirror.apply(x, 1, 0))
    x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
    return torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)


def reflect(x: Tensor, padding: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H+2P, W+2P): reflection padding by P."""
    if _is_eager_cuda(x):
        return _pad_pixels(x, padding, "reflect")
    if _is_slow_in_torch(x):
        return cast(Tensor, _Mirror.apply(x, padding, 1))
    return F.pad(x, (padding,) * 4, mode="reflect")


def _pad_pixels(x: Tensor, padding: int, mode: str) -> Tensor:
    """(N, C, H, W) -> (N, C, H+2P, W+2P), channels-last.

    CUDA's kernels for images yield NCHW, which convolutions would copy back. Pixels in the
    channels-last layout are a volume (H, W, C) to its kernels for volumes, of which C stays.
    """
    volume = x.permute(0, 2, 3, 1).unsqueeze(1)
    padded = F.pad(volume, (0, 0, *(padding,) * 4), mode=mode)
    return padded.squeeze(1).permute(0, 3, 1, 2)


def _is_eager_cuda(x: Tensor) -> bool:
    """Whether layouts are the program's to keep: the compiler has its own mind about them."""
    return x.is_cuda and not torch.compiler.is_compiling()


def _is_slow_in_torch(x: Tensor) -> bool:
    """Whether torch pads in float32 and copies there and back: on a CPU, under autocast."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


class _Mirror(torch.autograd.Function):
    """(N, C, H, W) -> (N, C, H + 2 P, W + 2 P): P mirrored pixels around the map.

    The outermost `inset` pixels are left out: reflection padding is an inset of 1; with 0 a padding
    by one pixel is replication.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, inset: int) -> Tensor:
        ctx.padding, ctx.inset = p, k = padding, inset
        n, c, h, w = x.shape
        padded = torch.empty(
            (n, c, h + 2 * p, w + 2 * p), dtype=x.dtype, memory_format=torch.channels_last
        )
        padded[..., p:-p, p:-p] = x
        padded[..., p:-p, :p] = x[..., k : p + k].flip(-1)
        padded[..., p:-p, -p:] = x[..., w - p - k : w - k].flip(-1)
        padded[..., :p, :] = padded[..., p + k : 2 * p + k, :].flip(-2)
        padded[..., -p:, :] = padded[..., h - k : h + p - k, :].flip(-2)
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        p, k = ctx.padding, ctx.inset
        rows = gradient[..., p:-p, :].clone(memory_format=torch.channels_last)
        h = rows.shape[-2]
        rows[..., k : p + k, :] += gradient[..., :p, :].flip(-2)
        rows[..., h - p - k : h - k, :] += gradient[..., -p:, :].flip(-2)
        folded = rows[..., p:-p].clone(memory_format=torch.channels_last)
        w = folded.shape[-1]
        folded[..., k : p + k] += rows[..., :p].flip(-1)
        folded[..., w - p - k : w - k] += rows[..., -p:].flip(-1)
        return folded, None, None


def _repeat(bias: Tensor | None, times: int) -> Tensor | None:
    return None if bias is None else bias.repeat(times)
