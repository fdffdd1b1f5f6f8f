"""Settling at home: the operator learns no outcome of a contested client, and the verdict stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.exchange import (
    Actions,
    Answer,
    DecisionRule,
    Declaration,
    ExchangeError,
    FedpactError,
    Play,
    Predictions,
    Refusal,
    Request,
    Reveal,
    Revealed,
    Scores,
    Settle,
    Settled,
    Terms,
    unpack,
)
from parties.firm import Firm
from parties.memory import Memory
from server.intake import Limits, UnacceptableError, accept
from server.market import Contest
from server.settling import AtHome
from server.transport import Answers
from server.verdict import CONFIDENCE
from simulations.conclude import conclude
from simulations.engines import apps
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import SMALL_LOANS, RecordingGrid, contexts, firms_of, hold_on, plain, run_config
from tests.inline_grid import InlineGrid

OPEN = Terms("full_sharing", models=True, predictions=True, rounds=1)
CLOSED = Terms("no_sharing", models=False, predictions=False)
LOANS = Contest(R0=0, R1=1, C0=0, C1=3)
AT_HOME = "study.settles=firms"
COMMON = ("experiment=canonical_sharing_digits", "study.seeds=1", "strategy.rounds=1")


def held(folder: Path, *overrides: str) -> tuple[dict[str, Any], RecordingGrid]:
    """The verdict of a study held in this process, and every message of it."""
    config = run_config(folder, *overrides)
    names = dict(zip(contexts(config), firms_of(config), strict=True))
    grid = RecordingGrid(InlineGrid(apps.client, contexts(config)), names)
    hold_on(grid, config)
    return conclude(study_of(plain(*overrides)), RunFolder(folder)), grid


def without_words(verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict, but for what it says that the operator sees."""
    contracts = verdict["contracts"].items()
    bare = {n: {k: v for k, v in c.items() if k != "operator_sees"} for n, c in contracts}
    return verdict | {"contracts": bare}


@pytest.mark.parametrize("study", [SMALL_LOANS, COMMON], ids=["contested", "common"])
def test_firms_that_settle_at_home_get_the_same_verdict_to_the_last_bit(
    study: tuple[str, ...], tmp_path: Path
) -> None:
    by_market, _ = held(tmp_path / "market", *study)
    at_home, _ = held(tmp_path / "firms", *study, AT_HOME)
    assert json.dumps(without_words(at_home)) == json.dumps(without_words(by_market))
    market, firms = ((tmp_path / name / "payoffs.csv").read_bytes() for name in ("market", "firms"))
    assert firms == market


def test_a_price_is_paid_by_firms_that_settle_at_home_too(tmp_path: Path) -> None:
    priced = (*SMALL_LOANS, "contract.full_sharing.price=0.02")
    by_market, _ = held(tmp_path / "market", *priced)
    at_home, _ = held(tmp_path / "firms", *priced, AT_HOME)
    assert without_words(at_home) == without_words(by_market)
    sums, _ = held(tmp_path / "sums", *priced, AT_HOME, "parties.lender_a.tells=sums")
    for firm, sign in (("lender_a", 1), ("lender_b", -1)):
        gain = [v["contracts"]["full_sharing"]["firms"][firm]["gain"] for v in (by_market, sums)]
        assert gain[1] == pytest.approx(gain[0], abs=1e-12)
        assert sign * gain[0] != 0


def test_an_operator_whose_firms_tell_sums_gets_outcomes_of_validation_clients_only(
    tmp_path: Path,
) -> None:
    tells = [f"parties.{name}.tells=sums" for name in ("lender_a", "lender_b")]
    _, grid = held(tmp_path, *SMALL_LOANS, AT_HOME, *tells)
    answers = [unpack(packed) for sender, _, packed in grid.log if sender != "operator"]
    settled = [a for a in answers if isinstance(a, Settled)]
    assert len(settled) == 2 * 4 * 2  # firms, contracts, seeds
    assert all(a.payoffs is None and a.ids is None and not a.scores for a in settled)
    study = study_of(plain(*SMALL_LOANS))
    validation = [study.nature(seed, "validation")[0].tolist() for seed in study.seeds]
    revealed = [a.ids.tolist() for a in answers if isinstance(a, Revealed)]
    assert len(revealed) == len(settled)
    assert all(ids in validation for ids in revealed)


def test_sums_give_the_same_gain_and_an_interval_that_is_about_as_wide(tmp_path: Path) -> None:
    each, _ = held(tmp_path / "each", *SMALL_LOANS, AT_HOME)
    tells = [f"parties.{name}.tells=sums" for name in ("lender_a", "lender_b")]
    sums, _ = held(tmp_path / "sums", *SMALL_LOANS, AT_HOME, *tells)
    for contract in ("infer_sharing", "full_sharing"):
        for firm in ("lender_a", "lender_b"):
            one, two = (v["contracts"][contract]["firms"][firm] for v in (each, sums))
            assert two["gain"] == pytest.approx(one["gain"], abs=1e-12)
            assert two["payoff"] == pytest.approx(one["payoff"], abs=1e-12)
            width = [v["interval"][1] - v["interval"][0] for v in (one, two)]
            assert width[1] == pytest.approx(width[0], rel=0.05)
            assert two["clients"] == one["clients"]
    assert sums["interval"] == each["interval"]
    assert f"{CONFIDENCE:.0%}"[:2] in each["interval"]


# ------------------------------------------------------------------------------------- by the sums


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1)), min_size=1),
    st.floats(0, 1),
)
def test_what_a_firm_settles_is_what_the_market_would(
    clients: list[tuple[int, int, int]], gamma: float
) -> None:
    one, two, classes = (np.array(column) for column in zip(*clients, strict=True))
    market = replace(LOANS, gamma=gamma)
    earned = market.settle((one, two), classes)
    shares = market.shares((one, two))
    for actions, paid in ((one, earned[0]), (two, earned[1])):
        settle = Settle(CLOSED, 0, "contested", actions, shares, market.payoff)
        assert settle.earned(classes).tobytes() == paid.tobytes()


def test_a_right_answer_earns_one_where_worth_is_left_out() -> None:
    settle = Settle(CLOSED, 0, "common", np.array([0, 3, 2]), np.ones(3))
    assert settle.earned(np.array([0, 2, 2])).tolist() == [1.0, 0.0, 1.0]


SETTLE = Settle(
    OPEN, 0, "contested", np.array([1, 1, 0]), np.array([1.0, 0.5, 1.0]), LOANS.payoff,
    {"auc": np.array([0.1, 0.2, 0.3])},
)  # fmt: skip
IDS = np.array([5, 7, 9])
KNOWN = Declaration("a", 5, 3, 3, 0, {"w": (2,)}, ("w",))
GOOD = Settled(3, 11, 0.5, 0.0, 0.1, IDS, np.array([1.0, 0.5, 0.0]))


def test_an_honest_bill_is_accepted() -> None:
    assert accept(SETTLE, GOOD, KNOWN, Limits()) == GOOD
    sums = Settled(3, 11, 0.5, 0.25, 0.1)
    assert accept(SETTLE, sums, KNOWN, Limits()) == sums


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (replace(GOOD, payoff=0.4), "mean is not the one that it told"),
        (replace(GOOD, payoffs=np.array([0.5, 1.0, 0.0])), "cannot earn"),
        (replace(GOOD, payoff=9.0), "its actions earn -1.5 to 0.5"),
        (replace(GOOD, scores={"other": 0.5}), "scores that nobody asked for: other"),
        (Settled(2, 11, 0.5, 0.0, 0.1), "2 settled clients for 3 declared"),
        (Revealed(IDS, np.array([0, 1, 1])), "sent Revealed, asked for Settled"),
    ],
)
def test_a_bill_that_cannot_be_is_refused(bad: Answer, says: str) -> None:
    with pytest.raises(UnacceptableError, match=says):
        accept(SETTLE, bad, KNOWN, Limits())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"payoff": float("nan")}, "settled.payoff is nan"),
        ({"gain": 1}, "settled.gain is 1"),
        ({"variance": -1.0}, "settled.variance"),
        ({"population": 2}, "settled.population is 2"),
        ({"ids": None}, "come together"),
        ({"payoffs": np.array([1.0])}, "not one a case"),
        ({"payoffs": np.array([1.0, np.inf, 0.0])}, "must be finite"),
        ({"scores": {"auc": 1.5}}, r"legal is \[0, 1\]"),
    ],
)
def test_a_bill_is_checked_at_the_wall(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ExchangeError, match=says):
        replace(GOOD, **change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"part": "validation"}, "settle.part is 'validation'"),
        ({"actions": np.array([2, 1, 0])}, "settle.actions are not among 0 to 1"),
        ({"actions": np.array([-1, 1, 0])}, "numbers below 0"),
        ({"shares": np.array([1.0, 0.5])}, "one finite number an action"),
        ({"worth": np.full((2, 2), np.nan)}, "settle.worth must be finite"),
        ({"scored": {"auc": np.array([0.5])}}, "one finite number an action"),
        ({"terms": CLOSED}, "no_sharing shares no predictions"),
    ],
)
def test_a_question_for_a_bill_is_checked_at_the_wall(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ExchangeError, match=says):
        replace(SETTLE, **change)


# ----------------------------------------------------------------------------- firms that disagree


def case() -> Any:
    return next(study_of(plain(*SMALL_LOANS)).cases())


def revealing(**classes: Answer) -> Any:
    def ask(requests: dict[str, Request], minimum: int | None = None) -> Answers:
        assert all(isinstance(r, Reveal) for r in requests.values())
        return Answers(usable=dict(classes))

    return ask


def test_firms_that_disagree_about_validation_clients_are_told_so() -> None:
    one, two = Revealed(IDS, np.array([0, 1, 1])), Revealed(IDS, np.array([0, 1, 0]))
    agreed = AtHome().classes(case(), CLOSED, revealing(lender_a=one, lender_b=one), IDS)
    assert agreed.tolist() == [0, 1, 1]
    with pytest.raises(FedpactError, match="disagree about what 1 of 3 validation clients"):
        AtHome().classes(case(), CLOSED, revealing(lender_a=one, lender_b=two), IDS)
    other = Revealed(IDS + 1, one.classes)
    with pytest.raises(FedpactError, match="lender_b told the classes of other clients"):
        AtHome().classes(case(), CLOSED, revealing(lender_a=one, lender_b=other), IDS)
    with pytest.raises(FedpactError, match=r"lender_b does not tell .*policy"):
        AtHome().classes(case(), CLOSED, revealing(lender_a=one), IDS)


def test_payoffs_of_outcomes_that_contradict_each_other_are_noted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def settling(requests: dict[str, Settle], minimum: int | None = None) -> Answers:
        truth = {"lender_a": np.array([1, 1, 0]), "lender_b": np.array([1, 0, 0])}
        told: dict[str, Answer] = {}
        for name, settle in requests.items():
            paid = settle.earned(truth[name])
            told[name] = Settled(3, 9, float(paid.mean()), 0.0, 0.0, IDS, paid)
        return Answers(usable=told)

    actions = dict.fromkeys(("lender_a", "lender_b"), np.ones(3, np.int8))
    bill = AtHome().bill(case(), CLOSED, settling, actions, {})  # type: ignore[arg-type]
    assert sorted(bill.payoffs) == ["lender_a", "lender_b"]
    assert "lender_b earned of 1 clients what they cannot have been" in caplog.text


def test_firms_with_other_clients_are_named() -> None:
    told = {"lender_a": IDS, "lender_b": IDS[::-1]}
    with pytest.raises(FedpactError, match="lender_a and lender_b answered for different contest"):
        AtHome().expected(case(), "contested", told)


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("study.settles=nobody",), "study.settles is 'nobody'; legal are market, firms"),
        (("parties.lender_a.tells=all",), "parties.lender_a.tells is 'all'; legal are clients"),
        (("parties.lender_a.tells=sums",), "the market settles. Use study.settles=firms"),
        (
            (AT_HOME, "study.contracts=[full_sharing,no_sharing]"),
            "study.contracts begins with full_sharing; where firms settle at home",
        ),
        (
            ("experiment=heart", AT_HOME),
            "study.settles is firms; where each firm serves its own cases",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(FedpactError, match=says):
        study_of(plain(*words))


def test_a_study_of_firms_elsewhere_reads_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parties.datasets.taiwan_credit.read_csv", None)
    monkeypatch.setattr("parties.datasets.heart_hospitals.read_csv", None)
    for words in (SMALL_LOANS, ("experiment=heart", "study.seeds=1")):
        study = study_of(plain(*words), away=True)
        assert study.hashes() == {}
        assert isinstance(study.settling, AtHome)


def test_what_firms_elsewhere_declare_is_checked_when_they_enrol() -> None:
    loans = study_of(plain(*SMALL_LOANS), away=True)
    one = Declaration("lender_a", 5, 3, 3, 0, {"w": (2,)}, ("w",))
    loans.check_declared({"lender_a": one, "lender_b": replace(one, firm="lender_b")})
    with pytest.raises(FedpactError, match="lender_b declares no contested cases"):
        loans.check_declared({"lender_a": one, "lender_b": replace(one, contested=0)})
    with pytest.raises(FedpactError, match="declares 3 contested clients and lender_b 4"):
        loans.check_declared({"lender_a": one, "lender_b": replace(one, contested=4)})
    own = study_of(plain("parties=two_own"), away=True)
    with pytest.raises(FedpactError, match=r"and beta 4; .* `parts` of their data\.yaml"):
        own.check_declared({"alpha": one, "beta": replace(one, contested=4)})
    heart = study_of(plain("experiment=heart"), away=True)
    two = replace(one, contested=0, held_out=3)
    with pytest.raises(FedpactError, match="models of different shapes"):
        heart.check_declared({"cleveland": two, "hungary": replace(two, tensors={"w": (3,)})})


def test_scores_are_no_bill() -> None:
    scores = Scores(3, 0.1, 0.2, 0.0, 0.5)
    with pytest.raises(UnacceptableError, match="sent Scores, asked for Settled"):
        accept(SETTLE, scores, KNOWN, Limits())
    predictions = Predictions(IDS, np.full((3, 2), 0.5))
    with pytest.raises(UnacceptableError, match="sent Predictions, asked for Revealed"):
        accept(Reveal(CLOSED, 0), predictions, KNOWN, Limits())


# ------------------------------------------------------------------------- an operator that pries


def acted(tells: str) -> tuple[Firm, Memory, Play, Actions]:
    """A lender that has acted under no_sharing, and what it was asked."""
    firm = study_of(plain(*SMALL_LOANS, AT_HOME, f"parties.lender_a.tells={tells}")).firms[
        "lender_a"
    ]
    memory = Memory()
    belief = np.full((2, 2, 2), 1 / 8)
    rule = DecisionRule(np.array([0.7]), np.empty(0), np.array([0, 1]))
    play = Play(CLOSED, 0, rule, belief)
    answer = firm.answer(play, memory)
    assert isinstance(answer, Actions)
    return firm, memory, play, answer


def bill(answer: Actions, **change: Any) -> Settle:
    shares = np.where(np.arange(len(answer.actions)) % 2, 1.0, 0.5)
    settle = Settle(CLOSED, 0, "contested", answer.actions.astype(np.int64), shares, LOANS.payoff)
    return replace(settle, **change)


def test_a_firm_acts_by_one_rule_so_that_no_rules_read_out_its_predictions() -> None:
    firm, memory, play, answer = acted("clients")
    again = firm.answer(play, memory)
    assert isinstance(again, Actions)
    assert np.array_equal(again.actions, answer.actions)
    for edge in (0.5, 0.6):
        rule = replace(play.rule, edges=np.array([edge]))
        told = firm.answer(replace(play, rule=rule), memory)
        assert told == Refusal("lender_a was asked to act under no_sharing otherwise")


@pytest.mark.parametrize("tells", ["clients", "sums"])
def test_a_firm_settles_once_for_its_own_actions_so_that_no_sums_read_out_outcomes(
    tells: str,
) -> None:
    firm, memory, _, answer = acted(tells)
    one = np.zeros(len(answer.actions), np.int64)
    one[0] = 1
    for change, says in (
        ({"actions": one}, "for other actions than its own"),
        ({"shares": 2.0 ** -np.arange(len(one))}, "for shares that no market gives"),
    ):
        told = firm.answer(bill(answer, **change), memory)
        assert isinstance(told, Refusal)
        assert says in told.reason
    honest = firm.answer(bill(answer), memory)
    assert isinstance(honest, Settled)
    assert firm.answer(bill(answer), memory) is not None
    other = np.where(np.arange(len(one)) == 0, 1.0, 0.5)
    for change in ({"shares": other}, {"worth": 2 * LOANS.payoff}):
        told = firm.answer(bill(answer, **change), memory)
        assert told == Refusal("lender_a was asked to settle under no_sharing otherwise")


def test_a_firm_that_tells_sums_settles_for_nothing_that_it_has_not_done() -> None:
    firm, _, _, answer = acted("sums")
    told = firm.answer(bill(answer), Memory())
    assert isinstance(told, Refusal)
    assert "for other actions than its own" in told.reason
