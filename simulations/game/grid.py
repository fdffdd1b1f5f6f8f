"""Points of a map: solved by the fast path, and by the exact engine where floats cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from functools import reduce
from typing import Any, final

import numpy as np

from parties.exchange import Array
from server.game import dominance
from server.game.fast import CONTRACTS, solve_correlation
from server.game.selection import TIES, private, shared
from simulations.game.axes import Plan
from simulations.game.regions import IMPOSSIBLE, TIE, region_of, regions

READING = dominance.Reading("selected", "ex_ante")
MOST_EXACT = 2_000  # points: about four seconds
MOST_CHECKED = 100  # points that need no exact engine, but are shown to it all the same
CHUNK = 1 << 13
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses no bit


@final
@dataclass(frozen=True)
class Sheet:
    """n solved points, each at a place on the lattice.

    Args:
        x, y: places, (n,) whole numbers.
        level: how many halvings it took to come here, (n,).
        region: codes of :mod:`simulations.game.regions`, (n,).
        plays: a number for what is played under all contracts, (n,); 0 where it was not asked for.
        exact: whether the exact engine settled it, (n,).
        payoffs, trade, irpo: (4, 2, n), (4, n), (4, n), as in `server.game.fast.Solved`.
    """

    x: Array
    y: Array
    level: Array
    region: Array
    plays: Array
    exact: Array
    payoffs: Array
    trade: Array
    irpo: Array

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Array) -> Sheet:
        """The points of an index, in its order."""
        return Sheet(*(getattr(self, f.name)[..., index] for f in fields(self)))

    def join(self, other: Sheet) -> Sheet:
        """The points of both."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return Sheet(*(np.concatenate(pair, axis=-1) for pair in pairs))


@final
@dataclass
class Solver:
    """Solves points of one plan, and counts how the close ones were settled.

    A tie is a point where the fast path says that payoffs are too close for floats. All payoffs on
    the lattice are whole multiples of some 1/D: where that is far more than rounding, payoffs that
    floats call equal are equal, and the fast path's word is proved. Elsewhere the exact engine is
    asked if ties are few; what is left stays a "tie".

    Args:
        fine: the lattice splits each step of an axis into so many parts.
        asks_plays: whether to find out what is played too, for refinement.
        ties, proved, settled: how many there were, were proved, and were left to the exact engine.
        checked, differing: how many proved ones the exact engine saw too, and contradicted.
    """

    plan: Plan
    fine: int
    asks_plays: bool = False
    ties: int = 0
    proved: int = 0
    settled: int = 0
    checked: int = 0
    differing: int = 0

    def solve(self, x: Array, y: Array, level: int) -> Sheet:
        """The points at places x, y (n,)."""
        n = len(x)
        given = self.plan.floats((x, y), self.fine)
        possible = self._possible(x, y, given)
        sheet = Sheet(
            x,
            y,
            np.full(n, level, np.int8),
            np.full(n, IMPOSSIBLE, np.int16),
            np.zeros(n, np.uint64),
            np.zeros(n, np.bool_),
            np.full((4, 2, n), np.nan),
            np.full((4, n), np.nan),
            np.zeros((4, n), np.bool_),
        )
        here = slice(None) if possible.all() else np.flatnonzero(possible)
        if possible.any():
            given = _cut(given, here, n)
            solved = solve_correlation(**given)
            scale = reduce(np.maximum, (given[k] for k in ("R0", "R1", "C0", "C1")))
            sheet.payoffs[..., here], sheet.trade[:, here] = solved.payoffs, solved.trade
            sheet.irpo[:, here] = irpo = solved.irpo
            sheet.region[here] = regions(irpo, solved.payoffs, TIES * scale)
            if self.asks_plays:
                sheet.plays[here] = _plays(given, scale)
            self._settle(sheet, np.arange(n)[here][solved.tie], level)
        return sheet

    def _possible(self, x: Array, y: Array, given: dict[str, Any]) -> Array:
        """Where every rho is within its bounds, (n,); told by exact numbers where it is on them."""
        names = [axis.name for axis in (self.plan.x, self.plan.y)]
        numbers = any(not isinstance(rho, str) for _, rho in self.plan.worlds)
        if not numbers and not any(name[:3] == "rho" for name in (*names, *self.plan.fixed)):
            return np.ones(len(x), np.bool_)  # couplings by name are always within
        a, b = (np.asarray(given[name])[..., None] for name in ("alpha", "beta"))
        room = np.minimum(np.minimum(a, b) - given["rho"], given["rho"] - (a + b - 1)).min(1)
        possible: Array = room > 0
        matters = [name in ("alpha", "beta") or name[:3] == "rho" for name in names]
        known: dict[tuple[int, int], bool] = {}
        for point in np.flatnonzero(np.abs(room) <= TIES):
            place = (int(x[point]) * matters[0], int(y[point]) * matters[1])
            if place not in known:
                known[place] = self.plan.possible(*self._values(*place))
            possible[point] = known[place]
        return possible

    def _values(self, x: int, y: int) -> tuple[Fraction, Fraction]:
        return self.plan.x.at(x, self.fine), self.plan.y.at(y, self.fine)

    def _settle(self, sheet: Sheet, ties: Array, level: int) -> None:
        """Give each tie, by its index in the sheet, its true region, if that can be known."""
        self.ties += len(ties)
        if 2 * TIES * max(1.0, self.plan.scale) * self.plan.unit(1 << level) < 1:
            self.proved += len(ties)
            few = -(-len(ties) // max(1, MOST_CHECKED - self.checked))
            seen = ties[:: max(1, few)] if self.checked < MOST_CHECKED else ties[:0]
            self.checked += len(seen)
            before = sheet.region[seen]
            self._ask(sheet, seen)
            self.differing += int((before != sheet.region[seen]).sum())
        elif len(ties) <= MOST_EXACT - self.settled:
            self.settled += len(ties)
            self._ask(sheet, ties)
        else:
            sheet.region[ties] = TIE
            return
        sheet.exact[ties] = True

    def _ask(self, sheet: Sheet, points: Array) -> None:
        """Solve points of a sheet, by their index, by the exact engine."""
        for point in points:
            values = self._values(int(sheet.x[point]), int(sheet.y[point]))
            solved = dominance.Solved(self.plan.exact(*values))
            standings = solved.standings(READING)
            paid = [solved.payoffs(name) for name in CONTRACTS]
            irpo = [standings[name].irpo for name in CONTRACTS]
            sheet.region[point], sheet.irpo[:, point] = region_of(irpo, paid), irpo
            sheet.payoffs[..., point] = np.array(paid, np.float64)
            sheet.trade[:, point] = [float(solved.trade_probability(name)) for name in CONTRACTS]


def _cut(given: dict[str, Any], part: Any, n: int) -> dict[str, Any]:
    """The arguments of some of n points; what is one value for all points stays so."""
    cut = {}
    for name, value in given.items():
        array = np.asarray(value)
        alone = array.ndim < (2 if name in ("rho", "weight") else 1)
        cut[name] = value if alone else array[part]
    return cut


def _plays(given: dict[str, Any], scale: Any) -> Array:
    """A number (n,) that differs where firms play differently: a hash of all equilibria.

    Of contracts that share signals only, it holds whether firms act alike in a cell: to act or not
    changes payoffs smoothly.
    """
    n = len(given["rho"])
    found = np.zeros(n, np.uint64)
    for part in (slice(low, low + CHUNK) for low in range(0, n, CHUNK)):
        v = _cut(given, part, n)
        tol = TIES * (scale if np.ndim(scale) == 0 else scale[part])
        mean = (v["rho"] * v["weight"]).sum(1)
        for rho in (mean, *v["rho"].T):
            none, only_1, only_2 = (
                1 - v["alpha"] - v["beta"] + rho,
                v["alpha"] - rho,
                v["beta"] - rho,
            )
            high = 0.5 * np.array([[none, only_2], [only_1, rho]])  # P(t = 1, s1, s2)
            low = high[::-1, ::-1]
            e0, e1 = v["R0"] * low - v["C0"] * high, v["R1"] * high - v["C1"] * low
            f, g, _, tied = private(e0, e1, v["gamma"], tol)
            one, two = shared(e0, e1, v["gamma"], tol)[:2]
            own = np.array([*f, *g]) & ~tied  # no word on ties: there they mean nothing
            apart = (np.array(one) ^ np.array(two)).reshape(-1, len(rho))
            for bit in np.concatenate([own, apart, tied[None]]).astype(np.uint64):
                found[part] = (found[part] + bit) * MIX
    return found
