"""Stop where examples kept back have not been predicted better for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from parties.stopping import Stopping


@final
@dataclass(frozen=True)
class Patience(Stopping):
    """Stops after `epochs` epochs that have not lowered the validation loss by more than `least`.

    A loss that is not finite is worse than any.

    Args:
        epochs: to wait.
        least: nats.
    """

    needs_validation: ClassVar[bool] = True

    epochs: int = 3
    least: float = 0.0

    def __post_init__(self) -> None:
        self._whole("epochs")
        self._number("least")

    def stops(self, losses: Sequence[float], validation: Sequence[float]) -> bool:
        if len(validation) <= self.epochs:
            return False
        losses = [v if math.isfinite(v) else math.inf for v in validation]
        before, since = losses[: -self.epochs], losses[-self.epochs :]
        return not min(since) < min(before) - self.least
