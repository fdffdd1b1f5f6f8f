"""Pure equilibria of the two-firm game on one joint table, by enumeration, and their payoffs.

An *action map* is what a firm does for each pair of signals, shape (k1, k2) of 0 and 1. With
private signals firm 1's map is constant along axis 1 and firm 2's along axis 0.
"""

from __future__ import annotations

import numpy as np

from parties.exchange import Array
from server.game import selection

TIES = selection.TIES


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
    e0, e1 = np.einsum("txy,at->axy", table, payoff)[..., None]
    tol = TIES * float(np.abs(payoff).max())
    if shared:
        one, two, u1, _ = selection.shared(e0, e1, np.array([gamma]), tol)
        first, second = np.array(one)[..., 0], np.array(two)[..., 0]
        # A profile's potential is what it pays firm 1 and what firm 2's actions are worth alone.
        potential = u1 + np.where(second, e1[..., 0], e0[..., 0]).sum()
    else:
        mass = table.sum(0)[..., None]
        f, g, potential, _ = selection.select_private(e0, e1, np.array([gamma]), tol, mass)
        first, second = np.broadcast_arrays(np.array(f), np.array(g).T)
    return (first.astype(np.int64), second.astype(np.int64)), float(potential[0])


def myopic(table: Array, payoff: Array, shared: bool) -> tuple[Array, Array]:
    """Each firm's best action for what it sees, as if it had no rival (ties: action 0)."""
    gain = np.einsum("txy,t->xy", table, payoff[1] - payoff[0])
    if shared:
        best = (gain > TIES).astype(np.int64)
        return best, best
    one = (gain.sum(1) > TIES).astype(np.int64)
    two = (gain.sum(0) > TIES).astype(np.int64)
    return np.repeat(one[:, None], len(two), 1), np.repeat(two[None, :], len(one), 0)
