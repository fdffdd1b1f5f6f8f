"""Median: every number of the model is the median of the firms'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.exchange import FedpactError
from server.strategies.flower import FlowerRule


@final
@dataclass(frozen=True)
class Median(FlowerRule):
    """w_i = median_k w_ki, of an even number of firms the mean of the middle two (Flower).

    Numbers of examples do not count. Fewer than half of the firms cannot move a number out of the
    range of the others'.

    References:
        arXiv 1803.01498, Definition 1; `flwr.serverapp.strategy.FedMedian`.
    """

    rounds: int = 20
    local_epochs: int = 1

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return "FedMedian", {}

    def check(self, firms: int) -> None:
        if firms < 3:
            raise FedpactError(
                f"median needs n >= 3 firms (of 2 it is their mean); you have {firms}. "
                "Add firms or use strategy=fedavg."
            )
