"""The small networks, without in-place operations, which per-sample gradient hooks break on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.classifier import Classifier


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias and batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, 1×1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(inputs, outputs, 3, stride)
        self.second = conv_bn(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H/stride, W/stride)``."""
        y = self.second(F.relu(self.first(x)))
        return F.relu(y + self.shortcut(x))


class Network(Classifier):
    """Blocks and a linear head."""

    channels_last = True

    def __init__(self, blocks: Sequence[nn.Module], width: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, num_classes)


def residual_network(widths: Sequence[int], num_classes: int) -> Network:
    """A stem of stride 2, then a residual block per width, of stride 2 after the first."""
    blocks: list[nn.Module] = [nn.Sequential(conv_bn(3, widths[0], 3, 2), nn.ReLU())]
    previous = widths[0]
    for number, width in enumerate(widths):
        blocks.append(ResidualBlock(previous, width, 1 if number == 0 else 2))
        previous = width
    return Network(blocks, previous, num_classes)


def plain_network(widths: Sequence[int], num_classes: int) -> Network:
    """One 5×5 convolution of stride 2, then stages of two 3×3 convolutions and a max pooling."""
    blocks: list[nn.Module] = [nn.Sequential(conv_bn(3, widths[0], 5, 2), nn.ReLU())]
    previous = widths[0]
    for number, width in enumerate(widths):
        layers: list[nn.Module] = [conv_bn(previous, width, 3), nn.ReLU()]
        layers += [conv_bn(width, width, 3), nn.ReLU()]
        if number < len(widths) - 1:
            layers.append(nn.MaxPool2d(2))
        blocks.append(nn.Sequential(*layers))
        previous = width
    return Network(blocks, previous, num_classes)


class MixerBlock(nn.Module):
    """A depthwise convolution with a shortcut, then a 1×1 convolution."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.space_norm = nn.BatchNorm2d(width)
        self.channels = nn.Conv2d(width, width, 1)
        self.channels_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, H, W)`` to the same shape."""
        x = x + self.space_norm(F.gelu(self.space(x)))
        mixed: Tensor = self.channels_norm(F.gelu(self.channels(x)))
        return mixed


def mixer_network(width: int, depth: int, patch: int, kernel: int, num_classes: int) -> Network:
    """Patches embedded by a convolution, then ``depth`` mixer blocks of one width and resolution."""
    stem = nn.Sequential(nn.Conv2d(3, width, patch, patch), nn.GELU(), nn.BatchNorm2d(width))
    return Network([stem, *(MixerBlock(width, kernel) for _ in range(depth))], width, num_classes)
