"""Side payments, welfare: what money between the firms could mend, and what others would think.

Derived for this project and checked against enumeration; side payments are not in arXiv 2403.17515.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

from server.game.dominance import BASELINE, Reading, Solved


@final
@dataclass(frozen=True)
class Transfer:
    """Payments a client from firm 2 to firm 1 (negative: the other way) that both would accept.

    Whatever the reading of dominance, this is about averages in the selected equilibria: low =
    no1 - c1 is the least that firm 1 accepts, high = c2 - no2 the most that firm 2 pays, and the
    Nash bargaining split is halfway.

    >>> Transfer(Fraction(1, 40), Fraction(3, 40)).nash
    Fraction(1, 20)
    """

    low: Fraction
    high: Fraction

    @property
    def surplus(self) -> Fraction:
        """What the contract adds to u1 + u2."""
        return self.high - self.low

    @property
    def exists(self) -> bool:
        """Whether with some payment both earn at least what they earn alone, on average."""
        return self.low <= self.high

    @property
    def nash(self) -> Fraction | None:
        """The payment that splits the surplus equally; None if there is none."""
        return (self.low + self.high) / 2 if self.exists else None


def transfer(solved: Solved, contract: str) -> Transfer:
    """The side payments with which both firms earn at least what they earn alone, on average."""
    alone, under = solved.payoffs(BASELINE), solved.payoffs(contract)
    return Transfer(alone[0] - under[0], under[1] - alone[1])


@final
@dataclass(frozen=True)
class TwoPart:
    """A fixed fee and a price a prediction, paid by `payer` (0 or 1) to its rival.

    A price is paid only for predictions that the payer asks for. Up to `limit`, what a prediction
    is worth to it at least, whatever it saw itself, it asks for every one; the fee carries the
    rest. Both are per client and >= 0.
    """

    payer: int
    price: Fraction
    fee: Fraction
    limit: Fraction


def two_part(solved: Solved, contract: str) -> TwoPart | None:
    """The Nash split as a fixed fee and a price at which the payer asks for every prediction.

    None where no payment makes the contract rational, or the payer sees no prediction of its rival.
    """
    nash = transfer(solved, contract).nash
    if nash is None:
        return None
    payer = 1 if nash >= 0 else 0
    if ("s1" if payer else "s2") not in solved.games[contract].sight.sees(payer):
        return None
    limit = prediction_value(solved, contract, payer)
    price = min(limit, abs(nash))
    return TwoPart(payer, price, abs(nash) - price, limit)


def prediction_value(solved: Solved, contract: str, firm: int) -> Fraction:
    """What the rival's prediction is worth to a firm, at least, given all else that it sees.

    The rival plays its selected equilibrium and does not learn whether it was asked; a firm that
    does not ask acts on the rest of what it sees. Returns the least value over what it may see.
    """
    game, hidden = solved.games[contract], "s1" if firm else "s2"
    p, q = game.components[0].gamma
    informed: dict[object, int] = {}
    blind: dict[object, list[int]] = {}
    masses: dict[object, int] = {}
    for component, profile in zip(game.components, game.selected, strict=True):
        for i, j, mass, *values in component.cells:
            mine, theirs = (j, i) if firm else (i, j)
            rest = tuple(item for item in component.infos[mine] if item[0] != hidden)
            rival = profile.acts[theirs]
            earned = [(p if a == rival else q) * values[a] for a in (0, 1)]
            informed[rest] = informed.get(rest, 0) + earned[profile.acts[mine]]
            masses[rest] = masses.get(rest, 0) + mass
            totals = blind.setdefault(rest, [0, 0])
            totals[0] += earned[0]
            totals[1] += earned[1]
    scale = Fraction(solved.setting.masses, solved.setting.unit)
    return min((informed[r] - max(blind[r])) * scale / masses[r] for r in informed)


@final
@dataclass(frozen=True)
class Welfare:
    """How others would look at a contract.

    Args:
        total: u1 + u2 in the selected equilibrium (an aligned consumer's utility).
        trade: P(some firm plays action 1).
        lowers_trade: the firms would sign it (IRPO), but fewer clients are served than without
            sharing: what a regulator would look at.
    """

    total: Fraction
    trade: Fraction
    lowers_trade: bool


def welfare(solved: Solved, contract: str, reading: Reading) -> Welfare:
    """u1 + u2, trade, and the regulator's flag."""
    trade = solved.trade_probability(contract)
    signed = contract in solved.irpo(reading)
    return Welfare(
        total=sum(solved.payoffs(contract), Fraction(0)),
        trade=trade,
        lowers_trade=signed and trade < solved.trade_probability(BASELINE),
    )
