"""How to read the columns of a sweep's table: its axes, three-valued answers and amounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd

from parties.exchange import Array


@final
@dataclass(frozen=True)
class Axis:
    """A configuration key that differs between studies.

    Args:
        key: such as market.C1.
        levels: its different values, numbers ascending and words in the order of the design.
        places: of each study, which level it has, (studies,).
        numeric: whether its values are numbers.
        log: whether they are spread evenly by their logarithm.
        ordered: whether its values, or the words for them, go from less to more.
    """

    key: str
    levels: tuple[Any, ...]
    places: Array
    numeric: bool
    log: bool = False
    ordered: bool = False

    @property
    def labels(self) -> list[str]:
        return [label(level) for level in self.levels]

    @property
    def positions(self) -> Array:
        """Where each study stands: by value, or by level where the values are words."""
        return np.array(self.levels, dtype=float)[self.places] if self.numeric else self.places


def axes_of(table: pd.DataFrame, facts: Mapping[str, Any]) -> list[Axis]:
    """The axes of a sweep, in the order of its design."""
    return [_axis(table[told["key"]], told) for told in facts["axes"]]


def _axis(column: pd.Series[Any], told: Mapping[str, Any]) -> Axis:
    values = [value.item() if isinstance(value, np.generic) else value for value in column]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    numeric = numeric and all(v == v for v in values)
    if numeric and told["key"].endswith("_epsilon") and 0 in values:
        return _noise(told["key"], values)
    if numeric:
        levels = sorted(set(values))
    else:
        order = {label(v): v for v in (*(told.get("values") or ()), *values)}
        used = {label(v) for v in values}
        values = [label(v) for v in values]
        levels = [name for name in order if name in used]
    place = {level: number for number, level in enumerate(levels)}
    places = np.array([place[v] for v in values], dtype=int)
    return Axis(
        told["key"], tuple(levels), places, numeric, numeric and bool(told.get("log")), numeric
    )


def _noise(key: str, values: Sequence[float]) -> Axis:
    """An axis of epsilon, from the most noise to none: 0 stands for none, beyond every number."""
    levels = [*sorted({v for v in values if v}), 0]
    places = np.array([levels.index(v) for v in values], dtype=int)
    words = tuple(label(v) if v else "off" for v in levels)
    return Axis(key, words, places, numeric=False, ordered=True)


def label(value: Any) -> str:
    """A value of an axis as a person would write it.

    >>> label(3.0), label(0.30000000000000004), label(None), label(True), label("myopic")
    ('3', '0.3', 'null', 'true', 'myopic')
    """
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def contracts_of(table: pd.DataFrame) -> list[str]:
    """The contracts that firms could sign, by the table's own columns."""
    names = [c.removesuffix(".signed") for c in table.columns if c.endswith(".signed")]
    return [name for name in names if f"{name}.surplus" in table.columns]


def answers(column: pd.Series[Any]) -> Array:
    """A three-valued column as floats, (rows,): 1 yes, 0 no, nan undecided."""
    return column.astype("boolean").to_numpy(dtype=float, na_value=np.nan)


def amounts(column: pd.Series[Any]) -> Array:
    """A column of money as floats, (rows,); nan where there is none."""
    return pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)


def holds(table: pd.DataFrame, contract: str) -> Array:
    """Which studies held a contract, so that some firm decided on it, (rows,) of bool.

    A failed study held none; where study.contracts is an axis, a study holds those it lists.
    """
    ends = (f"{contract}.", ".decision")
    decisions = [c for c in table.columns if c.startswith(ends[0]) and c.endswith(ends[1])]
    return table[decisions].notna().any(axis=1).to_numpy(dtype=bool)


def unsure(table: pd.DataFrame, contract: str, firms: Sequence[str]) -> Array:
    """Where some firm has not decided on a contract, (rows,) of bool."""
    decisions = table[[f"{contract}.{firm}.decision" for firm in firms]]
    return (decisions == "undecided").any(axis=1).to_numpy(dtype=bool)
