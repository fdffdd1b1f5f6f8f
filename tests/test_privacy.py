"""Noise on what leaves a firm: its size, its price, and that nobody gets around it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties import privacy
from parties.exchange import (
    Actions,
    Array,
    DecisionRule,
    ExchangeError,
    FedpactError,
    Offer,
    Play,
    Predictions,
    Query,
    Refusal,
    Terms,
    Trained,
    Weights,
    pack,
    truthful,
    unpack,
)
from parties.firm import Firm
from parties.memory import Memory
from parties.privacy import SECRET, SURE, Draw, gaussian_delta, gaussian_epsilon, noise_multiplier
from parties.training import weights_of
from server.contracts.full_sharing import FullSharing
from server.contracts.infer_sharing import InferSharing
from server.contracts.train_sharing import TrainSharing
from server.game.solve import payoffs
from server.game.told import solve_told, told_table
from server.market import Contest
from simulations.build import build
from simulations.conclude import conclude
from simulations.engines import apps
from simulations.game.rows import solved_row
from simulations.measured import game_rows, measure
from simulations.privacy import noise_lines
from simulations.report import write_report
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import SMALL_HEART, SMALL_LOANS, SMALL_POOL, contexts, hold_on, plain, run_config
from tests.inline_grid import InlineGrid

EDGES = np.array([0.75])
TOLD = InferSharing(prediction_epsilon=1.0).terms(1)
BLURRED = TrainSharing(update_epsilon=8.0, update_clip=0.5).terms(2)


@pytest.fixture(scope="module")
def lender() -> Firm:
    firm = build(plain(*SMALL_LOANS)["parties"]["lender_a"])
    assert isinstance(firm, Firm)
    return firm


@pytest.fixture(scope="module")
def hospital() -> Firm:
    firm = build(plain(*SMALL_HEART)["parties"]["hungary"])
    assert isinstance(firm, Firm)
    return firm


# -------------------------------------------------------------------------- randomised response


def outputs(k: int, epsilon: float, grid: int = 20_000) -> Array:
    """P(told | true), (k, k), of the mechanism itself, by draws that cover (0, 1) evenly."""
    draws = (np.arange(grid) + 0.5) / grid
    told = [privacy.respond(np.full(grid, s), k, epsilon, draws) for s in range(k)]
    return np.stack([np.bincount(t, minlength=k) / grid for t in told])


@given(k=st.integers(2, 8), epsilon=st.floats(0.05, 4))
def test_a_response_is_true_with_the_probability_that_everyone_knows_and_else_any_other(
    k: int, epsilon: float
) -> None:
    keep = math.exp(epsilon) / (math.exp(epsilon) + k - 1)
    assert truthful(epsilon, k) == pytest.approx(keep)
    expected = np.full((k, k), (1 - keep) / (k - 1))
    np.fill_diagonal(expected, keep)
    found = outputs(k, epsilon)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    worst = (found[:, None] / found[None]).max()  # over all outputs and pairs of truths
    assert worst <= math.exp(epsilon) * (1 + 2e-4 / found.min())


def test_what_is_told_reads_as_the_signal_it_is() -> None:
    edges = np.array([0.1, 0.4, 1.0])
    told = np.arange(4)
    probs = privacy.told_as_probabilities(told, edges)
    np.testing.assert_array_equal(np.digitize(probs[:, 1], edges), told)
    np.testing.assert_allclose(probs.sum(1), 1)


@given(k=st.integers(1, 12), epsilon=st.floats(1e-3, 50))
def test_an_opinion_is_as_sure_as_its_noise_lets_it_be_and_never_certain(
    k: int, epsilon: float
) -> None:
    found = privacy.told_as_opinions(np.arange(k), k, epsilon)
    np.testing.assert_allclose(found.sum(1), 1)
    assert found.argmax(1).tolist() == list(range(k))
    if k > 1:
        assert found.max() <= SURE
        assert found.max() / found.min() <= math.exp(epsilon) * (1 + 1e-6)


# -------------------------------------------------------------------------------- the accountant

# By dp-accounting 0.6.0's PLDAccountant: multiplier, rounds -> epsilon at delta 1e-5.
GOOGLE = [
    (1.0, 1, 4.37717810002493),
    (2.6843060150169697, 20, 8.000000000015168),
    (31.447284905197566, 20, 0.5000000000010012),
    (0.42337669501711434, 20, 99.99999999867728),
]


@pytest.mark.parametrize(("multiplier", "rounds", "epsilon"), GOOGLE)
def test_the_accountant_agrees_with_two_others(
    multiplier: float, rounds: int, epsilon: float
) -> None:
    from opacus.accountants import PRVAccountant

    other = PRVAccountant()
    other.history = [(multiplier, 1.0, rounds)]
    with warnings.catch_warnings(action="ignore"):  # on its orders of Renyi's divergence
        theirs = other.get_epsilon(1e-5, eps_error=epsilon / 500)
    found = gaussian_epsilon(multiplier, 1e-5, rounds)
    assert found == pytest.approx(epsilon, rel=1e-8)
    assert found == pytest.approx(theirs, rel=0.01)
    assert found <= theirs  # which is an upper bound


def test_the_noise_of_one_round_is_that_of_balle_and_wang() -> None:
    """Their algorithm's own value at epsilon 1, delta 1e-5, sensitivity 1; the classical bound,
    sqrt(2 log(1.25/delta)) / epsilon, is 4.84."""
    assert noise_multiplier(1.0, 1e-5) == pytest.approx(3.730632, abs=1e-6)


@given(epsilon=st.floats(0.01, 50), delta=st.floats(1e-9, 0.1), rounds=st.integers(1, 200))
def test_the_noise_costs_what_was_asked_and_less_noise_would_cost_more(
    epsilon: float, delta: float, rounds: int
) -> None:
    found = noise_multiplier(epsilon, delta, rounds)
    assert gaussian_delta(epsilon, found, rounds) == pytest.approx(delta, rel=1e-6)
    assert gaussian_epsilon(found, delta, rounds) == pytest.approx(epsilon, rel=1e-6)
    assert gaussian_delta(epsilon, 0.99 * found, rounds) > delta
    assert found == pytest.approx(math.sqrt(rounds) * noise_multiplier(epsilon, delta))


# ------------------------------------------------------------------------------ noise on a model

START = {"w": np.zeros((40, 50), np.float32), "mean": np.zeros(3), "seen": np.array(7)}
TRAINED = {"w": np.full((40, 50), 0.1, np.float32), "mean": np.ones(3), "seen": np.array(8)}


def blurred(trained: Mapping[str, Array], terms: Terms = BLURRED, key: str = "") -> Array:
    draw = Draw(key, ("test",), {**{f"t{k}": v for k, v in trained.items()}})
    found = privacy.blurred(trained, START, ["w"], terms, draw)
    np.testing.assert_array_equal(found["mean"], START["mean"])  # not trained: it tells nothing
    assert found["seen"] == 7
    assert found["w"].dtype == np.float32
    return found["w"].astype(float)


def test_an_update_is_clipped_and_gets_the_noise_that_its_terms_pay_for() -> None:
    scale = 0.5 * noise_multiplier(8.0, 1e-5, 2)
    sent = blurred(TRAINED)
    clipped = 0.1 * 0.5 / math.sqrt(2000 * 0.1**2)
    noise = sent - clipped
    assert noise.mean() == pytest.approx(0, abs=4 * scale / math.sqrt(2000))
    assert noise.std() == pytest.approx(scale, rel=4 / math.sqrt(2 * 2000))


def test_with_hardly_any_noise_a_small_update_arrives_as_it_is() -> None:
    small = {**TRAINED, "w": 1e-2 * TRAINED["w"]}
    terms = replace(BLURRED, update_epsilon=1e9, update_clip=1.0)
    np.testing.assert_allclose(blurred(small, terms), small["w"], atol=1e-3)


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e38])
def test_an_update_of_any_size_tells_no_more_than_the_clip(value: float) -> None:
    wild = {**TRAINED, "w": np.full((40, 50), value, np.float32)}
    sent = blurred(wild)
    assert np.all(np.isfinite(sent))
    assert np.abs(sent).max() < 6 * 0.5 * noise_multiplier(8.0, 1e-5, 2)


def test_what_is_told_twice_has_the_same_noise_and_anything_else_another() -> None:
    one = blurred(TRAINED)
    np.testing.assert_array_equal(one, blurred(TRAINED))
    for other in (blurred({**TRAINED, "mean": 2 * np.ones(3)}), blurred(TRAINED, key="another")):
        noise = [found - found.mean() for found in (one, other)]
        assert np.mean(noise[0] * noise[1]) == pytest.approx(0, abs=4 * one.var() / math.sqrt(2000))


@given(count=st.integers(0, 50))
def test_draws_are_inside_the_open_interval_and_a_longer_row_begins_as_a_shorter(
    count: int,
) -> None:
    draw = Draw("", ("a", 1), {"x": np.arange(3)})
    found = draw.uniform(count)
    assert np.all((found > 0) & (found < 1))
    np.testing.assert_array_equal(draw.uniform(60)[:count], found)


def test_draws_are_even() -> None:
    found = Draw("", ("even",), {}).uniform(100_000)
    counts = np.histogram(found, 50, (0, 1))[0]
    assert np.sum((counts - 2000) ** 2 / 2000) < 90  # chi squared, 49 degrees: 0.1 % beyond 85


# ----------------------------------------------------------------------------------- at the firm


def probabilities(answer: object) -> Array:
    assert isinstance(answer, Predictions)
    return answer.probs[:, 1]


def test_a_firm_tells_contested_predictions_with_noise_and_knows_what_it_told(
    lender: Firm,
) -> None:
    memory = Memory()
    query = Query(InferSharing().terms(1), 0, "contested")
    plainly = probabilities(lender.answer(query, Memory()))
    query = Query(TOLD, 0, "contested", EDGES)
    told = probabilities(lender.answer(query, memory))
    assert set(told) == {0.375, 0.875}
    true, said = np.digitize(plainly, EDGES), np.digitize(told, EDGES)
    kept, n = np.mean(true == said), len(true)
    expected = truthful(1.0, 2)
    assert kept == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))
    np.testing.assert_array_equal(told, probabilities(lender.answer(query, Memory())))
    # It acts on all three: its own signal, what it told, what the rival told.
    answer = lender.answer(query, memory)
    assert isinstance(answer, Predictions)
    rival = replace(answer, probs=answer.probs[:, ::-1].copy())
    theirs = np.digitize(rival.probs[:, 1], EDGES)
    for actions, follows in (
        ([[[0, 0], [0, 0]], [[1, 1], [1, 1]]], true),
        ([[[0, 0], [1, 1]], [[0, 0], [1, 1]]], said),
        ([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], theirs),
    ):
        rule = DecisionRule(EDGES, EDGES, np.array(actions))
        # (A firm with a memory would act by one rule only.)
        played = lender.answer(Play(TOLD, 0, rule, np.full((2, 2, 2), 1 / 8), rival), Memory())
        assert isinstance(played, Actions)
        np.testing.assert_array_equal(played.actions, follows)


def test_validation_predictions_reach_the_operator_as_they_are(lender: Firm) -> None:
    found = [
        probabilities(lender.answer(Query(terms, 0, "validation"), Memory()))
        for terms in (TOLD, InferSharing().terms(1))
    ]
    np.testing.assert_array_equal(*found)


def test_a_firm_tells_its_prediction_once_whatever_signals_are_asked_for(lender: Firm) -> None:
    memory = Memory()
    assert isinstance(lender.answer(Query(TOLD, 0, "contested", EDGES), memory), Predictions)
    answer = lender.answer(Query(TOLD, 0, "contested", np.array([0.5])), memory)
    assert isinstance(answer, Refusal)
    assert "one set of signals" in answer.reason


def test_other_contracts_of_the_same_epsilon_hear_the_same_and_of_another_one_other_noise(
    lender: Firm,
) -> None:
    def told(terms: Terms) -> Array:
        return probabilities(lender.answer(Query(terms, 0, "contested", EDGES), Memory()))

    np.testing.assert_array_equal(told(TOLD), told(FullSharing(prediction_epsilon=1.0).terms(1)))
    plainly = lender.answer(Query(InferSharing().terms(1), 0, "contested"), Memory())
    true = np.digitize(probabilities(plainly), EDGES)
    first, second = (
        np.digitize(told(replace(TOLD, prediction_epsilon=e)), EDGES) != true for e in (1.0, 1.1)
    )
    both = np.mean(first) * np.mean(second)  # as often as of independent noise
    assert np.mean(first & second) == pytest.approx(both, abs=4 * math.sqrt(both / len(true)))


def test_a_secret_key_is_a_firms_own_and_lasts_as_long_as_its_memory(lender: Firm) -> None:
    hidden = replace(lender, secrets=SECRET)
    query, memory = Query(TOLD, 0, "contested", EDGES), Memory()
    found = [
        probabilities(firm.answer(query, m))
        for firm, m in ((lender, Memory()), (hidden, memory), (hidden, memory), (hidden, Memory()))
    ]
    np.testing.assert_array_equal(found[1], found[2])
    for other in (found[0], found[3]):
        assert np.mean(found[1] != other) > 0.2
    assert len(memory.notes["noise key"]) == 64


def sent(answer: object) -> Mapping[str, Array]:
    assert isinstance(answer, Trained)
    assert answer.weights is not None
    return answer.weights.arrays


def test_a_firm_hands_over_its_start_with_a_noised_update(hospital: Firm) -> None:
    split = hospital.dataset.split(0).training
    start = weights_of(hospital._models.module(split.features, 0))
    offer = Offer(BLURRED, 0, 0, epochs=1)
    plainly = sent(hospital.answer(replace(offer, terms=TrainSharing().terms(2)), Memory()))
    found = sent(hospital.answer(offer, Memory()))
    again = sent(hospital.answer(offer, Memory()))
    learnt = math.sqrt(sum(float(np.sum((plainly[n] - start[n]) ** 2)) for n in start))
    share = min(1.0, 0.5 / learnt)
    noise = np.concatenate(
        [(found[n] - start[n] - share * (plainly[n] - start[n])).ravel() for n in start]
    )
    scale = 0.5 * noise_multiplier(8.0, 1e-5, 2)
    assert 0.4 * scale < noise.std() < 1.8 * scale
    for name, array in found.items():
        np.testing.assert_array_equal(array, again[name])
        assert array.dtype == plainly[name].dtype


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"card": True}, "more than weights"),
        ({"precision": True}, "more than weights"),
        ({"round": 2}, "pays for 2 rounds"),
        ({"model": True}, "one update a round"),
        ({"epochs": 2}, "one update a round"),
        ({"epochs": 0}, "one update a round"),
        ({"proximal": 1e-4}, "one update a round"),
    ],
)
def test_a_firm_refuses_what_its_noise_would_not_cover(
    hospital: Firm, change: dict[str, Any], reason: str
) -> None:
    memory, offer = Memory(), Offer(BLURRED, 0, 0, epochs=1)
    arrays = sent(hospital.answer(offer, memory))
    if "model" in change:
        change = {"model": Weights(arrays, 10)}
    answer = hospital.answer(replace(offer, **change), memory)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_a_firm_of_another_noise_is_refused() -> None:
    with pytest.raises(FedpactError, match="legal are seeded and secret"):
        build({**plain(*SMALL_LOANS)["parties"]["lender_a"], "secrets": "loud"})


# ------------------------------------------------------------------------------------- the terms


def test_terms_with_noise_cross_the_wall_and_say_so() -> None:
    terms = FullSharing(
        price=0.5, prediction_epsilon=2, update_epsilon=4, update_delta=1e-6, update_clip=2
    ).terms(3)
    query = Query(terms, 0, "contested", EDGES)
    crossed = unpack(pack(query))
    assert isinstance(crossed, Query)
    assert crossed.terms == terms
    assert privacy.epsilons(terms) == {"models": 4.0, "predictions": 2.0}
    told = " ".join(terms.operator_sees("contested"))
    assert "epsilon 2" in told
    assert "epsilon 4, delta 1e-06 over all rounds of a seed" in told


@pytest.mark.parametrize(
    ("most", "terms", "reason"),
    [
        (None, InferSharing().terms(1), ""),
        (2.0, replace(TOLD, prediction_epsilon=2.0), ""),
        (2.0, replace(TOLD, prediction_epsilon=2.5), "predictions cross with epsilon 2.5"),
        (2.0, TrainSharing().terms(1), "models cross without noise; epsilon may be 2 at most"),
        (2.0, FullSharing(prediction_epsilon=1).terms(1), "models cross without noise"),
        (0.0, Terms("no_sharing", models=False, predictions=False), ""),
    ],
)
def test_a_policy_bounds_every_epsilon(most: float | None, terms: Terms, reason: str) -> None:
    found = privacy.objection(terms, most)
    assert reason in found if reason else found == ""


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("contract.infer_sharing.update_epsilon=1",), "0: no models cross"),
        (("contract.train_sharing.prediction_epsilon=1",), "0: no predictions cross"),
        (("contract.infer_sharing.prediction_epsilon=-1",), "finite numbers > 0"),
        (("contract.infer_sharing.prediction_epsilon=nan",), "finite numbers > 0"),
        (("contract.full_sharing.update_delta=1",), "between 0 and 1"),
        (("contract.full_sharing.update_clip=0",), "number > 0"),
        (
            ("experiment=reuse_images", "contract.train_sharing.update_epsilon=1"),
            "more than weights, which no noise covers",
        ),
        (
            ("experiment=heart", "contract.train_sharing.update_epsilon=0.001"),
            "noise of norm .* accepts models of norm 10000 at most",
        ),
    ],
)
def test_noise_that_cannot_be_is_refused_before_the_first_epoch(
    overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        study_of(plain(*overrides))


@pytest.mark.parametrize(
    "fields",
    [
        {"prediction_epsilon": 1.0},
        {"update_epsilon": 1.0, "update_delta": 1e-5, "update_clip": 1.0},
        {"models": True, "rounds": 1, "update_epsilon": 1.0},
        {"models": True, "rounds": 1, "update_clip": 1.0},
        {"models": True, "rounds": 1, "update_epsilon": 1.0, "update_delta": 1.0},
    ],
)
def test_terms_whose_noise_protects_nothing_are_no_terms(fields: dict[str, Any]) -> None:
    with pytest.raises(ExchangeError, match=r"terms\.(prediction|update)_epsilon"):
        Terms(**{"contract": "ours", "models": False, "predictions": False, **fields})


@pytest.mark.parametrize("edges", [None, [0.0, 0.5], [0.5, 0.5], [0.5, 1.5]])
def test_signals_that_cannot_be_told_are_not_asked_for(edges: list[float] | None) -> None:
    with pytest.raises(ExchangeError, match=r"query\.edges"):
        Query(TOLD, 0, "contested", None if edges is None else np.array(edges))
    with pytest.raises(ExchangeError, match=r"query\.edges"):
        Query(InferSharing().terms(1), 0, "contested", EDGES)


# ----------------------------------------------------------------------------------- whole studies

NOISED = (
    *SMALL_LOANS,
    "study.seeds=1",
    "play.signal_bins=3",
    "contract.infer_sharing.prediction_epsilon=2",
    "contract.full_sharing.prediction_epsilon=40",
    "contract.full_sharing.update_epsilon=1",
)


def held(folder: Path, *overrides: str) -> dict[str, Any]:
    config = run_config(folder, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    return conclude(study_of(json.loads(config["config"])), RunFolder(folder))


def test_a_study_with_noise_is_held_again_to_the_same_bits_and_says_what_it_asks(
    tmp_path: Path,
) -> None:
    first, second = (held(tmp_path / name, *NOISED) for name in ("one", "two"))
    assert first == second
    contracts = first["contracts"]
    assert contracts["infer_sharing"]["privacy"] == {"prediction_epsilon": 2.0}
    assert contracts["full_sharing"]["privacy"]["update_clip"] == 1.0
    assert "privacy" not in contracts["no_sharing"]
    assert noise_lines(first)[0] == (
        "infer_sharing: predictions are told with noise of epsilon 2 each."
    )
    study, folder = study_of(plain(*NOISED)), RunFolder(tmp_path / "one")
    page = write_report(study, folder, first).read_text()
    assert noise_lines(first)[1] in page
    outcomes = [found[0] for case in study.cases() if (found := folder.load(case.name))]
    measured = measure(study, outcomes)
    assert measured is not None
    rows = {row["id"]: row for row in game_rows(study, measured)}
    assert list(rows)[2:] == ["infer_sharing_told", "full_sharing_told"]
    for name in ("coupling_known", "coupling_prior"):
        assert rows[name]["contracts"] == ["no_sharing", "train_sharing"]
        assert "under infer_sharing, full_sharing: in a row of its own" in rows[name]["note"]
    assert isinstance(study.market, Contest)
    believed = study.play.prior.mean(measured.table)
    maps = solve_told(believed, study.market.payoff, study.market.gamma, 2.0)
    paid = payoffs(told_table(believed, 2.0), maps, study.market.payoff, study.market.gamma)
    exact = solved_row(rows["infer_sharing_told"]).payoffs("infer_sharing_told")
    np.testing.assert_allclose([float(v) for v in exact], paid, atol=1e-9)


def test_next_to_no_noise_on_predictions_changes_no_payoff(tmp_path: Path) -> None:
    plainly = held(tmp_path / "plain", *SMALL_LOANS, "study.seeds=1")
    noised = held(
        tmp_path / "noised",
        *SMALL_LOANS,
        "study.seeds=1",
        "contract.full_sharing.prediction_epsilon=40",
    )
    for part in ("payoff", "predicted"):
        one, two = (
            [firm[part] for firm in found["contracts"]["full_sharing"]["firms"].values()]
            for found in (plainly, noised)
        )
        np.testing.assert_allclose(one, two, atol=1e-12)
    assert noised["scores"]["full_sharing"].keys() == {
        "auc_validation.lender_a",
        "auc_validation.lender_b",
    }


def test_where_all_serve_the_same_clients_opinions_are_told_with_noise(tmp_path: Path) -> None:
    small = (
        *SMALL_POOL,
        "parties=two_digit_halves",
        "market=common_clients",
        "study=all_contracts",
        "study.seeds=1",
        "contract.infer_sharing.prediction_epsilon=1",
        "contract.full_sharing.prediction_epsilon=1",
    )
    found = held(tmp_path, *small)
    assert found["contracts"]["infer_sharing"]["privacy"] == {"prediction_epsilon": 1.0}


def test_models_with_noise_are_averaged_and_worse(tmp_path: Path) -> None:
    gains = []
    for epsilon in (0, 0.1):
        found = held(
            tmp_path / str(epsilon),
            *SMALL_HEART,
            f"contract.train_sharing.update_epsilon={epsilon}",
        )
        gains.append([f["gain"] for f in found["contracts"]["train_sharing"]["firms"].values()])
    assert np.mean(gains[1]) < np.mean(gains[0])
