"""Logistic regression: one linear layer, started at zero (its loss is convex)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from parties.backbones import Backbone


@final
@dataclass(frozen=True)
class Logistic(Backbone):
    """Multinomial logistic regression, logits = x W' + b."""

    def layers(self, inputs: int, classes: int) -> nn.Module:
        linear = nn.Linear(inputs, classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(linear)
