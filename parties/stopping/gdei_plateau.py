"""Stop where GDEI, the training efficiency, no longer moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.reuse.gdei import efficiency
from parties.stopping import Stopping


@final
@dataclass(frozen=True)
class GdeiPlateau(Stopping):
    """Stops after `times` epochs in a row whose E_k differs from E_(k-1) by less than `plateau`.

    The source of GDEI has no stopping rule; this one is ours. A run that is stuck or diverged has
    E = 99 throughout, so it is stopped too; so is one whose first loss is not above 0, or not
    finite, which has no E.

    Args:
        plateau: points of E (it goes from 0 to 99).
        times: epochs in a row.
        scale_free: losses are divided by the first one.

    References:
        Dhingra, arXiv 2410.19448 (E).
    """

    plateau: float = 0.1
    times: int = 3
    scale_free: bool = False

    def __post_init__(self) -> None:
        self._number("plateau")
        self._whole("times")

    def stops(self, losses: Sequence[float], validation: Sequence[float]) -> bool:
        if len(losses) < self.times + 2:
            return False
        found = efficiency(losses, self.scale_free)[-self.times - 1 :]
        # Where E is undefined, it does not move.
        return not np.any(np.abs(np.diff(found)) >= self.plateau)
