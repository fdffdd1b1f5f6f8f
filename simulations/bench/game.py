"""Points, normal forms and episodes a second of the contract game's solvers, as ratios.

Each solver's answers are compared with the slowest and plainest one's, an enumeration in Python;
a row that disagrees by more than 1e-12 is void. Repeats take turns, so that a busy machine slows
all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, final

import numpy as np

from parties.exchange import Array
from server.game import dominance as exact
from server.game.episodes import play_episodes
from server.game.fast import Solved, play_tables, solve_correlation
from server.game.four import correlation_tables
from server.game.settings import correlation
from server.game.solve import payoffs, solve
from simulations.bench.row import Row, add_count

AGREE = 1e-12
NAIVE = 100  # points the enumeration in Python is timed on
FORMS = 40  # normal forms that other packages solve
EPISODES = 2_000_000
GAMMA = 0.5


@final
@dataclass(frozen=True)
class Solver:
    """One solver: what it is called, how much it does at a time, and whether its answers hold."""

    name: str
    count: int
    run: Callable[[], Any]
    holds: Callable[[Any], bool]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--points", 200_000, "random markets to solve", least=100)
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile (minutes)")
    add_count(parser, "--repeats", 5, "in which solvers take turns")


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row a solver, printed: best and median a second, ratio to the plainest one, agreement."""
    repeats = chosen.repeats
    points = _points(chosen.points, compiled=not chosen.no_compile)
    told = _rows("Points a second (two worlds, four contracts)", points, repeats)
    told += _rows("1000 x 1000 map", [_map()], repeats)
    forms, absent = _forms()
    told += _rows("No-sharing games a second (4 x 4 normal forms)", forms, repeats)
    for name in absent:
        print(f"  {name:16} not installed")
    return told + _rows("Episodes a second", [_episodes()], repeats)


def _rows(title: str, solvers: list[Solver], repeats: int) -> list[Row]:
    told = list[Row]()
    print(f"{title}, {repeats} alternated repeats")
    ready = []
    for row in solvers:
        # The first call loads and compiles; it is told apart, and its answer is the one checked.
        started = time.perf_counter()
        try:
            holds = row.holds(row.run())
        except Exception as fault:
            print(f"  {row.name:16} void: {type(fault).__name__}: {str(fault).splitlines()[:1]}")
            told.append(Row(title, row.name, (), "/s", void=type(fault).__name__))
            continue
        if holds:
            ready.append((row, time.perf_counter() - started))
        else:
            print(f"  {row.name:16} void: its answers differ")
            told.append(Row(title, row.name, (), "/s", void="its answers differ"))
    seconds: dict[str, list[float]] = {row.name: [] for row, _ in ready}
    for _, (row, _) in product(range(repeats), ready):
        started = time.perf_counter()
        row.run()
        seconds[row.name].append(time.perf_counter() - started)
    for row, first in ready:
        mine = seconds[row.name]
        rates = [row.count / s for s in mine]
        line = (
            f"  {row.name:16} {max(rates):12,.0f} /s best {statistics.median(rates):12,.0f} median"
        )
        base = ready[0][0]
        ratios = [rate * s / base.count for rate, s in zip(rates, seconds[base.name], strict=True)]
        told.append(Row(title, row.name, tuple(rates), "/s"))
        if row is not base:
            told[-1] = replace(told[-1], ratios=tuple(ratios), beside=base.name)
            line += f"  {statistics.median(ratios):9,.1f} x {base.name}"
            line += f" [{min(ratios):,.1f} to {max(ratios):,.1f}]"
        print(f"{line}  ({min(mine):.2f} s; first call {first:.1f} s)")
    return told


def _market(points: int) -> tuple[Array, ...]:
    """Random accuracies, P(both right) in two worlds, and costs."""
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.5, 0.99, points)
    beta = rng.uniform(0.5, alpha)
    return alpha, beta, np.stack([alpha * beta, beta], axis=1), rng.uniform(0.2, 4.0, points)


def _solve(market: tuple[Array, ...], **options: Any) -> Solved:
    alpha, beta, rho, cost = market
    return solve_correlation(alpha, beta, rho, [0.5, 0.5], 0, 1, 0, cost, GAMMA, **options)


def _points(points: int, compiled: bool) -> list[Solver]:
    market = _market(points)
    few = min(points, NAIVE)
    part = tuple(v[:few] for v in market)
    plain = _enumerate(part)
    whole = _solve(market).payoffs

    def agrees(found: Solved) -> bool:
        first = np.abs(found.payoffs[:, :, :few] - plain).max() <= AGREE
        return bool(first and np.abs(found.payoffs - whole).max() <= AGREE)

    def fast(name: str, **options: Any) -> Solver:
        return Solver(name, points, lambda: _solve(market, **options), agrees)

    rows = [
        Solver("python", few, lambda: _enumerate(part), lambda found: np.array_equal(found, plain)),
        Solver(
            "exact fractions",
            few,
            lambda: _exact(part),
            lambda found: bool(np.abs(found - plain).max() <= AGREE),
        ),
        fast("numpy"),
        fast("torch", backend="torch"),
    ]
    if compiled:
        rows.append(fast("torch.compile", backend="torch", compiled=True))
    return rows


def _exact(market: tuple[Array, ...]) -> Array:
    """Payoffs (4, 2, n) in rational arithmetic, from the same numbers as exact binary fractions."""
    half, found = Fraction(1, 2), []
    for alpha, beta, rho, cost in zip(*market, strict=True):
        worlds = [(half, _bounded(alpha, beta, r)) for r in rho]
        setting = correlation(Fraction(alpha), Fraction(beta), worlds, (0, 1), (0, Fraction(cost)))
        solved = exact.Solved(setting)
        found.append([[float(u) for u in solved.payoffs(name)] for name in solved.games])
    return np.moveaxis(np.array(found), 0, 2)


def _bounded(alpha: float, beta: float, rho: float) -> Fraction:
    """Rounding may have put P(both right) outside what the accuracies allow."""
    a, b = Fraction(alpha), Fraction(beta)
    return min(max(Fraction(rho), a + b - 1, Fraction(0)), a, b)


def _map() -> Solver:
    axis = np.linspace(0.0, 1.0, 1000)
    alpha, cost = (v.ravel() for v in np.meshgrid(0.7 + 0.29 * axis, 0.2 + 3.8 * axis))
    beta = np.full(alpha.shape, 0.7)
    market = (alpha, beta, np.stack([alpha * beta, beta], axis=1), cost)
    rng = np.random.default_rng(1).integers(0, len(alpha), NAIVE)
    plain = _enumerate(tuple(v[rng] for v in market))
    return Solver(
        "numpy",
        len(alpha),
        lambda: _solve(market),
        lambda found: bool(np.abs(found.payoffs[:, :, rng] - plain).max() <= AGREE),
    )


def _forms() -> tuple[list[Solver], list[str]]:
    """The no-sharing game as a normal form: what other packages are made for."""
    alpha, beta, rho, cost = _market(FORMS)
    low, high, _ = correlation_tables(alpha, beta, rho[:, :1].T, np.ones((1, 1)))[0]
    tables = np.moveaxis(np.array([low, high]), 3, 0)
    loan = [np.array([[0.0, 0.0], [-c, 1.0]]) for c in cost]
    bimatrices = [_bimatrix(t, e) for t, e in zip(tables, loan, strict=True)]
    ours = np.array(
        [
            payoffs(t, solve(t, e, GAMMA, False)[0], e, GAMMA)
            for t, e in zip(tables, loan, strict=True)
        ]
    )
    many = np.repeat(tables, 2500, axis=0)

    def lists_ours(found: list[Array]) -> bool:
        """Others list every equilibrium: the selected one must be among them."""
        near = [
            np.abs(np.reshape(v, (-1, 2)) - u).max(1).min()
            for v, u in zip(found, ours, strict=True)
        ]
        return bool(max(near) < 1e-9)

    def batch() -> Array:
        return play_tables(many, many, loan[0], GAMMA, False)[0]

    def same(found: Array) -> bool:
        maps = [solve(t, loan[0], GAMMA, False)[0] for t in tables]
        exact = [payoffs(t, m, loan[0], GAMMA) for t, m in zip(tables, maps, strict=True)]
        return bool(np.abs(found[:, ::2500].T - exact).max() <= AGREE)

    rows: list[Solver] = []
    absent: list[str] = []
    for name, run in (("nashpy", _nashpy), ("pygambit", _pygambit)):
        try:
            import_module(name)
        except ImportError:
            absent.append(name)
        else:
            rows.append(Solver(name, FORMS, partial(run, bimatrices), lists_ours))
    rows.append(
        Solver(
            "one at a time",
            FORMS,
            lambda: [_alone(t, e) for t, e in zip(tables, loan, strict=True)],
            lists_ours,
        )
    )
    return [*rows, Solver("numpy, a batch", len(many), batch, same)], absent


def _alone(table: Array, payoff: Array) -> Array:
    return payoffs(table, solve(table, payoff, GAMMA, False)[0], payoff, GAMMA)


def _bimatrix(table: Array, payoff: Array) -> tuple[Array, Array]:
    """u1 and u2, (4, 4), of each pair of strategies."""
    strategies = list(product((0, 1), repeat=2))
    both = np.zeros((2, 4, 4))
    for (i, f), (j, g) in product(enumerate(strategies), repeat=2):
        maps = (np.repeat(np.array(f)[:, None], 2, 1), np.repeat(np.array(g)[None], 2, 0))
        both[:, i, j] = payoffs(table, maps, payoff, GAMMA)
    return both[0], both[1]


def _nashpy(games: list[tuple[Array, Array]]) -> list[Array]:
    nash = import_module("nashpy")
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of games with an even number of equilibria
        for a, b in games:
            equilibria = nash.Game(a, b).support_enumeration()
            found.append(np.array([[x @ a @ y, x @ b @ y] for x, y in equilibria]))
    return found


def _pygambit(games: list[tuple[Array, Array]]) -> list[Array]:
    gambit = import_module("pygambit")
    found = []
    for a, b in games:
        game = gambit.Game.from_arrays(a, b)
        equilibria = gambit.nash.enumpure_solve(game, rational=False).equilibria
        found.append(np.array([[float(e.payoff(p)) for p in game.players] for e in equilibria]))
    return found


def _episodes() -> Solver:
    alpha, beta, rho, _ = (v[:1] for v in _market(1))
    low, high, _ = correlation_tables(alpha, beta, rho[:, :1].T, np.ones((1, 1)))[0]
    table, loan = np.array([low, high])[..., 0], np.array([[0.0, 0.0], [-1.0, 1.0]])
    maps = solve(table, loan, GAMMA, False)[0]
    exact = payoffs(table, maps, loan, GAMMA)
    return Solver(
        "numpy",
        EPISODES,
        lambda: play_episodes(table, maps, loan, GAMMA, EPISODES, np.random.default_rng(0)),
        lambda found: bool((np.abs(found.mean - exact) <= 5 * found.error).all()),
    )


def _enumerate(market: tuple[Array, ...]) -> Array:
    """Payoffs (4, 2, n) by the definition, in plain Python: every profile, one after another."""
    found = []
    for alpha, beta, rhos, cost in zip(*(v.tolist() for v in market), strict=True):
        tables = []
        for rho in (0.5 * rhos[0] + 0.5 * rhos[1], *rhos):
            none, only_1, only_2 = 1 - alpha - beta + rho, alpha - rho, beta - rho
            high = ((none, only_2), (only_1, rho))
            low = ((rho, only_1), (only_2, none))
            tables.append([(low[x][y] / 2, high[x][y] / 2, x, y) for x in (0, 1) for y in (0, 1)])
        point = []
        for component in (_private, _shared):
            mean, one, two = (component(table, cost) for table in tables)
            point += [mean, [(u + v) / 2 for u, v in zip(one, two, strict=True)]]
        found.append(point)
    return np.moveaxis(np.array(found), 0, 2)


def _private(table: list[Any], cost: float) -> tuple[float, float]:
    strategies = list(product((0, 1), repeat=2))
    return _first(
        [
            _play([(p, q, f[x], g[y]) for p, q, x, y in table], cost)
            for f in strategies
            for g in strategies
        ]
    )


def _shared(table: list[Any], cost: float) -> tuple[float, float]:
    pairs = list(product((0, 1), repeat=2))
    cells = [_first([_play([(p, q, a, b)], cost) for a, b in pairs]) for p, q, _, _ in table]
    return sum(u for u, _ in cells), sum(v for _, v in cells)


def _play(cells: list[Any], cost: float) -> tuple[float, float, float, float]:
    """Potential, u1, expected plays of action 1 (less), u2 of the actions in some cells."""
    potential = u1 = u2 = plays = 0.0
    for p, q, a, b in cells:
        worth = q - cost * p
        share = GAMMA if a == b else 1.0
        u1 += share * a * worth
        u2 += share * b * worth
        potential += (1 + GAMMA) * a * worth if a == b else worth
        plays += (a + b) * (p + q)
    return potential, u1, -plays, u2


def _first(profiles: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """u1 and u2 of the profile that is first in the selection rule."""
    for order in range(4):
        best = max(profile[order] for profile in profiles)
        profiles = [profile for profile in profiles if profile[order] >= best - AGREE]
    return profiles[0][1], profiles[0][3]
