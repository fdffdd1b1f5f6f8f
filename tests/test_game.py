"""The game on a joint table: golden rows, closed forms, and what must hold for any table."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parties.exchange import FedpactError
from server.game.solve import myopic, payoffs, solve
from server.game.table import CouplingPrior, independent, joint_table, strongest

GOLDEN = json.loads((Path(__file__).parent / "golden" / "contracts.json").read_text())
ROWS = [row for row in GOLDEN if row["setting"] == "correlation"]
SHARED = {"no_sharing": False, "train_sharing": False, "infer_sharing": True, "full_sharing": True}


def number(text: str) -> float:
    return float(Fraction(text))


def correlation_table(alpha: float, beta: float, rho: float) -> np.ndarray:
    """P(t, s1, s2) with accuracies alpha and beta, both right with probability rho."""
    cells = {(1, 1): rho, (1, 0): alpha - rho, (0, 1): beta - rho, (0, 0): 1 - alpha - beta + rho}
    table = np.zeros((2, 2, 2))
    for t, ((right1, right2), mass) in product((0, 1), cells.items()):
        table[t, t if right1 else 1 - t, t if right2 else 1 - t] = mass / 2
    return table


def loan_payoff(reward: float, cost: float) -> np.ndarray:
    return np.array([[0.0, 0.0], [-cost, reward]])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
@pytest.mark.parametrize("contract", SHARED)
def test_the_golden_rows_come_out(row: dict, contract: str) -> None:  # type: ignore[type-arg]
    p = row["params"]
    (r0, r1), (c0, c1) = map(number, p["R"]), map(number, p["C"])
    payoff, gamma = np.array([[r0, -c0], [-c1, r1]]), number(p["gamma"])
    worlds = [
        (
            number(w["weight"]),
            correlation_table(number(p["alpha"]), number(p["beta"]), number(w["rho"])),
        )
        for w in p["worlds"]
    ]
    shared = SHARED[contract]
    if contract in ("no_sharing", "infer_sharing"):
        mean = sum(weight * table for weight, table in worlds)
        found = payoffs(mean, solve(mean, payoff, gamma, shared)[0], payoff, gamma)
    else:
        found = sum(
            weight * payoffs(table, solve(table, payoff, gamma, shared)[0], payoff, gamma)
            for weight, table in worlds
        )
    expected = [number(v) for v in row["payoffs"][contract]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(
    alpha=st.floats(0.55, 0.95),
    gap=st.floats(0.0, 0.3),
    theta=st.floats(0, 1),
    cost=st.floats(0.1, 4),
    gamma=st.floats(0, 1),
)
def test_shared_signals_equal_the_closed_form(
    alpha: float, gap: float, theta: float, cost: float, gamma: float
) -> None:
    beta = max(0.5, alpha - gap)
    rho = alpha * beta + theta * (min(alpha, beta) - alpha * beta)
    table = correlation_table(alpha, beta, rho)
    w = [rho - cost * (1 - alpha - beta + rho), alpha - rho - cost * (beta - rho)]
    w += [beta - rho - cost * (alpha - rho), 1 - alpha - beta + rho - cost * rho]
    # (1 + gamma) e against e: acting together pays exactly when the cell's gain is positive,
    # but one firm alone may act where sharing is too costly, so the closed form needs gamma = 1/2+.
    gamma = 0.5 + gamma / 2
    found = payoffs(
        table, solve(table, loan_payoff(1, cost), gamma, True)[0], loan_payoff(1, cost), gamma
    )
    expected = gamma / 2 * sum(max(0.0, v) for v in w)
    np.testing.assert_allclose(found, [expected, expected], atol=1e-12)


TABLES = hnp.arrays(np.float64, (2, 2, 3), elements=st.floats(0.01, 1)).map(lambda t: t / t.sum())
PAYOFFS = hnp.arrays(np.float64, (2, 2), elements=st.floats(-3, 3))


@settings(max_examples=60)
@given(table=TABLES, payoff=PAYOFFS, gamma=st.floats(0, 1), shared=st.booleans())
def test_no_firm_gains_by_deviating(
    table: np.ndarray, payoff: np.ndarray, gamma: float, shared: bool
) -> None:
    (one, two), _ = solve(table, payoff, gamma, shared)
    u1, u2 = payoffs(table, (one, two), payoff, gamma)
    k1, k2 = table.shape[1:]
    for other in product((0, 1), repeat=k1 * k2 if shared else k1):
        deviation = np.array(other).reshape((k1, k2) if shared else (k1, 1)) * np.ones((1, k2), int)
        assert payoffs(table, (deviation, two), payoff, gamma)[0] <= u1 + 1e-9
    for other in product((0, 1), repeat=k1 * k2 if shared else k2):
        deviation = np.array(other).reshape((k1, k2) if shared else (1, k2)) * np.ones((k1, 1), int)
        assert payoffs(table, (one, deviation), payoff, gamma)[1] <= u2 + 1e-9


@settings(max_examples=60)
@given(table=TABLES, payoff=PAYOFFS, gamma=st.floats(0, 1), shared=st.booleans())
def test_the_selected_equilibrium_has_the_largest_potential(
    table: np.ndarray, payoff: np.ndarray, gamma: float, shared: bool
) -> None:
    (one, two), found = solve(table, payoff, gamma, shared)

    def potential(a: np.ndarray, b: np.ndarray) -> float:
        e1 = sum(table[t] * payoff[a, t] for t in (0, 1))
        e2 = sum(table[t] * payoff[b, t] for t in (0, 1))
        return float(np.sum(np.where(a == b, (1 + gamma) * e1, e1 + e2)))

    assert potential(one, two) == pytest.approx(found, abs=1e-9)
    k1, k2 = table.shape[1:]
    if not shared:
        best = max(
            potential(
                np.array(f)[:, None] * np.ones((1, k2), int),
                np.array(g)[None, :] * np.ones((k1, 1), int),
            )
            for f in product((0, 1), repeat=k1)
            for g in product((0, 1), repeat=k2)
        )
        assert found == pytest.approx(best, abs=1e-9)  # the potential's maximum is an equilibrium


@given(table=TABLES, scale=st.floats(0.1, 10), gamma=st.floats(0.1, 0.9), shared=st.booleans())
def test_scaling_rewards_and_costs_scales_payoffs(
    table: np.ndarray, scale: float, gamma: float, shared: bool
) -> None:
    payoff = loan_payoff(1, 1.3)
    maps = solve(table, payoff, gamma, shared)[0]
    np.testing.assert_allclose(
        payoffs(table, maps, scale * payoff, gamma), scale * payoffs(table, maps, payoff, gamma)
    )


@given(table=TABLES)
def test_without_rivalry_a_firm_plays_as_if_alone(table: np.ndarray) -> None:
    payoff = loan_payoff(1, 1.7)
    for shared in (False, True):
        equilibrium = solve(table, payoff, 1.0, shared)[0]
        alone = myopic(table, payoff, shared)
        np.testing.assert_allclose(
            payoffs(table, equilibrium, payoff, 1.0), payoffs(table, alone, payoff, 1.0)
        )


@given(table=TABLES)
def test_couplings_keep_what_is_known_and_stay_in_their_bounds(table: np.ndarray) -> None:
    for coupled in (independent(table), strongest(table), CouplingPrior().mean(table)):
        np.testing.assert_allclose(coupled.sum(2), table.sum(2), atol=1e-12)
        np.testing.assert_allclose(coupled.sum(1), table.sum(1), atol=1e-12)
        assert np.all(coupled >= 0)
    # No coupling with the same margins puts more mass on "both low" than the Frechet bound.
    assert np.all(table[:, 0, 0] <= strongest(table)[:, 0, 0] + 1e-12)
    low = np.minimum(table.sum(2)[:, 0], table.sum(1)[:, 0])
    np.testing.assert_allclose(strongest(table)[:, 0, 0], low, atol=1e-12)


def test_a_joint_table_counts() -> None:
    rng = np.random.default_rng(0)
    t, s1, s2 = rng.integers(0, 2, 500), rng.integers(0, 3, 500), rng.integers(0, 2, 500)
    table = joint_table(t, s1, s2, 3, 2)
    assert table.sum() == pytest.approx(1)
    assert table[1, 2, 0] == np.mean((t == 1) & (s1 == 2) & (s2 == 0))


@pytest.mark.parametrize("weights", [(0.7, 0.7), (-0.1, 1.1), ("a", 1)])
def test_a_prior_that_does_not_sum_to_one_is_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(FedpactError, match="sum to 1"):
        CouplingPrior(*weights)
