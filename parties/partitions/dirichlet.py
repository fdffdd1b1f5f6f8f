"""Label skew: some firms see much of a class, others little or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from parties.partitions import Partition, cut


@final
@dataclass(frozen=True)
class Dirichlet(Partition):
    """Each class c is divided by its own draw of shares, p_c ~ Dir(alpha, ..., alpha) over firms.

    Args:
        alpha: concentration. 100 is nearly iid, 1 mild, 0.1 leaves a firm two or three classes.
        least: the fewest examples of a firm.

    References:
        Hsu, Qi, Brown, arXiv 1909.06335 (Dirichlet mixes of classes; there drawn a firm). Drawn a
        class, so that the pool is used up: Yurochkin et al., arXiv 1905.12022.
    """

    alpha: float = 0.3
    least: int = 10

    def __post_init__(self) -> None:
        self._check_least()
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not number or not np.isfinite(self.alpha) or self.alpha <= 0:
            raise FedpactError(
                f"partition.alpha is {self.alpha!r}; legal is a number > 0 (small is skewed). "
                "For firms alike use partition=iid."
            )

    def counts(self, available: Array, clients: int, rng: np.random.Generator) -> Array:
        shares = rng.dirichlet(np.full(clients, float(self.alpha)), size=len(available)).T
        return cut(shares, available)
