"""MobileNetV2: 3.5 million parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import nn

from parties.backbones.pretrained import CLASSES, Pretrained

# expansion, channels, blocks, stride of the first
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _normalized(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


@final
class Inverted(nn.Module):
    """Expand, filter each channel by itself, project; with a way around where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.around = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_normalized(inputs, hidden, 1)] if expansion > 1 else []),
            _normalized(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x)
        return x + found if self.around else found


@final
class MobileNet(Pretrained):
    """MobileNetV2; it sees red, green, blue from 0 to 1, standardised by ImageNet's figures.

    A stage is the last block of a group of equally many channels; `head` has 1,280.

    References:
        Sandler, Howard, Zhu, Zhmoginov, Chen, arXiv 1801.04381, table 2.
    """

    name = "mobilenet"
    stages = ("block1", "block3", "block6", "block10", "block13", "block16", "block17", "head")

    def __init__(self) -> None:
        super().__init__()
        layers = [_normalized(3, 32, 3, 2)]
        inputs = 32
        for expansion, channels, blocks, stride in GROUPS:
            for block in range(blocks):
                step = stride if block == 0 else 1
                layers.append(Inverted(inputs, channels, step, expansion))
                inputs = channels
        layers.append(_normalized(inputs, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, CLASSES))

    def walk(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        for place, layer in enumerate(self.features):
            x = layer(x)
            name = "head" if place == len(self.features) - 1 else f"block{place}"
            if name in self.stages:
                yield name, x

    def classify(self, last: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.classifier(last.mean((2, 3)))
        return found

    def scaled(self, rgb: torch.Tensor) -> torch.Tensor:
        mean, deviation = (rgb.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
        return (rgb / 255 - mean) / deviation
