"""sweep=map: two axes, and seeds spent where the verdict is still undecided.

A cell is a study. It is looked at with a few seeds, and with twice as many as long as a contract is
undecided. To look often is to be wrong more often; each look is therefore judged at a confidence of
1 - alpha / looks, so that over all looks together a firm's interval misses its true gain with a
probability of alpha at most (Bonferroni).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from parties.exchange import FedpactError
from simulations.sweeps import Design, Held, Point, Row
from simulations.sweeps.axes import check_whole

SEEDS, CONFIDENCE = "study.seeds", "study.confidence"


@final
@dataclass(frozen=True)
class MeasuredMap(Design):
    """A map of two axes, each cell looked at until its verdict is decided.

    All cells have their k-th look before any has the next. Where the budget is too small for all
    that are undecided, those come first that are nearest to a decision: that would need the fewest
    times the seeds they have. A look holds all its seeds, those of the look before among them; all
    are counted. A cell whose study failed is not looked at again.

    Args:
        first_seeds: of the first look; with one seed, what another split would change is not in the
            intervals.
        most_seeds: of the last look.
        budget: seeds in all; 0: no bound.
        alpha: how often a firm's intervals in a cell may miss its true gain in any of the looks.
    """

    first_seeds: int = 4
    most_seeds: int = 32
    budget: int = 0
    alpha: float = 0.05

    def check(self) -> None:
        check_whole("first_seeds", self.first_seeds, 2)
        check_whole("most_seeds", self.most_seeds, self.first_seeds)
        check_whole("budget", self.budget, 0)
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not number or not 0 < self.alpha < 1:
            raise FedpactError(
                f"sweep.alpha is {self.alpha!r}; legal is a number between 0 and 1, for example "
                "0.05."
            )
        if len(self.parsed) != 2:
            raise FedpactError(
                f"sweep.axes has {len(self.parsed)} axes; a map has two. Write for example: "
                "fedpact sweep=map 'sweep.axes={market.C1:[1,2,4],market.gamma:[0.2,0.5]}'"
            )
        for axis in self.parsed:
            if axis.key in (SEEDS, CONFIDENCE):
                raise FedpactError(
                    f"sweep.axes has {axis.key}, which sweep=map sets itself. Use sweep=grid."
                )
        least = len(self._cells) * self.first_seeds
        if 0 < self.budget < least:
            raise FedpactError(
                f"sweep.budget is {self.budget}; {len(self._cells)} cells of {self.first_seeds} "
                f"seeds need {least} to be looked at once. Raise it, or take fewer cells."
            )

    @property
    def keys(self) -> tuple[str, ...]:
        return (*(axis.key for axis in self.parsed), SEEDS, CONFIDENCE)

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds of each look.

        >>> MeasuredMap({"a": [1], "b": [1]}, first_seeds=4, most_seeds=20).looks
        (4, 8, 16, 20)
        """
        found = [self.first_seeds]
        while found[-1] < self.most_seeds:
            found.append(min(2 * found[-1], self.most_seeds))
        return tuple(found)

    @property
    def confidence(self) -> float:
        """Of the intervals of each look."""
        return 1 - self.alpha / len(self.looks)

    @property
    def words(self) -> str:
        wide, high = (len(axis.grid()) for axis in self.parsed)
        bound = f", {self.budget} seeds in all" if self.budget else ""
        return (
            f"map of {wide} x {high} cells, {', '.join(map(str, self.looks))} seeds until decided"
            f"{bound}; each look's intervals have confidence {self.confidence:.6g}, all looks' "
            f"together {1 - self.alpha:.6g}"
        )

    def most(self) -> int:
        return len(self._cells) * len(self.looks)

    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        if not held:
            return [self._look(cell, self.looks[0]) for cell in self._cells]
        seeds = max(one.point[SEEDS] for one in held)
        if seeds == self.looks[-1]:
            return []
        wave = [one for one in held if one.point[SEEDS] == seeds and undecided(one.row)]
        wave.sort(key=lambda one: times_needed(one.row))
        following = self.looks[self.looks.index(seeds) + 1]
        if self.budget:
            wave = wave[: (self.budget - _spent(held)) // following]
        return [self._look(one.point, following) for one in wave]

    def final(self, held: Sequence[Held]) -> Sequence[Held]:
        last: dict[str, Held] = {}
        for one in held:  # looks come in their order
            name = self._cell(one.point)
            if one.row["status"] == "ok" or name not in last:
                last[name] = one  # of a look that failed, the one before is still true
        return [last[name] for name in map(self._cell, self._cells) if name in last]

    def extra(self, held: Sequence[Held]) -> Mapping[str, Any]:
        """Seeds of each look -> cells that had it (looks); seeds held in all, and what as many for
        every cell would have been (fixed); cells undecided at the end; the same in words."""
        looks = {n: sum(one.point[SEEDS] == n for one in held) for n in self.looks}
        seeds, fixed = _spent(held), len(self._cells) * self.looks[-1]
        left = sum(undecided(one.row) for one in self.final(held))
        told = (
            f"{seeds:,} seeds in {sum(n > 0 for n in looks.values())} looks at "
            f"{', '.join(str(n) for n in looks.values() if n)} cells; {left} cells are undecided. "
            f"{self.looks[-1]} seeds for every cell are {fixed:,}"
        )
        return {"looks": looks, "seeds": seeds, "fixed": fixed, "undecided": left, "told": told}

    @property
    def _cells(self) -> list[dict[str, Any]]:
        keys = [axis.key for axis in self.parsed]
        every = itertools.product(*(axis.grid() for axis in self.parsed))
        return [dict(zip(keys, values, strict=True)) for values in every]

    def _look(self, point: Point, seeds: int) -> Point:
        return {**point, SEEDS: seeds, CONFIDENCE: self.confidence}

    def _cell(self, point: Point) -> str:
        return json.dumps([point[axis.key] for axis in self.parsed])


def undecided(row: Row) -> bool:
    """Whether it cannot be told of some contract yet if every firm signs it."""
    return row["status"] == "ok" and any(row[key] is None for key in _signed(row))


def times_needed(row: Row) -> float:
    """How many times the seeds would decide every contract, if the mean gains stay as they are.

    Half an interval falls with the square root of the seeds, and is to be no more than the mean
    gain. One firm that refuses decides a contract, and so do all if they sign.
    """
    most = 1.0
    for key in _signed(row):
        if row[key] is not None:
            continue
        contract, refuse, sign = key.removesuffix("signed"), [math.inf], [1.0]
        for name in row:
            if not name.startswith(contract) or not name.endswith(".decision"):
                continue
            firm = name.removesuffix("decision")
            gain, low, high = (row[firm + end] for end in ("gain", "low", "high"))
            times = ((high - low) / (2 * gain)) ** 2 if gain else math.inf
            if row[name] == "undecided":
                sign.append(times)
                refuse.append(math.inf if gain is None or gain >= 0 else times)
        fewest = min(refuse)
        most = max(most, fewest if fewest < math.inf else max(sign))
    return most


def _signed(row: Row) -> list[str]:
    return [key for key in row if key.endswith(".signed")]


def _spent(held: Sequence[Held]) -> int:
    return sum(one.point[SEEDS] for one in held)
