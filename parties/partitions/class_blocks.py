"""Label skew at its extreme: no two firms have a class in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from parties.partitions import Partition


@final
@dataclass(frozen=True)
class ClassBlocks(Partition):
    """The classes in their order, cut into a block a firm: 0-4 and 5-9 for two firms of ten.

    Args:
        least: the fewest examples of a firm.
    """

    least: int = 10

    def __post_init__(self) -> None:
        self._check_least()

    def counts(self, available: Array, clients: int, rng: np.random.Generator) -> Array:
        present = np.flatnonzero(available)
        if len(present) < clients:
            raise FedpactError(
                f"partition=class_blocks was given {len(present)} classes for {clients} firms; "
                "legal is a class or more a firm. Use partition=dirichlet, or fewer firms."
            )
        found = np.zeros((clients, len(available)), np.int64)
        for firm, block in enumerate(np.array_split(present, clients)):
            found[firm, block] = available[block]
        return found
