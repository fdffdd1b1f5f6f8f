"""Stopping rules: when a firm ends a training before its last epoch. One file each.

None of them is best everywhere: the rule of GDEI is no better than its peers by itself. They stand
side by side so that a firm can measure which one saves it money.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from parties.exchange import FedpactError


class Stopping(ABC):
    """Decides after each epoch whether a training goes on.

    Class attributes:
        needs_validation: it watches the loss on examples that the firm keeps back.
    """

    needs_validation: ClassVar[bool] = False

    @abstractmethod
    def stops(self, losses: Sequence[float], validation: Sequence[float]) -> bool:
        """Whether to stop after this epoch.

        Args:
            losses: mean training loss of every epoch so far, nats.
            validation: loss on the examples kept back after every epoch; empty where not needed.
        """

    def _whole(self, name: str, least: int = 1) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise FedpactError(f"stopping.{name} is {value!r}; legal is a whole number >= {least}.")

    def _number(self, name: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not np.isfinite(value) or value < 0:
            raise FedpactError(f"stopping.{name} is {value!r}; legal is a number >= 0.")
