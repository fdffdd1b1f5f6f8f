"""A firm answers what its terms allow, and no more, whatever the operator asks."""

from __future__ import annotations

import numpy as np
import pytest

from parties.exchange import (
    Actions,
    DecisionRule,
    Declaration,
    Enrol,
    Measure,
    Offer,
    Play,
    Predictions,
    Query,
    Refusal,
    Request,
    Scores,
    Terms,
    Trained,
)
from parties.firm import Firm
from parties.memory import Memory
from server.contracts.full_sharing import FullSharing
from server.contracts.infer_sharing import InferSharing
from server.contracts.no_sharing import NoSharing
from server.contracts.train_sharing import TrainSharing
from simulations.build import build
from tests.checks import SMALL_HEART, SMALL_LOANS, plain

CONTRACTS = [NoSharing(), TrainSharing(), InferSharing(), FullSharing()]
RULE = DecisionRule(np.array([0.75]), np.empty(0), np.array([0, 1]))
BELIEF = np.full((2, 2, 2), 1 / 8)


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


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.name)
def test_weights_leave_only_where_models_are_shared(lender: Firm, contract: object) -> None:
    terms = contract.terms(1)  # type: ignore[attr-defined]
    answer = lender.answer(Offer(terms, 0, 0), Memory())
    assert isinstance(answer, Trained)
    assert (answer.weights is not None) == terms.models


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.name)
def test_contested_predictions_leave_only_where_they_are_shared(
    lender: Firm, contract: object
) -> None:
    terms = contract.terms(1)  # type: ignore[attr-defined]
    answer = lender.answer(Query(terms, 0, "contested"), Memory())
    assert isinstance(answer, Predictions if terms.predictions else Refusal)
    assert isinstance(lender.answer(Query(terms, 0, "validation"), Memory()), Predictions)


def test_terms_cannot_change_under_a_contract_once_seen(lender: Firm) -> None:
    memory = Memory()
    agreed = Terms("our_own", models=False, predictions=False)
    lender.answer(Query(agreed, 0, "validation"), memory)
    forged = Terms("our_own", models=True, predictions=True, rounds=1)
    answer = lender.answer(Offer(forged, 0, 0), memory)
    assert isinstance(answer, Refusal)
    assert "not those that lender_a accepted" in answer.reason


@pytest.mark.parametrize("kind", ["models", "predictions"])
def test_a_firm_that_shares_nothing_refuses_the_contract(kind: str) -> None:
    config = plain(*SMALL_LOANS, "parties.lender_a.shares=[]")["parties"]["lender_a"]
    contract = TrainSharing() if kind == "models" else InferSharing()
    requests: list[Request] = [
        Offer(contract.terms(1), 0, 0),
        Query(contract.terms(1), 0, "validation"),
        Play(contract.terms(1), 0, RULE, BELIEF),
    ]
    for request in requests:
        answer = build(config).answer(request, Memory())
        assert isinstance(answer, Refusal)
        assert f"shares no {kind}" in answer.reason


def test_losing_its_memory_costs_a_firm_time_but_changes_no_answer(lender: Firm) -> None:
    terms, memory = NoSharing().terms(1), Memory()
    query = Query(terms, 0, "validation")
    first, remembered = lender.answer(query, memory), lender.answer(query, memory)
    forgotten = lender.answer(query, Memory())
    assert isinstance(first, Predictions)
    for other in (remembered, forgotten):
        assert isinstance(other, Predictions)
        np.testing.assert_array_equal(first.probs, other.probs)
    assert list(memory.models) == ["own/0"]
    lender.answer(Query(terms, 1, "validation"), memory)
    assert list(memory.models) == ["own/1"]


def test_a_firm_acts_by_its_rule(lender: Firm) -> None:
    terms = NoSharing().terms(1)
    answer = lender.answer(Play(terms, 0, RULE, BELIEF), Memory())
    assert isinstance(answer, Actions)
    open_terms = InferSharing().terms(1)
    probs = lender.answer(Query(open_terms, 0, "contested"), Memory())
    assert isinstance(probs, Predictions)
    np.testing.assert_array_equal(answer.actions, probs.probs[:, 1] >= 0.75)


def test_a_declaration_counts_what_the_firm_holds(lender: Firm, hospital: Firm) -> None:
    said = lender.answer(Enrol(0), Memory())
    assert isinstance(said, Declaration)
    assert (said.examples, said.validation, said.contested, said.held_out) == (900, 300, 300, 0)
    said = hospital.answer(Enrol(0), Memory())
    assert isinstance(said, Declaration)
    assert (said.validation, said.contested) == (0, 0)
    assert said.examples + said.held_out == 293


def test_a_hospital_scores_the_published_model_or_its_own(hospital: Firm) -> None:
    own = hospital.answer(Measure(NoSharing().terms(1), 0), Memory())
    terms = TrainSharing().terms(1)
    trained = hospital.answer(Offer(terms, 0, 0, epochs=60), Memory())
    assert isinstance(trained, Trained)
    shared = hospital.answer(Measure(terms, 0, trained.weights), Memory())
    assert isinstance(own, Scores)
    assert isinstance(shared, Scores)
    assert (own.log_loss, own.variance) == (own.own_log_loss, 0.0)
    assert shared.own_log_loss == own.log_loss
    assert shared.log_loss != own.log_loss
    assert shared.variance > 0
    assert shared.cases == own.cases == 74


def test_training_goes_on_from_the_published_model(hospital: Firm) -> None:
    terms = TrainSharing().terms(2)
    first = hospital.answer(Offer(terms, 0, 0, epochs=2), Memory())
    assert isinstance(first, Trained)
    second = hospital.answer(Offer(terms, 0, 1, epochs=2, model=first.weights), Memory())
    fresh = hospital.answer(Offer(terms, 0, 1, epochs=2), Memory())
    assert isinstance(second, Trained)
    assert isinstance(fresh, Trained)
    assert second.losses[0] < fresh.losses[0]
