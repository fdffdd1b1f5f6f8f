"""FedAdam: the operator takes Adam's steps along the firms' mean change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from server.strategies.flower import FlowerRule


@final
@dataclass(frozen=True)
class FedAdam(FlowerRule):
    """w <- w + eta_t m / (sqrt(v) + tau), computed by Flower, with d = agg - w and

    m <- beta_1 m + (1 - beta_1) d,   v <- beta_2 v + (1 - beta_2) d^2   (both 0 at first),
    eta_t = eta sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)),   t = 1, 2 ... Flower's round.

    eta_t is Flower's: the paper has eta_t = eta, and Adam (arXiv 1412.6980) the exponent t.

    Args:
        eta: server learning rate > 0.
        beta_1: momentum in [0, 1).
        beta_2: decay of the squares in [0, 1).
        tau: > 0, keeps a step small where changes are small.

    References:
        arXiv 2003.00295, Algorithm 2; `flwr.serverapp.strategy.FedAdam`.
    """

    rounds: int = 20
    local_epochs: int = 1
    eta: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("eta", 0.0)
        self._number("beta_1", 0.0, 1.0, closed=True)
        self._number("beta_2", 0.0, 1.0, closed=True)
        self._number("tau", 0.0)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        fields = ("eta", "beta_1", "beta_2", "tau")
        return "FedAdam", {name: getattr(self, name) for name in fields}
