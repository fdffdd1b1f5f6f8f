"""Bad answers are refused with their reason; the others' round goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from parties.exchange import (
    Actions,
    Answer,
    Declaration,
    ExchangeError,
    FedpactError,
    Measure,
    Offer,
    Play,
    Predictions,
    Query,
    Refusal,
    Request,
    Scores,
    Trained,
    Weights,
    pack,
    unpack,
)
from parties.wire import read_records
from server.intake import Limits, UnacceptableError, accept
from server.transport import Answers, Sent, TooFewFirmsError, Transport, enough
from simulations.conclude import conclude
from simulations.engines import apps
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    contexts,
    hold_on,
    packed_in,
    recorded,
    run_config,
)
from tests.inline_grid import InlineGrid
from tests.test_exchange import CLOSED, IDS, OPEN, PROBS, RULE

KNOWN = Declaration("a", 5, 3, 3, 3, {"w": (2, 2)}, ("w",))
GOOD = {"w": np.ones((2, 2), np.float32)}
OFFER, LIMITS = Offer(OPEN, 0, 0), Limits(max_norm=100.0)
FISHER = Offer(OPEN, 0, 0, precision=True)


def sent(**arrays: np.ndarray) -> Trained:
    return Trained(5, (0.5,), Weights(arrays, 5))


BAD: list[tuple[str, Request, Answer, str]] = [
    ("nan", OFFER, sent(w=np.full((2, 2), np.nan, np.float32)), "w holds values that are not fin"),
    ("inf", OFFER, sent(w=np.full((2, 2), np.inf, np.float32)), "not finite"),
    ("huge", OFFER, sent(w=np.full((2, 2), 1e30, np.float32)), "norm 2e.30 exceeds 100"),
    ("shape", OFFER, sent(w=np.ones((2, 3), np.float32)), r"shape \(2, 3\), declared \(2, 2\)"),
    ("missing", OFFER, sent(v=np.ones((2, 2), np.float32)), "tensor names differ.*: v, w"),
    ("extra", OFFER, sent(**GOOD, v=np.ones(1)), "tensor names differ"),
    ("dtype", OFFER, sent(w=np.ones((2, 2), np.float16)), "dtype float16"),
    ("loss", OFFER, Trained(5, (float("nan"),), Weights(GOOD, 5)), "loss is not finite"),
    ("none", OFFER, Trained(5, (0.5,), None), "weights are due"),
    ("forbidden", Offer(CLOSED, 0, 0), sent(**GOOD), "no weights may be sent"),
    ("kind", OFFER, Actions(IDS, IDS % 2), "sent Actions, asked for Trained"),
    ("sum", Query(OPEN, 0, "contested"), Predictions(IDS, PROBS / 2), "sum to one"),
    (
        "range",
        Query(OPEN, 0, "contested"),
        Predictions(IDS, np.array([[2.0, -1.0]] * 3)),
        r"outside \[0, 1\]",
    ),
    ("nan p", Query(OPEN, 0, "contested"), Predictions(IDS, PROBS * np.nan), "outside"),
    (
        "length",
        Query(OPEN, 0, "validation"),
        Predictions(IDS[:2], PROBS[:2]),
        "2 predictions for 3 declared",
    ),
    ("actions", Play(OPEN, 0, RULE, np.zeros((2, 2, 2))), Actions(IDS[:1], IDS[:1]), "1 actions"),
    ("cases", Measure(OPEN, 0), Scores(2, 0.5, 0.5, 0.0, 0.5), "2 scored cases for 3"),
    ("classes", Query(OPEN, 0, "contested"), Predictions(IDS, np.eye(3)), "3 classes"),
    ("curve", Offer(OPEN, 0, 0, epochs=2), Trained(5, (0.5,) * 3, Weights(GOOD, 5)), "3 losses"),
    (
        "whole",
        OFFER,
        Trained(5, (0.5,), Weights({"w": np.ones((2, 2), np.int64)}, 5)),
        "send floats",
    ),
    ("few", FISHER, Trained(5, (0.5,), Weights(GOOD, 5, {})), "of every trained tensor"),
    (
        "large",
        FISHER,
        Trained(5, (0.5,), Weights(GOOD, 5, {"w": np.full((2, 2), 1e30, np.float32)})),
        "above 1e.04",
    ),
    ("none", Offer(OPEN, 0, 0, epochs=2), Trained(5, (), Weights(GOOD, 5)), "0 losses for 2"),
    ("long", OFFER, Trained(5, (0.5,) * 10_001, Weights(GOOD, 5)), "10001 losses"),
]


@pytest.mark.parametrize(
    ("request_", "answer", "problem"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_a_bad_answer_is_refused_with_its_reason(
    request_: Request, answer: Answer, problem: str
) -> None:
    with pytest.raises(UnacceptableError, match=problem):
        accept(request_, answer, KNOWN, LIMITS)


def test_a_good_answer_passes_and_a_refusal_is_no_fault() -> None:
    good = sent(**GOOD)
    assert accept(OFFER, good, KNOWN, LIMITS) == good
    no = Refusal("not for sale")
    assert accept(OFFER, no, KNOWN, LIMITS) is no


def test_example_counts_are_capped_by_the_declared_size() -> None:
    boast = Trained(10**18, (0.5,), Weights(GOOD, 10**18))
    found = accept(OFFER, boast, KNOWN, LIMITS)
    assert isinstance(found, Trained)
    assert found.weights is not None
    assert (found.examples, found.weights.examples) == (5, 5)


def test_whoever_did_not_declare_is_not_heard() -> None:
    with pytest.raises(UnacceptableError, match="before it declared"):
        accept(OFFER, sent(**GOOD), None, LIMITS)


@pytest.mark.parametrize("field", ["max_norm", "minimum_firms", "wait_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "x", True])
def test_impossible_limits_are_refused(field: str, value: Any) -> None:
    with pytest.raises(FedpactError, match=f"limits.{field}"):
        Limits(**{field: value})


# --------------------------------------------------------------- real runs with one firm tampering

Tamper = Callable[[Request, Answer], Answer]


def tampering(victim: str, tamper: Tamper, retag: str = "") -> ClientApp:
    """The real ClientApp, but one firm's answers are changed on their way out."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        reply = apps.client(message, context)
        if context.node_config["party"] != victim:
            return reply
        asked = unpack(packed_in(message.content))
        ((tag, packed),) = read_records(reply.content)
        told = unpack(packed)
        if retag and isinstance(asked, Offer):
            tag = f"{tag.split('/')[0]}/{retag}"
        content = recorded(pack(tamper(asked, told)), tag)  # type: ignore[arg-type]
        return Message(content, reply_to=message)

    for register in (app.train, app.query, app.evaluate):
        register()(answer)
    return app


def poison(value: float) -> Tamper:
    def tamper(asked: Request, told: Answer) -> Answer:
        if not isinstance(told, Trained) or told.weights is None:
            return told
        arrays = {k: np.full_like(v, value) for k, v in told.weights.arrays.items()}
        return replace(told, weights=replace(told.weights, arrays=arrays))

    return tamper


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_poisoned_update_is_left_out_and_the_other_hospitals_go_on(
    value: float, tmp_path: Path
) -> None:
    config = run_config(tmp_path, *SMALL_HEART, "study.seeds=1")
    app = tampering("switzerland", poison(value))
    hold_on(InlineGrid(app, contexts(config)), config)
    filed = RunFolder(tmp_path).load("train_sharing-seed0")
    assert filed is not None
    outcome = filed[0]
    assert set(outcome.excluded) == {"switzerland"}
    assert len(outcome.summaries) == 4
    assert all(np.isfinite(v.payoff) for v in outcome.summaries.values())
    verdict = conclude(study_of(json.loads(config["config"])), RunFolder(tmp_path))
    told = verdict["contracts"]["train_sharing"]["excluded"]["switzerland"]
    assert "not finite" in told or "norm" in told


def test_leaving_a_bad_firm_out_equals_its_never_having_answered(tmp_path: Path) -> None:
    config = run_config(tmp_path / "bad", *SMALL_HEART, "study.seeds=1")
    hold_on(InlineGrid(tampering("hungary", poison(np.nan)), contexts(config)), config)

    def crash(asked: Request, told: Answer) -> Answer:
        if isinstance(asked, Offer) and asked.terms.models:
            raise RuntimeError("crashed")
        return told

    other = run_config(tmp_path / "gone", *SMALL_HEART, "study.seeds=1")
    hold_on(InlineGrid(tampering("hungary", crash), contexts(other)), other)
    first, second = (
        (tmp_path / run / "models/train_sharing/seed0/published.safetensors").read_bytes()
        for run in ("bad", "gone")
    )
    assert first == second


def test_an_answer_to_an_old_round_is_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_HEART, "study.seeds=1")
    app = tampering("hungary", lambda asked, told: told, retag="0/train_sharing/0/Offer")
    hold_on(InlineGrid(app, contexts(config)), config)
    filed = RunFolder(tmp_path).load("train_sharing-seed0")
    assert filed is not None
    assert re.search(
        r"the open question is '\w+/0/train_sharing/1/Offer'", filed[0].excluded["hungary"]
    )


@pytest.mark.parametrize("mode", ["nan", "short", "crash", "kind"])
def test_a_contest_with_a_bad_firm_ends_with_its_name(mode: str, tmp_path: Path) -> None:
    def tamper(asked: Request, told: Answer) -> Answer:
        if not isinstance(told, Predictions):
            return told
        match mode:
            case "nan":
                return replace(told, probs=told.probs * np.nan)
            case "short":
                return Predictions(told.ids[:-1], told.probs[:-1])
            case "kind":
                return Refusal("I changed my mind")
            case _:
                raise RuntimeError("out of memory")

    config = run_config(tmp_path, *SMALL_LOANS)
    with pytest.raises(FedpactError, match=r"lender_b"):
        hold_on(InlineGrid(tampering("lender_b", tamper), contexts(config)), config)
    assert not RunFolder(tmp_path).held()


def test_predictions_for_other_clients_are_noticed(tmp_path: Path) -> None:
    def tamper(asked: Request, told: Answer) -> Answer:
        return replace(told, ids=told.ids[::-1]) if isinstance(told, Predictions) else told

    config = run_config(tmp_path, *SMALL_LOANS)
    with pytest.raises(FedpactError, match="lender_a answered for other clients"):
        hold_on(InlineGrid(tampering("lender_a", tamper), contexts(config)), config)


def test_a_firm_that_declines_leaves_both_without_a_deal(tmp_path: Path) -> None:
    config = run_config(
        tmp_path, *SMALL_LOANS, "study.seeds=1", "parties.lender_b.shares=[predictions]"
    )
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    alone, train, infer = (
        RunFolder(tmp_path).load(f"{c}-seed0")
        for c in ("no_sharing", "train_sharing", "infer_sharing")
    )
    assert alone is not None
    assert train is not None
    assert infer is not None
    assert train[0].declined == {
        "lender_b": "lender_b shares no models, and train_sharing asks for them"
    }
    np.testing.assert_array_equal(train[0].payoffs["lender_a"], alone[0].payoffs["lender_a"])
    assert not infer[0].declined


# ------------------------------------------------------------------------------------- transport


def test_too_few_firms_end_the_run_and_are_named_within_the_wait(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    only = dict(list(contexts(config).items())[:1])
    grid = InlineGrid(apps.client, only)
    transport = Transport(grid, ("lender_a", "lender_b"), Limits(wait_s=0.5))
    with pytest.raises(TooFewFirmsError, match=r"1 of 2 firms enrolled.*Missing: lender_b"):
        transport.enrol(0)


def test_a_stranger_is_not_heard_and_twins_are_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    grid = InlineGrid(apps.client, contexts(config))
    alone = Transport(grid, ("lender_a",), Limits(wait_s=0.5, minimum_firms=1))
    assert set(alone.enrol(0)) == {"lender_a"}
    twins = contexts(config)
    for context in twins.values():
        context.node_config["party"] = "lender_a"
    with pytest.raises(TooFewFirmsError, match="Two nodes say they are lender_a"):
        Transport(InlineGrid(apps.client, twins), ("lender_a",), Limits(wait_s=0.5)).enrol(0)


def test_another_runs_answer_is_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_HEART, "study.seeds=1")

    class Replaying(InlineGrid.__mro__[1]):  # type: ignore[misc]
        """Delivers, for one firm, what it answered in another run."""

        def __init__(self, now: InlineGrid) -> None:
            super().__init__(now.get_node_ids())
            self.now = now

        def push_messages(self, messages: Any) -> list[str]:
            raise AssertionError

        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            sent = list(messages)
            replies = self.now.send_and_receive(sent, timeout=timeout)
            for reply in replies:
                if reply.metadata.src_node_id == 1001 and reply.metadata.message_type == "train":
                    ((tag, packed),) = read_records(reply.content)
                    other = "/".join(["anotherrun00", *tag.split("/")[1:]])
                    reply.content = recorded(packed, other)
            return replies

    hold_on(Replaying(InlineGrid(apps.client, contexts(config))), config)
    filed = RunFolder(tmp_path).load("train_sharing-seed0")
    assert filed is not None
    assert "answers 'anotherrun00" in filed[0].excluded["hungary"]


@pytest.mark.parametrize("left", [0, 1])
def test_hospitals_that_all_decline_but_one_leave_no_deal(left: int, tmp_path: Path) -> None:
    names = ["cleveland", "hungary", "switzerland", "va_long_beach"][left:]
    no = [f"parties.{name}.shares=[]" for name in names]
    config = run_config(tmp_path, *SMALL_HEART, "study.seeds=1", *no)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    filed = RunFolder(tmp_path).load("train_sharing-seed0")
    assert filed is not None
    assert set(filed[0].declined) == set(names)
    assert not filed[0].models
    assert {s.gain for s in filed[0].summaries.values()} == {0.0}


def test_too_few_answers_are_a_thing_to_mend_and_to_go_on_from() -> None:
    with pytest.raises(TooFewFirmsError) as told:
        enough(Answers(refused={"lender_b": "its key is not pinned"}), 2)
    assert str(told.value) == (
        "0 usable answers, the round needs 2: lender_b refused: its key is not pinned. Mend that "
        "firm and go on (./run.sh; in a simulation resume=DIR): what is finished is kept."
    )


def test_a_firm_that_cannot_enrol_is_not_asked_again_and_again(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    asked: list[Sent] = []

    def crash(asked: Request, told: Answer) -> Answer:
        raise RuntimeError("no data")

    grid = InlineGrid(tampering("lender_b", crash), contexts(config))
    transport = Transport(grid, ("lender_a", "lender_b"), Limits(wait_s=60), asked.append)
    with pytest.raises(TooFewFirmsError, match="lender_b"):
        transport.enrol(0)
    assert len([s for s in asked if s.kind == "Enrol"]) == 2


def test_an_errors_text_stays_with_the_firm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(self: Any, seed: int) -> Any:
        raise ValueError("patient 63, Male, cholesterol 233")

    config = run_config(tmp_path, *SMALL_LOANS)
    monkeypatch.setattr("parties.datasets.taiwan_credit.TaiwanCredit.split", failing)
    with pytest.raises(FedpactError) as raised:
        hold_on(InlineGrid(apps.client, contexts(config)), config)
    assert "ValueError" in str(raised.value)
    assert "cholesterol" not in str(raised.value)
    assert "cholesterol" in caplog.text  # the firm's own log has it
    assert "cholesterol" not in (tmp_path / "messages.csv").read_text()
    assert "Fault" in (tmp_path / "messages.csv").read_text()


class Doubling(InlineGrid.__mro__[1]):  # type: ignore[misc]
    """Delivers every reply twice."""

    def __init__(self, inner: InlineGrid) -> None:
        super().__init__(inner.get_node_ids())
        self.inner = inner

    def push_messages(self, messages: Any) -> list[str]:
        raise AssertionError

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        replies = self.inner.send_and_receive(messages, timeout=timeout)
        return [*replies, *replies]


def test_a_reply_delivered_twice_counts_once(tmp_path: Path) -> None:
    once, twice = (run_config(tmp_path / name, *SMALL_HEART) for name in ("once", "twice"))
    hold_on(InlineGrid(apps.client, contexts(once)), once)
    hold_on(Doubling(InlineGrid(apps.client, contexts(twice))), twice)
    for name in RunFolder(tmp_path / "once").held():
        file = Path("sessions") / f"{name}.safetensors"
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()


def test_a_reply_that_is_no_message_is_refused() -> None:
    with pytest.raises(ExchangeError):
        unpack(packed_in(recorded(pack(Refusal("x")))).__class__("Trained", "{]", {}))
