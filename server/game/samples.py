"""How many clients a verdict takes: the paired difference of two contracts, client by client."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from scipy import stats

from server.game.dominance import BASELINE, Solved


@final
@dataclass(frozen=True)
class Paired:
    """One client's payoff under a contract minus its payoff without sharing: mean and variance.

    Both contracts play their selected equilibria on the same client.
    """

    mean: Fraction
    variance: Fraction

    def needed(self, level: float = 0.95) -> int | None:
        """Clients for a two-sided interval at this level that just excludes zero; None if never.

        >>> Paired(Fraction(1, 10), Fraction(1)).needed()
        385
        """
        if self.mean == 0:
            return None
        z = float(stats.norm.ppf(0.5 + level / 2))
        return max(1, math.ceil(z**2 * float(self.variance / self.mean**2)))


def paired(solved: Solved, contract: str, firm: int, over: str = BASELINE) -> Paired:
    """The paired difference of a firm (0 or 1) between two contracts, exactly."""
    setting = solved.setting
    games = [solved.games[name] for name in (contract, over)]
    played = [(game.sight, game.actions(game.selected)) for game in games]
    mean = square = Fraction(0)
    for cell, t, probability in setting.events:
        earned = []
        for sight, acts in played:
            mine, theirs = (acts[f, sight.saw(f, cell)] for f in (firm, 1 - firm))
            share = setting.gamma if mine == theirs else 1
            earned.append(share * setting.earns(mine, t))
        difference = earned[0] - earned[1]
        mean += probability * difference
        square += probability * difference**2
    return Paired(mean, square - mean**2)
