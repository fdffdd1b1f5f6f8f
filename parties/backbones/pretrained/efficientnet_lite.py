"""EfficientNet-Lite0: 4.7 million parameters, without squeeze-and-excitation and with ReLU6."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import nn
from torch.nn import functional

from parties.backbones.pretrained import CLASSES, Pretrained

# expansion, size of the filters, channels, blocks, stride of the first
GROUPS = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


@final
class SameConv(nn.Conv2d):
    """A convolution padded so that its output has side / stride places, rounded up.

    Where the padding is odd, the further pixel goes to the right and below, as the weights' makers
    had it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for side, size, stride in zip(
            reversed(x.shape[-2:]),
            reversed(self.kernel_size),
            reversed(self.stride),
            strict=True,
        ):
            more = max((-(-side // stride) - 1) * stride + size - side, 0)
            pads += [more // 2, more - more // 2]
        return super().forward(functional.pad(x, pads))


@final
class Block(nn.Module):
    """Expand, filter each channel by itself, project; with a way around where shapes allow.

    Attributes have the names of the published weights.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.around = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SameConv(inputs, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = SameConv(hidden, hidden, size, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = SameConv(hidden, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        found: torch.Tensor = self._bn2(self._project_conv(wide))
        return x + found if self.around else found


@final
class EfficientNetLite(Pretrained):
    """EfficientNet-Lite0; it sees red, green, blue as (value from 0 to 255 - 127) / 128.

    A stage is the last block of a group of equally many channels; `head` has 1,280.

    References:
        Tan, Le, arXiv 1905.11946, table 1; the Lite variants of its authors, 2020.
    """

    name = "efficientnet_lite"
    stages = ("block0", "block2", "block4", "block7", "block10", "block14", "block15", "head")

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks = []
        inputs = 32
        for expansion, size, channels, count, stride in GROUPS:
            for place in range(count):
                step = stride if place == 0 else 1
                blocks.append(Block(inputs, channels, size, step, expansion))
                inputs = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(inputs, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, CLASSES)

    def walk(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for place, block in enumerate(self._blocks):
            x = block(x)
            if f"block{place}" in self.stages:
                yield f"block{place}", x
        yield "head", functional.relu6(self._bn1(self._conv_head(x)))

    def classify(self, last: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._fc(last.mean((2, 3)))
        return found

    def scaled(self, rgb: torch.Tensor) -> torch.Tensor:
        return (rgb - 127) / 128
