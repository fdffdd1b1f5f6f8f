"""FedAvg: the average of the firms' models, weighted by their examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import FedpactError, Weights
from server.strategies import Strategy


@final
@dataclass(frozen=True)
class FedAvg(Strategy):
    """Federated averaging, w = sum_k n_k w_k / sum_k n_k (arXiv 1602.05629, Algorithm 1).

    Sums run in float64 in the order of the firms' names, so the result does not depend on which
    reply came first.
    """

    rounds: int = 20
    local_epochs: int = 1

    combines = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_epochs < 1:
            raise FedpactError("strategy.local_epochs is 0; fedavg needs at least 1 a round.")

    def combine(self, updates: Mapping[str, Weights], published: Weights | None) -> Weights | None:
        if not updates:
            return published
        names = sorted(updates)
        total = sum(updates[name].examples for name in names)
        first = updates[names[0]]
        averaged = {}
        for key, like in first.arrays.items():
            mean = sum(
                updates[n].arrays[key].astype(np.float64) * (updates[n].examples / total)
                for n in names
            )
            averaged[key] = np.asarray(mean).astype(like.dtype)
        return Weights(averaged, total)
