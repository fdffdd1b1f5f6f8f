"""From counts to what can be said: posteriors, sample sizes, the measured table of a study."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from parties.exchange import FedpactError
from server.contracts.full_sharing import FullSharing
from server.contracts.infer_sharing import InferSharing
from server.contracts.no_sharing import NoSharing
from server.contracts.train_sharing import TrainSharing
from server.estimate import estimate, posterior
from server.game.dominance import Solved
from server.game.samples import Paired, paired
from server.game.settings import table as table_setting
from server.game.solve import payoffs
from server.game.table import CouplingPrior, independent, strongest
from server.market import Contest
from server.play import Equilibrium, Myopic
from simulations.game.rows import solved_row
from tests.games import ROW, F

CONTRACTS = {c.name: c for c in (NoSharing(), TrainSharing(), InferSharing(), FullSharing())}
LOANS = Contest(R0=0, R1=1, C0=0, C1=1)
# Row S1: accuracies 4/5 and 7/10, independent errors.
S1 = np.array(
    [[[0.28, 0.12], [0.07, 0.03]], [[0.03, 0.07], [0.12, 0.28]]],
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_posterior_has_the_mean_and_variance_of_a_dirichlet() -> None:
    counts = np.array([[[3.0, 0.0], [1.0, 7.0]], [[2.0, 5.0], [0.0, 9.0]]])
    drawn = posterior(counts, rng(), draws=40_000)
    weights = counts + 0.5
    mean = weights / weights.sum()
    np.testing.assert_allclose(drawn.sum((1, 2, 3)), 1)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.003)
    np.testing.assert_allclose(
        drawn.var(0), mean * (1 - mean) / (weights.sum() + 1), rtol=0.08, atol=1e-5
    )


@pytest.mark.parametrize("counts", [[[[-1.0]], [[1.0]]], [[[np.nan]], [[1.0]]]])
def test_counts_that_are_none_are_refused(counts: Any) -> None:
    with pytest.raises(FedpactError, match="legal are counts >= 0"):
        posterior(np.array(counts), rng())


def test_with_many_clients_the_posterior_says_what_the_exact_engine_says() -> None:
    found = estimate(posterior(S1 * 1e6, rng()), CONTRACTS, Equilibrium(), LOANS)
    exact = ROW["S1"]["payoffs"]
    for name, said in found.items():
        np.testing.assert_allclose(said.payoffs, [float(F(v)) for v in exact[name]], atol=2e-3)
    assert [found[n].individually_rational for n in CONTRACTS] == [1, 1, 0, 0]
    assert found["no_sharing"].irpo == 1
    assert found["full_sharing"].signs.tolist() == [0, 1]


def test_with_few_clients_it_is_undecided() -> None:
    found = estimate(posterior(S1 * 40, rng()), CONTRACTS, Equilibrium(), LOANS)["full_sharing"]
    assert 0.05 < found.individually_rational < 0.5
    low, high = found.intervals[0]
    assert low < 0 < high
    assert found.irpo <= found.individually_rational <= found.signs.min()


def test_the_needed_sample_decides_in_about_half_of_all_samples() -> None:
    """At n = needed the interval just excludes zero on average: power is one half."""
    difference = paired(solved_row(ROW["S1"]), "full_sharing", 0)
    needed = difference.needed()
    assert needed == 289
    generator, decided = rng(), 0
    for _ in range(400):
        cells = generator.multinomial(needed, S1.ravel())
        # Firm 1's payoff under full-sharing (both act on s1) minus without sharing, cell by cell.
        gain = full_minus_alone().ravel()
        mean = cells @ gain / needed
        error = np.sqrt((cells @ gain**2 / needed - mean**2) / needed)
        decided += abs(mean) > stats.norm.ppf(0.975) * error
    assert 0.4 < decided / 400 < 0.6


def full_minus_alone() -> np.ndarray:
    """By hand: alone each acts on its own signal; under full-sharing both on firm 1's."""
    gain = np.zeros((2, 2, 2))
    for t, s1, s2 in np.ndindex(2, 2, 2):
        worth = 1.0 if t else -1.0
        full = 0.5 * worth if s1 else 0.0
        alone = (0.5 if s2 else 1.0) * worth if s1 else 0.0
        gain[t, s1, s2] = full - alone
    return gain


def test_paired_differences_are_those_computed_by_hand() -> None:
    found = paired(solved_row(ROW["S1"]), "full_sharing", 0)
    gain = full_minus_alone()
    mean = float((S1 * gain).sum())
    assert float(found.mean) == pytest.approx(mean)
    assert float(found.variance) == pytest.approx(float((S1 * gain**2).sum()) - mean**2)


def test_sample_sizes_of_the_golden_rows() -> None:
    one, two = (paired(solved_row(ROW["S1"]), "full_sharing", f).needed() for f in (0, 1))
    assert (one, two) == (289, 159)
    assert paired(solved_row(ROW["S6"]), "train_sharing", 1).needed() == 161_533
    assert Paired(F(0), F(1)).needed() is None  # equal on average: no sample decides
    assert paired(solved_row(ROW["S1"]), "train_sharing", 0) == Paired(F(0), F(0))


def test_play_on_many_tables_is_play_on_each() -> None:
    tables = posterior(S1 * 60, rng(), draws=50)
    for play in (Equilibrium(), Myopic(), Equilibrium(prior=CouplingPrior(1.0, 0.0))):
        believed = play.prior.mean(tables)
        for shared in (False, True):
            at_once = play.payoffs(believed, tables, LOANS, shared)
            one_by_one = np.concatenate(
                [
                    play.payoffs(b[None], t[None], LOANS, shared)
                    for b, t in zip(believed, tables, strict=True)
                ],
                axis=1,
            )
            np.testing.assert_allclose(at_once, one_by_one, atol=1e-12)


def test_couplings_of_many_tables_are_those_of_each() -> None:
    tables = posterior(S1 * 60, rng(), draws=20)
    for coupled in (independent, strongest):
        np.testing.assert_allclose(coupled(tables), [coupled(t) for t in tables], atol=1e-15)


def test_the_measured_table_can_be_solved_exactly() -> None:
    counts = np.rint(S1 * 100).astype(int).tolist()
    solved = Solved(table_setting(counts, C=(0, 1)))
    for name, expected in ROW["S1"]["payoffs"].items():
        assert [str(v) for v in solved.payoffs(name)] == expected


def test_while_models_are_not_shared_firms_act_on_the_prior() -> None:
    # Equal firms and a high cost: acting together pays under one coupling and not under another.
    table = 0.5 * independent(S1) + 0.5 * strongest(S1)
    market = Contest(R0=0, R1=1, C0=0, C1=2.2)
    tables = posterior(table * 1e7, rng(), draws=20)
    for prior in (CouplingPrior(1.0, 0.0), CouplingPrior(0.0, 1.0)):
        play = Equilibrium(prior=prior)
        found = estimate(tables, CONTRACTS, play, market)
        for name, contract in CONTRACTS.items():
            paid = []
            for drawn in tables:
                belief = drawn if contract.models else prior.mean(drawn)
                maps = play.maps(belief, market, contract.predictions)
                paid.append(payoffs(drawn, maps, market.payoff, market.gamma))
            np.testing.assert_allclose(found[name].payoffs, np.mean(paid, axis=0), atol=1e-12)
    one, two = (
        estimate(tables, CONTRACTS, Equilibrium(prior=CouplingPrior(*w)), market)["infer_sharing"]
        for w in ((1.0, 0.0), (0.0, 1.0))
    )
    assert not np.allclose(one.payoffs, two.payoffs)


def test_a_contract_that_another_beats_is_not_irpo() -> None:
    # Knowing the coupling is worth more than believing in the wrong one.
    table = 0.5 * independent(S1) + 0.5 * strongest(S1)
    market = Contest(R0=0, R1=1, C0=0, C1=2.2)
    tables = posterior(table * 1e7, rng(), draws=50)
    wrong, right = sorted(
        (
            estimate(tables, CONTRACTS, Equilibrium(prior=CouplingPrior(*w)), market)
            for w in ((1.0, 0.0), (0.0, 1.0))
        ),
        key=lambda found: float(found["infer_sharing"].payoffs[0]),
    )
    assert np.all(wrong["full_sharing"].payoffs > wrong["infer_sharing"].payoffs)
    assert wrong["infer_sharing"].irpo == 0
    assert right["infer_sharing"].irpo == right["full_sharing"].irpo
