"""The game where each firm tells its signal with noise (`parties.exchange.truthful`).

Nature draws (t, s1, s2) from the joint table, and each firm's told signal n_i from its true one. A
firm acts on its own true signal and on both told ones: it made the noise itself, so that it knows
what it told. The pair (n1, n2) is then common knowledge, and for each pair there is a game of its
own with private signals s1 and s2, on P(t, s1, s2 | n1, n2). These games are solved one by one as
the game of no-sharing is. Without noise (n_i = s_i) they are those of infer-sharing; with ever more
of it each comes ever nearer to the one game of no-sharing.

Axes are (t, s1, s2, n1, n2) for tables and (s1, s2, n1, n2) for action maps; firm 1's is constant
along s2, firm 2's along s1.
"""

from __future__ import annotations

import numpy as np

from parties.exchange import Array, truthful
from server.game import selection
from server.game.fast import play_tables
from server.game.selection import TIES

CELLS = 1 << 21  # of tables that are held at once


def channel(k: int, epsilon: float) -> Array:
    """P(told | true) of k signals, (k, k), by k-ary randomised response; no noise where epsilon
    is 0.

    >>> channel(2, np.log(3)).round(12).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    keep = truthful(epsilon, k)
    noise = np.full((k, k), (1 - keep) / max(k - 1, 1))
    np.fill_diagonal(noise, keep)
    return noise


def told_table(table: Array, epsilon: float) -> Array:
    """P(t, s1, s2, n1, n2) from P(t, s1, s2), (..., 2, k1, k2, k1, k2)."""
    one, two = (channel(k, epsilon) for k in table.shape[-2:])
    whole: Array = table[..., None, None] * one[:, None, :, None] * two[None, :, None, :]
    return whole


def turned(actions: Array) -> Array:
    """A firm's action map with its own signals first, from one with the rival's first."""
    return actions.transpose((1, 0, 3, 2) if actions.ndim == 4 else (1, 0))


def solve_told(table: Array, payoff: Array, gamma: float, epsilon: float) -> tuple[Array, Array]:
    """Both firms' action maps in the selected equilibrium of each pair's game.

    Args:
        table: what the firms believe, (2, k1, k2).
        payoff: e(action, class), (2, 2).
        gamma: share each firm keeps when both act alike, in [0, 1].
    """
    games, _ = _games(table[None], epsilon)
    e0, e1 = np.einsum("gtxy,at->axyg", games, payoff)
    mass = games.sum(1).transpose(1, 2, 0)
    tol = TIES * float(np.abs(payoff).max())
    f, g, *_ = selection.select_private(e0, e1, np.array([gamma]), tol, mass)
    k1, k2 = table.shape[1:]
    one, two = np.array(f).reshape(k1, 1, k1, k2), np.array(g).reshape(1, k2, k1, k2)
    first, second = np.broadcast_arrays(one, two)
    return first.astype(np.int64), second.astype(np.int64)


def myopic_told(table: Array, payoff: Array, epsilon: float) -> tuple[Array, Array]:
    """Each firm's best action for what it sees, as if it had no rival (ties: action 0)."""
    games, _ = _games(table[None], epsilon)
    gain = np.einsum("gtxy,t->xyg", games, payoff[1] - payoff[0])
    k1, k2 = table.shape[1:]
    one = (gain.sum(1) > TIES).reshape(k1, 1, k1, k2)
    two = (gain.sum(0) > TIES).reshape(1, k2, k1, k2)
    first, second = np.broadcast_arrays(one, two)
    return first.astype(np.int64), second.astype(np.int64)


def play_told(belief: Array, true: Array, payoff: Array, gamma: float, epsilon: float) -> Array:
    """Payoffs (2, n) where firms believe in tables `belief` and are paid on `true`.

    Both are (n, 2, k1, k2).
    """
    pairs = belief.shape[2] * belief.shape[3]
    some = max(1, CELLS // (2 * pairs**2))
    paid = []
    for low in range(0, len(belief), some):
        believed, _ = _games(belief[low : low + some], epsilon)
        games, mass = _games(true[low : low + some], epsilon)
        earned = play_tables(believed, games, payoff, gamma, shared_signals=False)[0]
        paid.append((earned * mass).reshape(2, -1, pairs).sum(2))
    return np.concatenate(paid, axis=1)


def _games(tables: Array, epsilon: float) -> tuple[Array, Array]:
    """P(t, s1, s2 | n1, n2), (n * pairs, 2, k1, k2), of tables (n, 2, k1, k2); and each P(n1, n2).

    A pair that is never told has the table itself.
    """
    k1, k2 = tables.shape[2:]
    whole = np.moveaxis(told_table(tables, epsilon), (4, 5), (1, 2)).reshape(-1, 2, k1, k2)
    mass = whole.sum((1, 2, 3))
    seen = mass > 0
    games = np.repeat(tables, k1 * k2, axis=0)
    games[seen] = whole[seen] / mass[seen, None, None, None]
    return games, mass
