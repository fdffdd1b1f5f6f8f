"""The wall: only declared types cross, and they cross unchanged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parties.exchange import (
    TYPES,
    Actions,
    Advertised,
    Deal,
    Dealt,
    DecisionRule,
    Declaration,
    Enrol,
    ExchangeError,
    Fault,
    Keys,
    Masked,
    Masking,
    Measure,
    Offer,
    Packed,
    Play,
    Predictions,
    Query,
    Refusal,
    Scores,
    Serve,
    Served,
    Shares,
    Terms,
    Trained,
    Unmask,
    Weights,
    pack,
    unpack,
)
from parties.exchange.masks import KEY, SEALED, SHARE
from parties.wire import read_records, write_records
from server.transport import _tagged
from tests.checks import packed_in, recorded

OPEN = Terms("full_sharing", models=True, predictions=True, rounds=2)
CLOSED = Terms("no_sharing", models=False, predictions=False)
IDS = np.arange(3)
PROBS = np.array([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]])
RULE = DecisionRule(np.array([0.5]), np.empty(0), np.array([0, 1]))
SECURE = Terms("train_sharing", models=True, predictions=False, rounds=2, secure=True)
PAIRS = {name: np.full((2, KEY), place, np.uint8) for place, name in enumerate("abc")}
BOXES = {name: np.ones(SEALED, np.uint8) for name in "bc"}
MASKING = Masking(9, PAIRS, BOXES)
KINDS = {"n": "int64", "w": "float32"}
MASKED = Masked(np.arange(7, dtype=np.uint64), {"n": (), "w": (2, 2)}, KINDS)
MESSAGES = [
    Offer(OPEN, 1, 0, 2, Weights({"w": np.ones((2, 2), np.float32)}, 5)),
    Query(CLOSED, 0, "validation"),
    Play(OPEN, 0, RULE, np.full((2, 2, 2), 1 / 8), Predictions(IDS, PROBS)),
    Serve(OPEN, 0, Weights({"w": PROBS}, 2), {"b": Predictions(IDS, PROBS)}),
    Served(IDS, IDS, 7),
    Measure(OPEN, 0),
    Declaration("a", 5, 1, 2, 3, {"w": (2, 2), "b": ()}),
    Trained(5, (0.5, 0.25), Weights({"w": np.zeros(2)}, 5)),
    Predictions(IDS, PROBS),
    Actions(IDS, np.array([0, 1, 1])),
    Scores(3, 0.5, 0.25, 0.1, 0.5, None),
    Keys(SECURE, 0, 1),
    Advertised(5, PAIRS["a"]),
    Deal(SECURE, 0, 1, PAIRS),
    Advertised(5, PAIRS["a"], "5" * 128),
    Deal(SECURE, 0, 1, PAIRS, {"a": "5" * 128}),
    Dealt(BOXES),
    Offer(SECURE, 1, 0, 2, masking=MASKING),
    Trained(5, (0.5,), masked=MASKED),
    Unmask(SECURE, 0, 1, MASKING, ("a", "b")),
    Shares({"a": np.ones(SHARE, np.uint8)}, {"b": np.zeros(SHARE, np.uint8)}),
    Refusal("no"),
    Fault("ValueError"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_survives_packing_and_flower_records(message: object) -> None:
    received = unpack(packed_in(recorded(pack(message))))  # type: ignore[arg-type]
    assert type(received) is type(message)
    first, second = pack(message), pack(received)  # type: ignore[arg-type]
    assert first.text == second.text
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
        assert array.dtype == second.arrays[name].dtype


@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int64]),
            hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_weights_of_any_name_and_shape_survive(arrays: dict[str, np.ndarray]) -> None:
    received = unpack(packed_in(recorded(pack(Trained(1, (), Weights(arrays, 1))))))
    assert isinstance(received, Trained)
    assert received.weights is not None
    assert received.weights.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(received.weights.arrays[name], array)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "fields", "map", "array", "x"]), inner, max_size=2
        )
    ),
    max_leaves=8,
)


@given(value=JSON, kind=st.sampled_from([*TYPES, "Secret"]))
def test_the_decoder_refuses_whatever_is_not_a_message(value: object, kind: str) -> None:
    with pytest.raises(ExchangeError):
        unpack(Packed(kind, json.dumps(value), {}))


@given(
    kind=st.sampled_from(list(TYPES)),
    fields=st.dictionaries(
        st.sampled_from(["terms", "seed", "round", "part", "ids", "probs", "firm", "reason"]),
        st.integers() | st.text(max_size=3) | st.none() | st.lists(st.integers(), max_size=2),
        max_size=4,
    ),
)
def test_wrong_fields_are_an_exchange_error_or_a_message(
    kind: str, fields: dict[str, object]
) -> None:
    text = json.dumps({"type": kind, "fields": fields})
    try:
        message = unpack(Packed(kind, text, {}))
    except ExchangeError:
        return
    assert type(message).__name__ == kind


def test_arrays_that_no_field_names_do_not_cross() -> None:
    smuggled = Packed("Refusal", pack(Refusal("no")).text, {"secret": np.ones(3)})
    with pytest.raises(ExchangeError, match="belong to no field: secret"):
        unpack(smuggled)
    record = recorded(pack(Refusal("no")))
    record["more"] = ConfigRecord({"x": 1})
    with pytest.raises(ExchangeError, match="records"):
        packed_in(record)


def test_a_known_contract_cannot_stand_for_other_switches() -> None:
    with pytest.raises(ExchangeError, match="not what that name stands for"):
        Terms("no_sharing", models=True, predictions=True, rounds=1)
    text = pack(Offer(OPEN, 0, 0)).text.replace("full_sharing", "no_sharing")
    with pytest.raises(ExchangeError, match="not what that name stands for"):
        unpack(Packed("Offer", text, {}))


@pytest.mark.parametrize("kind", [Offer, Measure])
def test_no_model_is_sent_to_a_firm_that_shares_none(kind: type) -> None:
    model = Weights({"w": np.ones(2)}, 1)
    with pytest.raises(ExchangeError, match="no_sharing shares no models"):
        kind(CLOSED, 0, **({"round": 0} if kind is Offer else {}), model=model)


def test_a_fault_says_the_kind_of_the_error_and_cannot_say_more() -> None:
    with pytest.raises(ExchangeError, match="nothing else"):
        Fault("ValueError: age 63, cholesterol 233")


def test_a_type_inside_another_cannot_pose_as_a_message() -> None:
    text = json.dumps(
        {"type": "Terms", "fields": {"contract": "x", "models": False, "predictions": False}}
    )
    with pytest.raises(ExchangeError, match="Terms"):
        unpack(Packed("Terms", text, {}))


def test_rival_predictions_do_not_fit_into_terms_without_predictions() -> None:
    with pytest.raises(ExchangeError, match="no_sharing shares no predictions"):
        Play(CLOSED, 0, RULE, np.zeros((2, 2, 2)), rival=Predictions(IDS, PROBS))
    with pytest.raises(ExchangeError, match="no_sharing shares no models"):
        Play(CLOSED, 0, RULE, np.zeros((2, 2, 2)), rival_model=Weights({"w": IDS}, 1))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Terms("x", models=False, predictions=False, rounds=2), "rounds must be 0"),
        (lambda: Terms("x", models=True, predictions=False, rounds=0), ">= 1"),
        (lambda: Weights({"w": IDS}, True), "whole number"),
        (lambda: Weights({"w": IDS}, -1), "whole number"),
        (lambda: Weights({"w": np.array(["a"])}, 1), "dtype"),
        (lambda: Weights({"w": np.array([object()])}, 1), "dtype"),
        (lambda: Predictions(np.array([1, 1, 2]), PROBS), "twice"),
        (lambda: Predictions(np.array([1]), PROBS), "1 clients for 3 rows"),
        (lambda: Query(CLOSED, 0, "training"), "legal are 'validation', 'contested' and 'common'"),
        (lambda: Serve(CLOSED, 0, others={"b": Predictions(IDS, PROBS)}), "shares no predictions"),
        (lambda: Serve(CLOSED, 0, Weights({"w": IDS}, 1)), "shares no models"),
        (lambda: Served(IDS, np.array([0, 1, -1])), "below 0"),
        (lambda: Served(np.array([1, 1, 2]), IDS), "twice"),
        (lambda: Actions(IDS, np.array([0, 1, 2])), "0 and 1 only"),
        (lambda: DecisionRule(np.array([0.5, 0.4]), IDS[:0] * 1.0, np.zeros(3, int)), "increase"),
        (lambda: Refusal(""), "not empty"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_wrong(make: object, problem: str) -> None:
    with pytest.raises(ExchangeError, match=problem):
        make()  # type: ignore[operator]


def test_a_rule_looks_up_the_action_of_its_signals() -> None:
    edges = np.array([0.25, 0.75])
    alone = DecisionRule(edges, np.empty(0), np.array([0, 1, 0]))
    np.testing.assert_array_equal(alone.act(np.array([0.1, 0.5, 0.9]), None), [0, 1, 0])
    both = DecisionRule(edges, np.array([0.5]), np.array([[0, 1], [1, 1], [0, 0]]))
    own, rival = np.array([0.1, 0.1, 0.5, 0.9]), np.array([0.2, 0.8, 0.2, 0.8])
    np.testing.assert_array_equal(both.act(own, rival), [0, 1, 1, 0])
    with pytest.raises(ExchangeError, match="needs the rival"):
        both.act(own, None)


# ------------------------------------------------------------------------- many messages as one


TAGGED = [("r/0//0/Enrol", pack(Enrol(0))), ("r/1//0/Offer", pack(Refusal("no")))]


def test_many_messages_travel_as_one_array_and_come_back_with_their_tags() -> None:
    arrays = {"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(0, np.float32)}
    tagged = [*TAGGED, ("r/2//1/Offer", pack(Trained(1, (0.5,), Weights(arrays, 1))))]
    record = write_records(tagged)
    assert len(record.array_records["frames"]) == 1
    told = read_records(record)
    assert [tag for tag, _ in told] == [tag for tag, _ in tagged]
    for (_, one), (_, two) in zip(told, tagged, strict=True):
        assert pack(unpack(one)).text == two.text
    assert np.array_equal(told[2][1].arrays["Trained.weights.arrays.w"], arrays["w"])
    assert read_records(write_records(TAGGED[:1])) == [TAGGED[0]]


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"tags": ["a"]}, "a tag and a size each"),
        ({"sizes": [1, 2]}, "do not make up"),
        ({"sizes": [-5, 5]}, "do not make up"),
        ({"sizes": ["a", "b"]}, "do not make up"),
        ({"tags": ["a", "b", "c"]}, "a tag and a size each"),
    ],
)
def test_a_bundle_that_is_not_what_it_says_is_refused(about: dict[str, Any], says: str) -> None:
    record = write_records(TAGGED)
    facts = dict(record.config_records["about"])
    record["about"] = ConfigRecord({**facts, **about})
    with pytest.raises(ExchangeError, match=says):
        read_records(record)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }",
        "{'descr': [",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 99999999999999999999), }",
        "nonsense",
    ],
)
def test_a_reply_of_nonsense_is_its_firms_fault_and_nobody_elses(header: str) -> None:
    begin = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    bad = FlowerArray("float64", (1,), "numpy.ndarray", begin)
    record = write_records([("t", pack(Refusal("no")))])
    record["frames"] = ArrayRecord({"frames": bad})
    with pytest.raises(ExchangeError, match="cannot be read"):
        _tagged(record, 1)


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_no_bytes_in_a_bundle_do_more_than_be_refused(data: bytes, cuts: list[int]) -> None:
    about: dict[str, Any] = {"tags": ["t"] * len(cuts), "sizes": cuts}
    content = ArrayRecord({"frames": FlowerArray(np.frombuffer(data, np.uint8))})
    record = RecordDict({"about": ConfigRecord(about), "frames": content})
    try:
        read = read_records(record)
    except ExchangeError:
        return
    assert len(read) == len(cuts)
