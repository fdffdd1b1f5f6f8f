"""The pose at one look: a classifier of orientations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from parties.canonicalize.groups import Moves
from parties.canonicalize.scorers import OnePass, Recipe, check_widths, network


@final
@dataclass(frozen=True)
class Classifier(Recipe):
    """One pass an image, whatever the group; trained on images moved by known elements.

    Args:
        widths: channels of each block of the network (`parties.canonicalize.scorers.network`).
    """

    widths: tuple[int, ...] = (16, 32, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_widths(self.widths))

    def layers(self, channels: int, side: int, group: Moves) -> OnePass:
        return _Classifier(channels, side, self.widths, group.order)


@final
class _Classifier(OnePass):
    def __init__(self, channels: int, side: int, widths: tuple[int, ...], order: int) -> None:
        super().__init__()
        self.network = network(channels, side, widths, order)

    def forward(self, images: Tensor) -> Tensor:
        told: Tensor = self.network(images)
        return told
