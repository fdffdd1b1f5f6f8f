"""Firms alike: equal sizes, every firm a blind draw from the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array
from parties.partitions import Partition, cut, mixed


@final
@dataclass(frozen=True)
class Iid(Partition):
    """Equal sizes (to one example), labels mixed as chance has it.

    Args:
        least: the fewest examples of a firm.
    """

    least: int = 10

    def __post_init__(self) -> None:
        self._check_least()

    def counts(self, available: Array, clients: int, rng: np.random.Generator) -> Array:
        equal = np.full((clients, 1), 1 / clients)
        return mixed(available, cut(equal, available.sum())[:, 0], rng)
