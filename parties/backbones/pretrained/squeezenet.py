"""SqueezeNet 1.1: 1.2 million parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import nn
from torch.nn import functional

from parties.backbones.pretrained import CLASSES, Pretrained

# fire -> channels in, squeezed to, expanded to (of each of two kinds)
FIRES = {
    "fire2": (64, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}
MEAN = (104.0, 116.7, 122.7)  # blue, green, red


@final
class Fire(nn.Module):
    """Squeeze to a few channels, then expand by 1x1 and by 3x3 filters, side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        few = functional.relu(self.squeeze1x1(x))
        return torch.cat(
            [functional.relu(self.expand1x1(few)), functional.relu(self.expand3x3(few))], 1
        )


@final
class SqueezeNet(Pretrained):
    """SqueezeNet 1.1; it sees blue, green, red from 0 to 255, minus their means.

    References:
        Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, arXiv 1602.07360; version 1.1 is the
        authors' own.
    """

    name = "squeezenet"
    stages = tuple(FIRES)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2)
        for name, channels in FIRES.items():
            self.add_module(name, Fire(*channels))
        self.conv10 = nn.Conv2d(512, CLASSES, 1)

    def walk(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 3, 2)
        for name in self.stages:
            x = self.get_submodule(name)(x)
            yield name, x
            if name in ("fire3", "fire5"):
                x = functional.max_pool2d(x, 3, 2)

    def classify(self, last: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.conv10(last)).mean((2, 3))

    def scaled(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb.flip(1) - rgb.new_tensor(MEAN)[:, None, None]
