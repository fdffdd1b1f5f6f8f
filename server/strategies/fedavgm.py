"""FedAvgM: FedAvg with momentum on the operator's side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from server.strategies.flower import FlowerRule


@final
@dataclass(frozen=True)
class FedAvgM(FlowerRule):
    """w <- w - eta v, v <- beta v + (w - agg), v = w - agg at first; computed by Flower.

    Args:
        server_learning_rate: eta > 0 (1 with no momentum: FedAvg).
        server_momentum: beta in [0, 1).

    References:
        arXiv 1909.06335, section 4.3; `flwr.serverapp.strategy.FedAvgM`.
    """

    rounds: int = 20
    local_epochs: int = 1
    server_learning_rate: float = 1.0
    server_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("server_learning_rate", 0.0)
        self._number("server_momentum", 0.0, 1.0, closed=True)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return "FedAvgM", {
            "server_learning_rate": self.server_learning_rate,
            "server_momentum": self.server_momentum,
        }
