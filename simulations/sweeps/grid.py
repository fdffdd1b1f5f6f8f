"""sweep=grid: every combination of the axes' values. What `-m` makes of lists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from simulations.sweeps import Design, Held, Point


@final
@dataclass(frozen=True)
class Grid(Design):
    """Every combination; the last axis varies fastest."""

    def check(self) -> None:
        for axis in self.parsed:
            axis.grid()

    @property
    def words(self) -> str:
        sizes = " x ".join(str(len(axis.grid())) for axis in self.parsed) or "one"
        return f"grid of {sizes} values"

    def most(self) -> int:
        return math.prod(len(axis.grid()) for axis in self.parsed)

    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        if held:
            return []
        keys = [axis.key for axis in self.parsed]
        every = itertools.product(*(axis.grid() for axis in self.parsed))
        return [dict(zip(keys, values, strict=True)) for values in every]
