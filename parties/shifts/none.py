"""No shift: every firm sees the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from parties.exchange import Array
from parties.shifts import Shift


@final
@dataclass(frozen=True)
class NoShift(Shift):
    """Features as they are in the pool."""

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        return features
