"""The game in which firms tell their signals with noise: by hand, by brute force, at both ends."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.exchange import Array, FedpactError, truthful
from server.contracts.full_sharing import FullSharing
from server.contracts.infer_sharing import InferSharing
from server.contracts.no_sharing import NoSharing
from server.estimate import estimate, posterior
from server.game.solve import payoffs, solve
from server.game.told import channel, myopic_told, play_told, solve_told, told_table
from server.market import Contest
from server.play import Equilibrium, Myopic, Play
from simulations.game.rows import solved_row
from tests.test_game import correlation_table

S1 = correlation_table(0.8, 0.7, 0.56)  # errors are independent
LOAN = np.array([[0.0, 0.0], [-1.0, 1.0]])
MATCH = np.array([[1.0, 0.0], [0.0, 1.0]])
SMALL = settings(max_examples=30, deadline=None)


def tables(k1: int, k2: int) -> st.SearchStrategy[Array]:
    def drawn(seed: int) -> Array:
        cells = np.random.default_rng(seed).dirichlet(np.ones(2 * k1 * k2))
        return cells.reshape(2, k1, k2)

    return st.integers(0, 10_000).map(drawn)


# ------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize("keep", [0.55, 0.7, 0.83, 0.84, 0.9, 0.99])
def test_without_rivalry_a_firm_heeds_a_noised_rival_that_is_still_better_than_itself(
    keep: float,
) -> None:
    """Firm 1 is right in .8 of the cases, firm 2 in .7, and what firm 1 tells in .8 q + .2 (1 - q):
    more than .7, so that firm 2 does what firm 1 tells, iff q > 5/6. Being right with probability a
    earns 1/2 a - 1/2 (1 - a) here. Firm 1 is always better than anything it is told."""
    epsilon = math.log(keep / (1 - keep))
    one, two = solve_told(S1, LOAN, 1.0, epsilon)
    paid = payoffs(told_table(S1, epsilon), (one, two), LOAN, 1.0)
    right = max(0.7, 0.8 * keep + 0.2 * (1 - keep))
    np.testing.assert_allclose(paid, [0.8 - 0.5, right - 0.5], atol=1e-12)
    own, told = np.indices((2, 2, 2, 2))[1], np.indices((2, 2, 2, 2))[2]
    np.testing.assert_array_equal(two, told if keep > 5 / 6 else own)
    np.testing.assert_array_equal(one, np.indices((2, 2, 2, 2))[0])
    for found, expected in zip(myopic_told(S1, LOAN, epsilon), (one, two), strict=True):
        np.testing.assert_array_equal(found, expected)  # nobody has a rival


def test_the_noise_is_put_on_each_signal_by_itself() -> None:
    joint = told_table(S1, math.log(3))
    assert joint[1, 1, 0, 1, 0] == pytest.approx(S1[1, 1, 0] * 0.75 * 0.75)
    assert joint[1, 1, 0, 1, 1] == pytest.approx(S1[1, 1, 0] * 0.75 * 0.25)
    np.testing.assert_allclose(joint.sum((3, 4)), S1, atol=1e-15)


# ------------------------------------------------------------------------------- by brute force


def every_profile(table: Array, payoff: Array, gamma: float, epsilon: float) -> Array:
    """u1, u2 and the potential of all 2^8 x 2^8 pure strategies on two signals, (3, 256, 256)."""
    joint = told_table(table, epsilon)
    acts = np.array(list(product((0, 1), repeat=8)))
    found = np.zeros((3, 256, 256))
    for t, s1, s2, n1, n2 in product((0, 1), repeat=5):
        a = acts[:, 4 * s1 + 2 * n1 + n2][:, None]
        b = acts[:, 4 * s2 + 2 * n1 + n2][None]
        mass, alike = joint[t, s1, s2, n1, n2], np.where(a == b, gamma, 1.0)
        one, two = (np.broadcast_to(payoff[c, t], alike.shape) for c in (a, b))
        potential = np.where(a == b, (1 + gamma) * one, one + two)
        found += mass * np.stack([alike * one, alike * two, potential])
    return found


def code(actions: Array) -> int:
    """The number of a strategy (s, n1, n2) among all."""
    return int("".join(map(str, actions.ravel())), 2)


@SMALL
@given(
    table=tables(2, 2),
    epsilon=st.floats(0.05, 6),
    gamma=st.floats(0, 1),
    payoff=st.sampled_from([LOAN, MATCH, np.array([[0.3, -0.2], [-2.0, 1.0]])]),
)
def test_what_is_played_is_the_equilibrium_of_largest_potential_among_all_profiles(
    table: Array, epsilon: float, gamma: float, payoff: Array
) -> None:
    u1, u2, potential = every_profile(table, payoff, gamma, epsilon)
    one, two = solve_told(table, payoff, gamma, epsilon)
    np.testing.assert_array_equal(one, one[:, :1] * np.ones((1, 2, 1, 1)))  # s2 is not seen
    np.testing.assert_array_equal(two, two[:1] * np.ones((2, 1, 1, 1)))
    place = (code(one[:, 0]), code(two[0]))
    assert potential[place] == pytest.approx(potential.max(), abs=1e-12)
    assert u1[place] >= u1[:, place[1]].max() - 1e-12  # no deviation pays
    assert u2[place] >= u2[place[0]].max() - 1e-12
    paid = payoffs(told_table(table, epsilon), (one, two), payoff, gamma)
    np.testing.assert_allclose(paid, [u1[place], u2[place]], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    drawn=tables(2, 3),  # without ties, which rounding would break
    epsilon=st.floats(0.2, 4),
    payoff=st.sampled_from([LOAN, MATCH]),
)
def test_the_exact_engine_plays_the_same_game(drawn: Array, epsilon: float, payoff: Array) -> None:
    counts = 1 + np.rint(1e6 * drawn).astype(int)
    table = counts / counts.sum()
    row = {
        "id": "told",
        "setting": "told",
        "params": {
            "table": counts.tolist(),
            "keeps": [f"{truthful(epsilon, k):.15f}" for k in (2, 3)],
            "R": [str(v) for v in payoff.diagonal()],
            "C": [str(-payoff[0, 1]), str(-payoff[1, 0])],
        },
        "contracts": {"no_sharing": {}, "told": {"firm1": ["z2"], "firm2": ["z1"]}},
    }
    exact = solved_row(row)
    maps = solve_told(table, payoff, 0.5, epsilon)
    for name, paid in (
        ("told", payoffs(told_table(table, epsilon), maps, payoff, 0.5)),
        ("no_sharing", payoffs(table, solve(table, payoff, 0.5, False)[0], payoff, 0.5)),
    ):
        np.testing.assert_allclose([float(v) for v in exact.payoffs(name)], paid, atol=1e-9)


@pytest.mark.parametrize("keeps", [["1/2"], ["1/2", "3/2"], "12"])
def test_an_exact_row_without_two_probabilities_is_refused(keeps: Any) -> None:
    row = {"id": "x", "setting": "told", "params": {"table": [[[1]], [[1]]], "keeps": keeps}}
    with pytest.raises(FedpactError, match="probabilit"):
        solved_row(row)


# ---------------------------------------------------------------------------------- at both ends


@SMALL
@given(table=tables(2, 3), gamma=st.floats(0, 1), payoff=st.sampled_from([LOAN, MATCH]))
def test_from_no_noise_to_nothing_but_noise_is_from_infer_sharing_to_no_sharing(
    table: Array, gamma: float, payoff: Array
) -> None:
    for epsilon, shared in ((60.0, True), (1e-9, False)):
        maps = solve_told(table, payoff, gamma, epsilon)
        found = payoffs(told_table(table, epsilon), maps, payoff, gamma)
        expected = payoffs(table, solve(table, payoff, gamma, shared)[0], payoff, gamma)
        np.testing.assert_allclose(found, expected, atol=1e-8)


@given(k=st.integers(1, 8), epsilon=st.floats(1e-3, 10))
def test_no_told_signal_is_more_than_e_to_the_epsilon_times_as_likely_under_another_truth(
    k: int, epsilon: float
) -> None:
    noise = channel(k, epsilon)
    np.testing.assert_allclose(noise.sum(1), 1)
    assert (noise[:, None] / noise[None]).max() <= math.exp(epsilon) * (1 + 1e-9)


# ----------------------------------------------------------------------------- many, and in play


@SMALL
@given(first=tables(3, 2), second=tables(3, 2), epsilon=st.floats(0.1, 5))
def test_many_tables_at_once_are_paid_as_each_by_itself(
    first: Array, second: Array, epsilon: float
) -> None:
    belief, true = np.stack([first, second]), np.stack([second, first])
    found = play_told(belief, true, LOAN, 0.5, epsilon)
    for n in (0, 1):
        maps = solve_told(belief[n], LOAN, 0.5, epsilon)
        paid = payoffs(told_table(true[n], epsilon), maps, LOAN, 0.5)
        np.testing.assert_allclose(found[:, n], paid, atol=1e-12)


@pytest.mark.parametrize("play", [Equilibrium(), Myopic()])
def test_the_posterior_is_of_the_game_with_noise(play: Play) -> None:
    market = Contest(R0=0, R1=1, C0=0, C1=1)
    drawn = posterior(S1 * 1e8, np.random.default_rng(0), draws=20)
    contracts: dict[str, Any] = {
        c.name: c for c in (NoSharing(), InferSharing(), FullSharing(prediction_epsilon=3.0))
    }
    found = estimate(drawn, contracts, play, market)
    maps = play.maps(S1, market, shared=True, epsilon=3.0)
    paid = payoffs(told_table(S1, 3.0), maps, LOAN, 0.5)
    np.testing.assert_allclose(found["full_sharing"].payoffs, paid, atol=1e-3)
    exact = payoffs(S1, play.maps(S1, market, shared=True), LOAN, 0.5)
    np.testing.assert_allclose(found["infer_sharing"].payoffs, exact, atol=1e-3)
