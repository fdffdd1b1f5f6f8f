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
from parties.desk.agreement import Agreement
from parties.desk.audit import Audit
from parties.desk.desk import Desk
from parties.desk.kept import Kept
from parties.desk.policy import Policy
from parties.exchange import (
    Actions,
    Advertised,
    Answer,
    Array,
    Deal,
    Declaration,
    Enrol,
    ExchangeError,
    FedpactError,
    Keys,
    Offer,
    Play,
    Refusal,
    Request,
    Shares,
    Terms,
    Trained,
    Unmask,
    Weights,
    unpack,
)
from parties.masking.keys import public
from parties.memory import Memory
from parties.privacy import SECRET, SEEDED
from parties.reuse.signing import make_keys
from parties.seals import SealedFirm, objection, put, put_on_keys
from parties.wire import read_records
from server.app import server_app
from server.intake import UnacceptableError
from server.patience import Patience
from server.transport import Apart
from simulations.conclude import conclude
from simulations.deploy.apart import OperatorSeals, pinned
from simulations.deploy.desk import agreement
from simulations.engines import apps
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
from tests.inline_grid import InlineGrid, OwnGrid, fault_reply, server_context
from tests.test_masking import Consortium, models

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
        if isinstance(request, Enrol):
            return Declaration("lender_a", 5, 2, 2, 0, {"w": (2, 3)}, ("w",))
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


def test_a_desk_takes_a_model_once_the_key_is_pinned_for_want_of_which_it_refused_it(
    tmp_path: Path, keys: Path
) -> None:
    from tests.test_exchange import OPEN, RULE

    rival = put(model(), STUDY, OPEN.contract, 0, 0, "lender_b", keys / "lender_b.key")
    play = Play(OPEN, 0, RULE, np.full((2, 2, 2), 1 / 8), rival_model=rival)
    known, secret = pinned(keys), keys / "lender_a.key"
    told = []
    for names in (["operator"], ["operator", "lender_b"]):
        firm = SealedFirm(Trainer(), "lender_a", secret, {n: known[n] for n in names}, STUDY)
        agreed = Agreement(STUDY, {OPEN.contract: OPEN}, (0,))
        audit, memory = Audit(tmp_path / "audit.jsonl", secret), Kept(tmp_path / "memory")
        desk = Desk("lender_a", firm, agreed, Policy(), audit, memory)
        desk.answer(Enrol(0, STUDY), "run/0")
        told.append(desk.answer(play, "run/1"))
        desk.close()
    assert [type(answer) for answer in told] == [Refusal, Actions]


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


# --------------------------------------------------------------------------------- keys of masks


HOSPITALS = ("cleveland", "hungary", "switzerland", "va_long_beach")


class Hospitals(Consortium):
    """Hospitals that sign the keys of their masks, and an operator that may change what it asks."""

    def __init__(
        self, keys: Path, change: Callable[[Any, dict[str, Any]], Any] = lambda asked, seen: asked
    ) -> None:
        held = dict(zip(HOSPITALS, models(4).values(), strict=True))
        super().__init__(held)
        known, self.changes, self.seen = pinned(keys), change, dict[str, Any]()
        self.seals = OperatorSeals(STUDY, keys / "operator.key", known)
        self.firms = {
            name: SealedFirm(Hospital(self, name), name, keys / f"{name}.key", known, STUDY)
            for name in held
        }

    def answer(self, name: str, asked: Any) -> Answer:
        return self.firms[name].answer(self.changes(asked, self.seen), self.memories[name])

    def check(self, name: str, asked: Request, told: Answer) -> None:
        self.seals.check(asked, told, name)


class Hospital:
    """One of them, behind its seal."""

    def __init__(self, all_of_them: Hospitals, name: str) -> None:
        self.all, self.name = all_of_them, name

    def answer(self, request: Request, memory: Memory) -> Answer:
        return Consortium.answer(self.all, self.name, request)


def own_keys(number: int) -> Array:
    """Keys whose secrets the operator knows."""
    both = (public(bytes([number, place]) * 16) for place in range(2))
    return np.stack([np.frombuffer(key, np.uint8) for key in both])


def test_hospitals_that_sign_their_keys_come_to_the_same_sum(keys: Path) -> None:
    signed, unsigned = Hospitals(keys), Consortium(Hospitals(keys).models)
    for turn in range(2):
        (answers, found), (_, expected) = signed.hold(turn), unsigned.hold(turn)
        assert set(answers.usable) == set(HOSPITALS)
        assert found is not None
        assert expected is not None
        assert found.arrays["w"].tobytes() == expected.arrays["w"].tobytes()
    dealt = next(asked for _, asked, _ in signed.log if isinstance(asked, Deal))
    assert set(dealt.signatures) == set(HOSPITALS)
    plain_deal = next(asked for _, asked, _ in unsigned.log if isinstance(asked, Deal))
    assert plain_deal.signatures == {}


def swapped(asked: Any, seen: dict[str, Any]) -> Any:
    if not isinstance(asked, Deal):
        return asked
    return replace(asked, keys={**asked.keys, "hungary": own_keys(1)})


def unsigned(asked: Any, seen: dict[str, Any]) -> Any:
    return replace(asked, signatures={}) if isinstance(asked, Deal) else asked


def replayed(asked: Any, seen: dict[str, Any]) -> Any:
    """In a later round, what Hungary signed in the first."""
    if not isinstance(asked, Deal):
        return asked
    first = seen.setdefault("first", asked)
    old = {"hungary": first.keys["hungary"]}
    signatures = {**asked.signatures, "hungary": first.signatures["hungary"]}
    return replace(asked, keys={**asked.keys, **old}, signatures=signatures)


NOT_OF = "the signature of hungary is not of these keys, study, contract, seed and round"


@pytest.mark.parametrize(
    ("change", "turns", "reason"),
    [
        (swapped, 1, NOT_OF),
        (unsigned, 1, "are not signed"),
        (replayed, 2, NOT_OF),
    ],
)
def test_an_operator_cannot_take_a_hospitals_place_among_the_masks(
    change: Callable[[Any, dict[str, Any]], Any], turns: int, reason: str, keys: Path
) -> None:
    hospitals = Hospitals(keys, change)
    for turn in range(turns):
        answers, found = hospitals.hold(turn)
    assert found is None
    told = [why for name, why in answers.refused.items() if name != "hungary"]
    assert len(told) == 3
    assert all("takes signed mask keys only" in why and reason in why for why in told)
    undone = {a.round for _, a, t in hospitals.log if isinstance(t, Shares)}
    assert undone == set(range(turns - 1))  # the rounds before, and not this one


def test_keys_are_of_one_study_contract_seed_round_and_hospital(keys: Path) -> None:
    hospitals = Hospitals(keys)
    hospitals.hold()
    (asked,) = {id(a): a for _, a, _ in hospitals.log if isinstance(a, Deal)}.values()
    firm, memory = hospitals.firms["cleveland"], hospitals.memories["cleveland"]
    assert not isinstance(firm.answer(asked, memory), Refusal)
    full = replace(asked.terms, contract="hidden_sharing")
    two = {"hungary": "switzerland", "switzerland": "hungary"}
    turned = {two.get(name, name): signature for name, signature in asked.signatures.items()}
    for other in (
        replace(asked, round=1),
        replace(asked, seed=1),
        replace(asked, terms=full),
        replace(asked, signatures=turned),
    ):
        told = firm.answer(other, memory)
        assert isinstance(told, Refusal)
        assert NOT_OF in told.reason
    elsewhere = replace(firm, study="6" * 64).answer(asked, memory)
    assert isinstance(elsewhere, Refusal)
    assert NOT_OF in elsewhere.reason


@pytest.mark.parametrize("name", ["operator", "mallory"])
def test_an_operator_cannot_invent_a_firm(name: str, keys: Path) -> None:
    def invented(asked: Any, seen: dict[str, Any]) -> Any:
        if not isinstance(asked, Deal):
            return asked
        drawn = Advertised(5, own_keys(1))
        told = put_on_keys(drawn, STUDY, asked, name, keys / "operator.key")
        return replace(
            asked,
            keys={**asked.keys, name: told.keys},
            signatures={**asked.signatures, name: told.signature},
        )

    answers, found = Hospitals(keys, invented).hold()
    assert found is None
    assert set(answers.refused) == set(HOSPITALS)
    assert all(f"{name!r}, whose own key is not pinned" in why for why in answers.refused.values())


@pytest.mark.parametrize("step", [Offer, Unmask])
def test_no_keys_can_be_swapped_once_shares_are_dealt(step: type, keys: Path) -> None:
    def later(asked: Any, seen: dict[str, Any]) -> Any:
        if not isinstance(asked, step):
            return asked
        masking = asked.masking
        swap = {**masking.keys, "hungary": own_keys(1)}
        return replace(asked, masking=replace(masking, keys=swap))

    hospitals = Hospitals(keys, later)
    hospitals.hold()
    told = {name: t for name, a, t in hospitals.log if isinstance(a, step)}
    assert set(told) == set(HOSPITALS)
    for name, answer in told.items():
        assert isinstance(answer, Refusal)
        own = name == "hungary"
        assert ("are not its own" if own else "firms of a round changed") in answer.reason


def test_a_hospital_whose_keys_are_not_signed_is_left_out_and_the_rest_go_on(keys: Path) -> None:
    hospitals = Hospitals(keys)
    seals, opening = hospitals.seals, Keys(replace(TERMS, secure=True), 0, 0)
    bare = Advertised(5, own_keys(1))
    with pytest.raises(UnacceptableError, match="the keys of hungary are not signed"):
        seals.check(opening, bare, "hungary")
    signed = put_on_keys(bare, STUDY, opening, "hungary", keys / "hungary.key")
    seals.check(opening, signed, "hungary")
    with pytest.raises(UnacceptableError, match="is not of these keys"):
        seals.check(replace(opening, round=1), signed, "hungary")
    with pytest.raises(UnacceptableError, match="is not of these keys"):
        seals.check(opening, signed, "cleveland")
    forged = replace(hospitals.firms["hungary"], secret=keys / "cleveland.key")
    hospitals.firms["hungary"] = forged
    answers, found = hospitals.hold()
    assert found is not None
    assert set(answers.usable) == set(HOSPITALS) - {"hungary"}
    assert NOT_OF in answers.faulty["hungary"]


# ------------------------------------------------------------- whole studies, by the deployed apps


class Lossy(OwnGrid):
    """A grid that loses some of the first messages and breaks some replies, and notes the rest.

    Args:
        kinds: it loses and breaks so many of each of these only.
    """

    def __init__(
        self,
        inner: OwnGrid,
        names: dict[int, str],
        lost: int,
        broken: int,
        kinds: tuple[type, ...] = (object,),
    ) -> None:
        super().__init__(inner.get_node_ids())
        self.inner, self.names = inner, names
        self.left = {kind: {"lost": lost, "broken": broken} for kind in kinds}
        self.crossed: list[Any] = []

    def get_nodes(self) -> list[Any]:
        class Node:
            def __init__(self, node_id: int, name: str) -> None:
                self.node_id, self.name = node_id, name

        return [Node(*pair) for pair in self.names.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            asked: list[Any] = [message]
            if "frames" in message.content:
                asked = [unpack(packed) for _, packed in read_records(message.content)]
                self.crossed += asked
            (key,) = self.inner.push_messages([message])
            ids.append(key)
            here = (kind for kind in self.left if any(isinstance(m, kind) for m in asked))
            left = self.left.get(next(here, type(None)), {"lost": 0, "broken": 0})
            if left["lost"] and len(ids) % 2:
                left["lost"] -= 1
                list(self.inner.pull_messages([key]))
            elif left["broken"]:
                left["broken"] -= 1
                list(self.inner.pull_messages([key]))
                self._replies[key] = fault_reply(message, "its node was lost")
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = list(message_ids)
        replies = list(self.inner.pull_messages(asked))
        for reply in replies:
            if "frames" in reply.content:
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


class AtDesk:
    """The way to a desk in this process."""

    def __init__(self, desk: Desk, tag: str = "") -> None:
        self.desk, self.tag = desk, tag

    def under(self, tag: str) -> AtDesk:
        return AtDesk(self.desk, tag)

    def answer(self, request: Request, memory: Memory) -> Answer:
        return self.desk.answer(request, self.tag)


def deployed(
    folder: Path,
    keys: Path,
    *overrides: str,
    lost: int = 0,
    broken: int = 0,
    swap: bool = False,
    secrets: str = SEEDED,
    desks: bool = False,
    kinds: tuple[type, ...] = (object,),
) -> tuple[dict[str, Any], list[Any]]:
    """A study held by the apps of a deployment, firms in this process.

    Args:
        lost, broken: how many messages do not come through, of each of these kinds.
        swap: nodes have each other's keys.
        secrets: where the firms' come from; desks: they answer at desks.
    """
    config = run_config(folder, *overrides)
    names = dict(zip(contexts(config), firms_of(config), strict=True))
    at_desks = dict[str, AtDesk]()

    def firm(context: Context) -> Answering:
        name = str(context.node_config[apps.PARTY])
        if name in at_desks:
            return at_desks[name]
        own, secret = replace(apps.firm_of(context), secrets=secrets), keys / f"{name}.key"
        sealed = SealedFirm(own, name, secret, pinned(keys), STUDY)
        if not desks:
            return sealed
        home = folder / "firms" / name
        home.mkdir(parents=True)
        agreed = agreement(study_of(plain(*overrides), away=True), STUDY)
        audit, memory = Audit(home / "audit.jsonl", secret), Kept(home / "memory")
        at_desks[name] = AtDesk(Desk(name, sealed, agreed, Policy(), audit, memory))
        return at_desks[name]

    grid = Lossy(InlineGrid(client_app(firm), contexts(config)), names, lost, broken, kinds)
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
    expected = inline(tmp_path / "inline", *study)
    verdict, crossed = deployed(tmp_path / "far", keys, *study, lost=lost, broken=broken)
    assert json.dumps(verdict) == json.dumps(expected)
    models = [m.weights for m in crossed if isinstance(m, Trained) and m.weights is not None]
    models += [m.model for m in crossed if isinstance(m, Offer) and m.model is not None]
    assert models
    assert all(m.seal is not None for m in models)


def inline(folder: Path, *overrides: str) -> dict[str, Any]:
    """The same study in a simulation."""
    config = run_config(folder, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    return conclude(study_of(plain(*overrides)), RunFolder(folder))


def published(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "models").rglob("*.safetensors"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


SECURE = "contract.train_sharing.secure=true"


@pytest.mark.parametrize(("secrets", "desks"), [(SEEDED, False), (SECRET, False), (SECRET, True)])
def test_far_hospitals_add_their_models_up_to_the_same_bytes_whatever_is_lost(
    secrets: str, desks: bool, tmp_path: Path, keys: Path
) -> None:
    study = (*SMALL_HEART, SECURE)
    expected = inline(tmp_path / "inline", *study)
    steps = (Keys, Deal, Offer, Unmask)
    how: dict[str, Any] = {"secrets": secrets, "desks": desks, "kinds": steps}
    verdict, crossed = deployed(tmp_path / "far", keys, *study, lost=3, broken=2, **how)
    assert json.dumps(verdict) == json.dumps(expected)
    files = published(tmp_path / "far")
    assert files
    assert files == published(tmp_path / "inline")
    told = [m for m in crossed if isinstance(m, Advertised)]
    due = 2 * 2 * 4  # one a seed, round and hospital
    assert len({m.signature for m in told}) == due
    for step in steps:  # each was asked again
        assert sum(isinstance(m, step) and m.terms.secure for m in crossed) > due
    assert not [m for m in crossed if isinstance(m, Refusal)]
    assert [m.masked for m in crossed if isinstance(m, Trained) and m.masked is not None]
    assert not [m for m in crossed if isinstance(m, Trained) and m.weights is not None]


@pytest.mark.parametrize("desks", [False, True], ids=["without desks", "at desks"])
def test_far_hospitals_put_the_same_noise_on_as_in_the_simulation_that_knows_it(
    desks: bool, tmp_path: Path, keys: Path
) -> None:
    noise = "contract.train_sharing.update_epsilon=20"
    expected = inline(tmp_path / "inline", *SMALL_HEART, noise)
    verdict, _ = deployed(
        tmp_path / "far", keys, *SMALL_HEART, noise, lost=4, broken=4, desks=desks
    )
    assert json.dumps(verdict) == json.dumps(expected)
    assert published(tmp_path / "far") == published(tmp_path / "inline")


def test_secret_noise_is_none_that_the_simulation_could_know(tmp_path: Path, keys: Path) -> None:
    study = (*SMALL_HEART, "study.seeds=1", "contract.train_sharing.update_epsilon=20")
    inline(tmp_path / "inline", *study)
    deployed(tmp_path / "far", keys, *study, secrets=SECRET)
    far, near = published(tmp_path / "far"), published(tmp_path / "inline")
    assert far.keys() == near.keys()
    assert all(far[name] != near[name] for name in far)


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
