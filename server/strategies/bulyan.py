"""Bulyan: Krum chooses models, then every number is averaged around their median."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from server.strategies.flower import FlowerRule
from server.strategies.krum import enough


@final
@dataclass(frozen=True)
class Bulyan(FlowerRule):
    """w_i = mean of the theta - 2f numbers nearest to their median, among theta = n - 2f models.

    Those models are the theta with the least Krum scores, as Flower chooses them, all at once; in
    the paper they are chosen one after the other, and the scores of the rest computed anew.
    Numbers of examples do not count.

    Args:
        byzantine: f, how many firms may send anything; n >= 4 f + 3.

    References:
        arXiv 1802.07927, section 4; `flwr.serverapp.strategy.Bulyan`.
    """

    rounds: int = 20
    local_epochs: int = 1
    byzantine: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("byzantine", 0)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return "Bulyan", {"num_malicious_nodes": self.byzantine}

    def check(self, firms: int) -> None:
        enough("bulyan", firms, 4, self.byzantine)
