"""FedProx: FedAvg, with firms that pay for straying from the model they start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.exchange import Weights
from server.strategies import State, Strategy
from server.strategies.fedavg import FedAvg


@final
@dataclass(frozen=True)
class FedProx(Strategy):
    """Firms minimise F_k(w) + (mu/2) ||w - w_start||^2; the operator averages as in FedAvg.

    The penalty is the firms' work (its gradient mu (w - w_start) joins every step); on the
    operator's side nothing differs from FedAvg.

    Args:
        mu: weight of the penalty, > 0 (0 would be FedAvg: use strategy=fedavg).

    References:
        arXiv 1812.06127, Algorithm 2.
    """

    rounds: int = 20
    local_epochs: int = 1
    mu: float = 0.1

    combines = True
    linear = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("mu", 0.0)

    @property
    def proximal(self) -> float:
        return float(self.mu)

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        return FedAvg().combine(updates, state)
