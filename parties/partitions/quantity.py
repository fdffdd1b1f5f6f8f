"""Quantity skew: large and small firms that see the same mix of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from parties.partitions import Partition, cut, mixed


@final
@dataclass(frozen=True)
class Quantity(Partition):
    """Sizes are log-normal, n_i proportional to exp(spread z_i) with z_i ~ N(0, 1); labels iid.

    Args:
        spread: standard deviation of the logarithm of a firm's size; 0: equal sizes.
        least: the fewest examples of a firm.
    """

    spread: float = 1.0
    least: int = 10

    def __post_init__(self) -> None:
        self._check_least()
        number = isinstance(self.spread, int | float) and not isinstance(self.spread, bool)
        if not number or not 0 <= self.spread <= 10:
            raise FedpactError(
                f"partition.spread is {self.spread!r}; legal is a number from 0 (equal sizes) to "
                "10. Set partition.spread=1 for sizes that differ by a factor of about e."
            )

    def counts(self, available: Array, clients: int, rng: np.random.Generator) -> Array:
        weights = np.exp(self.spread * rng.normal(size=(clients, 1)))
        sizes = cut(weights / weights.sum(), available.sum())[:, 0]
        return mixed(available, sizes, rng)
