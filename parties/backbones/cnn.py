"""A small convolutional network for square images of one channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import nn

from parties.backbones import Backbone
from parties.exchange import FedpactError
from parties.layers import Image

NORMALIZATIONS = ("none", "batch")


@final
@dataclass(frozen=True)
class Cnn(Backbone):
    """Blocks of convolution 3x3, normalization, ReLU and 2x2 maximum, then one linear layer.

    Features are flattened images, row by row. The default has 4,594 parameters for 28x28 pixels and
    10 classes, and 994 for 8x8.

    Args:
        channels: channels a block, for example (8, 8); each block halves the side.
        normalization: "none" or "batch" (its running statistics travel with the weights).
    """

    channels: tuple[int, ...] = (8, 8)
    normalization: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        bad = [c for c in self.channels if not isinstance(c, int) or isinstance(c, bool) or c < 1]
        if bad or not self.channels:
            raise FedpactError(
                f"backbone.channels is {list(self.channels)}; each is a whole number >= 1. Write "
                "channels=[8,8] for two blocks; for none use backbone=logistic."
            )
        if self.normalization not in NORMALIZATIONS:
            raise FedpactError(
                f"backbone.normalization is {self.normalization!r}; legal are "
                f"{', '.join(NORMALIZATIONS)}. Set backbone.normalization=none."
            )

    def layers(self, inputs: int, classes: int) -> nn.Module:
        side = math.isqrt(inputs)
        least = 2 ** len(self.channels)
        if side * side != inputs or side < least:
            raise FedpactError(
                f"backbone=cnn was given {inputs} features; legal are square images of one channel "
                f"of {least}x{least} pixels or more. Use backbone=mlp, or fewer channels."
            )
        layers: list[nn.Module] = [Image(side)]
        for before, after in pairwise((1, *self.channels)):
            layers.append(nn.Conv2d(before, after, 3, padding=1))
            if self.normalization == "batch":
                layers.append(nn.BatchNorm2d(after))
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        left = side // least
        head = nn.Linear(self.channels[-1] * left * left, classes)
        return nn.Sequential(*layers, nn.Flatten(), head)
