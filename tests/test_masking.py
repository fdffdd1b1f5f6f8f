"""Secure aggregation: the sum is exact, firms may fall silent, and nobody sees a single model."""

from __future__ import annotations

import csv
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from flwr.common.secure_aggregation import ndarrays_arithmetic as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sympy import nextprime

from parties.exchange import (
    Advertised,
    Answer,
    Array,
    Deal,
    Dealt,
    Declaration,
    ExchangeError,
    FedpactError,
    Keys,
    Masked,
    Masking,
    Offer,
    Refusal,
    Request,
    Shares,
    Terms,
    Trained,
    Unmask,
    Weights,
    pack,
    unpack,
)
from parties.exchange.masks import KEY, SEALED, SHARE, threshold
from parties.firm import Firm
from parties.masking import shamir
from parties.masking.keys import agreed, opened, pair_mask, public, seal
from parties.masking.masker import Masker
from parties.masking.words import BOUND, UNITS, from_words, stream, to_words
from parties.memory import Memory
from server.intake import Limits, UnacceptableError, accept
from server.masked_sum import SUM, add_up
from server.outcome import Outcome
from server.strategies import State, Strategy, average
from server.transport import Answers
from simulations.build import build
from simulations.conclude import conclude
from simulations.engines import apps
from simulations.results import RunFolder
from simulations.study import study_of
from simulations.sweeps.configs import Configs
from simulations.sweeps.grid import Grid
from simulations.sweeps.held import hold_jobs
from simulations.sweeps.limits import JobLimits
from simulations.traffic import bytes_of, traffic
from tests.checks import SMALL_HEART, RecordingGrid, contexts, hold_on, plain, run_config
from tests.inline_grid import InlineGrid
from tests.test_conf import choices
from tests.test_engines import hold
from tests.test_intake import tampering
from tests.test_rounds import DyingGrid, KilledError, files

TERMS = Terms("train_sharing", models=True, predictions=False, rounds=5, secure=True)
PLAIN = replace(TERMS, secure=False)
SECURE = "contract.train_sharing.secure=true"
SHAPES = {"n": (), "w": (2, 3)}
LIMITS = Limits()
HOSPITALS = ("cleveland", "hungary", "switzerland", "va_long_beach")


# ----------------------------------------------------------------------- shares, words and keys


def test_shares_lie_on_the_polynomial_that_was_drawn() -> None:
    secret, chance = bytes(range(32)), b"c" * 32
    shares = [int.from_bytes(s, "big") for s in shamir.split(secret, 4, 3, chance)]
    drawn = stream(chance, 16).astype("<u8").tobytes()
    a, b = (int.from_bytes(drawn[at : at + 64], "big") for at in (0, 64))
    p = int.from_bytes(secret, "big")
    assert shares == [(p + a * x + b * x * x) % shamir.PRIME for x in (1, 2, 3, 4)]


def test_the_prime_is_the_first_above_all_secrets() -> None:
    assert nextprime(2**256 - 1) == shamir.PRIME


@given(
    secret=st.binary(min_size=32, max_size=32),
    chance=st.binary(min_size=32, max_size=32),
    firms=st.integers(3, 9),
    data=st.data(),
)
def test_any_t_shares_are_the_secret_and_fewer_are_refused(
    secret: bytes, chance: bytes, firms: int, data: st.DataObject
) -> None:
    needed = threshold(firms)
    shares = dict(enumerate(shamir.split(secret, firms, needed, chance), 1))
    places = data.draw(st.sets(st.integers(1, firms), min_size=needed))
    assert shamir.join({p: shares[p] for p in places}, needed) == secret
    few = dict(itertools.islice(shares.items(), needed - 1))
    with pytest.raises(FedpactError, match="it takes"):
        shamir.join(few, needed)


def test_a_share_that_is_another_gives_no_secret() -> None:
    shares = dict(enumerate(shamir.split(bytes(32), 3, 3, b"x" * 32), 1))
    changed = {**shares, 2: (int.from_bytes(shares[2], "big") ^ 1).to_bytes(SHARE, "big")}
    try:
        assert shamir.join(changed, 3) != bytes(32)
    except FedpactError as fault:
        assert "not of one secret" in str(fault)  # noqa: PT017


def test_a_stream_is_chacha20_of_the_standard() -> None:
    # RFC 8439, appendix A.1, test vector 1: key, counter and nonce of zeros.
    known = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    assert stream(bytes(32), 4).astype("<u8").tobytes().hex() == known


@given(
    st.lists(st.floats(-BOUND, BOUND, allow_nan=False, width=32), min_size=1, max_size=5),
    st.integers(1, 10**9),
    st.integers(1, 10**9),
)
def test_fixed_point_is_exact_to_half_a_unit(numbers: list[float], some: int, others: int) -> None:
    share = some / (some + others)
    arrays = {"w": np.array(numbers, np.float32)}
    found = from_words(to_words(arrays, share), {"w": (len(numbers),)}, share)["w"]
    np.testing.assert_allclose(found, arrays["w"], rtol=1e-15, atol=0.5 / UNITS / share)


def test_the_largest_models_of_a_thousand_firms_do_not_wrap_around() -> None:
    for sign in (1.0, -1.0):
        words = to_words({"w": np.array([sign * BOUND])}, 1 / 1000)
        total = np.asarray(sum(words for _ in range(1000)))
        found = from_words(total, {"w": (1,)}, 1.0)["w"]
        np.testing.assert_allclose(found, sign * BOUND, rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2 * BOUND])
def test_a_firm_does_not_mask_what_has_no_words(value: float) -> None:
    with pytest.raises(FedpactError, match="cannot be masked"):
        to_words({"w": np.array([1.0, value])}, 0.5)


def test_two_firms_agree_on_masks_that_cancel_and_on_nothing_with_a_third() -> None:
    a, b, c = (bytes([i]) * KEY for i in (1, 2, 3))
    keys = {s: np.frombuffer(public(s), np.uint8) for s in (a, b, c)}
    both = {s: np.stack([k, k]) for s, k in keys.items()}
    one = pair_mask(a, "a", "b", both[b], "round", 50)
    two = pair_mask(b, "b", "a", both[a], "round", 50)
    assert not np.any(one + two)
    assert np.count_nonzero(one) > 45
    assert np.any(pair_mask(c, "c", "a", both[a], "round", 50) != two)
    assert np.any(pair_mask(a, "a", "b", both[b], "next round", 50) != one)


def test_what_is_sealed_opens_for_its_receiver_only_and_unaltered() -> None:
    key = agreed(b"1" * KEY, public(b"2" * KEY), "seal")
    box = seal(key, b"shares")
    assert opened(agreed(b"2" * KEY, public(b"1" * KEY), "seal"), box) == b"shares"
    assert opened(agreed(b"3" * KEY, public(b"1" * KEY), "seal"), box) is None
    assert opened(key, box[:-1] + bytes([box[-1] ^ 1])) is None


# ------------------------------------------------------- whole rounds, of firms that do not train


class Consortium:
    """Firms that mask models which they have already, and may fall silent before any step.

    Args:
        models: by firm; silent: firm -> the first step (0 to 3) that it does not answer.
        change: changes a firm's answer.
    """

    def __init__(
        self,
        models: Mapping[str, Weights],
        silent: Mapping[str, int] | None = None,
        private: bool = True,
        change: Callable[[str, Request, Answer], Answer] = lambda name, asked, told: told,
    ) -> None:
        self.models, self.silent, self.change = models, silent or {}, change
        self.maskers = {name: Masker(name, private) for name in models}
        self.memories = {name: Memory() for name in models}
        self.log: list[tuple[str, Request, Answer]] = []
        self.steps = 0

    def answer(self, name: str, asked: Any) -> Answer:
        masker, memory, model = self.maskers[name], self.memories[name], self.models[name]
        objection = masker.objection(asked, memory)
        if objection:
            return Refusal(objection)
        match asked:
            case Keys():
                return masker.advertise(asked, memory, model.examples)
            case Deal():
                return masker.deal(asked, memory)
            case Offer():
                masked = masker.mask(asked, memory, model)
                return Trained(model.examples, (0.5,), masked=masked)
        return masker.unmask(asked, memory)

    def check(self, name: str, asked: Request, told: Answer) -> None:
        """What the operator checks of an answer besides (`server.intake.accept`)."""

    def ask(self, requests: Mapping[str, Request], minimum: int | None = None) -> Answers:
        answers = Answers()
        self.steps += 1
        for name, asked in sorted(requests.items()):
            if [Keys, Deal, Offer, Unmask].index(type(asked)) >= self.silent.get(name, 4):
                answers.silent[name] = "it is gone"
                continue
            told = self.change(name, asked, self.answer(name, asked))
            self.log.append((name, asked, told))
            if isinstance(told, Refusal):
                answers.refused[name] = told.reason
                continue
            model = self.models[name]
            known = Declaration(name, model.examples, 0, 0, 0, SHAPES, ("w",))
            try:
                self.check(name, asked, told)
                answers.usable[name] = accept(asked, told, known, LIMITS)
            except UnacceptableError as fault:
                answers.faulty[name] = str(fault)
        return answers

    def hold(self, turn: int = 0, terms: Terms = TERMS) -> tuple[Answers, Weights | None]:
        opening = Keys(terms, 0, turn)

        def offer(masking: Masking) -> Offer:
            return Offer(terms, 0, turn, 1, masking=masking)

        answers, found = add_up(self.ask, opening, offer, list(self.models), LIMITS)
        return answers, found.get(SUM)

    def told(self, kind: type) -> dict[str, Any]:
        return {name: told for name, _, told in self.log if isinstance(told, kind)}


def models(firms: int, seed: int = 0) -> dict[str, Weights]:
    rng = np.random.default_rng(seed)
    return {
        f"firm_{i}": Weights(
            {
                "w": rng.normal(0, 3, SHAPES["w"]).astype(np.float32),
                "n": np.array(rng.integers(0, 100)),
            },
            int(rng.integers(1, 1000)),
        )
        for i in range(firms)
    }


def close(found: Weights, expected: Weights, within: float = 1e-6) -> None:
    assert found.examples == expected.examples
    assert found.arrays.keys() == expected.arrays.keys()
    for key, array in expected.arrays.items():
        assert found.arrays[key].dtype == array.dtype
        np.testing.assert_allclose(found.arrays[key], array, rtol=0, atol=within)


@settings(deadline=None, max_examples=60)
@given(firms=st.integers(3, 7), seed=st.integers(0, 999), private=st.booleans(), data=st.data())
def test_whoever_falls_silent_the_sum_is_exactly_that_of_the_rest_or_there_is_none(
    firms: int, seed: int, private: bool, data: st.DataObject
) -> None:
    held = models(firms, seed)
    step = st.sampled_from([4, 4, 4, 3, 2, 1, 0])
    silent = dict(zip(held, data.draw(st.lists(step, min_size=firms, max_size=firms)), strict=True))
    consortium = Consortium(held, silent, private)
    answers, found = consortium.hold()
    left = [{n for n in held if silent[n] > step} for step in range(4)]
    enough = len(left[0]) >= 3
    enough = enough and all(len(some) >= threshold(len(left[0])) for some in left[1:])
    assert (found is not None) == enough
    assert set(answers.silent) == {n for n in held if silent[n] < min(3, consortium.steps)}
    if found is None:
        return
    survivors = {n: held[n] for n in left[2]}
    total = sum(held[n].examples for n in left[1])
    # The sum of fixed-point numbers by Flower's arithmetic, in whole numbers without bound.
    words: Any = [np.zeros(9, object)]
    for model in survivors.values():
        share = to_words(model.arrays, model.examples / total).view(np.int64)
        words = flower.parameters_addition(words, [share.astype(object)])
    exact = words[0] % 2**64
    unmasked = from_words(
        exact.astype(np.uint64), SHAPES, sum(m.examples for m in survivors.values()) / total
    )
    np.testing.assert_array_equal(found.arrays["w"], unmasked["w"].astype(np.float32))
    close(found, average(survivors))
    assert set(answers.usable) == set(survivors)


def test_the_order_of_answers_changes_no_bit() -> None:
    held = models(5)
    first, again = Consortium(held).hold()[1], Consortium(dict(reversed(held.items()))).hold()[1]
    assert first is not None
    assert again is not None
    assert {k: v.tobytes() for k, v in first.arrays.items()} == {
        k: v.tobytes() for k, v in again.arrays.items()
    }


def test_masked_words_are_uniform_and_plain_ones_are_not() -> None:
    def chi_square(words: Array) -> float:
        """The largest, over the bytes of a word, of (chi^2 - 255) / sqrt(2 255)."""
        parts = words.view(np.uint8).reshape(-1, 8).T
        counts = [np.bincount(part, minlength=256) for part in parts]
        expected = len(words) / 256
        return max((np.sum((c - expected) ** 2 / expected) - 255) / np.sqrt(510) for c in counts)

    held = {f"firm_{i}": Weights({"w": np.full((200, 200), float(i))}, 7) for i in range(3)}
    firms = Consortium(held, private=False)
    opening = Keys(TERMS, 0, 0)
    # Declared shapes are those of SHAPES: here the firms are asked without the operator.
    keys = {n: firms.answer(n, opening).keys for n in held}  # type: ignore[union-attr]
    dealt = {n: firms.answer(n, Deal(TERMS, 0, 0, keys)).sealed for n in held}  # type: ignore[union-attr]
    maskings = {
        n: Masking(21, keys, {other: dealt[other][n] for other in held if other != n}) for n in held
    }
    words = {
        n: firms.answer(n, Offer(TERMS, 0, 0, 1, masking=m)).masked.words  # type: ignore[union-attr]
        for n, m in maskings.items()
    }
    assert chi_square(to_words(held["firm_1"].arrays, 1 / 3)) > 1000
    singles = [words[n] for n in held]
    pairs = [a + b for a, b in itertools.combinations(singles, 2)]
    for some in (*singles, *pairs, singles[0] - singles[1], sum(singles)):
        assert chi_square(np.asarray(some)) < 5  # even all together: own masks are still on


def test_no_set_of_shares_below_the_threshold_says_anything_of_a_mask() -> None:
    """For any secret there is a polynomial through the t - 1 shares that were given."""
    secret, other = b"s" * 32, b"o" * 32
    shares = dict(enumerate(shamir.split(secret, 5, 3, b"c" * 32), 1))
    few = {1: shares[1], 2: shares[2]}
    # The share of firm 3 with which the same two shares are those of another secret.
    p, (y1, y2) = shamir.PRIME, (int.from_bytes(s, "big") for s in few.values())
    y3 = (int.from_bytes(other, "big") - 3 * y1 + 3 * y2) % p  # p(0) = 3 y1 - 3 y2 + y3
    assert shamir.join({**few, 3: y3.to_bytes(SHARE, "big")}, 3) == other


# ----------------------------------------------------------------------- what a firm will not do


def refusal(consortium: Consortium, name: str, asked: Request) -> str:
    told = consortium.answer(name, asked)
    assert isinstance(told, Refusal), type(told)
    return told.reason


def last(consortium: Consortium, name: str, kind: type) -> Any:
    return next(a for n, a, _ in reversed(consortium.log) if n == name and isinstance(a, kind))


@pytest.mark.parametrize("private", [True, False])
def test_a_firm_never_gives_both_shares_of_another(private: bool) -> None:
    consortium = Consortium(models(5), private=private)
    consortium.hold()
    asked = last(consortium, "firm_0", Unmask)
    again = consortium.answer("firm_0", asked)
    assert isinstance(again, Shares)
    assert (set(again.selves), set(again.pairs)) == (set(consortium.models), set())
    other = replace(asked, masked=tuple(n for n in asked.masked if n != "firm_4"))
    assert "helped to the sum of other firms" in refusal(consortium, "firm_0", other)
    consortium.memories = {n: Memory() for n in consortium.models}
    assert consortium.hold()[1] is not None
    # Neither in the same round held again: sums with and without firm_4 would tell its model.
    consortium.silent = {"firm_4": 2}
    answers, found = consortium.hold()
    assert found is None
    assert set(answers.silent) == {"firm_4"}
    assert not answers.refused  # they trained; they did not refuse the contract
    consortium.silent = {}
    assert consortium.hold()[1] is not None  # of the same firms it may be held again
    consortium.silent = {"firm_4": 2}
    # Nor in another round or under another contract, as long as it is the same model.
    full = Terms("full_sharing", models=True, predictions=True, rounds=5, secure=True)
    assert consortium.hold(turn=1)[1] is None
    assert consortium.hold(terms=full)[1] is None
    consortium.models = models(5, seed=1)
    assert consortium.hold(turn=1)[1] is not None
    given = consortium.told(Shares)["firm_0"]
    assert set(given.pairs) == {"firm_4"}


BAD_STEPS: list[tuple[str, type, Callable[[Any], Any], str]] = [
    (
        "foreign keys",
        Deal,
        lambda r: replace(r, keys={**r.keys, "firm_0": r.keys["firm_1"]}),
        "not its own",
    ),
    (
        "left out",
        Deal,
        lambda r: replace(r, keys={n: k for n, k in r.keys.items() if n != "firm_0"}),
        "not its own",
    ),
    ("twins", Deal, lambda r: replace(r, keys={**r.keys, "x": r.keys["firm_1"]}), "same key"),
    (
        "changed keys",
        Deal,
        lambda r: replace(r, keys={**r.keys, "firm_1": r.keys["firm_1"][::-1].copy()}),
        "firms of a round changed",
    ),
    (
        "few",
        Offer,
        lambda r: replace(r, masking=replace(r.masking, sealed={})),
        "1 firms dealt shares",
    ),
    (
        "own shares",
        Offer,
        lambda r: replace(
            r,
            masking=replace(
                r.masking, sealed={**r.masking.sealed, "firm_0": r.masking.sealed["firm_1"]}
            ),
        ),
        "dealt itself",
    ),
    (
        "other total",
        Offer,
        lambda r: replace(r, masking=replace(r.masking, total=r.masking.total + 1)),
        "changed within a round",
    ),
    ("too few", Unmask, lambda r: replace(r, masked=("firm_0", "firm_1")), "fewer than the 3"),
    ("not me", Unmask, lambda r: replace(r, masked=tuple(set(r.masked) - {"firm_0"})), "not those"),
    ("no round", Unmask, lambda r: replace(r, round=3), "drew no secrets for round 3"),
    ("no secrets", Deal, lambda r: replace(r, seed=9), "drew no secrets for round 0"),
]


@pytest.mark.parametrize(
    ("kind", "change", "problem"), [b[1:] for b in BAD_STEPS], ids=[b[0] for b in BAD_STEPS]
)
def test_a_firm_refuses_a_step_that_would_lay_a_model_open(
    kind: type, change: Callable[[Any], Any], problem: str
) -> None:
    consortium = Consortium(models(5))
    consortium.hold()
    asked = change(last(consortium, "firm_0", kind))
    assert problem in refusal(consortium, "firm_0", asked)


def test_two_models_are_not_put_under_the_same_masks() -> None:
    consortium = Consortium(models(4))
    consortium.hold()
    asked = last(consortium, "firm_0", Offer)
    assert arrays(consortium.answer("firm_0", asked)) == arrays(consortium.told(Trained)["firm_0"])
    consortium.models = models(4, seed=1)
    with pytest.raises(FedpactError, match="would tell how they differ"):
        consortium.answer("firm_0", asked)


def test_in_a_deployment_secrets_are_drawn_anew_and_forgotten_ones_end_the_round() -> None:
    consortium = Consortium(models(4))
    consortium.hold()
    asked = last(consortium, "firm_0", Unmask)
    drawn = {asked.masking.keys["firm_0"].tobytes()}
    for _ in range(3):  # held again: old secrets are of use until as many new ones are dealt
        assert isinstance(consortium.answer("firm_0", asked), Shares)
        consortium.hold()
        keys = last(consortium, "firm_0", Unmask).masking.keys
        drawn.add(keys["firm_0"].tobytes())
    assert len(drawn) == 4
    assert "not its own" in refusal(consortium, "firm_0", asked)
    consortium.memories["firm_0"] = Memory()
    assert "drew no secrets" in refusal(consortium, "firm_0", asked)


@pytest.mark.parametrize("private", [True, False])
def test_messages_that_come_twice_and_late_break_no_round(private: bool) -> None:
    once, twice = Consortium(models(4), private=private), Consortium(models(4), private=private)
    answer, said = twice.answer, list[tuple[str, Request]]()

    def again(name: str, asked: Any) -> Answer:
        """The first answer to a message that came twice, after all that went before came again."""
        for old_name, old in said[-12:]:
            answer(old_name, old)
        first, second = answer(name, asked), answer(name, asked)
        assert arrays(second) == arrays(first)
        said.append((name, asked))
        return first

    twice.answer = again  # type: ignore[method-assign]
    for turn in range(3):
        (answers, found), (_, expected) = twice.hold(turn), once.hold(turn)
        assert not {**answers.refused, **answers.faulty}
        assert found is not None
        assert expected is not None
        assert found.arrays["w"].tobytes() == expected.arrays["w"].tobytes()


class Pinned(Consortium):
    """An operator that tells firms different totals: the others' models round to nothing."""

    def answer(self, name: str, asked: Any) -> Answer:
        if isinstance(asked, Offer) and name != "firm_0":
            assert asked.masking is not None
            asked = replace(asked, masking=replace(asked.masking, total=10**18))
        return super().answer(name, asked)


def test_who_tells_firms_different_totals_gets_no_models_sum() -> None:
    honest = Consortium(models(3)).hold()[1]
    assert honest is not None
    assert Pinned(models(3)).hold()[1] is None  # their masks are for another sum, and stay on


def test_a_firm_masks_nothing_for_firms_that_it_has_dealt_no_shares_to() -> None:
    consortium = Consortium(models(4))
    consortium.hold()
    asked = last(consortium, "firm_0", Offer)
    own = consortium.answer("firm_0", Keys(TERMS, 0, 0))
    assert isinstance(own, Advertised)
    keys = {**asked.masking.keys, "firm_0": own.keys}
    undealt = replace(asked, masking=replace(asked.masking, keys=keys))
    assert "has dealt no shares" in refusal(consortium, "firm_0", undealt)
    assert isinstance(consortium.answer("firm_0", Deal(TERMS, 0, 0, keys)), Dealt)
    assert isinstance(consortium.answer("firm_0", undealt), Trained)


def test_in_a_simulation_a_firm_without_its_memory_answers_the_same() -> None:
    consortium = Consortium(models(4), private=False)
    consortium.hold()
    for name, asked, told in list(consortium.log):
        consortium.memories[name] = Memory()
        again = consortium.answer(name, asked)
        assert arrays(again) == arrays(told)


def arrays(answer: Answer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in pack(answer).arrays.items()}


def test_the_secrets_of_a_deployment_are_the_operating_systems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hospital: Firm = build(plain(*SMALL_HEART)["parties"]["hungary"])
    opening = Keys(TERMS, 0, 0)

    def keys(firm: Firm) -> bytes:
        told = firm.answer(opening, Memory())
        assert isinstance(told, Advertised)
        return told.keys.tobytes()

    assert keys(hospital) == keys(hospital)
    private = replace(hospital, secrets="secret")
    assert len({keys(private), keys(private), keys(hospital)}) == 3
    with pytest.raises(FedpactError, match="secrets is 'none'; legal are seeded and secret"):
        replace(hospital, secrets="none")


# --------------------------------------------------------------------------- firms that are wrong


def test_a_hospital_gives_no_bare_weights_under_secure_terms_whoever_asks() -> None:
    hospital: Firm = build(plain(*SMALL_HEART)["parties"]["hungary"])
    memory = Memory()
    assert isinstance(hospital.answer(Keys(TERMS, 0, 0), memory), Advertised)
    # The name of the contract stands for the terms that were accepted.
    told = hospital.answer(Offer(PLAIN, 0, 0, 1), memory)
    assert isinstance(told, Refusal)
    assert "are not those that hungary accepted" in told.reason
    # And a message that says otherwise is none.
    packed = pack(Offer(PLAIN, 0, 0, 1))
    forged = replace(packed, text=packed.text.replace('"secure": false', '"secure": true'))
    with pytest.raises(ExchangeError, match="weights are masked where it is true"):
        unpack(forged)


def test_a_firm_that_seals_rubbish_is_named_and_the_round_is_void(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rubbish(name: str, asked: Request, told: Answer) -> Answer:
        if name != "firm_2" or not isinstance(told, Dealt):
            return told
        return Dealt({n: np.zeros(SEALED, np.uint8) for n in told.sealed})

    with caplog.at_level(logging.WARNING, "fedpact"):
        answers, found = Consortium(models(4), change=rubbish).hold()
    assert found is None
    assert "the masks of firm_2 stay on: 1 shares of a secret; it takes 3" in caplog.text
    assert len(answers.usable) == 4


@pytest.mark.parametrize("kind", ["words", "shares"])
def test_a_sum_that_keeps_masks_is_not_taken_for_a_model(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(name: str, asked: Request, told: Answer) -> Answer:
        if name != "firm_0":
            return told
        if kind == "words" and isinstance(told, Trained) and told.masked is not None:
            words = told.masked.words + np.uint64(1)
            return replace(told, masked=replace(told.masked, words=words))
        if kind == "shares" and isinstance(told, Shares):
            return replace(told, selves=dict.fromkeys(told.selves, np.ones(SHARE, np.uint8)))
        return told

    with caplog.at_level(logging.WARNING, "fedpact"):
        assert Consortium(models(4), change=wrong).hold()[1] is None
    assert "the masks do not cancel" in caplog.text or "stay on" in caplog.text


def test_a_mean_that_is_too_large_is_not_published(caplog: pytest.LogCaptureFixture) -> None:
    held = models(3)
    held["firm_1"] = Weights({"n": np.array(1), "w": np.full((2, 3), 1e6)}, 500)
    with caplog.at_level(logging.WARNING, "fedpact"):
        assert Consortium(held).hold()[1] is None
    assert "norm" in caplog.text


def test_a_firm_that_trains_on_other_examples_than_it_said_is_left_out() -> None:
    def more(name: str, asked: Request, told: Answer) -> Answer:
        if name == "firm_1" and isinstance(told, Advertised):
            return replace(told, examples=1)
        return told

    held = {n: replace(m, examples=m.examples + 5) for n, m in models(5).items()}
    answers, found = Consortium(held, change=more).hold()
    assert found is not None
    assert "said 1 examples" in answers.faulty["firm_1"]
    close(found, average({n: m for n, m in held.items() if n != "firm_1"}))


def test_a_copied_key_and_a_useless_one_are_not_used() -> None:
    useless, copied = np.zeros((2, KEY), np.uint8), np.ones((2, KEY), np.uint8)
    copied[0] = 2

    def change(name: str, asked: Request, told: Answer) -> Answer:
        if isinstance(told, Advertised) and name in ("firm_0", "firm_1", "firm_2"):
            return replace(told, keys=useless if name == "firm_0" else copied)
        return told

    answers, found = Consortium(models(6), change=change).hold()
    assert found is not None
    assert set(answers.faulty) == {"firm_0", "firm_1", "firm_2"}
    assert set(answers.usable) == {"firm_3", "firm_4", "firm_5"}


KNOWN = Declaration("firm_0", 5, 0, 0, 0, SHAPES, ("w",))
PAIRS = {f"firm_{i}": np.full((2, KEY), i, np.uint8) for i in range(3)}
BOXES = {f"firm_{i}": np.zeros(SEALED, np.uint8) for i in (1, 2)}
MASKING = Masking(9, PAIRS, BOXES)
KINDS = {"n": "int64", "w": "float32"}
WORDS = np.zeros(9, np.uint64)
PART = np.zeros(SHARE, np.uint8)
OFFER = Offer(TERMS, 0, 0, 1, masking=MASKING)
DEAL, UNMASK = Deal(TERMS, 0, 0, PAIRS), Unmask(TERMS, 0, 0, MASKING, ("firm_0", "firm_1"))
MASKED = Masked(WORDS, SHAPES, KINDS)

UNACCEPTABLE: list[tuple[Request, Answer, str]] = [
    (Keys(TERMS, 0, 0), Advertised(6, PAIRS["firm_1"]), "6 examples, declared 5"),
    (Keys(TERMS, 0, 0), Advertised(0, PAIRS["firm_1"]), "declared that it contributes"),
    (Keys(TERMS, 0, 0), Advertised(5, PAIRS["firm_0"]), "nobody can agree"),
    (Keys(TERMS, 0, 0), Dealt({}), "sent Dealt, asked for Advertised"),
    (DEAL, Dealt({"firm_1": BOXES["firm_1"]}), "other shares than are due: firm_2"),
    (DEAL, Dealt({**BOXES, "x": BOXES["firm_1"]}), "other shares than are due: x"),
    (OFFER, Trained(5, (0.5,), Weights({"w": np.zeros(1)}, 5)), "no weights may be sent"),
    (OFFER, Trained(5, (0.5,)), "masked weights are due"),
    (Offer(PLAIN, 0, 0, 1), Trained(5, (0.5,), masked=MASKED), "weights are due"),
    (OFFER, Trained(5, (0.5, 0.5), masked=MASKED), "2 losses"),
    (OFFER, Trained(5, (0.5,), masked=Masked(WORDS[:3], {"n": ()}, {"n": "int64"})), "due: w"),
    (
        OFFER,
        Trained(5, (0.5,), masked=Masked(WORDS, {**SHAPES, "w": (3, 2)}, KINDS)),
        r"shape \(3, 2\)",
    ),
    (
        OFFER,
        Trained(5, (0.5,), masked=Masked(WORDS, SHAPES, {**KINDS, "w": "int64"})),
        "send floats",
    ),
    (UNMASK, Shares({"firm_2": PART}), "own masks that nobody asked for: firm_2"),
    (UNMASK, Shares({}, {"firm_1": PART}), "for others that nobody asked for: firm_1"),
]


@pytest.mark.parametrize(("asked", "told", "problem"), UNACCEPTABLE)
def test_an_answer_that_does_not_fit_is_refused(asked: Request, told: Answer, problem: str) -> None:
    with pytest.raises(UnacceptableError, match=problem):
        accept(asked, told, KNOWN, LIMITS)


ILL_FORMED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Terms("x", False, False, secure=True), "secure must be false where no model"),
    (lambda: Terms("x", True, False, 1, secure=1), "terms.secure is 1"),  # type: ignore[arg-type]
    (lambda: Offer(TERMS, 0, 0, 1), "weights are masked where it is true"),
    (lambda: Offer(PLAIN, 0, 0, 1, masking=MASKING), "weights are masked where it is true"),
    (lambda: replace(OFFER, precision=True), "would tell of one firm's model"),
    (lambda: replace(OFFER, card=True), "would tell of one firm's model"),
    (lambda: Keys(PLAIN, 0, 0), "is not secure"),
    (lambda: Deal(TERMS, 0, 0, {"a": PAIRS["firm_0"]}), "of 1 firms; 3 are needed"),
    (lambda: replace(DEAL, keys={**PAIRS, "x": np.zeros((2, 31), np.uint8)}), r"shape \(2, 31\)"),
    (lambda: replace(DEAL, keys={**PAIRS, "x": np.zeros((2, 32), np.uint16)}), "uint16 of shape"),
    (lambda: Advertised(-1, PAIRS["firm_0"]), "advertised.examples is -1"),
    (lambda: Dealt({"a": np.zeros(SEALED + 1, np.uint8)}), "dealt.sealed"),
    (lambda: replace(MASKING, sealed={"x": BOXES["firm_1"]}), "without keys: x"),
    (lambda: replace(UNMASK, masked=("firm_0", "firm_0")), "twice"),
    (lambda: replace(UNMASK, masked=("x",)), "without keys: x"),
    (lambda: Shares({"a": PART}, {"a": PART}), "both secrets of a"),
    (lambda: Shares({"a": np.zeros(3, np.uint8)}), "shares.selves"),
    (lambda: Masked(WORDS.view(np.int64), SHAPES, KINDS), "dtype int64"),
    (lambda: Masked(WORDS[:-1], SHAPES, KINDS), "8 of uint64; 9 of uint64 are due"),
    (lambda: Masked(WORDS, SHAPES, {"w": "float32"}), "other tensors"),
    (lambda: Masked(WORDS, SHAPES, {**KINDS, "w": "float16"}), "float16"),
    (lambda: Trained(5, (), Weights({"w": WORDS}, 5), masked=MASKED), "not both"),
    (lambda: Trained(0, (), masked=MASKED), "trained on nothing"),
]


@pytest.mark.parametrize(("make", "problem"), ILL_FORMED, ids=[p for _, p in ILL_FORMED])
def test_an_ill_formed_message_cannot_be_made(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ExchangeError, match=problem):
        make()


# ------------------------------------------------------------------------------------- strategies

ONE_BY_ONE = {"bulyan", "donor", "forward", "krum", "median", "multi_krum", "trimmed_mean"}


@pytest.mark.parametrize("name", choices("strategy"))
def test_a_linear_rule_makes_the_same_of_the_mean_as_of_its_parts(name: str) -> None:
    strategy = build(plain(f"strategy={name}")["strategy"])
    assert isinstance(strategy, Strategy)
    assert strategy.linear == (name not in ONE_BY_ONE)
    if not strategy.linear:
        return
    of_parts = of_mean = State()
    for turn in range(4):
        updates = models(5, seed=turn)
        of_parts = strategy.combine(updates, of_parts)
        of_mean = strategy.combine({SUM: average(updates)}, of_mean)
        for kind in ("start", "published"):
            close(getattr(of_mean, kind), getattr(of_parts, kind))


@pytest.mark.parametrize(
    ("overrides", "linear"),
    [
        *[((f"strategy.mode={mode}",), True) for mode in ("publish", "pull", "printed", "off")],
        (("strategy.mode=pull", "strategy.precision=diagonal"), False),
    ],
)
def test_fedref_is_linear_without_a_precision(overrides: tuple[str, ...], linear: bool) -> None:
    strategy = build(plain("strategy=fedref", *overrides)["strategy"])
    assert strategy.linear == linear
    of_parts = of_mean = State()
    for turn in range(3 * linear):
        updates = models(4, seed=turn)
        of_parts = strategy.combine(updates, of_parts)
        of_mean = strategy.combine({SUM: average(updates)}, of_mean)
        close(of_mean.published, of_parts.published)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("strategy=median",), "strategy Median needs the firms' models one by one"),
        (("strategy=donor", "strategy.rounds=1"), "strategy Donor needs"),
        (
            ("strategy=fedref", "strategy.mode=pull", "strategy.precision=diagonal"),
            "strategy.precision=scalar",
        ),
        (("strategy=flower", "strategy.strategy=FedMedian"), "FlowerStrategy needs"),
        (("parties=two_hospitals",), "2 firms train in a round"),
        (("participation.share=0.5",), "raise participation.share"),
        (
            ("parties.hungary.contributes=false", "parties.cleveland.contributes=false"),
            "2 firms train in a round",
        ),
        (("contract.train_sharing.secure=yes_please",), "legal are true and false"),
    ],
)
def test_a_study_whose_models_cannot_be_added_up_is_refused(
    overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        study_of(plain(*SMALL_HEART, SECURE, *overrides))


def test_firms_that_contest_clients_are_two_and_cannot_hide_in_a_sum() -> None:
    with pytest.raises(FedpactError, match=r"contract.full_sharing.secure is true, and 2 firms"):
        study_of(
            plain(
                "experiment=loans",
                "contract.full_sharing.secure=true",
                "study.contracts=[no_sharing,full_sharing]",
            )
        )


def test_a_model_is_not_hidden_under_one_contract_and_sent_under_another() -> None:
    with pytest.raises(FedpactError, match=r"full_sharing.secure is true and .*train_sharing"):
        study_of(plain("experiment=loans", "contract.full_sharing.secure=true"))


def test_the_operator_is_told_to_see_a_sum_only() -> None:
    seen, plainly = (" ".join(t.operator_sees("own")) for t in (TERMS, PLAIN))
    assert "the sum of three firms' trained weights" in seen
    assert "to combine or forward them" not in seen
    assert "the sum of" not in plainly


# ------------------------------------------------------------------------------------ real studies


def run(folder: Path, *overrides: str, app: Any = apps.client) -> dict[str, Any]:
    """Hold a small study of hospitals, record every message, and conclude."""
    config = run_config(folder, *SMALL_HEART, *overrides)
    firms = contexts(config)
    names = {node: str(c.node_config["party"]) for node, c in firms.items()}
    grid = RecordingGrid(InlineGrid(app, firms), names)
    hold_on(grid, config)
    study = study_of(json.loads(config["config"]))
    return {"log": grid.log, "verdict": conclude(study, RunFolder(folder)), "folder": folder}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("masked")
    return {"plain": run(folder / "plain"), "secure": run(folder / "secure", SECURE)}


def published(folder: Path, seed: int = 0) -> dict[str, Array]:
    return dict(load_file(folder / f"models/train_sharing/seed{seed}/published.safetensors"))


def session(folder: Path, seed: int = 0) -> Outcome:
    found = RunFolder(folder).load(f"train_sharing-seed{seed}")
    assert found is not None
    return found[0]


def same_models(one: Path, two: Path, seeds: tuple[int, ...] = (0, 1)) -> None:
    for seed in seeds:
        ours, theirs = published(one, seed), published(two, seed)
        assert ours.keys() == theirs.keys()
        for key, array in theirs.items():
            assert ours[key].dtype == array.dtype
            np.testing.assert_allclose(ours[key], array, rtol=0, atol=1e-6)


def test_four_hospitals_come_to_the_same_model_and_decisions_under_masks(
    runs: dict[str, dict[str, Any]],
) -> None:
    same_models(runs["secure"]["folder"], runs["plain"]["folder"])
    ours, theirs = (
        {
            (contract, firm): row
            for contract, told in runs[kind]["verdict"]["contracts"].items()
            for firm, row in told["firms"].items()
        }
        for kind in ("secure", "plain")
    )
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        assert row["decision"] == theirs[key]["decision"]
        assert row["gain"] == pytest.approx(theirs[key]["gain"], abs=1e-6)
    assert session(runs["secure"]["folder"]).excluded == {}
    curves = [(runs[k]["folder"] / "rounds.csv").read_text() for k in ("secure", "plain")]
    assert curves[0].splitlines()[:9] == curves[1].splitlines()[:9]


def holds_words(array: Array, words: Array) -> bool:
    """Whether the first 8 numbers of a model that differ are in an array, one after the other."""
    if array.size < 8 or array.dtype.kind not in "iuf":
        return False
    windows = np.lib.stride_tricks.sliding_window_view(array.ravel(), 8)
    if array.dtype.kind == "f":
        return bool(np.any(np.all(np.abs(windows - words[:8]) < 1e-5, axis=1)))
    return bool(np.any(np.all(windows == words[:8].astype(array.dtype), axis=1)))


def test_no_message_holds_the_update_of_a_firm(runs: dict[str, dict[str, Any]]) -> None:
    sent = {
        name: packed
        for name, _, packed in runs["plain"]["log"]
        if packed.kind == "Trained" and any("weight" in key for key in packed.arrays)
    }
    assert set(sent) == set(HOSPITALS)
    examples = {n: json.loads(p.text)["fields"]["examples"] for n, p in sent.items()}
    # In both runs a hospital trains to the same weights, to 1e-6; here those of its last round.
    single = {}
    for name, packed in sent.items():
        own = next(a for k, a in packed.arrays.items() if k.endswith("weight"))
        single[name] = own.ravel().astype(np.float64)
    found = {"plain": set[str](), "secure": set[str]()}
    for kind, told in runs.items():
        for _, _, packed in told["log"]:
            for array in packed.arrays.values():
                found[kind] |= {n for n, own in single.items() if holds_words(array, own)}
    assert found["plain"] == set(HOSPITALS)  # the search finds what is there
    assert found["secure"] == set()
    total = sum(examples.values())
    for name, own in single.items():
        words = np.rint(own * (examples[name] / total) * UNITS)
        for _, _, packed in runs["secure"]["log"]:
            for array in packed.arrays.values():
                if array.dtype == np.uint64:
                    # Own words are the plain ones to 1e-5; the masked are nowhere near.
                    windows = np.lib.stride_tricks.sliding_window_view(array.view(np.int64), 8)
                    near = np.abs(windows.astype(np.float64) - words[:8]) < 1e-5 * UNITS
                    assert not np.any(near.sum(1) > 3)


def test_what_the_operator_was_sent_undoes_the_masks_of_the_sum_only(
    runs: dict[str, dict[str, Any]],
) -> None:
    kinds = {packed.kind for name, _, packed in runs["secure"]["log"] if name != "operator"}
    assert kinds == {"Declaration", "Trained", "Scores", "Advertised", "Dealt", "Shares"}
    for _, _, packed in runs["secure"]["log"]:
        if packed.kind == "Shares":  # nobody fell silent: keys of masks between firms stay shared
            assert json.loads(packed.text)["fields"]["pairs"] == {"map": {}}


def test_messages_and_their_rounds_are_in_the_audit(runs: dict[str, dict[str, Any]]) -> None:
    with (runs["secure"]["folder"] / "messages.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["contract"] == "train_sharing"]
    for kind in ("Keys", "Advertised", "Deal", "Dealt", "Unmask", "Shares"):
        assert sorted({r["round"] for r in rows if r["kind"] == kind}) == ["0", "1"]
    assert not [r for r in rows if "weights" in r["carries"]]


@pytest.mark.parametrize("step", [Keys, Deal, Offer, Unmask])
def test_a_hospital_that_fails_at_any_step_leaves_the_rest_with_their_model(
    step: type, tmp_path: Path
) -> None:
    def failing(asked: Request, told: Answer) -> Answer:
        if isinstance(asked, step) and getattr(asked, "round", -1) == 1 and asked.terms.models:
            raise RuntimeError("a fault of the machine")
        return told

    overrides = ("study.seeds=1", "strategy.rounds=3")
    run(tmp_path / "secure", SECURE, *overrides, app=tampering("hungary", failing))
    outcome = session(tmp_path / "secure")

    def absent(asked: Request, told: Answer) -> Answer:
        if isinstance(asked, Offer) and asked.round == 1:
            raise RuntimeError("a fault of the machine")
        return told

    left_out = step is not Unmask  # who masked is in the sum, whatever becomes of it afterwards
    app = tampering("hungary", absent) if left_out else apps.client
    run(tmp_path / "plain", *overrides, app=app)
    same_models(tmp_path / "secure", tmp_path / "plain", seeds=(0,))
    assert set(outcome.excluded) == ({"hungary"} if left_out else set())


def test_a_round_that_too_few_finish_is_void_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = [f"+participation.absent.{name}=[1]" for name in ("cleveland",)]

    def failing(asked: Request, told: Answer) -> Answer:
        if isinstance(asked, Offer) and asked.round == 1 and asked.terms.models:
            raise RuntimeError("a fault of the machine")
        return told

    overrides = ("study.seeds=1", "strategy.rounds=3", SECURE, *away)
    with caplog.at_level(logging.WARNING, "fedpact"):
        run(tmp_path, *overrides, app=tampering("hungary", failing))
    assert "round 1 is void: 2 firms masked a model (switzerland, va_long_beach); it takes 3" in (
        caplog.text
    )
    with (tmp_path / "rounds.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["contract"] == "train_sharing"]
    assert {(r["round"], r["firm"]) for r in rows if r["status"] == "void"} == {
        ("1", "switzerland"),
        ("1", "va_long_beach"),
    }
    assert {r["firm"] for r in rows if r["round"] == "2"} == set(HOSPITALS)


def test_a_rider_has_no_part_in_the_sum_and_gets_the_model(tmp_path: Path) -> None:
    rider = ("study.seeds=1", "parties.hungary.contributes=false")
    run(tmp_path / "secure", SECURE, *rider)
    run(tmp_path / "plain", *rider)
    same_models(tmp_path / "secure", tmp_path / "plain", seeds=(0,))
    assert session(tmp_path / "secure").riders == ("hungary",)
    assert session(tmp_path / "secure").summaries["hungary"].adopted == "published"


def test_two_hospitals_that_decline_leave_too_few_to_hide_among(tmp_path: Path) -> None:
    no = [f"parties.{name}.shares=[]" for name in ("cleveland", "hungary")]
    run(tmp_path, SECURE, "study.seeds=1", *no)
    outcome = session(tmp_path)
    assert set(outcome.declined) == {"cleveland", "hungary"}
    assert not outcome.models
    assert {s.gain for s in outcome.summaries.values()} == {0.0}


@pytest.mark.parametrize("asked", [3, 4, 5, 6, 7, 9, 10])
def test_a_run_killed_at_any_step_of_a_round_ends_in_the_same_bytes(
    asked: int, tmp_path: Path
) -> None:
    overrides = (*SMALL_HEART, "study.seeds=1", "strategy.rounds=2", SECURE)
    whole, cut = (run_config(tmp_path / name, *overrides) for name in ("whole", "cut"))
    hold_on(InlineGrid(apps.client, contexts(whole)), whole)
    firms = contexts(cut)
    grid = DyingGrid(apps.client, firms)
    grid.last = asked
    with pytest.raises(KilledError):
        hold_on(grid, cut)
    hold_on(InlineGrid(apps.client, firms), cut)  # the firms remember what they did
    ours, theirs = (files(tmp_path / name) for name in ("cut", "whole"))
    assert {k: v for k, v in ours.items() if k != "messages.csv"} == {
        k: v for k, v in theirs.items() if k != "messages.csv"
    }


def test_batched_hospitals_mask_as_others_do(
    runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    found = hold(tmp_path / "run", *SMALL_HEART, SECURE, "engine=batched")
    for seed in (0, 1):
        ours, theirs = published(found, seed), published(runs["plain"]["folder"], seed)
        for key, array in theirs.items():
            np.testing.assert_allclose(ours[key], array, rtol=0, atol=1e-5)


def test_secure_terms_can_be_an_axis_of_a_sweep() -> None:
    axis = "contract.train_sharing.secure"
    with hydra.initialize_config_module("conf", version_base="1.3"):
        configs = Configs(SMALL_HEART, [axis])
        jobs = [configs.job(point).text for point in Grid({axis: [False, True]}).ask([])]
    for together in (True, False):
        rows = hold_jobs(jobs, JobLimits(together=together))
        assert [row["error"] for row in rows] == [None, None]
        for name in HOSPITALS:
            gains = [row[f"train_sharing.{name}.gain"] for row in rows]
            assert gains[1] == pytest.approx(gains[0], abs=1e-6)
            assert len({row[f"train_sharing.{name}.decision"] for row in rows}) == 1


@pytest.mark.parametrize("rule", ["fedprox", "fedavgm", "fedadam", "fedref", "flower"])
def test_every_linear_rule_holds_a_study_under_masks(rule: str, tmp_path: Path) -> None:
    words = ("study.seeds=1", f"strategy={rule}")
    run(tmp_path / "secure", SECURE, *words)
    run(tmp_path / "plain", *words)
    same_models(tmp_path / "secure", tmp_path / "plain", seeds=(0,))


def test_the_plan_says_what_a_masked_round_sends(runs: dict[str, dict[str, Any]]) -> None:
    study = study_of(plain(*SMALL_HEART, SECURE))
    terms = study.contracts["train_sharing"].terms(2)
    planned = traffic(terms, 1, study.declarations(), published=True)
    with (runs["secure"]["folder"] / "messages.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["contract"] == "train_sharing"]
    held = [r for r in rows if r["round"] == "1" and r["seed"] == "0"]
    assert len(held) == 2 * len(planned)
    for sender, size in zip((True, False), bytes_of(planned), strict=True):
        real = sum(int(r["bytes"]) for r in held if (r["sender"] == "operator") == sender)
        assert size == pytest.approx(real, rel=0.02)
