"""Generator and discriminator of StyleGAN2, in plain PyTorch, for any resolution 4·2ⁿ.

Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, CVPR 2020 (arXiv 1912.04958), in
the configuration of *Training Generative Adversarial Networks with Limited Data*, NeurIPS 2020 (arXiv
2006.06676): skip connections in the generator, residual ones in the discriminator. Parameters have the names
of the published weights. The functions are the same, computed more efficiently:

- A modulated convolution scales its input by the styles and its output by the demodulation, instead of
  making a kernel for every image: an ordinary convolution instead of a grouped one. The norms for the
  demodulation come from one matrix product with the squared kernel.
- Noise and bias of a layer are one map, added while demodulating; the gain of an activation is multiplied
  into the operation before it.
- Features are channels-last, which is faster on CPUs as well.
- Upsampling by the filter [1, 3, 3, 1] is bilinear interpolation of an image with a border of zeros.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.errors import DataError, MiaBenchError

SHAPE = "shape"
"""Name of the tensor with the sizes in a state."""

Noise = Callable[[Tensor], Tensor]
"""From the constant noise of a layer ``(R, R)`` to the noise to add, of any shape that broadcasts."""


LARGEST = {
    "resolution": 4096, "latent": 1 << 14, "style": 1 << 14, "layers": 64, "channel_base": 1 << 20,
    "channel_max": 1 << 14, "group": 1024,
}  # fmt: skip
"""Limits of sizes, so that a file can't ask for networks that no machine holds."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a generator and its discriminator.

    Attributes:
        resolution: height and width of the images, 4·2ⁿ.
        latent: dimensions of z.
        style: dimensions of w.
        layers: of the mapping network.
        channel_base: channels of a layer are this over its resolution …
        channel_max: … but no more than this.
        clamp: limit of the magnitude of outputs of convolutions; None for no limit.
        group: number of images that the discriminator compares.
    """

    resolution: int
    latent: int = 512
    style: int = 512
    layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    clamp: float | None = None
    group: int = 4

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise MiaBenchError(f"stylegan2 takes {name} from 1 to {largest}, not {reprlib.repr(value)}")
        resolution = self.resolution
        if resolution < 8 or resolution & (resolution - 1):
            raise MiaBenchError(f"stylegan2 makes 8, 16, 32 … pixels, not {resolution}")
        if self.channel_base < resolution:
            raise MiaBenchError(f"stylegan2 needs channel_base >= {resolution} for {resolution} pixels")
        clamp = self.clamp
        if clamp is not None and not (type(clamp) in (int, float) and 0 < clamp < math.inf):
            raise MiaBenchError(f"stylegan2 takes a positive clamp, not {reprlib.repr(clamp)}")

    def as_tensor(self) -> Tensor:
        """The sizes as JSON in bytes, for states and files."""
        return torch.frombuffer(bytearray(json.dumps(asdict(self)), "ascii"), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Shape:
        """The sizes in a tensor from :meth:`as_tensor`; raise DataError if it holds something else."""
        if tensor.dtype != torch.uint8 or tensor.dim() != 1 or len(tensor) > 1000:
            raise DataError("it holds no sizes of stylegan2")
        try:
            return cls(**json.loads(bytes(tensor.tolist())))
        except (ValueError, TypeError) as error:
            raise DataError("it holds no sizes of stylegan2") from error

    @property
    def resolutions(self) -> list[int]:
        """4, 8, … up to the resolution of the images."""
        return [2**power for power in range(2, self.resolution.bit_length())]

    def channels(self, resolution: int) -> int:
        """Width of the layers at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


ROOT2 = math.sqrt(2)
"""Gain of an activation, which keeps the variance. Leaky ReLU commutes with positive factors, so the gain is
multiplied into smaller tensors before it."""


SLOPE = 0.2
"""Of the activation, for negative numbers."""


def _activate(x: Tensor, clamp: float | None) -> Tensor:
    """Leaky ReLU, in place, then the clamp."""
    x = F.leaky_relu(x, SLOPE, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)


class Smooth(nn.Module):
    """The filter [1, 3, 3, 1] in both directions, with sum ``gain``, after padding with zeros."""

    kernel: Tensor

    def __init__(self, padding: int, gain: float = 1.0) -> None:
        super().__init__()
        self.padding = padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", gain * torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H + 2·padding - 3, W + 2·padding - 3)``."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, padding=self.padding, groups=channels)


def upsample(images: Tensor) -> Tensor:
    """Double the size: zeros between the pixels, then the filter [1, 3, 3, 1] with sum 4."""
    padded = F.pad(images, [1, 1, 1, 1])
    large = F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)
    return large[:, :, 2:-2, 2:-2]


class Dense(nn.Module):
    """A linear layer with weights of unit variance that are scaled in the forward pass.

    Args:
        inputs, outputs: widths.
        rate: learning rate relative to other layers.
        start: initial bias.
        active: apply the activation.
    """

    def __init__(
        self, inputs: int, outputs: int, *, rate: float = 1.0, start: float = 0.0, active: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), float(start)))
        self.scale = rate / math.sqrt(inputs)
        self.rate = rate
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs)``."""
        gain = ROOT2 if self.active else 1.0
        x = F.linear(x, self.weight * (self.scale * gain), self.bias * (self.rate * gain))
        return _activate(x, None) if self.active else x


class Mapping(nn.Module):
    """z to w: normalisation, then dense layers with a low learning rate."""

    w_avg: Tensor

    def __init__(self, shape: Shape, *, rate: float = 0.01) -> None:
        super().__init__()
        self.depth = shape.layers
        for number in range(shape.layers):
            inputs = shape.style if number else shape.latent
            self.add_module(f"fc{number}", Dense(inputs, shape.style, rate=rate, active=True))
        self.register_buffer("w_avg", torch.zeros(shape.style))

    def forward(self, z: Tensor) -> Tensor:
        """``(N, latent)`` to ``(N, style)``."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for number in range(self.depth):
            x = self.get_submodule(f"fc{number}")(x)
        return x

    def truncate(self, w: Tensor, truncation: float) -> Tensor:
        """Interpolate from the mean style (0) to the given styles (1)."""
        return self.w_avg.lerp(w, truncation)

    def update_average(self, w: Tensor, decay: float = 0.995) -> None:
        """Update the mean style."""
        self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, decay))


class Synthesis(nn.Module):
    """A modulated 3×3 convolution with noise, bias and activation; ``up`` doubles the size first."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, shape: Shape, resolution: int, *, up: bool = False) -> None:
        super().__init__()
        self.smooth = Smooth(1, 4.0) if up else None
        self.clamp = shape.clamp
        self.affine = Dense(shape.style, inputs, start=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise: Noise | None) -> Tensor:
        """``(N, inputs, r, r)`` and ``(N, style)`` to ``(N, outputs, R, R)``."""
        styles = self.affine(w)
        # The kernel need not be scaled: demodulation divides by its norm.
        with torch.autocast(x.device.type, enabled=False):
            squares = styles.to(self.weight.dtype).square()
            norms = squares @ self.weight.square().sum((2, 3)).T
        demodulate = (norms + 1e-8).rsqrt() * ROOT2
        x = x * styles.to(x.dtype)[:, :, None, None]
        kernel = self.weight.to(x.dtype)
        if self.smooth is not None:
            x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
            x = self.smooth(x)
        else:
            x = F.conv2d(x, kernel, padding=1)
        added = self.bias[None, :, None, None]
        if noise is not None:
            added = added + noise(self.noise_const) * self.noise_strength
        added = (added * ROOT2).to(x.dtype, memory_format=torch.channels_last)
        scaled = torch.addcmul(added, x, demodulate.to(x.dtype)[:, :, None, None])
        return _activate(scaled, self.clamp)


class ToImage(nn.Module):
    """From features to a term of the image: a modulated 1×1 convolution without demodulation."""

    def __init__(self, inputs: int, shape: Shape) -> None:
        super().__init__()
        self.clamp = shape.clamp
        self.scale = 1 / math.sqrt(inputs)
        self.affine = Dense(shape.style, inputs, start=1)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``(N, inputs, R, R)`` and ``(N, style)`` to ``(N, 3, R, R)`` in the precision of the weights."""
        # For three outputs, a kernel per image is cheaper than a scaled copy of the features.
        kernels = self.weight[:, :, 0, 0] * (self.affine(w) * self.scale)[:, None]
        image = torch.einsum("noi,nihw->nohw", kernels.to(x.dtype), x).to(self.bias.dtype)
        image = image + self.bias[:, None, None]
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    def __init__(self, shape: Shape, resolution: int) -> None:
        super().__init__()
        width = shape.channels(resolution)
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(width, 4, 4))
        else:
            below = shape.channels(resolution // 2)
            self.conv0 = Synthesis(below, width, shape, resolution, up=True)
        self.conv1 = Synthesis(width, width, shape, resolution)
        self.torgb = ToImage(width, shape)

    def forward(
        self, x: Tensor | None, image: Tensor | None, styles: Sequence[Tensor], noise: Noise | None
    ) -> tuple[Tensor, Tensor]:
        """Features and image, at twice the size; the image uses the first style of the next block."""
        if x is None or image is None:
            x = self.const.expand(len(styles[0]), -1, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, styles[0], noise)
            return x, self.torgb(x, styles[1])
        x = self.conv0(x, styles[0], noise)
        x = self.conv1(x, styles[1], noise)
        return x, upsample(image) + self.torgb(x, styles[2])


class SynthesisNetwork(nn.Module):
    """Styles to images; every block doubles the size of the image and adds to it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.resolutions = shape.resolutions
        for resolution in self.resolutions:
            self.add_module(f"b{resolution}", SynthesisBlock(shape, resolution))

    @property
    def depth(self) -> int:
        """Number of styles per image."""
        return 2 * len(self.resolutions)

    def forward(self, styles: Tensor, noise: Noise | None = None, *, up_to: int | None = None) -> Tensor:
        """Images ``(N, 3, R, R)``, about within ±1.

        Args:
            styles: ``(N, style)`` for all layers, or ``(N, depth, style)``.
            noise: None for no noise.
            up_to: return the image of this resolution, without the later blocks.
        """
        depth = self.depth
        each = styles.unbind(1) if styles.dim() == 3 else (styles,) * depth
        x: Tensor | None = None
        image: Tensor | None = None
        for number, resolution in enumerate(self.resolutions):
            first = max(2 * number - 1, 0)  # one convolution at 4 pixels, then two in every block
            x, image = self.get_submodule(f"b{resolution}")(x, image, each[first : first + 3], noise)
            if resolution == up_to:
                break
        assert image is not None
        return image


class Generator(nn.Module):
    """Mapping and synthesis."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mapping = Mapping(shape)
        self.synthesis = SynthesisNetwork(shape)


class Convolution(nn.Module):
    """A convolution of the discriminator; ``down`` halves the size.

    Args:
        inputs, outputs: widths.
        size: of the kernel, 1 or 3.
        shape: gives the clamp.
        down: filter, then subsample by 2.
        active: add bias and activation.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, shape: Shape, *, down: bool = False, active: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None
        self.scale = 1 / math.sqrt(inputs * size**2)
        self.size = size
        self.smooth = Smooth(1 if size == 1 else 2) if down else None
        self.clamp = shape.clamp

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """``(N, inputs, R, R)`` to ``(N, outputs, R, R)``, or half the size with ``down``."""
        if self.bias is not None:
            gain = gain * ROOT2
        kernel = (self.weight * (self.scale * gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        if self.smooth is not None and self.size == 1:
            x = F.conv2d(self.smooth(x)[:, :, ::2, ::2], kernel, bias)
        elif self.smooth is not None:
            x = F.conv2d(self.smooth(x), kernel, bias, stride=2)
        else:
            x = F.conv2d(x, kernel, bias, padding=self.size // 2)
        if self.bias is None:
            return x
        return _activate(x, None if self.clamp is None else self.clamp * gain / ROOT2)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a shortcut; the first block takes the image."""

    def __init__(self, shape: Shape, resolution: int) -> None:
        super().__init__()
        width, below = shape.channels(resolution), shape.channels(resolution // 2)
        if resolution == shape.resolution:
            self.fromrgb = Convolution(3, width, 1, shape)
        self.conv0 = Convolution(width, width, 3, shape)
        self.conv1 = Convolution(width, below, 3, shape, down=True)
        self.skip = Convolution(width, below, 1, shape, down=True, active=False)
        self.first = resolution == shape.resolution

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, R, R)``, or images, to ``(N, below, R/2, R/2)``."""
        if self.first:
            x = self.fromrgb(x)
        half = math.sqrt(0.5)
        features: Tensor = self.skip(x, half) + self.conv1(self.conv0(x), half)
        return features


class Epilogue(nn.Module):
    """The last block of the discriminator, with the minibatch standard deviation as a channel."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.group = shape.group
        width = shape.channels(4)
        self.conv = Convolution(width + 1, width, 3, shape)
        self.fc = Dense(16 * width, width, active=True)
        self.out = Dense(width, 1)

    def forward(self, x: Tensor, *, alone: bool = False) -> Tensor:
        """``(N, width, 4, 4)`` to scores ``(N,)``; ``alone`` compares no image with another."""
        x = x.to(self.out.weight.dtype)
        count = len(x)
        # Groups as large as the batch allows, of images that lie count/size apart.
        largest = 1 if alone else min(self.group, count)
        size = next(size for size in range(largest, 0, -1) if count % size == 0)
        groups = x.reshape(size, -1, *x.shape[1:])
        spread = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        channel = spread.repeat(size)[:, None, None, None].expand(-1, 1, 4, 4)
        x = self.conv(torch.cat([x, channel], dim=1))
        scores: Tensor = self.out(self.fc(x.flatten(1)))
        return scores.squeeze(1)


class Discriminator(nn.Module):
    """Images ``(N, 3, R, R)`` within ±1 to scores ``(N,)``, higher for real images."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.resolutions = shape.resolutions[:0:-1]
        for resolution in self.resolutions:
            self.add_module(f"b{resolution}", DiscriminatorBlock(shape, resolution))
        self.b4 = Epilogue(shape)

    def forward(self, images: Tensor, *, alone: bool = False) -> Tensor:
        """Map images to scores; ``alone`` makes each score independent of the batch."""
        x = images.contiguous(memory_format=torch.channels_last)
        for resolution in self.resolutions:
            x = self.get_submodule(f"b{resolution}")(x)
        scores: Tensor = self.b4(x, alone=alone)
        return scores
