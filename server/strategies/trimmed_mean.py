"""Trimmed mean: every number of the model is the mean of the firms', less both ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.exchange import FedpactError
from server.strategies.flower import FlowerRule


@final
@dataclass(frozen=True)
class TrimmedMean(FlowerRule):
    """w_i = mean of the w_ki without the t smallest and the t largest, t = int(beta n) (Flower).

    Numbers of examples do not count. t firms cannot move a number out of the range of the others'.

    Args:
        beta: part of the firms cut off at either end, in (0, 0.5), so that some are left.

    References:
        arXiv 1803.01498, Definition 2; `flwr.serverapp.strategy.FedTrimmedAvg`.
    """

    rounds: int = 20
    local_epochs: int = 1
    beta: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("beta", 0.0, 0.5)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return "FedTrimmedAvg", {"beta": self.beta}

    def check(self, firms: int) -> None:
        if int(self.beta * firms) < 1:
            least = math.ceil(1 / self.beta)
            least += int(self.beta * least) < 1  # int(49 * (1 / 49)) is 0
            raise FedpactError(
                f"trimmed_mean with beta = {self.beta} cuts int(beta n) = 0 firms off, and needs "
                f"n >= {least}; you have {firms}. "
                f"Raise strategy.beta (below 0.5), add firms or use strategy=fedavg."
            )
