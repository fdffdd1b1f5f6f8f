"""Which axis matters: how much of what varies between studies each axis explains alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd

from parties.exchange import Array
from simulations.sweeps.columns import Axis, amounts, answers, contracts_of

MOST, EACH = 10, 5  # groups that a numeric axis falls into, studies that a group should have
VERDICT = "best contract"


@final
@dataclass(frozen=True)
class Effect:
    """What one axis explains of one answer.

    Args:
        answer: what varies, such as the surplus of full_sharing.
        axis: key of the axis.
        share: first-order index, 0 to 1; None where the answer does not vary.
        chance: the share that an axis without any effect would explain on average.
        groups: values of the axis, or ranges of values, that were told apart.
        studies: in which the answer is known.
    """

    answer: str
    axis: str
    share: float | None
    chance: float | None
    groups: int
    studies: int

    @property
    def tells(self) -> bool:
        """Whether the share says anything: of one group it is 0 and of as many groups as studies
        it is 1, whatever the answer."""
        return self.share is not None and 1 < self.groups < self.studies


def first_order(groups: Array, y: Array) -> float | None:
    """First-order effect index: S = Var(E[y|x]) / Var(y), the correlation ratio.

    On a full grid it is exact. Elsewhere it is the plug-in estimate, which is too high: groups
    that explain nothing still get (groups - 1) / (n - 1) on average over all orders of y.

    Args:
        groups: (n,) which group of x each study is in.
        y: (n,) or, for a categorical answer, its indicators (n, k): variances are summed over k
            (Goodman and Kruskal's tau).

    Returns:
        From 0 to 1; None if y does not vary.

    References:
        Saltelli et al., Global Sensitivity Analysis (2008), section 1.2.

    >>> x1, x2 = np.repeat([0, 1], 2), np.tile([0, 1], 2)
    >>> first_order(x1, 3.0 * x1 + x2), first_order(x2, 3.0 * x1 + x2)
    (0.9, 0.1)
    """
    if len(groups) == 0 or (y == y[0]).all():
        return None
    y = np.asarray(y, dtype=float).reshape(len(groups), -1)
    scale = np.abs(y).max()
    centred = y / scale - (y / scale).mean(axis=0)
    whole = float((centred**2).sum())
    if whole == 0:  # it varies by less than a float can tell
        return None
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), y.shape[1]))
    np.add.at(sums, place, centred)
    between = float((sums**2 / sizes[:, None]).sum())
    return min(1.0, between / whole)


def grouped(axis: Axis, rows: Array) -> Array:
    """Which group of an axis each of the chosen rows is in: a value, or a range of many values.

    A numeric axis with many values falls into at most ten ranges that hold about equally many
    rows, at least five each where there are enough; equal values stay together.
    """
    places = axis.places[rows]
    if not axis.numeric or len(np.unique(places)) <= MOST:
        return places
    ranges = int(np.clip(len(places) // EACH, 2, MOST))
    values = axis.positions[rows]
    inner = np.quantile(values, np.arange(1, ranges) / ranges)
    return np.searchsorted(inner, values, side="left")


def effects(table: pd.DataFrame, axes: list[Axis]) -> list[Effect]:
    """What each axis explains of the best contract, and of each contract's surplus and verdict.

    A verdict counts 1 where every firm signs and 0 where some firm refuses; of the best contract,
    undecided is an answer of its own.
    """
    held = (table["status"] == "ok").to_numpy(dtype=bool)
    best = table["best"].astype(object).where(table["best"].notna(), "undecided")
    answered = {VERDICT: pd.get_dummies(best).to_numpy(dtype=float)}
    for contract in contracts_of(table):
        answered[f"{contract}: joint surplus"] = amounts(table[f"{contract}.surplus"])
        answered[f"{contract}: every firm signs"] = answers(table[f"{contract}.signed"])
    found = []
    for answer, y in answered.items():
        unknown = np.isnan(y) if y.ndim == 1 else np.isnan(y).any(axis=1)
        known = held & ~unknown
        found += [_effect(answer, axis, y, known) for axis in axes]
    return found


def _effect(answer: str, axis: Axis, y: Array, known: Array) -> Effect:
    studies = int(known.sum())
    groups = grouped(axis, known) if studies else np.zeros(0, dtype=int)
    share, many = first_order(groups, y[known]), len(np.unique(groups))
    chance = None if share is None else (many - 1) / (studies - 1)
    return Effect(answer, axis.key, share, chance, many, studies)
