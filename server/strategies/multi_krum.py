"""Multi-Krum: the mean of the few models with the closest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.exchange import FedpactError
from server.strategies.flower import FlowerRule
from server.strategies.krum import enough


@final
@dataclass(frozen=True)
class MultiKrum(FlowerRule):
    """w = mean of the m models with the least Krum scores (Flower).

    The mean is plain, as in the paper: Flower is told equal numbers of examples, or a firm could
    buy weight by declaring many.

    Args:
        byzantine: f, how many firms may send anything; n >= 2 f + 3.
        selected: m, how many models are averaged; m <= n - f - 2 (1: Krum).

    References:
        arXiv 1703.02757, section 5; the bound on m: the authors' library,
        https://calicarpa.github.io/krum (MultiKrum); `flwr.serverapp.strategy.MultiKrum`.
    """

    rounds: int = 20
    local_epochs: int = 1
    byzantine: int = 1
    selected: int = 2

    weighted = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("byzantine", 0)
        self._whole("selected", 1)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return "MultiKrum", {
            "num_malicious_nodes": self.byzantine,
            "num_nodes_to_select": self.selected,
        }

    def check(self, firms: int) -> None:
        enough("multi_krum", firms, 2, self.byzantine)
        most = firms - self.byzantine - 2
        if self.selected > most:
            raise FedpactError(
                f"multi_krum averages m <= n - f - 2 models: with n = {firms}, "
                f"f = {self.byzantine} that is {most}; strategy.selected is {self.selected}. "
                "Lower it or add firms."
            )
