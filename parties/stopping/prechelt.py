"""Prechelt's early stopping: where the model has begun to generalise worse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from parties.exchange import FedpactError
from parties.stopping import Stopping

CRITERIA = ("GL", "PQ", "UP")


@final
@dataclass(frozen=True)
class Prechelt(Stopping):
    """Stops by one of three classes of criteria, on the validation loss E_va.

    * ``GL``: the generalization loss GL(t) = 100 (E_va(t) / min E_va - 1) exceeds alpha.
    * ``PQ``: GL(t) / P_k(t) exceeds alpha, with the training progress of the last strip of k
      epochs P_k(t) = 1000 (sum E_tr / (k min E_tr) - 1); looked at at the end of a strip.
    * ``UP``: E_va has risen at the end of `times` strips in a row.

    A validation loss that is not finite is worse than any: it stops by all three, at once.

    Args:
        criterion: GL, PQ or UP.
        alpha: threshold of GL (per cent) and PQ.
        strip: k, epochs.
        times: s of UP_s.

    References:
        Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade, 1998.
    """

    needs_validation: ClassVar[bool] = True

    criterion: str = "GL"
    alpha: float = 5.0
    strip: int = 5
    times: int = 2

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise FedpactError(
                f"stopping.criterion is {self.criterion!r}; legal are {', '.join(CRITERIA)}."
            )
        self._number("alpha")
        self._whole("strip")
        self._whole("times")

    def stops(self, losses: Sequence[float], validation: Sequence[float]) -> bool:
        if not validation:
            return False
        if not math.isfinite(validation[-1]):
            return True
        best = min(v for v in validation if math.isfinite(v))
        if best <= 0:
            return False
        loss = 100 * (validation[-1] / best - 1)
        if self.criterion == "GL":
            return loss > self.alpha
        if len(validation) % self.strip:
            return False
        if self.criterion == "PQ":
            last = losses[-self.strip :]
            return loss > self.alpha * _progress(last)
        ends = validation[self.strip - 1 :: self.strip]
        if len(ends) <= self.times:
            return False
        last = ends[-self.times - 1 :]
        return all(now > before for before, now in itertools.pairwise(last))


def _progress(losses: Sequence[float]) -> float:
    """P_k of a strip: infinite where a loss came to 0 in it, 0 where all are 0."""
    least = min(losses)
    if least <= 0:
        return math.inf if max(losses) > 0 else 0.0
    return 1000 * (sum(losses) / (len(losses) * least) - 1)
