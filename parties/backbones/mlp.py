"""A small multi-layer perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import nn

from parties.backbones import Backbone
from parties.exchange import FedpactError


@final
@dataclass(frozen=True)
class Mlp(Backbone):
    """Fully connected layers with ReLU between them.

    Args:
        widths: hidden units a layer, for example (32,) or (64, 32).
    """

    widths: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        bad = [w for w in self.widths if not isinstance(w, int) or isinstance(w, bool) or w < 1]
        if bad or not self.widths:
            raise FedpactError(
                f"backbone.widths is {list(self.widths)}; each width is a whole number >= 1. "
                "Write widths=[32] for one hidden layer; for none use backbone=logistic."
            )

    def layers(self, inputs: int, classes: int) -> nn.Module:
        sizes = (inputs, *self.widths)
        hidden = [
            layer
            for before, after in pairwise(sizes)
            for layer in (nn.Linear(before, after), nn.ReLU())
        ]
        return nn.Sequential(*hidden, nn.Linear(sizes[-1], classes))
