"""One measured figure: what every sub-command gives, and what the report shows."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

AGREE = 3e-5  # nats: how far final losses of one training may differ, whoever held it


@final
@dataclass(frozen=True)
class Bar:
    """What a ratio must be: at most `limit`, or at least.

    >>> str(Bar(1.5)), Bar(1.5).holds(1.2), Bar(8, least=True).holds(7)
    ('at most 1.5', True, False)
    """

    limit: float
    least: bool = False

    def holds(self, ratio: float) -> bool:
        """Whether a ratio keeps to it."""
        return ratio >= self.limit if self.least else ratio <= self.limit

    def __str__(self) -> str:
        return f"at {'least' if self.least else 'most'} {self.limit:g}"


@final
@dataclass(frozen=True)
class Row:
    """Figures of one thing, and their ratios to another that took turns with it.

    Args:
        what: what was measured; rows of one `what` are one table.
        name: of which engine, solver or model.
        values: a figure a repeat, in `unit`.
        ratios: a ratio a repeat, to what `beside` names; () for none.
        bar: what the middle ratio must be; None: nothing.
        void: why the row does not count, "" where it does.
        peak_mb: the most memory that it held; None where that was not measured.

    >>> row = Row("CPU of a firm", "inline", (3.0, 2.0, 4.0), "ms", (1.5, 1.0, 2.0), bar=Bar(1.5))
    >>> row.value, row.ratio, row.low, row.high, row.verdict
    (3.0, 1.5, 1.0, 2.0, 'holds')
    """

    what: str
    name: str
    values: tuple[float, ...]
    unit: str
    ratios: tuple[float, ...] = ()
    beside: str = ""
    bar: Bar | None = None
    void: str = ""
    peak_mb: float | None = None

    @property
    def value(self) -> float | None:
        """The middle figure; None where there is none."""
        return statistics.median(self.values) if self.values else None

    @property
    def ratio(self) -> float | None:
        """The middle ratio."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def low(self) -> float | None:
        """The smallest ratio."""
        return min(self.ratios, default=None)

    @property
    def high(self) -> float | None:
        """The largest ratio."""
        return max(self.ratios, default=None)

    @property
    def verdict(self) -> str:
        """void, holds or missed; "" where there is no bar."""
        if self.void:
            return "void"
        if self.bar is None or self.ratio is None:
            return ""
        return "holds" if self.bar.holds(self.ratio) else "missed"

    def told(self) -> dict[str, Any]:
        """All of it, for bench.json and the report."""
        return {
            **vars(self),
            "bar": str(self.bar) if self.bar else "",
            **{k: getattr(self, k) for k in ("value", "ratio", "low", "high", "verdict")},
        }


def apart(loss: float, other: float, within: float = AGREE) -> str:
    """Why a row does not count whose final loss is not the other's; "" where it is.

    >>> apart(0.5, 0.50001), apart(0.5, 0.6), apart(float("nan"), 0.5)
    ('', 'its loss differs by 1e-01', 'its loss differs by nan')
    """
    difference = abs(loss - other)
    return "" if difference <= within else f"its loss differs by {difference:.0e}"


def add_count(
    parser: argparse.ArgumentParser, name: str, default: int, about: str, least: int = 1
) -> None:
    """An option that takes a whole number, such as --repeats."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"it is {text!r}; {name} is a whole number >= {least}. Leave it out for {default}."
            )
        return int(text)

    read: Callable[[str], int] = count
    parser.add_argument(name, type=read, default=default, help=f"{about} ({default})")
