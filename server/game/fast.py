"""The four contracts on many markets at once, in floating point (numpy, or torch when asked).

The exact engine says what is true of one market; this one draws maps of a million. It plays the
selected equilibrium (:mod:`server.game.selection`) and compares contracts ex ante. No- and
infer-sharing are played at the prior's mean table; under train- and full-sharing the firms know
the world, so these are played world by world and averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, final

import numpy as np

from parties.exchange import Array, FedpactError
from server.game import bounds, sight
from server.game.four import Outcome, correlation_tables, four_contracts
from server.game.selection import TIES, select_private, shared, total

CONTRACTS = tuple(sight.CONTRACTS)
CHUNK = 3 << 16  # numbers at a time: enough to hide a call's cost, few enough for the cache
TORCH_CHUNK = 1 << 14  # points at a time on the cpu; an accelerator takes 2^20


@final
@dataclass(frozen=True)
class Solved:
    """What the four contracts are worth at n points, in the order of `CONTRACTS`.

    c dominates d iff both firms' payoffs are at least as high, strictly iff not conversely too.
    Payoffs within 1e-12 of the largest reward or cost are equal, and those of contracts that play
    the same in every world are equal to the last bit.

    Args:
        payoffs: expected payoffs of firms 1 and 2 before anything is seen, (4, 2, n).
        trade: P(at least one firm plays action 1), (4, n).
        ir: no-sharing, or dominates it, (4, n).
        pareto_optimal: no contract strictly dominates it, (4, n).
        tie: a payoff differs from another contract's by less than 1e-9 of the largest reward or
            cost although they play differently, (n,): ask the exact engine there.
    """

    payoffs: Array
    trade: Array
    ir: Array
    pareto_optimal: Array
    tie: Array

    @property
    def irpo(self) -> Array:
        """Individually rational and Pareto-optimal, (4, n)."""
        return self.ir & self.pareto_optimal

    @property
    def transfer(self) -> Array:
        """Least and largest side payment from firm 2 to firm 1, (4, 2, n).

        Within them both are at least as well off as under no-sharing; there is none where the
        least is more than the largest.
        """
        no = self.payoffs[0]
        return np.stack([no[0] - self.payoffs[:, 0], self.payoffs[:, 1] - no[1]], axis=1)


def solve_correlation(
    alpha: Any,
    beta: Any,
    rho: Any,
    weight: Any,
    R0: Any,
    R1: Any,
    C0: Any,
    C1: Any,
    gamma: Any,
    *,
    backend: str = "numpy",
    device: str = "cpu",
    compiled: bool = False,
) -> Solved:
    """All four contracts where accuracies are known and the correlation is not; P(t=1) = 1/2.

    Args:
        alpha, beta: P(s1 = t), P(s2 = t), scalars or (n,), as all others but:
        rho: P(both right) in each world, (W,) or (n, W).
        weight: the worlds' prior, (W,) or (n, W).
        R0, R1, C0, C1: what action a earns if right and loses if wrong, >= 0.
        gamma: share of a payoff that each keeps when both firms act alike.
        backend: "numpy" or "torch", the latter on `device`, fused by torch.compile if `compiled`.

    Raises:
        FedpactError: a value is out of its bounds, or lengths differ.

    References:
        Gafni, Gradwohl, Tennenholtz, arXiv 2403.17515, section 4.

    >>> s1 = solve_correlation(0.8, 0.7, 0.56, 1, R0=0, R1=1, C0=0, C1=1, gamma=0.5)
    >>> s1.payoffs[:, :, 0].round(3).tolist()
    [[0.175, 0.075], [0.175, 0.075], [0.15, 0.15], [0.15, 0.15]]
    >>> s1.transfer[3, :, 0].round(3).tolist()
    [0.025, 0.075]
    """
    names = ("alpha", "beta", "rho", "weight", "R0", "R1", "C0", "C1", "gamma")
    given = (alpha, beta, rho, weight, R0, R1, C0, C1, gamma)
    values: list[Any] = [
        bounds.numbers(value, name, 2 if name in ("rho", "weight") else 1)
        for name, value in zip(names, given, strict=True)
    ]
    bounds.correlation(dict(zip(names, values, strict=True)))
    if not values[4].any() and not values[6].any():
        values[4] = values[6] = None
    if backend == "torch":
        run, chunk = _torch(_correlation, device, compiled)
    elif backend == "numpy" and device == "cpu" and not compiled:
        run, chunk = None, _chunk(values[2].shape[1] + 1, 2, 2)
    else:
        raise FedpactError(
            f"backend={backend!r} with device={device!r}, compiled={compiled}; legal are numpy "
            "(on the cpu, not compiled) and torch. Set backend='torch' for another device."
        )
    return _solve(_correlation, values, chunk, run)


def solve_tables(tables: Any, weights: Any, payoff: Any, gamma: Any) -> Solved:
    """All four contracts on any joint tables: at the mean, and world by world.

    Args:
        tables: P(t, s1, s2) in each world, (n, W, 2, k1, k2), at most 8 x 8 signals.
        weights: the worlds' prior, (W,) or (n, W).
        payoff: e(action, class), (2, 2).
        gamma: as in :func:`solve_correlation`.
    """
    tables = bounds.tables(tables, "tables", 5)
    weight, share = bounds.numbers(weights, "weights", 2), bounds.numbers(gamma, "gamma", 1)
    bounds.prior("weights", weight, tables.shape[1])
    bounds.between("gamma", share, 0.0, 1.0)
    bounds.length({"tables": tables, "weights": weight, "gamma": share})
    entries: list[Any] = [np.array([e]) for e in bounds.payoff(payoff).ravel()]
    if not entries[0].any() and not entries[1].any():
        entries[:2] = None, None
    chunk = _chunk(tables.shape[1] + 1, *tables.shape[3:])
    return _solve(_given_tables, [tables, weight, *entries, share], chunk)


def play_tables(
    belief: Any, true: Any, payoff: Any, gamma: Any, shared_signals: bool
) -> tuple[Array, Array]:
    """Payoffs (2, n) and P(some firm plays action 1), (n,), when firms believe a wrong table.

    Args:
        belief: the tables whose selected equilibria are played, (n, 2, k1, k2).
        true: the tables they are paid on, same shape.
        payoff: e(action, class), (2, 2).
        gamma: as in :func:`solve_correlation`.
        shared_signals: both firms see both signals, else each its own only.
    """
    belief, true = bounds.tables(belief, "belief", 4), bounds.tables(true, "true", 4)
    share, entries = bounds.numbers(gamma, "gamma", 1), bounds.payoff(payoff)
    bounds.between("gamma", share, 0.0, 1.0)
    n = bounds.length({"belief": belief, "true": true, "gamma": share})
    tol = TIES * np.abs(entries).max()
    payoffs, trade = np.empty((2, n)), np.empty(n)
    for part in _parts(n, _chunk(1, *belief.shape[2:])):
        (b0, b1, bm), (t0, t1, tm) = (_cells(_cut(v, part), entries) for v in (belief, true))
        g = _cut(share, part)
        if shared_signals:
            acts = shared(b0, b1, g, tol)[:2]
        else:
            f, h, *_ = select_private(b0, b1, g, tol, bm)
            acts = [[a for _ in h] for a in f], [h for _ in f]
        one, two = map(np.array, acts)
        alike = one == two
        for paid, firm in zip(payoffs, (one, two), strict=True):
            earned = np.where(firm, t1, t0)
            paid[part] = np.where(alike, g * earned, earned).sum((0, 1))
        trade[part] = np.where(one | two, tm, 0.0).sum((0, 1))
    return payoffs, trade


def _correlation(values: list[Any], xp: Any, careful: bool) -> Outcome:
    """The contracts on the tables that m points' accuracies and correlations stand for."""
    alpha, beta, rho, weight, R0, R1, C0, C1, gamma = values
    tables = correlation_tables(alpha, beta, rho, weight)
    payoff = (R0, None if R0 is None else -C0, -C1, R1)
    return four_contracts(tables, weight, payoff, gamma, xp, careful)


def _given_tables(values: list[Any], xp: Any, careful: bool) -> Outcome:
    """The contracts on m points' own tables (m, W, 2, k1, k2)."""
    given, weight, *payoff, gamma = values
    worlds = np.ascontiguousarray(given.transpose(1, 2, 3, 4, 0))
    mean = total(w * world for w, world in zip(weight, worlds, strict=True))
    tables = [(low, high, low + high) for low, high in (mean, *worlds)]
    return four_contracts(tables, weight, tuple(payoff), gamma, xp, careful)


Kernel = Callable[[list[Any], Any, bool], Outcome]
Runner = Callable[[list[Any]], list[Array]]


def _solve(kernel: Kernel, values: list[Any], chunk: int, run: Runner | None = None) -> Solved:
    """Run `kernel` on chunks of points, and again, breaking ties, on the points that have any."""
    n = max(len(v) for v in values if v is not None)
    kinds = [((4, 2), float), ((4,), float), *[((4,), bool)] * 2, ((), bool)]
    found = [np.empty((*shape, n), kind) for shape, kind in kinds]
    unsettled = np.empty(n, np.bool_)
    for part in _parts(n, chunk):
        cut = [_cut(v, part) for v in values]
        outcome = run(cut) if run else kernel(cut, np, False)
        for whole, value in zip([*found, unsettled], outcome, strict=True):
            whole[..., part] = value
    again = np.flatnonzero(unsettled)
    for part in _parts(len(again), chunk):
        outcome = kernel([_cut(v, again[part]) for v in values], np, True)
        for whole, value in zip(found, outcome[:-1], strict=True):
            whole[..., again[part]] = value
    return Solved(*found)


def _torch(kernel: Kernel, device: str, compiled: bool) -> tuple[Runner, int]:
    """A runner of `kernel` on a torch device, and the points it takes at a time."""
    torch = import_module("torch")
    step = _compiled(kernel) if compiled else kernel

    def run(values: list[Any]) -> list[Array]:
        tensors = [
            None if v is None else torch.from_numpy(np.ascontiguousarray(v)).to(device)
            for v in values
        ]
        return [v.cpu().numpy() for v in step(tensors, torch, False)]

    return run, TORCH_CHUNK if device.startswith("cpu") else 1 << 20


@cache
def _compiled(kernel: Kernel) -> Any:
    # One pass over memory: fused by at most 64 steps, the default, it takes twice as long.
    options = {"max_fusion_size": 1 << 20}
    return import_module("torch").compile(kernel, dynamic=True, options=options)


def _cells(tables: Array, payoff: Array) -> tuple[Array, Array, Array]:
    """E_0, E_1 and P(x, y), each (k1, k2, m), of tables (m, 2, k1, k2)."""
    low, high = np.ascontiguousarray(tables.transpose(1, 2, 3, 0))
    return (
        payoff[0, 0] * low + payoff[0, 1] * high,
        payoff[1, 0] * low + payoff[1, 1] * high,
        low + high,
    )


def _parts(n: int, chunk: int) -> Iterator[slice]:
    return (slice(lo, min(lo + chunk, n)) for lo in range(0, n, chunk))


def _cut(values: Any, index: Any) -> Any:
    """Some points' values, worlds first; one value that all points share stays one."""
    if values is None:
        return None
    part = values if len(values) == 1 else values[index]
    return np.ascontiguousarray(part.T) if part.ndim == 2 else part


def _chunk(tables: int, k1: int, k2: int) -> int:
    return max(1, CHUNK // (tables * k1 << k2))
