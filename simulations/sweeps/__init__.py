"""Sweeps: many studies, one row each, in one table. A design says which; one file a design.

A sweep is asked for by `-m key=a,b,c` or by `sweep=NAME`; `Design` is the interface. A design is
asked for points again and again, each time with what came of all that it has asked for; all that it
answers follows from that and its own fields, so that a killed sweep asks for the same points again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from simulations.sweeps.axes import Axis, axes_of

Point = Mapping[str, Any]
"""Key of the configuration -> value: what makes one study of the sweep differ from the others."""
Row = Mapping[str, Any]
"""What came of one study, by column (`simulations.sweeps.rows`)."""


@final
@dataclass(frozen=True)
class Held:
    """A point, and the row of its study."""

    point: Point
    row: Row


@dataclass(frozen=True)
class Design(ABC):
    """Which studies a sweep holds.

    Args:
        axes: key of the configuration -> a list of values, or a range {low, high, ...} (`Axis`).
    """

    axes: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _ = self.parsed  # refuses what is not legal
        self.check()

    def check(self) -> None:
        """Refuse fields that are not legal.

        Raises:
            FedpactError: one is not.
        """
        return

    @property
    def parsed(self) -> tuple[Axis, ...]:
        """The axes, in order."""
        return axes_of(self.axes or {})

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the configuration that its points set: the axes, and what it sets itself."""
        return tuple(axis.key for axis in self.parsed)

    @property
    @abstractmethod
    def words(self) -> str:
        """The design in words, for the plan and the report."""

    @abstractmethod
    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        """The next points; none ends the sweep.

        Args:
            held: every point asked for so far, in that order, with its row.
        """

    def first(self) -> Point:
        """A point of it, to check the configuration by."""
        return self.ask([])[0]

    def most(self) -> int | None:
        """How many points it asks for at most; None where that cannot be told."""
        return None

    def final(self, held: Sequence[Held]) -> Sequence[Held]:
        """Those that the table holds: all, unless a later one takes an earlier one's place."""
        return held

    def extra(self, held: Sequence[Held]) -> Mapping[str, Any]:
        """What it found besides the rows, for the report; `told` is the same in words."""
        return {}

    def open(self, folder: Path) -> None:
        """Begin, or go on, in the sweep's folder; a design may keep files of its own there."""
        return
