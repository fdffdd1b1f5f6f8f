"""Krum: one firm's model, the one with the closest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.exchange import FedpactError
from server.strategies.flower import FlowerRule


@final
@dataclass(frozen=True)
class Krum(FlowerRule):
    """w = w_k of the least s_k = sum of ||w_k - w_j||^2 over the n - f - 2 nearest j (Flower).

    Of equal scores the first firm's by name wins.

    Args:
        byzantine: f, how many firms may send anything; n >= 2 f + 3.

    References:
        arXiv 1703.02757, section 4 and Proposition 4.2 (2 f + 2 < n);
        `flwr.serverapp.strategy.Krum`.
    """

    rounds: int = 20
    local_epochs: int = 1
    byzantine: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("byzantine", 0)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return "Krum", {"num_malicious_nodes": self.byzantine}

    def check(self, firms: int) -> None:
        enough("krum", firms, 2, self.byzantine)


def enough(rule: str, firms: int, times: int, f: int) -> None:
    """Raises a FedpactError where n < times f + 3."""
    least = times * f + 3
    if firms < least:
        raise FedpactError(
            f"{rule} needs n >= {times}f + 3 firms: with f = {f} that is {least}; "
            f"you have {firms}. {'Lower strategy.byzantine or add' if f else 'Add'} firms."
        )
