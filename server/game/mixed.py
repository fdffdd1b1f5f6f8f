"""Mixed Bayes-Nash equilibria of small components, by enumeration of supports, exactly.

Each information set plays action 1 with some probability. Its gain from action 1 is affine in the
rival's probabilities, so a support (which sets mix) fixes the rival's through linear equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import final

from server.game.bayes import Component

MOST_INFOS = 8
Row = list[Fraction]


@final
@dataclass(frozen=True)
class Mixed:
    """One mixed equilibrium: the probability of action 1, an information set.

    utilities: both firms' parts of the ex-ante utility, in units of 1 / Setting.unit.
    """

    acts: tuple[Fraction, ...]
    utilities: tuple[Fraction, Fraction]


@final
@dataclass(frozen=True)
class MixedSearch:
    """All isolated properly mixed equilibria of a component.

    complete: no support had infinitely many solutions (a continuum is not listed).
    """

    equilibria: tuple[Mixed, ...]
    complete: bool


def mixed_equilibria(component: Component) -> MixedSearch | None:
    """Mixed equilibria in which at least one set mixes; None if the component is too large.

    A component with n1 and n2 information sets has 3 ** (n1 + n2) supports; up to 8 sets are tried.
    """
    count = len(component.infos)
    if count > MOST_INFOS:
        return None
    found: dict[tuple[Fraction, ...], Mixed] = {}
    complete = True
    for support in product((0, 1, None), repeat=count):
        if None not in support:
            continue
        solved = _solve_support(component, support)
        if solved is None:
            complete = False
        for acts in solved or ():
            if acts not in found:
                found[acts] = Mixed(acts, _utilities(component, acts))
    return MixedSearch(tuple(found.values()), complete)


def _solve_support(
    component: Component, support: Sequence[int | None]
) -> list[tuple[Fraction, ...]] | None:
    """The equilibrium with this support, if any; None if there may be infinitely many."""
    acts: list[Fraction | None] = [None if a is None else Fraction(a) for a in support]
    undetermined = False
    for firm in (0, 1):
        mine = [i for i, a in enumerate(support) if a is None and component.firm(i) == firm]
        theirs = [i for i, a in enumerate(support) if a is None and component.firm(i) != firm]
        # The rival's mixing sets are indifferent: that fixes what this firm's sets play.
        values = _linear(*_equations(component, support, mine, theirs), len(mine))
        if values is None:
            return []
        if len(values) < len(mine):
            undetermined = True
            continue
        for info, value in zip(mine, values, strict=True):
            if not 0 < value < 1:
                return []
            acts[info] = value
    if undetermined:
        return None
    done = tuple(a for a in acts if a is not None)
    for info, act in enumerate(support):
        gain = _gain(component, info, done)
        if (act == 1 and gain < 0) or (act == 0 and gain > 0):
            return []
    return [done]


def _equations(
    component: Component, support: Sequence[int | None], mine: list[int], theirs: list[int]
) -> tuple[list[Row], Row]:
    left: list[Row] = []
    right: Row = []
    for info in theirs:
        row, constant = [Fraction(0)] * len(mine), 0
        for other, g0, g1 in component.edges[info]:
            act = support[other]
            constant += g1 if act == 1 else g0
            if act is None:
                row[mine.index(other)] += g1 - g0
        left.append(row)
        right.append(Fraction(-constant))
    return left, right


def _linear(left: list[Row], right: Row, unknowns: int) -> Row | None:
    """The unique solution; a shorter list if there are many, None if there is none."""
    rows = [[*row, value] for row, value in zip(left, right, strict=True)]
    rank = 0
    for column in range(unknowns):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        rows[rank] = [v / rows[rank][column] for v in rows[rank]]
        for r, row in enumerate(rows):
            if r != rank and row[column]:
                rows[r] = [v - row[column] * w for v, w in zip(row, rows[rank], strict=True)]
        rank += 1
    if any(row[-1] for row in rows[rank:]):
        return None
    return [row[-1] for row in rows[:rank]]


def _gain(component: Component, info: int, acts: Sequence[Fraction]) -> Fraction:
    edges = component.edges[info]
    return sum((g0 + acts[other] * (g1 - g0) for other, g0, g1 in edges), Fraction(0))


def _utilities(component: Component, acts: Sequence[Fraction]) -> tuple[Fraction, Fraction]:
    p, q = component.gamma
    one = two = Fraction(0)
    for i, j, _, *values in component.cells:
        for a, b in product((0, 1), repeat=2):
            weight = (acts[i] if a else 1 - acts[i]) * (acts[j] if b else 1 - acts[j])
            share = p if a == b else q
            one += weight * share * values[a]
            two += weight * share * values[b]
    return one, two
