"""Splits that are kept in memory: made once, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, final

import numpy as np

T = TypeVar("T")
ROOM_MB = 64.0


@final
class Kept:
    """What was made of data last, by group (one seed's division among firms) and key.

    The group that was asked for last is kept, whatever it takes; others while there is room.

    Args:
        room_mb: what all groups may take together. A process that goes to and fro between seeds
            has use for more.
    """

    def __init__(self, room_mb: float = ROOM_MB) -> None:
        self.room_mb = room_mb
        self._taken = 0
        self._groups: OrderedDict[Hashable, dict[Hashable, Any]] = OrderedDict()

    def get(self, group: Hashable, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` made of it before, or makes now."""
        if key not in self._groups.setdefault(group, {}):
            made = make()  # which may ask for others of the group
            self._groups.setdefault(group, {})[key] = made
            self._taken += _bytes(made)
        self._groups.move_to_end(group)
        while self._taken > self.room_mb * 2**20 and len(self._groups) > 1:
            _, parts = self._groups.popitem(last=False)
            self._taken -= sum(map(_bytes, parts.values()))
        found: T = self._groups[group][key]
        return found


def _bytes(value: Any) -> int:
    """What the arrays in a value take."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if is_dataclass(value):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    return 0


SPLITS = Kept()
