"""The four contracts on a batch of joint tables: play, pay, compare. What the fast path computes.

A table is a triple of cells [x][y]: P(0, x, y), P(1, x, y) and their sum, each an array over m
points; the first table is the prior's mean, then comes each world's. `xp` is numpy or torch, and no
step here depends on the values, so that torch.compile can fuse all of them.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any, NamedTuple

from server.game.selection import TIES, private, select_private, settle, shared, total

PAIRS = tuple(combinations(range(4), 2))
NEAR = 1e-9  # of the largest payoff: floats do not vouch for the order of payoffs this close
NULL = 1e-12  # cells less likely than this never happen


class Outcome(NamedTuple):
    """The fields of :class:`server.game.fast.Solved`, and where the selection rule has ties."""

    payoffs: Any
    trade: Any
    ir: Any
    pareto_optimal: Any
    tie: Any
    unsettled: Any


def correlation_tables(alpha: Any, beta: Any, rho: Any, weight: Any) -> list[Any]:
    """The tables of accuracies (m,) and of P(both right) in each world, (W, m); P(t=1) = 1/2."""
    tables = []
    alpha, beta = 0.5 * alpha, 0.5 * beta
    for right in (total(w * r for w, r in zip(weight, rho, strict=True)), *rho):
        both = 0.5 * right
        only_1, only_2, none = alpha - both, beta - both, (0.5 - alpha - beta) + both
        alike, apart = both + none, only_1 + only_2
        # s = 1 is right when t = 1; by symmetry the table of t = 0 is the same one turned round.
        low, high = [[both, only_1], [only_2, none]], [[none, only_2], [only_1, both]]
        tables.append((low, high, [[alike, apart], [apart, alike]]))
    return tables


def four_contracts(
    tables: list[Any], weight: Any, payoff: tuple[Any, ...], gamma: Any, xp: Any, careful: bool
) -> Outcome:
    """Play the four contracts and compare them.

    Args:
        tables: the mean table, then each world's.
        weight: the worlds' prior, (W, m).
        payoff: e(0, 0), e(0, 1), e(1, 0), e(1, 1). The first two are None where action 0 is worth
            nothing (loans), which saves time.
        careful: break ties by the full rule (numpy only); else points that need it are only told.
    """
    e00, e01, e10, e11 = payoff
    scale = xp.maximum(xp.abs(e10), xp.abs(e11))
    if e00 is not None:
        scale = xp.maximum(scale, xp.maximum(xp.abs(e00), xp.abs(e01)))
    tol = TIES * scale
    apart: list[Any] = []  # each table's maps and payoffs
    together: list[Any] = []
    unsettled = []
    for low, high, mass in tables:
        e0, e1 = _worth(low, high, e00, e01), _worth(low, high, e10, e11)
        if careful:
            f, g, potential, tied = select_private(e0, e1, gamma, tol, mass)
        else:
            f, g, potential, tied = private(e0, e1, gamma, tol, xp)
        unsettled.append(tied)
        alone = [[a for _ in g] for a in f], [g for _ in f], *settle(potential, e0, e1, f, g)
        for found, (one, two, u1, u2) in (
            (apart, alone),
            (together, shared(e0, e1, gamma, tol, xp)),
        ):
            acts = [
                a | b for rows in zip(one, two, strict=True) for a, b in zip(*rows, strict=True)
            ]
            cells = [p for row in mass for p in row]
            trade = total(a * p for a, p in zip(acts, cells, strict=True))
            found.append(((one, two), (u1, u2, trade)))
    maps, paid = [], []  # in the order of CONTRACTS
    for (of_mean, mean), *rest in (apart, together):
        maps += [[of_mean] * len(rest), [of_world for of_world, _ in rest]]
        averages = zip(*(values for _, values in rest), strict=True)
        paid += [
            list(mean),
            [total(w * v for w, v in zip(weight, vs, strict=True)) for vs in averages],
        ]
    happens = [
        [[(p > NULL) & (w > 0) for p in row] for row in mass]
        for w, (_, _, mass) in zip(weight, tables[1:], strict=True)
    ]
    unlike = {pair: _unlike(maps[pair[0]], maps[pair[1]], happens) for pair in PAIRS}
    # Contracts that play the same everywhere pay the same, to the last bit.
    for (c, d), different in reversed(unlike.items()):
        same = ~different
        paid[d] = [different * v + same * u for u, v in zip(paid[c], paid[d], strict=True)]
    verdicts = _compare(paid, unlike, TIES * scale, NEAR * scale, xp)
    payoffs = xp.stack([xp.stack(v[:2]) for v in paid])
    either = unsettled[0]
    for tied in unsettled[1:]:
        either = either | tied
    return Outcome(payoffs, xp.stack([v[2] for v in paid]), *verdicts, either)


def _worth(low: Any, high: Any, if_0: Any, if_1: Any) -> Any:
    """An action's cells, from what it earns in each class."""
    k1, k2 = range(len(low)), range(len(low[0]))
    if if_0 is None:
        return [[0.0 for _ in k2] for _ in k1]
    return [[if_0 * low[x][y] + if_1 * high[x][y] for y in k2] for x in k1]


def _unlike(maps: Any, others: Any, happens: Any) -> Any:
    """Whether two contracts' actions differ in a cell that happens in some world."""
    found = None
    for (a, b), (p, q), real in zip(maps, others, happens, strict=True):
        for x, y in product(range(len(real)), range(len(real[0]))):
            here = ((a[x][y] ^ p[x][y]) | (b[x][y] ^ q[x][y])) & real[x][y]
            found = here if found is None else found | here
    return found


def _compare(paid: Any, unlike: Any, slack: Any, near: Any, xp: Any) -> tuple[Any, Any, Any]:
    """ir, pareto_optimal (4, m) and tie (m,), from each contract's payoffs."""
    never = slack < 0
    tie, ir, beaten = never, [~never], [never] * 4
    for (c, d), different in unlike.items():
        more = [v - u for u, v in zip(paid[c][:2], paid[d][:2], strict=True)]
        close = (xp.abs(more[0]) < near) | (xp.abs(more[1]) < near)
        up = (more[0] >= -slack) & (more[1] >= -slack)
        down = (more[0] <= slack) & (more[1] <= slack)
        tie = tie | (close & different)
        beaten[c] = beaten[c] | (up & ~down)
        beaten[d] = beaten[d] | (down & ~up)
        if c == 0:
            ir.append(up)
    ir[0] = ir[0] | ir[1]  # all points, also where the slack is one number for all
    return xp.stack(ir), ~xp.stack(beaten), tie
