"""One number an image: the network's output is the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from parties.canonicalize.groups import Moves
from parties.canonicalize.scorers import Recipe, Scorer, check_widths, network


@final
@dataclass(frozen=True)
class Scalar(Recipe):
    """An energy: trained so that, of an orbit, the upright image has the highest.

    The cross-entropy of the orbit's scores against its upright member is the prior loss of
    Mondal, Panigrahi et al., arXiv 2310.01647, without the cosine of arXiv 2405.14089.

    Args:
        widths: channels of each block of the network (`parties.canonicalize.scorers.network`).
    """

    widths: tuple[int, ...] = (16, 32, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_widths(self.widths))

    def layers(self, channels: int, side: int, group: Moves) -> Scorer:
        return _Energy(channels, side, self.widths)


@final
class _Energy(Scorer):
    def __init__(self, channels: int, side: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network(channels, side, widths, 1)

    def forward(self, images: Tensor) -> Tensor:
        told: Tensor = self.network(images)
        return told[:, 0]
