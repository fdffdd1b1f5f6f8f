"""Pure equilibria of the two-firm game on one joint table, by enumeration, and their payoffs.

An *action map* is what a firm does for each pair of signals, shape (k1, k2) of 0 and 1. With
private signals firm 1's map is constant along axis 1 and firm 2's along axis 0.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from parties.exchange import Array

TIES = 1e-12


def payoffs(table: Array, maps: tuple[Array, Array], payoff: Array, gamma: float) -> Array:
    """Ex-ante payoffs (2,) of two action maps on a joint table (2, k1, k2).

    u_i = sum P(t, s1, s2) e(a_i, t) (gamma if a_1 = a_2 else 1), e = `payoff` (action, class).
    """
    one, two = maps
    share = np.where(one == two, gamma, 1.0)
    return np.array(
        [sum(float(np.sum(table[t] * share * payoff[a, t])) for t in (0, 1)) for a in (one, two)]
    )


def solve(
    table: Array, payoff: Array, gamma: float, shared: bool
) -> tuple[tuple[Array, Array], float]:
    """The selected equilibrium on `table`: both action maps and its potential.

    The game is an exact potential game, with E[e(a1,t) + e(a2,t)] where actions differ and
    (1 + gamma) E[e(a,t)] where they agree, so a pure equilibrium exists. Of several, the one with
    the largest potential is selected; ties go to the larger u1, then to fewer expected plays of
    action 1, then to the larger u2.

    Args:
        table: what the firms believe, (2, k1, k2).
        payoff: e(action, class), (2, 2).
        gamma: share each firm keeps when both act alike, in [0, 1].
        shared: both signals are common knowledge, else each firm sees its own only.
    """
    return _solve_shared(table, payoff, gamma) if shared else _solve_private(table, payoff, gamma)


def myopic(table: Array, payoff: Array, shared: bool) -> tuple[Array, Array]:
    """Each firm's best action for what it sees, as if it had no rival (ties: action 0)."""
    gain = np.einsum("txy,t->xy", table, payoff[1] - payoff[0])
    if shared:
        best = (gain > TIES).astype(np.int64)
        return best, best
    one = (gain.sum(1) > TIES).astype(np.int64)
    two = (gain.sum(0) > TIES).astype(np.int64)
    return np.repeat(one[:, None], len(two), 1), np.repeat(two[None, :], len(one), 0)


def _profile_values(mass: Array, payoff: Array, gamma: float) -> tuple[Array, Array, Array, Array]:
    """u1, u2, potential and expected plays of action 1, from mass (class, a1, a2, ...)."""
    share = np.array([[gamma, 1.0], [1.0, gamma]])
    u1, u2, potential, plays = (np.zeros(mass.shape[3:]) for _ in range(4))
    for one, two in product((0, 1), repeat=2):
        e1 = sum(mass[t, one, two] * payoff[one, t] for t in (0, 1))
        e2 = sum(mass[t, one, two] * payoff[two, t] for t in (0, 1))
        u1 = u1 + share[one, two] * e1
        u2 = u2 + share[one, two] * e2
        potential = potential + ((1 + gamma) * e1 if one == two else e1 + e2)
        plays = plays + (one + two) * mass[:, one, two].sum(0)
    return u1, u2, potential, plays


def _select(equilibria: Array, orders: tuple[Array, ...]) -> int:
    """Index of the equilibrium that is largest in each order in turn, up to ties."""
    left = np.flatnonzero(equilibria)
    for values in orders:
        kept = values.ravel()[left]
        left = left[kept >= kept.max() - TIES]
    return int(left[0])


def _solve_private(table: Array, payoff: Array, gamma: float) -> tuple[tuple[Array, Array], float]:
    k1, k2 = table.shape[1:]
    first = np.array(list(product((0, 1), repeat=k1)))
    second = np.array(list(product((0, 1), repeat=k2)))
    # mass[t, a1, a2, f1, f2]: probability that the class is t and the strategies act (a1, a2).
    mass = np.array(
        [
            [[(first == a) @ table[t] @ (second == b).T for b in (0, 1)] for a in (0, 1)]
            for t in (0, 1)
        ]
    )
    u1, u2, potential, plays = _profile_values(mass, payoff, gamma)
    stable = (u1 >= u1.max(0, keepdims=True) - TIES) & (u2 >= u2.max(1, keepdims=True) - TIES)
    best = _select(stable, (potential, u1, -plays, u2))
    one, two = np.unravel_index(best, stable.shape)
    maps = (np.repeat(first[one][:, None], k2, 1), np.repeat(second[two][None, :], k1, 0))
    return maps, float(potential.ravel()[best])


def _solve_shared(table: Array, payoff: Array, gamma: float) -> tuple[tuple[Array, Array], float]:
    k1, k2 = table.shape[1:]
    one, two = np.zeros((k1, k2), np.int64), np.zeros((k1, k2), np.int64)
    total = 0.0
    for x, y in product(range(k1), range(k2)):
        mass = np.zeros((2, 2, 2, 2, 2))
        for a, b in product((0, 1), repeat=2):
            mass[:, a, b, a, b] = table[:, x, y]
        u1, u2, potential, plays = _profile_values(mass, payoff, gamma)
        stable = (u1 >= u1.max(0, keepdims=True) - TIES) & (u2 >= u2.max(1, keepdims=True) - TIES)
        best = _select(stable, (potential, u1, -plays, u2))
        one[x, y], two[x, y] = np.unravel_index(best, (2, 2))
        total += float(potential.ravel()[best])
    return (one, two), total
