"""Label skew by exclusion: a firm knows a few classes and has never seen the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from parties.partitions import Partition, cut


@final
@dataclass(frozen=True)
class ClassesEach(Partition):
    """Each firm has exactly `classes` classes; a class is shared equally by the firms that have it.

    Firms choose in turn, each the classes that the fewest have chosen so far, so a class has as
    many firms as any other, or one fewer.

    Args:
        classes: classes of a firm.
        least: the fewest examples of a firm.

    References:
        McMahan et al., arXiv 1602.05629 (two classes a firm).
    """

    classes: int = 2
    least: int = 10

    def __post_init__(self) -> None:
        self._check_least()
        whole = isinstance(self.classes, int) and not isinstance(self.classes, bool)
        if not whole or self.classes < 1:
            raise FedpactError(
                f"partition.classes is {self.classes!r}; legal is a whole number >= 1. Set "
                "partition.classes=2 for two classes a firm."
            )

    def counts(self, available: Array, clients: int, rng: np.random.Generator) -> Array:
        present = np.flatnonzero(available)
        if not -(-len(present) // clients) <= self.classes <= len(present):
            raise FedpactError(
                f"partition.classes is {self.classes}; legal with {len(present)} classes and "
                f"{clients} firms are {-(-len(present) // clients)} to {len(present)}, so that no "
                "class is left over. Change partition.classes or dataset.clients."
            )
        has = np.zeros((clients, len(available)))
        for firm in has:
            shuffled = rng.permutation(present)
            rarest = np.argsort(has.sum(axis=0)[shuffled], kind="stable")[: self.classes]
            firm[shuffled[rarest]] = 1
        return cut(has / np.maximum(has.sum(axis=0), 1), available)
