"""Honesty: what a firm gains by misreporting what a contract makes it share, and what stops it.

A contract's equilibrium takes reports at their word. Here one firm lies: it may hand over another
model (its rival then believes another z_i, or another coupling) and report another prediction,
while the rival goes on as in the selected equilibrium. The liar sees the truth, knows how its rival
will act on the lie, and acts best on that. Derived for this project; not in arXiv 2403.17515.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import final

from server.game.dominance import Solved
from server.game.sight import OWN, RIVAL, Seen
from server.game.worlds import Cell

Model = tuple[Hashable, Hashable] | None
"""What is handed over instead of the own model: (z_i, pair) to be believed; None is the truth."""


@final
@dataclass(frozen=True)
class Misreport:
    """A firm's best lie under one contract.

    Args:
        gain: what it adds to the liar's ex-ante utility, if nobody ever checks.
        audit: probability of an audit times the penalty of a client served on a false report, from
            which on no lie pays. With audits of one client in ten, the penalty is ten times this.
    """

    gain: Fraction
    audit: Fraction


def misreport(solved: Solved, contract: str, firm: int) -> Misreport:
    """The best lie of a firm (0 or 1) under a contract, and the penalty that removes it."""
    liar = Liar(solved, contract, firm)
    return Misreport(liar.best(Fraction(0)), liar.audit)


@final
@dataclass(frozen=True)
class Liar:
    """One firm that considers lying under one contract.

    It hands over its model once, knowing its z_i; it reports a prediction for a client knowing all
    training observations that it sees and its own prediction; it acts knowing all that it sees.
    What would show the rival something impossible is not said: it would be found out at once.
    """

    solved: Solved
    contract: str
    firm: int

    def best(self, penalty: Fraction) -> Fraction:
        """Largest ex-ante gain of any lie, if a client served on one costs `penalty`."""
        total = Fraction(0)
        for cells in self._by_history.values():
            honest = self._honest(cells)
            found = [self._value(cells, model, penalty) for model in self._models]
            total += max(value for value in found if value is not None) - honest
        return total

    @cached_property
    def audit(self) -> Fraction:
        """The least expected penalty at which no lie pays.

        A false model is in use for every client, so it must cost its gain given z_i; a false
        prediction must cost its gain given what the liar knew when it reported it.
        """
        needed = Fraction(0)
        for cells in self._by_history.values():
            honest = self._honest(cells)
            for model in self._models:
                value = self._value(cells, model, Fraction(0))
                if model is not None and value is not None:
                    needed = max(needed, (value - honest) / self._probability(cells))
            for group in _grouped(cells, self._before):
                value = self._value(group, None, Fraction(0))
                assert value is not None  # the truth is always possible
                needed = max(needed, (value - self._honest(group)) / self._probability(group))
        return needed

    @property
    def _names(self) -> tuple[str, str]:
        return OWN[self.firm]

    @cached_property
    def _shared(self) -> tuple[bool, bool]:
        """Whether the rival sees the liar's model, and its prediction."""
        seen = self.solved.games[self.contract].sight.sees(1 - self.firm)
        return self._names[0] in seen, self._names[1] in seen

    @cached_property
    def _acts(self) -> dict[tuple[int, Seen], int]:
        """Everybody's actions in the selected equilibrium."""
        game = self.solved.games[self.contract]
        return game.actions(game.selected)

    @cached_property
    def _by_history(self) -> dict[Hashable, list[Cell]]:
        found: dict[Hashable, list[Cell]] = {}
        for cell in self.solved.setting.cells:
            found.setdefault(getattr(cell, self._names[0]), []).append(cell)
        return found

    @cached_property
    def _signals(self) -> list[int]:
        return sorted({getattr(cell, self._names[1]) for cell in self.solved.setting.cells})

    @cached_property
    def _models(self) -> list[Model]:
        """The truth, and false models; of those that the rival treats alike the first only."""
        if not self._shared[0]:
            return [None]
        cells = self.solved.setting.cells
        rivals = tuple({getattr(cell, name) for cell in cells} for name in RIVAL[self.firm])
        believed = {(getattr(cell, self._names[0]), cell.pair) for cell in cells}
        kinds: dict[tuple[int | None, ...], tuple[Hashable, Hashable]] = {}
        for model in sorted(believed, key=repr):
            treated = tuple(
                self._told(model, z, s, report)
                for z in sorted(rivals[0], key=repr)
                for s in sorted(rivals[1])
                for report in self._signals
            )
            kinds.setdefault(treated, model)
        return [None, *kinds.values()]

    def _told(
        self, model: tuple[Hashable, Hashable], z: Hashable, s: int, report: int
    ) -> int | None:
        """The rival's action, with its own z and s, on what it is told.

        None if it could not be told so without a lie.
        """
        told: dict[str, Hashable] = dict(zip(RIVAL[self.firm], (z, s), strict=True))
        told |= {self._names[0]: model[0], "pair": model[1], self._names[1]: report}
        sees = self.solved.games[self.contract].sight.sees(1 - self.firm)
        return self._acts.get((1 - self.firm, tuple((name, told[name]) for name in sees)))

    def _honest(self, cells: list[Cell]) -> Fraction:
        value = self._value(cells, None, None)
        assert value is not None
        return value

    def _signal(self, cell: Cell) -> int:
        signal: int = getattr(cell, self._names[1])
        return signal

    def _rival_acts(self, cell: Cell, model: Model, report: int) -> int | None:
        """The rival's action in an event; None if the lie would be found out."""
        z, s = (getattr(cell, name) for name in RIVAL[self.firm])
        truth = (getattr(cell, self._names[0]), cell.pair)
        return self._told(truth if model is None else model, z, s, report)

    def _before(self, cell: Cell) -> Hashable:
        """What the liar knows when it reports a prediction."""
        sees = self.solved.games[self.contract].sight.sees(self.firm)
        known = [name for name in sees if name in ("z1", "z2", "pair")]
        return tuple(getattr(cell, name) for name in (*known, self._names[1]))

    def _value(self, cells: list[Cell], model: Model, penalty: Fraction | None) -> Fraction | None:
        """The liar's part of the ex-ante utility; without `penalty` its predictions are true.

        None where a false model would be found out whatever is reported.
        """
        total = Fraction(0)
        for group in _grouped(cells, self._before):
            true = self._signal(group[0])
            cost = (penalty or Fraction(0)) * self._probability(group)
            worth = []
            for report in self._signals if penalty is not None and self._shared[1] else [true]:
                value = self._reported(group, model, report)
                if value is not None:
                    worth.append(value - (cost if model is not None or report != true else 0))
            if not worth:
                return None
            total += max(worth)
        return total

    def _reported(self, cells: list[Cell], model: Model, report: int) -> Fraction | None:
        """Best utility after a report, one action an information set of the liar."""
        ratio = self.solved.setting.gamma
        sight = self.solved.games[self.contract].sight
        total = Fraction(0)
        for group in _grouped(cells, lambda cell: sight.saw(self.firm, cell)):
            earned = [Fraction(0), Fraction(0)]
            for cell in group:
                rival = self._rival_acts(cell, model, report)
                if rival is None:
                    return None
                for action in (0, 1):
                    share = ratio if action == rival else 1
                    earned[action] += share * cell.values[action]
            total += max(earned)
        return total / (self.solved.setting.masses * self.solved.setting.stakes)

    def _probability(self, cells: list[Cell]) -> Fraction:
        return Fraction(sum(cell.mass for cell in cells), self.solved.setting.masses)


def _grouped(cells: list[Cell], key: Callable[[Cell], Hashable]) -> list[list[Cell]]:
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())
