"""The selection rule in floating point, on many games at once: which equilibrium counts.

A game is given by its cells E_a(x, y) = sum_t P(t, x, y) e(a, t): what action a is worth, in
payoff units times probability, when firm 1 sees x and firm 2 sees y. Of the pure equilibria the one
with the largest potential is selected: a cell counts (1 + gamma) E_a where both firms do a, and
E_0 + E_1 where they differ. Ties go to the larger u1, then to the fewest expected plays of action
1, then to the larger u2. A profile that maximises an exact potential is an equilibrium, so no
stability is tested.

Cells are anything indexed [x][y] that holds arrays of games: one array a cell keeps numpy's loops
short enough for the cache and lets torch.compile fuse them. `xp` is numpy or torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from parties.exchange import Array

TIES = 1e-12  # of the largest payoff: values closer than this are the same number
PROFILES = 1 << 20  # profile values held at once while ties are broken


def shared(e0: Any, e1: Any, gamma: Any, tol: Any, xp: Any = np) -> tuple[Any, Any, Any, Any]:
    """Both firms' actions in each cell when both see (x, y), and their payoffs u1, u2.

    Each cell is a game of its own. With M >= m the two actions' values in it: splitting (firm 1
    takes the better action) has the larger potential iff m > gamma M. At m = gamma M firm 1 earns
    M by splitting, against gamma M, so the tie splits iff (1 - gamma) M > 0; otherwise fewest
    plays of action 1 decide, as they do between actions worth the same.
    """
    one, two, paid_1, paid_2 = [], [], [], []
    for row_0, row_1 in zip(e0, e1, strict=True):
        acts, splits = [], []
        for v0, v1 in zip(row_0, row_1, strict=True):
            gain = v1 - v0
            extra = xp.maximum(gain, 0 * gain)  # numpy is slow with one number for an array
            most, least = v0 + extra, v1 - extra
            both = gamma * most
            split = (least >= both - tol) & (most - both > tol)
            acts.append(gain > tol)
            splits.append(acts[-1] ^ split)
            paid_2.append(xp.maximum(least, both))
            paid_1.append(split * (most - least))
        one.append(acts)
        two.append(splits)
    u2 = total(paid_2)
    return one, two, u2 + total(paid_1), u2


def private(e0: Any, e1: Any, gamma: Any, tol: Any, xp: Any = np) -> tuple[Any, Any, Any, Any]:
    """Strategies f[x], g[y] when each firm sees its own signal; their potential; ties.

    Strategies f, g have the potential (1 + gamma) sum E_0 + sum_x f_x P_x. + sum_y g_y P_.y -
    sum_xy f_x g_y K, with P = E_1 - gamma E_0 and K = (1 - gamma)(E_0 + E_1). For a fixed g it
    separates over x, so 2^k2 times k1 terms are enough.

    Returns:
        f, g, the potential, and where more than one profile has it. There f and g mean nothing;
        :func:`break_ties` has the answer.
    """
    pairs = [list(zip(*rows, strict=True)) for rows in zip(e0, e1, strict=True)]
    alone = [[v1 - gamma * v0 for v0, v1 in row] for row in pairs]
    rivalry = [[(1 - gamma) * (v0 + v1) for v0, v1 in row] for row in pairs]
    first, second = [total(row) for row in alone], [total(c) for c in zip(*alone, strict=True)]
    # Bit y of g's index is g_y: each signal of firm 2 doubles the lists of its strategies' values.
    gains, values = [first], [(1 + gamma) * total(v0 for row in pairs for v0, _ in row)]
    for y, more in enumerate(second):
        gains += [[d - k[y] for d, k in zip(gain, rivalry, strict=True)] for gain in gains]
        values += [value + more for value in values]
    zero = 0 * first[0]
    values = [
        v + total(xp.maximum(d, zero) for d in gain) for v, gain in zip(values, gains, strict=True)
    ]
    best = reduce(xp.maximum, values)
    floor = best - tol
    never = best < floor
    some, tied, g = never, never, [never] * len(second)
    for index, value in enumerate(values):
        top = value >= floor
        tied, some = tied | (some & top), some | top
        g = [have | top if index >> y & 1 else have for y, have in enumerate(g)]
    f = []
    for gain, k in zip(first, rivalry, strict=True):
        for y, acts in enumerate(g):
            gain = gain - acts * k[y]
        f.append(gain > 0)
        tied = tied | (xp.abs(gain) <= tol)
    return f, g, best, tied


def break_ties(e0: Array, e1: Array, mass: Array, gamma: Any, tol: Any) -> tuple[Array, Array]:
    """Strategies (k1, n), (k2, n) by the full rule, from every profile's value.

    Args:
        e0, e1: cells (k1, k2, n). mass: P(x, y), same shape.
        gamma, tol: scalars or (n,).
    """
    k1, k2, n = e1.shape
    f, g = _strategies(k1), _strategies(k2)
    most = max(1, PROFILES >> (k1 + k2))
    parts = [slice(lo, lo + most) for lo in range(0, n, most)]
    gamma, tol = np.broadcast_to(gamma, (n,)), np.broadcast_to(tol, (n,))
    found = [_largest(f, g, e0[..., p], e1[..., p], mass[..., p], gamma[p], tol[p]) for p in parts]
    choice = np.concatenate(found) if found else np.zeros(0, np.int64)
    return f[choice >> k2].T > 0, g[choice & ((1 << k2) - 1)].T > 0


def select_private(e0: Any, e1: Any, gamma: Any, tol: Any, mass: Any) -> tuple[Any, Any, Any, Any]:
    """:func:`private` with its ties broken; mass: P(x, y). numpy only."""
    f, g, potential, tied = private(e0, e1, gamma, tol)
    if tied.any():
        gamma, tol = (np.broadcast_to(v, tied.shape)[tied] for v in (gamma, tol))
        cells = [
            np.array([[np.broadcast_to(v, tied.shape)[tied] for v in row] for row in rows])
            for rows in (e0, e1, mass)
        ]
        fixed = break_ties(cells[0], cells[1], cells[2], gamma, tol)
        for actions, right in zip((*f, *g), (*fixed[0], *fixed[1]), strict=True):
            actions[tied] = right
    return f, g, potential, tied


def settle(potential: Any, e0: Any, e1: Any, f: Any, g: Any) -> tuple[Any, Any]:
    """u1 and u2 of strategies, from their potential.

    What a profile pays firm 1 is its potential less E[e(a2, t)], firm 2's worth without rivalry.
    """
    gain = [[v1 - v0 for v0, v1 in zip(*r, strict=True)] for r in zip(e0, e1, strict=True)]
    base = potential - total(v0 for row in e0 for v0 in row)
    worth_1 = total(a * total(row) for a, row in zip(f, gain, strict=True))
    worth_2 = total(a * total(c) for a, c in zip(g, zip(*gain, strict=True), strict=True))
    return base - worth_2, base - worth_1


def total(values: Iterable[Any]) -> Any:
    """Their sum, from left to right."""
    found: Any = reduce(add, values)
    return found


def _strategies(k: int) -> Array:
    """Every strategy on k signals, (2^k, k), in the order of counting (signal 0 slowest)."""
    bits: Array = np.arange(1 << k)[:, None] >> np.arange(k)[::-1] & 1
    return bits.astype(np.float64)


def _largest(
    f: Array, g: Array, e0: Array, e1: Array, mass: Array, gamma: Array, tol: Array
) -> Array:
    """Index (n,) into f x g of the profile that is first in the lexicographic rule."""
    alone, against = e1 - gamma * e0, (1 - gamma) * e0
    crowd = np.einsum("fx,xyn->fyn", f, (1 - gamma) * (e0 + e1))
    both = np.einsum("gy,fyn->fgn", g, crowd)

    def profile(of_1: Array, of_2: Array) -> Any:
        return (f @ of_1.sum(1))[:, None] + (g @ of_2.sum(0))[None]

    potential = profile(alone, alone) - both
    u1, u2 = profile(alone, against) - both, profile(against, alone) - both
    left = np.ones(potential.shape, np.bool_)
    orders = ((potential, tol), (u1, tol), (-profile(mass, mass), TIES), (u2, tol))
    for values, slack in orders:
        best = np.where(left, values, -np.inf).max((0, 1))
        left &= values >= best - slack
    choice: Array = left.reshape(-1, left.shape[2]).argmax(0)
    return choice
