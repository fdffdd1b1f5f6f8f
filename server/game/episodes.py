"""Monte-Carlo play: every instance drawn, acted on and settled, to check the exact payoffs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from server.game import bounds

CHUNK = 1 << 14  # episodes at a time: their draws stay in the cache


@final
@dataclass(frozen=True)
class Episodes:
    """What many played instances came to.

    Args:
        mean: each firm's average payoff, (2,).
        error: its standard error, (2,).
        trade: share of instances in which some firm played action 1.
        episodes: how many were played.
        payoffs: each instance's payoffs, (2, episodes), where they were asked for.
    """

    mean: Array
    error: Array
    trade: float
    episodes: int
    payoffs: Array | None = None


def play_episodes(
    table: Array,
    maps: tuple[Array, Array],
    payoff: Array,
    gamma: float,
    episodes: int,
    rng: np.random.Generator,
    *,
    chunk: int = CHUNK,
    keep: bool = False,
) -> Episodes:
    """Draw instances (t, s1, s2) from a joint table, play two action maps on each, and settle.

    Firm i is paid e(a_i, t), and only gamma of it where both act alike.

    Args:
        table: P(t, s1, s2), (2, k1, k2).
        maps: what each firm does for each pair of signals, (k1, k2) of 0 and 1.
        payoff: e(action, class), (2, 2).
        gamma: share each firm keeps when both act alike.
        episodes: how many instances, >= 2.
        rng: where the instances come from.
        chunk: instances at a time; the result of a seed does not depend on it.
        keep: return each instance's payoffs too, 16 bytes an instance.

    >>> table = np.array([[[0.5]], [[0.5]]])
    >>> maps = (np.array([[1]]), np.array([[0]]))
    >>> payoff = np.array([[0.0, 0.0], [-1.0, 1.0]])
    >>> found = play_episodes(table, maps, payoff, 0.5, 1000, np.random.default_rng(0))
    >>> bool(abs(found.mean[0]) < 5 * found.error[0]), found.mean[1].item(), found.trade
    (True, 0.0, 1.0)
    """
    table = bounds.tables(table[None], "table", 4)[0]
    payoff = bounds.payoff(payoff)
    _check(maps, table.shape[1:], episodes, chunk)
    settled, acts = _cells(table, maps, payoff, gamma)
    # Cell c is drawn iff u is in [edges[c-1], edges[c]); the last edge is one, however it rounds.
    edges = np.cumsum(table.ravel())[:-1]
    draws, paid = np.empty(chunk), np.empty((2, chunk))
    mean, spread, some = np.zeros(2), np.zeros(2), 0
    kept = np.empty((2, episodes)) if keep else None
    for done in range(0, episodes, chunk):
        size = min(chunk, episodes - done)
        cells = np.searchsorted(edges, rng.random(out=draws[:size]), side="right")
        for values, into in zip(settled, paid, strict=True):
            values.take(cells, out=into[:size])
        here = paid[:, :size].mean(1)
        away = paid[:, :size] - here[:, None]
        step = here - mean
        # Chan, Golub and LeVeque (1979): means and squares of parts add up without cancellation.
        spread += (away**2).sum(1) + step**2 * (done * size / (done + size))
        mean = mean + step * (size / (done + size))
        some += int(np.count_nonzero(acts[cells]))
        if kept is not None:
            kept[:, done : done + size] = paid[:, :size]
    error = np.sqrt(spread / (episodes - 1) / episodes)
    return Episodes(mean, error, some / episodes, episodes, kept)


def _cells(
    table: Array, maps: tuple[Array, Array], payoff: Array, gamma: float
) -> tuple[Array, Array]:
    """Payoffs (2, cells) and whether some firm acts (cells,), in each cell (t, s1, s2)."""
    one, two = (np.broadcast_to(m, table.shape).astype(np.int64) for m in maps)
    label = np.arange(2)[:, None, None]
    share = np.where(one == two, gamma, 1.0)
    settled = np.array([(share * payoff[firm, label]).ravel() for firm in (one, two)])
    return settled, ((one | two) > 0).ravel()


def _check(maps: tuple[Array, Array], signals: tuple[int, ...], episodes: int, chunk: int) -> None:
    if any(np.shape(m) != signals or not np.isin(m, (0, 1)).all() for m in maps):
        raise FedpactError(
            f"the action maps have shapes {[np.shape(m) for m in maps]}; legal are two of shape "
            f"{signals} that hold 0 and 1. Take them from `solve`."
        )
    if episodes < 2 or chunk < 1:
        raise FedpactError(
            f"episodes={episodes}, chunk={chunk}; legal are >= 2 and >= 1. Two episodes are the "
            "fewest with a standard error."
        )
