"""Models that cross are signed, and a firm that was away is asked again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp import Grid
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.answering import Answering
from parties.app import client_app
from parties.exchange import (
    Actions,
    Answer,
    Array,
    ExchangeError,
    FedpactError,
    Offer,
    Play,
    Refusal,
    Request,
    Terms,
    Trained,
    Weights,
    unpack,
)
from parties.memory import Memory
from parties.reuse.signing import make_keys
from parties.seals import SealedFirm, objection, put
from parties.wire import is_framed, read_records
from server.app import server_app
from server.intake import UnacceptableError
from server.patience import Patience
from server.transport import Apart
from simulations.conclude import conclude
from simulations.deploy.apart import OperatorSeals, pinned
from simulations.engines import apps
from simulations.engines.grid import InlineGrid, OwnGrid, fault_reply, server_context
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    contexts,
    firms_of,
    hold_on,
    plain,
    run_config,
)

STUDY = "5" * 64
TERMS = Terms("train_sharing", models=True, predictions=False, rounds=3)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key pairs of an operator and of everybody in the small studies."""
    folder = tmp_path_factory.mktemp("keys")
    names = ("operator", "alpha", "lender_a", "lender_b")
    for name in (*names, "cleveland", "hungary", "switzerland", "va_long_beach"):
        make_keys(folder, name)
    return folder


def model(**arrays: Array) -> Weights:
    return Weights(arrays or {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, 5)


# ------------------------------------------------------------------------------------------- seals


def test_a_seal_holds_for_the_model_study_contract_and_seed_it_was_put_on(keys: Path) -> None:
    known = pinned(keys)
    sealed = put(model(), STUDY, "train_sharing", 2, 1, "alpha", keys / "alpha.key")
    assert objection(sealed, STUDY, "train_sharing", 2, known) == ""
    fewer = replace(sealed, examples=3)  # the operator caps what a firm says
    assert objection(fewer, STUDY, "train_sharing", 2, known) == ""
    wrong = "the signature of alpha is not of this model, study, contract and seed"
    assert objection(sealed, "6" * 64, "train_sharing", 2, known) == wrong
    assert objection(sealed, STUDY, "full_sharing", 2, known) == wrong
    assert objection(sealed, STUDY, "train_sharing", 3, known) == wrong
    assert sealed.seal is not None
    for change in ({"round": 2}, {"signer": "lender_a"}, {"signature": "0" * 128}):
        forged = replace(sealed, seal=replace(sealed.seal, **change))
        assert "is not of this model" in objection(forged, STUDY, "train_sharing", 2, known)
    assert objection(model(), STUDY, "train_sharing", 2, known) == "the model is not signed"
    stranger = {"operator": known["operator"]}
    assert "whose key is not pinned" in objection(sealed, STUDY, "train_sharing", 2, stranger)


@settings(max_examples=50)
@given(place=st.integers(0, 5), value=st.floats(-1e3, 1e3, width=32), part=st.integers(0, 2))
def test_another_number_anywhere_in_a_model_breaks_its_seal(
    keys: Path, place: int, value: float, part: int
) -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    whole = Weights(arrays, 5, {"w": np.ones((2, 3), np.float32)}, {"sums": np.ones((2, 3))})
    sealed = put(whole, STUDY, "train_sharing", 0, 0, "alpha", keys / "alpha.key")
    field = ("arrays", "precision", "card")[part]
    tensors = {name: array.copy() for name, array in getattr(sealed, field).items()}
    name = next(iter(tensors))
    before = tensors[name].flat[place]
    tensors[name].flat[place] = abs(value) if part == 1 else value
    same = tensors[name].flat[place].tobytes() == before.tobytes()
    told = objection(replace(sealed, **{field: tensors}), STUDY, "train_sharing", 0, pinned(keys))
    assert (told == "") == same


def test_a_seal_is_checked_at_the_wall(keys: Path) -> None:
    sealed = put(model(), STUDY, "train_sharing", 0, 0, "alpha", keys / "alpha.key")
    assert sealed.seal is not None
    for change in ({"signature": "ab"}, {"signature": "G" * 128}, {"round": -1}, {"signer": ""}):
        with pytest.raises(ExchangeError, match=r"seal\."):
            replace(sealed.seal, **change)


class Trainer:
    """A firm that trains nothing."""

    def answer(self, request: Request, memory: Memory) -> Answer:
        if isinstance(request, Play):
            return Actions(np.arange(2), np.zeros(2, np.int8))
        return Trained(5, (0.5,), model())


def sealed_firm(keys: Path, name: str = "lender_a") -> SealedFirm:
    others = {n: k for n, k in pinned(keys).items() if n in ("operator", "lender_b")}
    return SealedFirm(Trainer(), name, keys / f"{name}.key", others, STUDY)


def test_a_firm_takes_a_model_of_the_operator_and_none_that_nobody_signed(keys: Path) -> None:
    firm = sealed_firm(keys)
    where = (STUDY, "train_sharing", 0, 1)
    signed = put(model(), *where, "operator", keys / "operator.key")
    told = firm.answer(Offer(TERMS, 0, 1, 1, signed), Memory())
    assert isinstance(told, Trained)
    assert told.weights is not None
    assert objection(told.weights, STUDY, "train_sharing", 0, pinned(keys)) == ""
    for bad in (model(), put(model(), *where, "alpha", keys / "alpha.key")):
        refused = firm.answer(Offer(TERMS, 0, 1, 1, bad), Memory())
        assert isinstance(refused, Refusal)
        assert "lender_a takes signed models only" in refused.reason


def test_the_operator_cannot_give_its_own_model_for_a_rivals(keys: Path) -> None:
    from tests.test_exchange import OPEN, RULE

    belief = np.full((2, 2, 2), 1 / 8)
    where = (STUDY, OPEN.contract, 0, 0)
    play = Play(OPEN, 0, RULE, belief)
    for signer, taken in (("lender_b", True), ("operator", False)):
        rival = put(model(), *where, signer, keys / f"{signer}.key")
        told = sealed_firm(keys).answer(replace(play, rival_model=rival), Memory())
        assert isinstance(told, Actions) == taken


def test_a_firm_without_the_operators_key_says_so(keys: Path) -> None:
    with pytest.raises(FedpactError, match="the operator's must be among them"):
        SealedFirm(Trainer(), "lender_a", keys / "lender_a.key", {}, STUDY)


def test_the_operator_takes_no_model_that_its_firm_has_not_signed_for_this_round(
    keys: Path,
) -> None:
    seals = OperatorSeals(STUDY, keys / "operator.key", pinned(keys))
    offer = Offer(TERMS, 0, 1, 1)

    def answer(turn: int, signer: str) -> Trained:
        signed = put(model(), STUDY, "train_sharing", 0, turn, signer, keys / f"{signer}.key")
        return Trained(5, (0.5,), signed)

    seals.check(offer, answer(1, "alpha"), "alpha")
    with pytest.raises(UnacceptableError, match="signed by 'lender_a', whose key is not pinned"):
        seals.check(offer, answer(1, "lender_a"), "alpha")
    with pytest.raises(UnacceptableError, match="signed for round 0, this is round 1"):
        seals.check(offer, answer(0, "alpha"), "alpha")
    with pytest.raises(UnacceptableError, match="not signed"):
        seals.check(offer, Trained(5, (0.5,), model()), "alpha")


# ------------------------------------------------------------- whole studies, by the deployed apps


class Lossy(OwnGrid):
    """A grid that loses some of the first messages and breaks some replies, and notes the rest."""

    def __init__(self, inner: OwnGrid, names: dict[int, str], lost: int, broken: int) -> None:
        super().__init__(inner.get_node_ids())
        self.inner, self.names, self.left = inner, names, {"lost": lost, "broken": broken}
        self.crossed: list[Any] = []

    def get_nodes(self) -> list[Any]:
        class Node:
            def __init__(self, node_id: int, name: str) -> None:
                self.node_id, self.name = node_id, name

        return [Node(*pair) for pair in self.names.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            if "tag" in message.content or is_framed(message.content):
                self.crossed += [unpack(packed) for _, packed in read_records(message.content)]
            (key,) = self.inner.push_messages([message])
            ids.append(key)
            if self.left["lost"] and len(ids) % 2:
                self.left["lost"] -= 1
                list(self.inner.pull_messages([key]))
            elif self.left["broken"]:
                self.left["broken"] -= 1
                list(self.inner.pull_messages([key]))
                self._replies[key] = fault_reply(message, "its node was lost")
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = list(message_ids)
        replies = list(self.inner.pull_messages(asked))
        for reply in replies:
            if "tag" in reply.content or is_framed(reply.content):
                self.crossed += [unpack(packed) for _, packed in read_records(reply.content)]
        return super().pull_messages(asked) + replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        raise AssertionError("a deployment polls by itself")


QUICK = Patience(poll_s=0.01, first_s=0.05, longest_s=0.2, pause_s=0.02)


def apart(keys: Path, names: dict[int, str], patience: Patience = QUICK) -> Apart:
    seals = OperatorSeals(STUDY, keys / "operator.key", pinned(keys))

    def firm_of(grid: Grid) -> dict[int, str]:
        return names

    return Apart(STUDY, firm_of, seals, patience)


def deployed(
    folder: Path, keys: Path, *overrides: str, lost: int = 0, broken: int = 0, swap: bool = False
) -> tuple[dict[str, Any], list[Any]]:
    """A study held by the apps of a deployment, firms in this process."""
    config = run_config(folder, *overrides)
    names = dict(zip(contexts(config), firms_of(config), strict=True))

    def firm(context: Context) -> Answering:
        name = str(context.node_config[apps.PARTY])
        return SealedFirm(apps.firm_of(context), name, keys / f"{name}.key", pinned(keys), STUDY)

    grid = Lossy(InlineGrid(client_app(firm), contexts(config)), names, lost, broken)
    registered = dict(zip(names, reversed(names.values()), strict=True)) if swap else names
    app = server_app(
        lambda context: apps.docket_of(context, away=True),
        lambda context: apart(keys, registered),
    )
    app(grid, server_context(config))
    study = study_of(plain(*overrides), away=True)
    return conclude(study, RunFolder(folder)), grid.crossed


@pytest.mark.parametrize(
    ("study", "lost", "broken"),
    [
        ((*SMALL_LOANS, "study.settles=firms"), 0, 0),
        ((*SMALL_LOANS, "study.settles=firms"), 3, 4),
        (SMALL_HEART, 4, 4),
    ],
    ids=["loans", "loans with losses", "heart with losses"],
)
def test_a_study_of_far_firms_ends_as_it_does_inline_whatever_is_lost_on_the_way(
    study: tuple[str, ...], lost: int, broken: int, tmp_path: Path, keys: Path
) -> None:
    config = run_config(tmp_path / "inline", *study)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    inline = conclude(study_of(plain(*study)), RunFolder(tmp_path / "inline"))
    verdict, crossed = deployed(tmp_path / "far", keys, *study, lost=lost, broken=broken)
    assert json.dumps(verdict) == json.dumps(inline)
    models = [m.weights for m in crossed if isinstance(m, Trained) and m.weights is not None]
    models += [m.model for m in crossed if isinstance(m, Offer) and m.model is not None]
    assert models
    assert all(m.seal is not None for m in models)


def test_a_firm_whose_key_is_anothers_is_not_heard(
    tmp_path: Path, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FedpactError, match="0 of 2 firms enrolled"):
        deployed(tmp_path, keys, *SMALL_LOANS, "limits.wait_s=1", swap=True)
    assert "says it is lender_a, and its key is that of lender_b" in caplog.text


# ---------------------------------------------------------------------------------------- patience


def ask(grid: OwnGrid, nodes: Iterable[int], wait_s: float) -> tuple[dict[str, Message], float]:
    from flwr.app import RecordDict

    def question(node: int) -> Callable[[], Message]:
        return lambda: Message(RecordDict(), node, "query")

    begun = time.monotonic()
    found = QUICK.replies(grid, {str(n): (n, question(n)) for n in nodes}, begun + wait_s)
    return found, time.monotonic() - begun


class Mute(Lossy):
    """Every reply is lost."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return []


def echo(message: Message, context: Context) -> Message:
    from flwr.app import RecordDict

    return Message(RecordDict(), reply_to=message)


def test_patience_ends_at_its_deadline_and_names_nobody_who_answered() -> None:
    from flwr.clientapp import ClientApp

    app = ClientApp()
    app.query()(echo)
    nodes = {1000: Context(1, 1000, {}, None, {}), 1001: Context(1, 1001, {}, None, {})}  # type: ignore[arg-type]
    inner = InlineGrid(app, nodes)
    mute = Mute(inner, {}, 0, 0)
    found, took = ask(mute, nodes, 0.5)
    assert found == {}
    assert took < 5
    only_errors = Lossy(inner, {}, 0, 1000)
    found, _ = ask(only_errors, [1000], 0.5)
    assert found["1000"].has_error()
    assert found["1000"].error.reason == "its node was lost"
    healthy, _ = ask(Lossy(inner, {}, 1, 1), nodes, 30.0)
    assert sorted(healthy) == ["1000", "1001"]
    assert not any(reply.has_error() for reply in healthy.values())
