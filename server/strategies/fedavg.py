"""FedAvg: the average of the firms' models, weighted by their examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from parties.exchange import Weights
from server.strategies import State, Strategy, average


@final
@dataclass(frozen=True)
class FedAvg(Strategy):
    """Federated averaging, w = sum_k n_k w_k / sum_k n_k (arXiv 1602.05629, Algorithm 1)."""

    rounds: int = 20
    local_epochs: int = 1

    combines = True
    linear = True

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        model = average(updates) if updates else state.start
        return replace(state, turn=state.turn + 1, start=model, published=model)
