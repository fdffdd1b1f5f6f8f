"""Stop where an epoch takes next to nothing off the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.reuse.gdei import step_gains
from parties.stopping import Stopping


@final
@dataclass(frozen=True)
class RelativeGain(Stopping):
    """Stops after `times` epochs in a row with (L_(k-1) - L_k) / L_(k-1) < `least`.

    Args:
        least: share of the loss of the epoch before.
        times: epochs in a row.
    """

    least: float = 1e-3
    times: int = 3

    def __post_init__(self) -> None:
        self._number("least")
        self._whole("times")

    def stops(self, losses: Sequence[float], validation: Sequence[float]) -> bool:
        if len(losses) <= self.times:
            return False
        # A loss that is not finite gains nothing.
        return not np.any(step_gains(losses)[-self.times :] >= self.least)
