"""Stop where examples kept back have not been predicted better for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from parties.stopping import Stopping


@final
@dataclass(frozen=True)
class Patience(Stopping):
    """Stops after `epochs` epochs that have not lowered the validation loss by more than `least`.

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
        before, since = validation[: -self.epochs], validation[-self.epochs :]
        return not min(since) < min(before) - self.least
