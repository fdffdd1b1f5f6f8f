"""The firm's desk: what it lets through and refuses, and that it goes on where it was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parties.app import client_app
from parties.desk import frames
from parties.desk.agreement import Agreement
from parties.desk.attached import Attached, DeskAwayError
from parties.desk.audit import Audit, Line, read, verify
from parties.desk.desk import Desk
from parties.desk.kept import Kept
from parties.desk.policy import Policy
from parties.desk.serving import serve
from parties.exchange import (
    Answer,
    Array,
    Deal,
    Declaration,
    Enrol,
    ExchangeError,
    Fault,
    FedpactError,
    Keys,
    Measure,
    Offer,
    Packed,
    Predictions,
    Query,
    Refusal,
    Request,
    Reveal,
    Scores,
    Settle,
    Settled,
    Terms,
    Trained,
    Unmask,
    Weights,
    pack,
    unpack,
)
from parties.exchange.frames import read_frame, write_frame
from parties.memory import Memory
from parties.reuse.signing import make_keys
from parties.wire import read_records
from simulations.deploy.desk import firm_of
from simulations.deploy.firm_file import FirmFile
from simulations.deploy.layout import FirmFolder
from tests.checks import SMALL_HEART, plain, recorded
from tests.desk_process import desk_of
from tests.inline_grid import InlineGrid, contexts_of
from tests.test_exchange import MASKING, MESSAGES, PAIRS

ALONE = Terms("no_sharing", models=False, predictions=False)
MODELS = Terms("train_sharing", models=True, predictions=False, rounds=3)
BOTH = Terms("full_sharing", models=True, predictions=True, rounds=3)
HIDDEN = Terms("hidden_sharing", models=True, predictions=False, rounds=3, secure=True)
NOISE = {"update_epsilon": 2.0, "update_delta": 1e-5, "update_clip": 1.0}
NOISY = Terms("noisy_sharing", True, True, 3, prediction_epsilon=4.0, **NOISE)
AGREED = Agreement(
    "", {t.contract: t for t in (ALONE, MODELS, BOTH, HIDDEN, NOISY)}, (0, 1), most_epochs=2
)
ENROL = "run/0//0/Enrol"


# ------------------------------------------------------------------------------------- frames


ARRAYS = st.dictionaries(
    st.text(max_size=8),
    hnp.arrays(
        st.sampled_from([">f4", "<f4", "<f8", "<i8", ">i2", "|u1"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=3,
)


def equal(one: Packed, two: Packed) -> bool:
    return (one.kind, one.text, sorted(one.arrays)) == (
        two.kind,
        two.text,
        sorted(two.arrays),
    ) and (
        all(
            a.shape == two.arrays[k].shape
            and a.astype(a.dtype.newbyteorder("<")).tobytes() == two.arrays[k].tobytes()
            for k, a in one.arrays.items()
        )
    )


@given(kind=st.text(max_size=5), text=st.text(max_size=20), arrays=ARRAYS)
def test_a_message_has_one_frame_and_comes_back_from_it(
    kind: str, text: str, arrays: dict[str, Array]
) -> None:
    packed = Packed(kind, text, arrays)
    frame = write_frame(packed)
    again = read_frame(frame)
    assert equal(packed, again)
    assert write_frame(again) == frame
    turned = dict(reversed(arrays.items()))
    assert write_frame(Packed(kind, text, turned)) == frame
    assert all(array.flags.writeable for array in again.arrays.values())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_crosses_as_a_frame(message: Any) -> None:
    back = unpack(read_frame(write_frame(pack(message))))
    assert write_frame(pack(back)) == write_frame(pack(message))


FRAMES = [write_frame(pack(message)) for message in MESSAGES]  # type: ignore[arg-type]


def legal_or_refused(content: bytes) -> None:
    try:
        packed = read_frame(content)
    except ExchangeError:
        return
    assert write_frame(packed) == content
    try:
        unpack(packed)
    except ExchangeError:
        return


@settings(max_examples=300)
@given(content=st.binary(max_size=200))
@example(b"")
@example((2**63).to_bytes(8, "little"))
def test_no_bytes_are_read_as_anything_but_a_frame(content: bytes) -> None:
    legal_or_refused(content)


@settings(max_examples=600)
@given(
    frame=st.sampled_from(FRAMES),
    at=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    what=st.sampled_from(["flip", "cut", "add"]),
)
def test_a_damaged_frame_is_another_message_or_refused(
    frame: bytes, at: float, bit: int, what: str
) -> None:
    place, content = int(at * len(frame)), bytearray(frame)
    if what == "flip":
        content[place] ^= 1 << bit
    elif what == "cut":
        content = content[:place]
    else:
        content[place:place] = b"0"
    legal_or_refused(bytes(content))


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
NAMED = st.tuples(
    st.text(max_size=2) | HEADERS,
    st.sampled_from(["<f8", "|i1", "|O", "V8", "<c8"]) | HEADERS,
    st.lists(st.integers(-1, 2**33) | st.booleans(), max_size=40) | HEADERS,
)


@settings(max_examples=500)
@given(arrays=st.lists(NAMED, max_size=3) | HEADERS, rest=st.binary(max_size=32))
@example(arrays=[["a", "<f8", [0, 2**31, 2**31, 2**31, 2**31]]], rest=b"")
@example(arrays=[["a", "<f8", [2**32, 2**32]]], rest=b"")
@example(arrays=[["b", "|i1", []], ["a", "|i1", []]], rest=b"12")
def test_a_header_of_anything_is_a_frame_or_refused(arrays: Any, rest: bytes) -> None:
    text = json.dumps({"kind": "Refusal", "text": "", "arrays": arrays}, separators=(",", ":"))
    legal_or_refused(len(text).to_bytes(8, "little") + text.encode() + rest)


def test_a_deep_header_and_numbers_of_other_kinds_are_refused() -> None:
    deep = b'{"arrays":' + b"[" * 10**5
    with pytest.raises(ExchangeError):
        read_frame(len(deep).to_bytes(8, "little") + deep)
    for array in (np.array(["a"]), np.array([1j]), np.array([None]), np.array([True])):
        with pytest.raises(ExchangeError, match="dtype"):
            write_frame(Packed("Refusal", "", {"a": array}))


# --------------------------------------------------------------------------------- a small firm


@dataclass
class Clerk:
    """A firm that counts how often it is asked, and answers fast: its model is a counter."""

    asked: list[Request] = field(default_factory=list)
    broken: bool = False
    size: int = 3
    refuses: str = ""

    def answer(self, request: Request, memory: Memory) -> Answer:
        self.asked.append(request)
        memory.notes["asked"] = str(len(self.asked))
        if self.broken:
            raise ValueError("client 17 earns 12345")
        if isinstance(request, Enrol):
            return Declaration("alpha", 10, 2, 2, 0, {"w": (self.size,)}, ("w",))
        if self.refuses:
            return Refusal(self.refuses)
        if isinstance(request, Query):
            return Predictions(np.arange(2), np.array([[0.25, 0.75], [0.5, 0.5]]))
        if isinstance(request, Settle):
            earned = np.array([0.0, 1.0])
            return Settled(2, 5, 0.5, 0.0, 0.0, np.arange(2), earned)
        weights = Weights({"w": np.full(self.size, len(self.asked), np.float32)}, 10)
        return Trained(10, (0.5,), weights if request.terms.models else None)


def desk_in(folder: Path, firm: Any, agreed: Agreement = AGREED, **policy: Any) -> Desk:
    if not (folder / "sign.key").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_keys(folder, "sign")
    audit = Audit(folder / "audit.jsonl", folder / "sign.key")
    return Desk("alpha", firm, agreed, Policy(**policy), audit, Kept(folder / "memory"))


def lines(folder: Path) -> list[Line]:
    verify(folder / "audit.jsonl", folder / "sign.pub")
    return list(read(folder / "audit.jsonl"))


def offer(turn: int = 0, terms: Terms = BOTH, **more: Any) -> Offer:
    return Offer(terms, 0, turn, **more)


def test_what_came_and_what_left_is_written_down_in_that_order(tmp_path: Path) -> None:
    desk = desk_in(tmp_path, Clerk())
    declared = desk.answer(Enrol(0), ENROL)
    trained = desk.answer(offer(2), "run/0/full_sharing/2/Offer")
    told = [(x.direction, x.peer, x.type, x.contract, x.round, x.seed) for x in lines(tmp_path)]
    assert told == [
        ("received", "operator", "Enrol", "", 0, 0),
        ("sent", "operator", "Declaration", "", 0, 0),
        ("received", "operator", "Offer", "full_sharing", 2, 0),
        ("sent", "operator", "Trained", "full_sharing", 2, 0),
    ]
    frames_ = [write_frame(pack(m)) for m in (Enrol(0), declared, offer(2), trained)]
    assert [x.bytes for x in lines(tmp_path)] == [len(frame) for frame in frames_]
    assert len({x.sha256 for x in lines(tmp_path)}) == 4
    assert lines(tmp_path)[2].tag == "run/0/full_sharing/2/Offer"


def test_the_same_question_is_answered_once_whatever_its_tag(tmp_path: Path) -> None:
    firm = Clerk()
    desk = desk_in(tmp_path, firm)
    desk.answer(Enrol(0), ENROL)
    question = write_frame(pack(offer()))
    first = desk.reply(question, "run/a")
    assert desk.reply(question, "run/a") == first
    assert len(firm.asked) == 2
    assert desk.reply(question, "run/b") == first  # so that a run held again trains nothing anew
    assert len(firm.asked) == 2
    assert desk.reply(write_frame(pack(offer(1))), "run/a") != first  # the tag is not enough
    assert len(firm.asked) == 3


def test_answers_notes_and_enrolments_outlive_the_desk(tmp_path: Path) -> None:
    first = desk_in(tmp_path, Clerk())
    first.answer(Enrol(0), ENROL)
    told = first.reply(write_frame(pack(offer())), "run/a")
    first.close()
    firm = Clerk()
    second = desk_in(tmp_path, firm)
    assert second.reply(write_frame(pack(offer())), "run/a") == told
    assert not firm.asked
    assert Kept(tmp_path / "memory").notes == {"asked": "2"}
    assert not isinstance(second.answer(offer(1), "run/b"), Refusal)


def test_a_firm_that_fails_tells_no_more_than_the_kind_of_its_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    firm = Clerk()
    desk = desk_in(tmp_path, firm)
    desk.answer(Enrol(0), ENROL)
    firm.broken = True
    frame = desk.reply(write_frame(pack(offer())), "run/a")
    assert unpack(read_frame(frame)) == Fault("ValueError")
    assert b"12345" not in frame
    assert b"12345" not in (tmp_path / "audit.jsonl").read_bytes()
    assert "client 17 earns 12345" in caplog.text
    firm.broken = False
    assert isinstance(desk.answer(offer(), "run/a"), Trained)  # a failure is no answer: asked again
    assert Kept(tmp_path / "memory").notes == {"asked": "3"}


def test_a_refusal_is_found_anew_and_what_was_noted_before_it_stays(tmp_path: Path) -> None:
    firm = Clerk(refuses="the key of beta is not pinned")
    desk = desk_in(tmp_path, firm)
    desk.answer(Enrol(0), ENROL)
    assert isinstance(desk.answer(offer(), "run/a"), Refusal)
    desk.close()
    assert Kept(tmp_path / "memory").notes == {"asked": "2"}
    firm.refuses = ""  # it was pinned, and the desk was started again
    desk = desk_in(tmp_path, firm)
    trained = desk.answer(offer(), "run/a")
    assert isinstance(trained, Trained)
    firm.refuses = "it is gone again"
    again = desk.answer(offer(), "run/b")  # what was answered is given again, whatever came since
    assert isinstance(again, Trained)
    assert write_frame(pack(again)) == write_frame(pack(trained))


def test_what_another_key_signed_is_not_given_again_and_notes_stay(tmp_path: Path) -> None:
    old = Kept(tmp_path, "old")
    old.keep("", "question", b"answer", {"secret": "same"}, "run")
    assert Kept(tmp_path, "old").found("", "question") == b"answer"
    new = Kept(tmp_path, "new")
    assert new.found("", "question") is None
    assert (new.notes, new.runs) == ({"secret": "same"}, ("run",))


# ----------------------------------------------------------------------------- hostile operators


STUDY = "5" * 64
HOSTILE: dict[str, tuple[Request, str, dict[str, Any], str]] = {
    "another seed": (Query(ALONE, 7, "validation"), "run/x", {}, "seed"),
    "another seed at enrolment": (Enrol(7), ENROL, {}, "seed"),
    "another contract": (
        Query(Terms("swap", models=False, predictions=True), 0, "validation"),
        "run/x",
        {},
        "holds no contract 'swap'",
    ),
    "more rounds": (offer(terms=replace(BOTH, rounds=30)), "run/x", {}, "not those"),
    "another price": (offer(terms=replace(BOTH, price=0.5)), "run/x", {}, "not those"),
    "a round beyond": (offer(3), "run/x", {}, "fewer rounds"),
    "a second round alone": (offer(1, ALONE), "run/x", {}, "fewer rounds"),
    "too many epochs": (offer(epochs=3), "run/x", {}, "more epochs"),
    "Fisher information": (offer(precision=True), "run/x", {}, "precision"),
    "a profile card": (offer(card=True), "run/x", {}, "card"),
    "classes of scores": (Measure(BOTH, 0, by_class=True), "run/x", {}, "by_class"),
    "a run that has not enrolled": (offer(), "other/x", {}, "not enrolled"),
    "no run": (offer(), "", {}, "not enrolled"),
    "a contract that is not in the policy": (
        offer(),
        "run/x",
        {"contracts": ["no_sharing"]},
        "policy.contracts",
    ),
    "models": (offer(), "run/x", {"shares": ["predictions"]}, "policy.shares"),
    "predictions": (offer(), "run/x", {"shares": ["models"]}, "policy.shares"),
    "rounds by the policy": (offer(), "run/x", {"most_rounds": 2}, "policy.most_rounds"),
    "true classes": (
        Reveal(ALONE, 0),
        "run/x",
        {"validation_outcomes": False},
        "policy.validation_outcomes",
    ),
    "what each client earned": (
        Settle(ALONE, 0, "contested", np.ones(2, int), np.ones(2)),
        "run/x",
        {"tells": "sums"},
        "policy.tells",
    ),
    "a large answer": (offer(), "run/x", {"most_bytes": 1500}, "policy.most_bytes"),
    "models without masks": (offer(), "run/x", {"masks_only": True}, "policy.masks_only"),
    "models without noise": (
        offer(terms=MODELS),
        "run/x",
        {"most_epsilon": 99},
        "policy.most_epsilon",
    ),
    "predictions without the noise that was agreed": (
        Query(replace(NOISY, prediction_epsilon=0.0), 0, "contested"),
        "run/x",
        {},
        "not those",
    ),
    "less noise than the policy wants": (
        offer(terms=NOISY),
        "run/x",
        {"most_epsilon": 3.9},
        "policy.most_epsilon",
    ),
    "masks that were not agreed": (
        Keys(replace(BOTH, secure=True), 0, 0),
        "run/x",
        {},
        "not those",
    ),
    "no masks where they were agreed": (
        offer(terms=replace(HIDDEN, secure=False)),
        "run/x",
        {},
        "not those",
    ),
    "keys of a round beyond": (Keys(HIDDEN, 0, 3), "run/x", {}, "fewer rounds"),
    "shares of a round beyond": (Deal(HIDDEN, 0, 3, PAIRS), "run/x", {}, "fewer rounds"),
    "a masked model of a round beyond": (
        offer(3, HIDDEN, masking=MASKING),
        "run/x",
        {},
        "fewer rounds",
    ),
    "masks of a round beyond": (
        Unmask(HIDDEN, 0, 3, MASKING, ("a", "b")),
        "run/x",
        {},
        "fewer rounds",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_question_is_refused_and_written_down(name: str, tmp_path: Path) -> None:
    request, tag, policy, reason = HOSTILE[name]
    firm = Clerk(size=1000)
    desk = desk_in(tmp_path, firm, **policy)
    assert isinstance(desk.answer(Enrol(0), ENROL), Declaration)
    answer = desk.answer(request, tag)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason
    quoted = {
        str(v) for value in policy.values() for v in (value if type(value) is list else [value])
    }
    assert not quoted & set(answer.reason.replace(",", " ").split())
    *_, came, left = lines(tmp_path)
    assert (came.direction, came.type) == ("received", type(request).__name__)
    assert (left.direction, left.type, left.note) == ("refused", "Refusal", answer.reason)
    assert len(firm.asked) == (2 if name in ("a large answer", "what each client earned") else 1)


def test_the_same_question_is_answered_where_nothing_forbids_it(tmp_path: Path) -> None:
    agreed = replace(AGREED, extras=("precision", "card"))
    desk = desk_in(tmp_path, Clerk(), agreed, contracts=["full_sharing"], most_rounds=3)
    desk.answer(Enrol(0), ENROL)
    asked = offer(2, epochs=2, precision=True, card=True)
    assert isinstance(desk.answer(asked, "run/x"), Trained)


@pytest.mark.parametrize(
    ("terms", "policy"),
    [
        (NOISY, {"most_epsilon": 4}),
        (HIDDEN, {"masks_only": True}),
        (ALONE, {"most_epsilon": 0.1, "masks_only": True}),
    ],
)
def test_a_contract_is_kept_that_hides_as_much_as_the_policy_wants(
    terms: Terms, policy: dict[str, Any]
) -> None:
    masking = MASKING if terms.secure else None
    assert Policy(**policy).objection(offer(0, terms, masking=masking)) == ""


@pytest.mark.parametrize(
    "step",
    [
        Keys(HIDDEN, 0, 2),
        Deal(HIDDEN, 0, 2, PAIRS),
        offer(2, HIDDEN, epochs=2, masking=MASKING),
        Unmask(HIDDEN, 0, 2, MASKING, ("a", "b")),
    ],
    ids=lambda step: type(step).__name__,
)
def test_all_steps_of_a_masked_round_are_agreed_with_the_contract(step: Request) -> None:
    assert AGREED.objection(step) == ""


@pytest.mark.parametrize("secure", [True, False])
def test_a_message_that_says_otherwise_of_its_masks_reaches_nobody(
    secure: bool, tmp_path: Path
) -> None:
    firm = Clerk()
    desk = desk_in(tmp_path, firm)
    desk.answer(Enrol(0), ENROL)
    honest = (
        offer(0, HIDDEN, masking=MASKING) if secure else offer(0, replace(HIDDEN, secure=False))
    )
    packed = pack(honest)
    words = ('"secure": true', '"secure": false')
    text = packed.text.replace(*(words if secure else reversed(words)))
    assert text != packed.text
    told = desk.reply(write_frame(replace(packed, text=text)), "run/x")
    assert unpack(read_frame(told)) == Fault("ExchangeError")
    assert len(firm.asked) == 1


def test_a_firm_with_a_desk_draws_its_noise_and_masks_from_the_operating_system(
    tmp_path: Path,
) -> None:
    config = plain(*SMALL_HEART)
    firm = firm_of(config, FirmFile("hungary"), FirmFolder(tmp_path))
    assert firm.secrets == "secret"
    asked = Keys(Terms("train_sharing", True, False, 2, secure=True), 0, 0)
    keys = [pack(firm.answer(asked, Memory())).arrays for _ in range(2)]
    assert [len(arrays) for arrays in keys] == [1, 1]
    assert len({array.tobytes() for arrays in keys for array in arrays.values()}) == 2


def test_a_policy_that_was_tightened_holds_for_answers_given_before(tmp_path: Path) -> None:
    desk = desk_in(tmp_path, Clerk(size=1000))
    desk.answer(Enrol(0), ENROL)
    assert isinstance(desk.answer(offer(), "run/x"), Trained)
    desk.close()
    desk = desk_in(tmp_path, Clerk(), most_bytes=1500)
    assert isinstance(desk.answer(offer(), "run/x"), Refusal)


@pytest.mark.parametrize("study", ["", "6" * 64])
def test_an_enrolment_for_another_study_is_refused_and_lets_nobody_in(
    study: str, tmp_path: Path
) -> None:
    desk = desk_in(tmp_path, Clerk(), replace(AGREED, study=STUDY))
    answer = desk.answer(Enrol(0, study), ENROL)
    assert answer == Refusal("alpha: the study is not the one that was agreed")
    assert isinstance(desk.answer(offer(), "run/x"), Refusal)
    assert [x.direction for x in lines(tmp_path)] == ["received", "refused"] * 2
    assert isinstance(desk.answer(Enrol(0, STUDY), ENROL), Declaration)
    assert isinstance(desk.answer(offer(), "run/x"), Trained)


@pytest.mark.parametrize("frame", [b"", b"hello", FRAMES[0][:-1], write_frame(pack(Refusal("x")))])
def test_what_is_no_question_is_refused_and_written_down(frame: bytes, tmp_path: Path) -> None:
    desk = desk_in(tmp_path, Clerk())
    assert unpack(read_frame(desk.reply(frame, "run/x"))) == Fault("ExchangeError")
    came, left = lines(tmp_path)
    assert (came.direction, came.type, came.bytes) == ("received", "unreadable", len(frame))
    assert (left.direction, left.type, bool(left.note)) == ("refused", "Fault", True)


@pytest.mark.parametrize(
    ("fields", "legal"),
    [
        ({"contracts": "full_sharing"}, "a list"),
        ({"shares": ["models", "labels"]}, "models"),
        ({"shares": None}, "a list"),
        ({"tells": "all"}, "sums"),
        ({"validation_outcomes": "no"}, "true and false"),
        ({"most_rounds": True}, "whole number >= 0"),
        ({"most_bytes": 0}, "whole number >= 1"),
        ({"most_epsilon": 0}, "number > 0"),
        ({"most_epsilon": True}, "number > 0"),
        ({"most_epsilon": float("inf")}, "number > 0"),
        ({"masks_only": None}, "true and false"),
    ],
)
def test_a_policy_that_says_nothing_legal_is_explained(fields: dict[str, Any], legal: str) -> None:
    (name,) = fields
    with pytest.raises(FedpactError, match=f"policy.{name} is .*legal: .*{legal}.*\\. Write"):
        Policy(**fields)


# --------------------------------------------------------------------------------- what is kept


def test_models_come_back_in_their_order_and_damaged_ones_do_not(tmp_path: Path) -> None:
    models = Kept(tmp_path).models
    arrays = {"z": np.float32(2).reshape(()), "a": np.arange(6, dtype=">i4").reshape(2, 3).T}
    models["own/0"], models["own/1"] = arrays, {"w": np.zeros(2)}
    again = Kept(tmp_path).models
    assert sorted(again) == ["own/0", "own/1"]
    assert list(again["own/0"]) == ["z", "a"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(again["own/0"][name], array)
    del again["own/1"]
    (file,) = (tmp_path / "models").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert not Kept(tmp_path).models


def test_answers_are_kept_within_bounds_and_the_last_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parties.desk.kept.MOST_ANSWERS", 64)
    kept = Kept(tmp_path)
    for number in range(70):
        kept.keep(f"t{number}", "q", b"answer %d" % number, {"n": str(number)}, f"r{number}")
    again = Kept(tmp_path)
    assert (len(list((tmp_path / "answers").iterdir())), len(again.runs)) == (64, 64)
    assert (again.found("t5", "q"), again.found("t69", "q")) == (None, b"answer 69")
    monkeypatch.setattr("parties.desk.kept.MOST_BYTES", 10)
    again.keep("big", "q", b"x" * 99, {}, None)
    assert [f.name for f in (tmp_path / "answers").iterdir()] == ["000000000070.answer"]
    assert again.found("big", "q") == b"x" * 99


def test_notes_are_never_lost_in_silence(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.keep("a", "q", b"1", {"ledger": "old"}, "run")
    kept.keep("b", "q", b"2", {"ledger": "new"}, None)
    last = tmp_path / "answers" / "000000000001.answer"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(FedpactError, match="Remove the file"):
        Kept(tmp_path)
    last.write_bytes(whole)
    assert Kept(tmp_path).notes == {"ledger": "new"}
    last.unlink()
    again = Kept(tmp_path)
    assert (again.notes, again.runs) == ({"ledger": "old"}, ("run",))


# ----------------------------------------------------------------------------------- the socket


@contextmanager
def serving(desk: Desk, path: Path) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(desk, path, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        assert not thread.is_alive()


def test_the_app_reaches_the_desk_and_its_tag_arrives(tmp_path: Path) -> None:
    firm = Clerk()
    path = tmp_path / "desk.sock"
    contexts = contexts_of(["alpha"], "party", {})
    (node,) = contexts
    grid = InlineGrid(client_app(lambda context: Attached(path, wait_s=5)), contexts)
    with serving(desk_in(tmp_path, firm), path):
        told = []
        for request, tag in ((Enrol(0), ENROL), (offer(), "run/a"), (offer(), "run/a")):
            content = recorded(pack(request), tag)
            (reply,) = grid.send_and_receive([Message(content, node, "query")])
            ((back, packed),) = read_records(reply.content)
            assert back == tag
            told.append(unpack(packed))
        assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(told[1], Trained)
    assert pack(told[1]).text == pack(told[2]).text
    assert len(firm.asked) == 2
    assert [x.tag for x in lines(tmp_path)] == [ENROL] * 2 + ["run/a"] * 4
    assert not path.exists()


def test_several_connections_are_answered_each_by_its_own(tmp_path: Path) -> None:
    path, told = tmp_path / "desk.sock", dict[int, Answer]()
    with serving(desk_in(tmp_path, Clerk()), path):
        way = Attached(path, wait_s=5)
        way.under(ENROL).answer(Enrol(0))

        def ask(number: int) -> None:
            told[number] = way.under(f"run/{number}").answer(offer(number % 3))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        # A silent connection and one that talks nonsense are in nobody's way.
        with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as rude:
            silent.connect(str(path))
            rude.connect(str(path))
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert rude.recv(1) == frames.READY
            with suppress(ConnectionResetError):
                assert rude.recv(1) == b""
            assert isinstance(way.under("run/last").answer(offer()), Trained)
    seen = {n: float(a.weights.arrays["w"][0]) for n, a in told.items()}  # type: ignore[union-attr]
    # Three questions, four times each.
    assert sorted(seen.values()) == [float(n) for n in (2, 3, 4) for _ in range(4)]
    assert [x.note for x in lines(tmp_path) if x.direction == "noted"] == [
        "a connection was closed: a frame of 3544139754885357615 bytes under a tag of 542393671; "
        f"legal are {frames.MOST_FRAME} and {frames.MOST_TAG}."
    ]


def test_a_stale_socket_is_replaced_and_a_second_desk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "desk.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    desk = desk_in(tmp_path, Clerk())
    with serving(desk, path):
        assert isinstance(Attached(path, wait_s=5).under(ENROL).answer(Enrol(0)), Declaration)
        with pytest.raises(FedpactError, match=r"answers at .* already"):
            serve(desk, path, threading.Event())
        with pytest.raises(FedpactError, match="held by another desk"):
            desk_in(tmp_path, Clerk())
        assert path.exists()


def test_a_place_that_takes_no_socket_is_named(tmp_path: Path) -> None:
    desk = desk_in(tmp_path, Clerk())
    (tmp_path / "letter").write_text("dear desk")
    for path in (tmp_path / "letter", tmp_path / ("x" * 120), tmp_path / "letter" / "desk.sock"):
        with pytest.raises(FedpactError, match="No socket can be made"):
            serve(desk, path, threading.Event())
    assert (tmp_path / "letter").read_text() == "dear desk"


def test_a_desk_that_is_not_there_is_named_within_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "desk.sock"
    began = time.monotonic()
    with pytest.raises(DeskAwayError, match=f"The desk at {path} does not answer"):
        Attached(path, wait_s=0.4).answer(Enrol(0))
    assert 0.4 <= time.monotonic() - began < 2
    with pytest.raises(DeskAwayError, match="too long"):
        Attached(tmp_path / ("x" * 120)).answer(Enrol(0))


def test_a_desk_that_starts_within_the_wait_is_reached(tmp_path: Path) -> None:
    path, told = tmp_path / "desk.sock", list[Answer]()
    way = Attached(path, wait_s=10, tag=ENROL)
    asking = threading.Thread(target=lambda: told.append(way.answer(Enrol(0))))
    asking.start()
    time.sleep(0.3)
    with serving(desk_in(tmp_path, Clerk()), path):
        asking.join(10)
    assert isinstance(told[0], Declaration)


@pytest.mark.parametrize("breaks", [1, 2])
def test_a_connection_that_breaks_is_tried_once_more(breaks: int, tmp_path: Path) -> None:
    path = tmp_path / "desk.sock"
    fine = write_frame(pack(Scores(3, 0.5, None, 0.0, 0.5)))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def break_off() -> None:
            for number in range(2):
                link, _ = listener.accept()
                with link:
                    link.sendall(frames.READY)
                    asked = frames.receive(link)
                    if asked and number >= breaks:
                        frames.send(link, asked[0], fine)
                    else:
                        link.sendall(b"\x05\x00")

        thread = threading.Thread(target=break_off, daemon=True)
        thread.start()
        way = Attached(path, wait_s=5, tag="run/x")
        if breaks == 1:
            assert isinstance(way.answer(Measure(ALONE, 0)), Scores)
        else:
            with pytest.raises(DeskAwayError, match="broke twice"):
                way.answer(Measure(ALONE, 0))
        thread.join(5)


@pytest.mark.parametrize(
    ("ready", "problem"), [(True, r"no answer within 0\.3 s"), (False, r"for 0\.2 s")]
)
def test_a_desk_that_does_not_answer_in_time_is_left(
    ready: bool, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "desk.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        links: list[socket.socket] = []

        def take() -> None:
            links.append(listener.accept()[0])
            if ready:
                links[0].sendall(frames.READY)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        with pytest.raises(DeskAwayError, match=problem):
            Attached(path, wait_s=0.2, answer_s=0.3).answer(Enrol(0))
        thread.join(5)
        links[0].close()


def test_a_desk_that_dies_takes_no_question(tmp_path: Path) -> None:
    """A process that is killed closes connections before it closes its socket."""
    path, told = tmp_path / "desk.sock", list[Answer]()
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()
        way = Attached(path, wait_s=20, tag=ENROL)
        asking = threading.Thread(target=lambda: told.append(way.answer(Enrol(0))))
        asking.start()
        for _ in range(5):
            dying.accept()[0].close()
    with serving(desk_in(tmp_path, Clerk()), path):
        asking.join(20)
    assert isinstance(told[0], Declaration)


def test_the_thin_app_needs_no_torch() -> None:
    look = "import sys, parties.app, parties.desk.attached; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False, timeout=60).returncode == 0


# ------------------------------------------------------------------- a real desk, killed for real


class Process:
    """A desk in a process of its own (tests/desk_process.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "desk.sock"
        words = [sys.executable, "-m", "tests.desk_process", str(folder)]
        with (folder / "desk.log").open("ab") as file:
            self.process = subprocess.Popen(words, stdout=file, stderr=file)

    def wait_for(self, seen: Callable[[], bool], wait_s: float = 60) -> None:
        deadline = time.monotonic() + wait_s
        while not seen():
            assert self.process.poll() is None, (self.folder / "desk.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)


TOGETHER = Terms("train_sharing", models=True, predictions=False, rounds=2)
EPOCHS = 2000  # two seconds of training, or more
SESSION: list[tuple[Request, str]] = [
    (Enrol(0), ENROL),
    (Offer(TOGETHER, 0, 0, EPOCHS), "run/0/train_sharing/0/Offer"),
    (Query(TOGETHER, 0, "validation"), "run/0/train_sharing/0/Queryvalidation"),
]


def timeless(answer: Answer) -> bytes:
    """An answer without what the clock and the meter say."""
    if isinstance(answer, Trained):
        answer = replace(answer, spent=np.zeros(4))
    return write_frame(pack(answer))


def folder_for(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    make_keys(tmp_path / name, "sign")
    return tmp_path / name


def trains(folder: Path) -> bool:
    log = folder / "audit.jsonl"
    return log.exists() and b'"Offer"' in log.read_bytes()


@pytest.mark.long
def test_a_desk_that_was_killed_while_it_trained_goes_on_to_the_same_answers(
    tmp_path: Path,
) -> None:
    calm, hurt = folder_for(tmp_path, "calm"), folder_for(tmp_path, "hurt")
    undisturbed = desk_of(calm)
    expected = [timeless(undisturbed.answer(r, tag)) for r, tag in SESSION]
    told: list[Answer] = []

    def ask() -> None:
        told.extend(Attached(hurt / "desk.sock", tag=tag).answer(r) for r, tag in SESSION)

    asking = threading.Thread(target=ask, daemon=True)
    with Process(hurt) as desk:
        asking.start()
        desk.wait_for(lambda: trains(hurt))
        time.sleep(0.1)
        desk.end(signal.SIGKILL)
        assert [x.type for x in read(hurt / "audit.jsonl")][-1] == "Offer"  # no answer had left
        assert desk.path.exists()
    with Process(hurt) as desk:
        asking.join(60)
        assert [timeless(answer) for answer in told] == expected
        assert isinstance(told[1], Trained)
        # Killed after it had answered: the same bytes, from the disk.
        desk.end(signal.SIGKILL)
    with Process(hurt) as desk:
        again = [Attached(desk.path, tag=tag).answer(r) for r, tag in SESSION]
        frames_ = [[write_frame(pack(a)) for a in answers] for answers in (told, again)]
        assert frames_[0] == frames_[1]
        assert desk.end(signal.SIGINT) == 0
    types = [(x.direction, x.type) for x in lines(hurt)]
    once = [("received", "Offer"), ("received", "Offer"), ("sent", "Trained")]
    assert types[2:5] == once
    assert types.count(("sent", "Trained")) == 2  # and once from the disk
    assert len(types) == 2 + 3 + 2 + 6


def test_a_desk_that_trains_ends_within_five_seconds_and_leaves_no_socket(tmp_path: Path) -> None:
    folder = folder_for(tmp_path, "firm")
    with Process(folder) as desk:
        way = Attached(desk.path, wait_s=30)
        way.under(ENROL).answer(Enrol(0))
        request, tag = Offer(TOGETHER, 0, 0, 10**6), "run/0/train_sharing/0/Offer"
        problems: list[str] = []

        def ask() -> None:
            try:
                replace(way, wait_s=0.1, tag=tag).answer(request)
            except DeskAwayError as fault:
                problems.append(str(fault))

        asking = threading.Thread(target=ask)
        asking.start()
        desk.wait_for(lambda: trains(folder))
        began = time.monotonic()
        assert desk.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        assert not desk.path.exists()
        asking.join(10)
        assert len(problems) == 1
        assert str(desk.path) in problems[0]
    assert os.listdir(folder / "memory" / "answers") == ["000000000000.answer"]
