"""Market rules, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.exchange import FedpactError
from server.market import Contest
from server.play import Equilibrium, Myopic

LOANS = Contest(R0=0, R1=1, C0=0, C1=3, gamma=0.5)
MATCHING = Contest(R0=1, R1=1, C0=0, C1=0, gamma=0.5)


def test_a_client_is_shared_when_both_lend_and_costs_whoever_lends() -> None:
    one, two, good = np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1]), np.array([1, 1, 1, 0])
    first, second = LOANS.settle((one, two), good)
    np.testing.assert_array_equal(first, [0.5, 1.0, 0.0, -1.5])
    np.testing.assert_array_equal(second, [0.5, 0.0, 0.0, -1.5])


def test_matching_pays_one_alone_and_gamma_together() -> None:
    one, two, truth = np.array([1, 1, 0]), np.array([1, 0, 0]), np.array([1, 1, 1])
    first, second = MATCHING.settle((one, two), truth)
    np.testing.assert_array_equal(first, [0.5, 1.0, 0.0])
    np.testing.assert_array_equal(second, [0.5, 0.0, 0.0])


@given(r=st.floats(0.1, 10), c=st.floats(0.1, 10))
def test_the_threshold_of_a_significant_action_is_cost_over_stake(r: float, c: float) -> None:
    assert Contest(0, r, 0, c).threshold == pytest.approx(c / (r + c))


def test_relabelling_the_firms_relabels_the_payoffs() -> None:
    rng = np.random.default_rng(1)
    one, two, truth = (rng.integers(0, 2, 50) for _ in range(3))
    np.testing.assert_array_equal(
        LOANS.settle((one, two), truth), LOANS.settle((two, one), truth)[::-1]
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gamma": 1.1}, "from 0 to 1"),
        ({"R1": -1}, ">= 0"),
        ({"C1": float("nan")}, ">= 0"),
        ({"C1": True}, ">= 0"),
        ({"R0": 0, "R1": 0, "C0": 0, "C1": 0}, "nothing is at stake"),
    ],
)
def test_an_impossible_market_is_refused(change: dict[str, float], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        Contest(**{"R0": 0, "R1": 1, "C0": 0, "C1": 1, **change})


def test_signals_are_the_firms_decision_or_equal_bins() -> None:
    probs = np.linspace(0.01, 0.99, 99)
    np.testing.assert_array_equal(Equilibrium().edges(probs, LOANS), [0.75])
    bins = Equilibrium(signal_bins=4).edges(probs, LOANS)
    counts = np.bincount(np.digitize(probs, bins))
    assert len(counts) == 4
    assert counts.max() - counts.min() <= 1


def test_equally_likely_clients_do_not_make_empty_bins() -> None:
    probs = np.array([0.2] * 90 + [0.9] * 10)
    edges = Myopic(signal_bins=4).edges(probs, LOANS)
    assert np.all(np.diff(edges) > 0)
    assert len(edges) <= 3


@pytest.mark.parametrize("bins", [1, 9, -2, True, 2.5])
def test_a_number_of_bins_out_of_range_is_refused(bins: int) -> None:
    with pytest.raises(FedpactError, match="2 to 8"):
        Equilibrium(signal_bins=bins)
