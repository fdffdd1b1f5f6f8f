"""The fast path: golden rows, closed forms, an exact enumeration with ties, and played episodes."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parties.exchange import FedpactError
from server.game.episodes import play_episodes
from server.game.fast import CONTRACTS, Solved, play_tables, solve_correlation, solve_tables
from server.game.solve import solve

GOLDEN = json.loads((Path(__file__).parent / "golden" / "contracts.json").read_text())
ROWS = [row for row in GOLDEN if row["setting"] == "correlation"]
HALF = Fraction(1, 2)


# The definition, in exact arithmetic. A table is P[t][x][y]; e[a][t] is what action a earns.
def table_of(alpha: Fraction, beta: Fraction, rho: Fraction) -> Any:
    none = 1 - alpha - beta + rho
    high = [[none, beta - rho], [alpha - rho, rho]]
    low = [[rho, alpha - rho], [beta - rho, none]]
    return [[[p / 2 for p in row] for row in rows] for rows in (low, high)]


def paid(table: Any, one: Any, two: Any, e: Any, gamma: Any) -> tuple[Any, Any, Any, Any, Any]:
    """u1, u2, potential, expected plays of action 1, P(some firm plays it) of two maps [x][y]."""
    u1 = u2 = potential = plays = trade = 0
    cells = [(x, y) for x in range(len(one)) for y in range(len(one[0]))]
    for t, (x, y) in product((0, 1), cells):
        p, a, b = table[t][x][y], one[x][y], two[x][y]
        u1 += p * e[a][t] * (gamma if a == b else 1)
        u2 += p * e[b][t] * (gamma if a == b else 1)
        potential += p * ((1 + gamma) * e[a][t] if a == b else e[a][t] + e[b][t])
        plays += p * (a + b)
        trade += p * max(a, b)
    return u1, u2, potential, plays, trade


def selected(table: Any, e: Any, gamma: Any, shared: bool) -> Any:
    """Both firms' maps in the selected equilibrium: the first in the lexicographic order."""
    k1, k2 = len(table[0]), len(table[0][0])
    maps = ([[0] * k2 for _ in range(k1)], [[0] * k2 for _ in range(k1)])

    def order(one: Any, two: Any, of: Any) -> Any:
        u1, u2, potential, plays, _ = paid(of, one, two, e, gamma)
        return potential, u1, -plays, u2

    if not shared:
        profiles = [
            ([[a] * k2 for a in f], [list(g) for _ in f])
            for f, g in product(product((0, 1), repeat=k1), product((0, 1), repeat=k2))
        ]
        return max(profiles, key=lambda pair: order(*pair, table))
    for x, y in product(range(k1), range(k2)):
        cell = [[[table[t][x][y]]] for t in (0, 1)]
        pairs = product((0, 1), repeat=2)
        a, b = max(pairs, key=lambda pair: order([[pair[0]]], [[pair[1]]], cell))
        maps[0][x][y], maps[1][x][y] = a, b
    return maps


def exactly(worlds: Any, e: Any, gamma: Any) -> tuple[list[Any], set[str], set[str]]:
    """(u1, u2, trade) of each contract, IR and IRPO contracts, from (weight, table) pairs."""
    k1, k2 = len(worlds[0][1][0]), len(worlds[0][1][0][0])
    cells = list(product((0, 1), range(k1), range(k2)))
    mean = [[[0] * k2 for _ in range(k1)] for _ in (0, 1)]
    for (weight, table), (t, x, y) in product(worlds, cells):
        mean[t][x][y] += weight * table[t][x][y]
    values = []
    for shared, known in ((False, False), (False, True), (True, False), (True, True)):
        played = worlds if known else [(1, mean)]
        found = [(w, paid(t, *selected(t, e, gamma, shared), e, gamma)) for w, t in played]
        values.append([sum(w * v[i] for w, v in found) for i in (0, 1, 4)])

    def beats(c: int, d: int) -> bool:
        return values[c][0] >= values[d][0] and values[c][1] >= values[d][1]

    ir = {c for c in range(4) if c == 0 or beats(c, 0)}
    optimal = {c for c in range(4) if not any(beats(d, c) and not beats(c, d) for d in range(4))}
    return values, {CONTRACTS[c] for c in ir}, {CONTRACTS[c] for c in ir & optimal}


def names(flags: np.ndarray, point: int = 0) -> set[str]:
    return {name for name, holds in zip(CONTRACTS, flags[:, point], strict=True) if holds}


def assert_point(found: Solved, point: int, expected: tuple[list[Any], set[str], set[str]]) -> None:
    values, ir, irpo = expected
    for c, (u1, u2, trade) in enumerate(values):
        got = [*found.payoffs[c, :, point], found.trade[c, point]]
        np.testing.assert_allclose(got, [float(v) for v in (u1, u2, trade)], rtol=0, atol=1e-12)
    assert (names(found.ir, point), names(found.irpo, point)) == (ir, irpo)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_golden_rows_come_out(row: dict[str, Any]) -> None:
    p = row["params"]
    R, C = [list(map(float, map(Fraction, p[k]))) for k in "RC"]
    rho, weight = ([float(Fraction(w[k])) for w in p["worlds"]] for k in ("rho", "weight"))
    alpha, beta, gamma = (float(Fraction(p[k])) for k in ("alpha", "beta", "gamma"))
    found = solve_correlation(alpha, beta, rho, weight, *R, *C, gamma)
    for c, contract in enumerate(CONTRACTS):
        expected = [float(Fraction(v)) for v in row["payoffs"][contract]]
        np.testing.assert_allclose(found.payoffs[c, :, 0], expected, rtol=0, atol=1e-12)
        trade = float(Fraction(row["trade_probability"][contract]))
        assert found.trade[c, 0] == pytest.approx(trade, abs=1e-12)
    assert names(found.ir) == set(row["ir"]["selected_ex_ante"])
    assert names(found.irpo) == set(row["irpo"]["selected_ex_ante"])


@cache
def exact_points() -> tuple[list[Any], list[Any]]:
    """Points on coarse grids, full of ties, and the exact answers."""
    rng = np.random.default_rng(7)
    points, answers = [], []
    for i in range(120):
        alpha, beta = (Fraction(int(k), 20) for k in rng.integers(10, 21, 2))
        if i % 4 == 0:
            beta = alpha
        low, high = max(Fraction(0), alpha + beta - 1), min(alpha, beta)
        rho = [low + (high - low) * Fraction(int(k), 4) for k in rng.integers(0, 5, 2)]
        if i % 5 == 0:
            rho = [low, high]
        weight = Fraction(int(rng.integers(0, 5)), 4)
        R, C = [Fraction(int(k), 2) for k in (0, rng.integers(1, 4))], [Fraction(0)] * 2
        C[1] = Fraction(int(rng.integers(0, 7)), 2)
        if i % 3 == 0:  # matching, and anything
            R, C = ([Fraction(1)] * 2, C) if i % 2 else ([HALF, Fraction(1)], [HALF, C[1]])
            C = C if i % 2 == 0 else [Fraction(0)] * 2
        gamma = (Fraction(0), HALF, Fraction(1), Fraction(1, 4), HALF)[i % 5]
        worlds = [
            (w, table_of(alpha, beta, r)) for w, r in zip((weight, 1 - weight), rho, strict=True)
        ]
        answers.append(exactly(worlds, [[R[0], -C[0]], [-C[1], R[1]]], gamma))
        points.append((alpha, beta, rho, (weight, 1 - weight), *R, *C, gamma))
    return points, answers


def solve_points(points: list[Any], **options: Any) -> Solved:
    columns = [np.array(column, np.float64) for column in zip(*points, strict=True)]
    return solve_correlation(*columns, **options)


def test_every_tie_comes_out_as_in_exact_arithmetic() -> None:
    points, answers = exact_points()
    found = solve_points(points)
    for point, expected in enumerate(answers):
        assert_point(found, point, expected)


def test_torch_answers_as_numpy_does() -> None:
    points, _ = exact_points()
    expected, found = solve_points(points), solve_points(points, backend="torch")
    np.testing.assert_allclose(found.payoffs, expected.payoffs, rtol=0, atol=1e-12)
    for name in ("ir", "pareto_optimal", "irpo", "tie"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = exact_points()
    expected = solve_points(points)
    monkeypatch.setattr("server.game.fast.CHUNK", 24 * 7)
    found = solve_points(points)
    for name in ("payoffs", "trade", "ir", "irpo", "transfer", "tie"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def loans(n: int) -> tuple[np.ndarray, ...]:
    """Random alpha >= beta >= 1/2, rho (n, 2), weight (n, 2), costs and gamma."""
    rng = np.random.default_rng(3)
    alpha = rng.uniform(0.5, 1, n)
    beta = rng.uniform(0.5, alpha)
    rho = (alpha + beta - 1)[:, None] + rng.random((n, 2)) * (1 - alpha)[:, None]
    first = rng.random(n)
    weight = np.stack([first, 1 - first], axis=1)
    return alpha, beta, rho, weight, rng.uniform(0.2, 4, n), rng.uniform(0.5, 1, n)


def test_random_points_equal_the_closed_forms() -> None:
    alpha, beta, rho, weight, cost, gamma = loans(4000)
    found = solve_correlation(alpha, beta, rho, weight, 0, 1, 0, cost, gamma)
    mean = (rho * weight).sum(1)

    def cells(r: np.ndarray) -> np.ndarray:
        none, only_1, only_2 = 1 - alpha - beta + r, alpha - r, beta - r
        pairs = ((r, none), (only_1, only_2), (only_2, only_1), (none, r))
        return np.array([win - cost * lose for win, lose in pairs])  # W11, W10, W01, W00

    def seen(r: np.ndarray) -> np.ndarray:
        return gamma / 2 * np.maximum(cells(r), 0).sum(0)

    full = sum(weight[:, w] * seen(rho[:, w]) for w in (0, 1))
    for firm in (0, 1):
        np.testing.assert_allclose(found.payoffs[2, firm], seen(mean), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.payoffs[3, firm], full, rtol=0, atol=1e-12)
    # Acting on everything loses where R <= C; there a listed equilibrium is the selected one. (At
    # C = .93, R = 1, accuracies .52 it is not: both act always, with more potential, less payoff.)
    w11, w10, w01, w00 = cells(mean)
    u1, u2 = (w10 + gamma * w11) / 2, (w01 + gamma * w11) / 2
    both = (u1 > 0) & (u2 > 0) & (gamma * w01 + w00 < 0) & (gamma * w10 + w00 < 0)
    out = (w01 + gamma * w11 < 0) & (gamma * w10 + w00 < 0) & (w11 + w10 > 0)
    out &= 1 - alpha < cost * alpha
    both, out = both & (cost > 1), out & (cost > 1)
    assert (both.sum() > 500, out.sum() > 500, (both & out).any()) == (True, True, False)
    np.testing.assert_allclose(found.payoffs[0, 0, both], u1[both], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.payoffs[0, 1, both], u2[both], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.payoffs[0, 0, out], (w11 + w10)[out] / 2, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.payoffs[0, 1, out], 0, atol=1e-12)


def test_contracts_that_play_the_same_pay_the_same_to_the_last_bit() -> None:
    alpha, beta, rho, weight, cost, gamma = loans(2000)
    one_world = solve_correlation(alpha, beta, rho[:, :1], 1, 0, 1, 0, cost, gamma)
    assert np.array_equal(one_world.payoffs[0], one_world.payoffs[1])
    assert np.array_equal(one_world.payoffs[2], one_world.payoffs[3])
    low, high = one_world.transfer[1].T.T
    assert np.array_equal(low, np.zeros(2000))
    assert np.array_equal(high, np.zeros(2000))
    two_worlds = solve_correlation(alpha, beta, rho, weight, 0, 1, 0, cost, gamma)
    equal = (two_worlds.payoffs[0] == two_worlds.payoffs[1]).all(0)
    assert equal.mean() > 0.5


def test_a_comparison_floats_cannot_vouch_for_is_told() -> None:
    def gain(cost: float) -> tuple[float, bool]:
        found = solve_correlation(0.7, 0.6, 0.42, 1, 0, 1, 0, cost, 0.5)
        return float(found.payoffs[2, 0, 0] - found.payoffs[0, 0, 0]), bool(found.tie[0])

    low, high = 1.0, 3.0
    assert gain(low)[0] < 0 < gain(high)[0]
    for _ in range(60):  # to the cost at which firm 1 is as well off with predictions as without
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle)[0] < 0 else (low, middle)
    assert [gain(low + step)[1] for step in (-1e-3, 0, 1e-3)] == [False, True, False]


ACCURACY = st.floats(0.5, 0.99)


@settings(max_examples=60)
@given(ACCURACY, ACCURACY, st.floats(0, 1), st.floats(0.2, 4), st.floats(0.01, 0.99))
def test_relabelling_firms_relabels_payoffs(
    alpha: float, beta: float, theta: float, cost: float, gamma: float
) -> None:
    low, high = alpha + beta - 1, min(alpha, beta)
    rho = [low + theta * (high - low), high]
    here = solve_correlation(alpha, beta, rho, [0.5, 0.5], 0, 1, 0, cost, gamma)
    there = solve_correlation(beta, alpha, rho, [0.5, 0.5], 0, 1, 0, cost, gamma)
    assume(abs(alpha - beta) > 1e-9)  # equal firms tie, and the rule names firm 1
    np.testing.assert_allclose(here.payoffs, there.payoffs[:, ::-1], rtol=0, atol=1e-12)


@settings(max_examples=60)
@given(
    ACCURACY,
    st.floats(0, 0.4),
    st.floats(0, 1),
    st.floats(0.2, 4),
    st.floats(0, 1),
    st.floats(0.1, 9),
)
def test_scaling_rewards_and_costs_scales_payoffs(
    alpha: float, gap: float, theta: float, cost: float, gamma: float, scale: float
) -> None:
    beta = max(0.5, alpha - gap)
    rho = alpha + beta - 1 + theta * (1 - alpha)
    plain = solve_correlation(alpha, beta, rho, 1, 0, 1, 0, cost, gamma)
    scaled = solve_correlation(alpha, beta, rho, 1, 0, scale, 0, scale * cost, gamma)
    np.testing.assert_allclose(scaled.payoffs, scale * plain.payoffs, rtol=0, atol=1e-11)


# Nothing, or not so little that floats could not hold it against the others.
STAKE = st.just(0.0) | st.floats(1e-3, 4)


@settings(max_examples=60)
@given(ACCURACY, ACCURACY, st.floats(0, 1), STAKE, STAKE, STAKE)
def test_without_rivalry_seeing_more_never_hurts(
    alpha: float, beta: float, theta: float, cost: float, R0: float, C0: float
) -> None:
    low, high = alpha + beta - 1, min(alpha, beta)
    rho = [low + theta * (high - low), low]
    found = solve_correlation(alpha, beta, rho, [0.3, 0.7], R0, 1, C0, cost, 1)
    assert (found.payoffs[2:] >= found.payoffs[0] - 1e-12).all()
    assert {"infer_sharing", "full_sharing"} <= names(found.ir)


def test_any_tables_equal_exact_enumeration() -> None:
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 6, (8, 2, 2, 3, 3))
    counts[:, :, 0, 0, 0] += 1
    weight, gamma = Fraction(1, 4), Fraction(3, 4)
    e = [[Fraction(0), Fraction(0)], [Fraction(-3, 2), Fraction(1)]]
    tables = counts / counts.sum((2, 3, 4), keepdims=True)
    payoff = np.array(e, np.float64)
    found = solve_tables(tables, [0.25, 0.75], payoff, 0.75)
    for point, given_ in enumerate(counts):
        worlds = []
        for w, table in zip((weight, 1 - weight), given_, strict=True):
            n = int(table.sum())
            worlds.append((w, [[[Fraction(int(c), n) for c in r] for r in rows] for rows in table]))
        assert_point(found, point, exactly(worlds, e, gamma))


def test_tables_and_correlations_are_two_ways_to_the_same_market() -> None:
    alpha, beta, rho, weight, _, gamma = loans(200)
    tables = np.array(
        [
            [table_of(a, b, r) for r in rs]  # type: ignore[arg-type]
            for a, b, rs in zip(alpha, beta, rho, strict=True)
        ]
    )
    expected = solve_correlation(alpha, beta, rho, weight, 0.5, 1, 0.25, 1.5, gamma)
    found = solve_tables(tables, weight, [[0.5, -0.25], [-1.5, 1]], gamma)
    np.testing.assert_allclose(found.payoffs, expected.payoffs, rtol=0, atol=1e-12)
    assert np.array_equal(found.irpo, expected.irpo)
    for shared in (False, True):
        payoffs, trade = play_tables(
            tables[:, 0], tables[:, 0], [[0.5, -0.25], [-1.5, 1]], gamma, shared
        )
        one = solve_tables(tables[:, :1], [1.0], [[0.5, -0.25], [-1.5, 1]], gamma)
        np.testing.assert_allclose(payoffs, one.payoffs[2 * shared], rtol=0, atol=1e-12)
        np.testing.assert_allclose(trade, one.trade[2 * shared], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_firms_with_a_wrong_belief_are_paid_by_the_truth(shared: bool) -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, (2, 10, 2, 2, 3))
    belief, true = counts / counts.sum((2, 3, 4), keepdims=True)
    e = [[0.0, 0.0], [-1.25, 1.0]]
    payoffs, trade = play_tables(belief, true, e, 0.5, shared)
    for i in range(10):
        maps = selected(belief[i].tolist(), e, 0.5, shared)
        u1, u2, _, _, some = paid(true[i].tolist(), *maps, e, 0.5)
        np.testing.assert_allclose([*payoffs[:, i], trade[i]], [u1, u2, some], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_played_episodes_average_to_the_exact_payoffs(shared: bool) -> None:
    table = np.array(table_of(0.8, 0.7, 0.56))  # type: ignore[arg-type]
    payoff = np.array([[0.0, 0.0], [-1.0, 1.0]])
    maps = solve(table, payoff, 0.5, shared)[0]
    found = play_episodes(table, maps, payoff, 0.5, 200_000, np.random.default_rng(11))
    exact = solve_correlation(0.8, 0.7, 0.56, 1, 0, 1, 0, 1, 0.5)
    assert (np.abs(found.mean - exact.payoffs[2 * shared, :, 0]) < 5 * found.error).all()
    trade = exact.trade[2 * shared, 0]
    assert abs(found.trade - trade) < 5 * np.sqrt(trade * (1 - trade) / 200_000)
    few = play_episodes(
        table, maps, payoff, 0.5, 999, np.random.default_rng(11), chunk=100, keep=True
    )
    assert few.payoffs is not None
    np.testing.assert_allclose(few.mean, few.payoffs.mean(1))
    np.testing.assert_allclose(few.error, few.payoffs.std(1, ddof=1) / np.sqrt(999))


GOOD: dict[str, Any] = {
    "alpha": 0.8, "beta": 0.7, "rho": [0.56, 0.6], "weight": [0.5, 0.5],
    "R0": 0, "R1": 1, "C0": 0, "C1": 1, "gamma": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha": 1.2}, "alpha is 1.2"),
        ({"alpha": [0.8, float("nan")]}, "alpha is nan"),
        ({"alpha": "high"}, "alpha is 'high'"),
        ({"rho": [0.56, 0.71]}, "rho is 0.71 at point 0, world 1.* 0.5 to 0.7"),
        ({"rho": [0.56, 0.49]}, "rho is 0.49"),
        ({"weight": [0.5, 0.6]}, "weight sums to 1.1"),
        ({"weight": [1.5, -0.5]}, "weight is -0.5"),
        ({"weight": [1.0]}, "weight has 1 worlds"),
        ({"gamma": 2}, "gamma is 2"),
        ({"C1": [1, 2, -3]}, "C1 is -3"),
        ({"R1": float("inf")}, "R1 is inf"),
        ({"C1": [1, 2], "R1": [1, 2, 3]}, "numbers of points differ"),
        ({"compiled": True}, "backend='torch'"),
        ({"backend": "jax"}, "backend='jax'"),
    ],
)
def test_what_no_market_can_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(FedpactError, match=said):
        solve_correlation(**(GOOD | change))


def test_tables_that_are_none_are_refused() -> None:
    loan = [[0, 0], [-1, 1]]
    with pytest.raises(FedpactError, match="shape"):
        solve_tables(np.ones((2, 2)), [1], loan, 0.5)
    with pytest.raises(FedpactError, match="sums to 8"):
        solve_tables(np.ones((1, 1, 2, 2, 2)), [1], loan, 0.5)
    with pytest.raises(FedpactError, match="at most 8"):
        solve_tables(np.full((1, 1, 2, 9, 2), 1 / 36), [1], loan, 0.5)
    with pytest.raises(FedpactError, match="payoff"):
        solve_tables(np.full((1, 1, 2, 2, 2), 1 / 8), [1], [1, 2], 0.5)
    table = np.full((2, 2, 2), 1 / 8)
    with pytest.raises(FedpactError, match="action maps"):
        play_episodes(table, (np.zeros((2, 3)),) * 2, np.eye(2), 0.5, 9, np.random.default_rng(0))
    with pytest.raises(FedpactError, match="episodes=1"):
        play_episodes(table, (np.zeros((2, 2)),) * 2, np.eye(2), 0.5, 1, np.random.default_rng(0))


def test_stakes_too_far_apart_for_floats_are_refused() -> None:
    with pytest.raises(FedpactError, match="reach from 1 to 1e\\+13 at point 0"):
        solve_correlation(1.0, 0.9, 0.9, 1, R0=0, R1=1, C0=0, C1=1e13, gamma=0.5)
