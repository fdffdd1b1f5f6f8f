"""What each aggregation rule computes, remembers and withstands."""

from __future__ import annotations

import importlib
import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.exchange import Array, FedpactError, Weights
from server.strategies import State, Strategy, average
from server.strategies.bulyan import Bulyan
from server.strategies.fedadam import FedAdam
from server.strategies.fedavg import FedAvg
from server.strategies.fedavgm import FedAvgM
from server.strategies.fedprox import FedProx
from server.strategies.fedref import FedRef
from server.strategies.flower import known, quiet, recall, remembered, reply
from server.strategies.flower_strategy import FlowerStrategy
from server.strategies.krum import Krum
from server.strategies.median import Median
from server.strategies.multi_krum import MultiKrum
from server.strategies.trimmed_mean import TrimmedMean

FIRMS = 7
RULES: dict[str, Strategy] = {
    "fedavg": FedAvg(),
    "fedprox": FedProx(mu=1.0),
    "publish": FedRef(window=3),
    "pull": FedRef(mode="pull", window=3, lam=0.5),
    "late pull": FedRef(mode="pull", window=3, lam=1.0, start_round=2),
    "diagonal": FedRef(mode="pull", window=3, lam=0.5, precision="diagonal"),
    "printed": FedRef(mode="printed", window=3, lam=0.5),
    "fedavgm": FedAvgM(),
    "fedadam": FedAdam(),
    "median": Median(),
    "trimmed_mean": TrimmedMean(),
    "krum": Krum(byzantine=2),
    "multi_krum": MultiKrum(byzantine=1, selected=3),
    "bulyan": Bulyan(byzantine=1),
    **{name: FlowerStrategy(strategy=name) for name in ("FedYogi", "FedAdagrad")},
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
Updates = Mapping[str, Weights]


def plain_of(**arrays: Any) -> dict[str, Array]:
    return {name: np.asarray(value, np.float64) for name, value in arrays.items()}


def sent(*values: Any, examples: int = 1) -> dict[str, Weights]:
    """A firm a value; its model is that value."""
    return {f"f{i}": Weights(plain_of(w=value), examples) for i, value in enumerate(values)}


def trained(
    rule: Strategy, state: State, firms: int = FIRMS, kind: type = np.float32
) -> dict[str, Weights]:
    """Three gradient steps a firm on (1/2) sum_i h_i (w_i - c_i)^2, from the common start."""
    updates = {}
    for k in range(firms):
        rng = np.random.default_rng([3, k])
        model: dict[str, Array] = {}
        precision: dict[str, Array] = {}
        for name, shape in (("b", (2,)), ("w", (4, 3))):
            h, c = rng.uniform(0.1, 1.5, shape), rng.normal(size=shape)
            start = np.zeros(shape) if state.start is None else state.start.arrays[name]
            w = start.astype(np.float64)
            for _ in range(3):
                w = w - 0.3 * (h * (w - c) + rule.proximal * (w - start))
            model[name], precision[name] = w.astype(kind), h
        updates[f"f{k}"] = Weights(model, 10 + k, precision if rule.wants_precision else None)
    return updates


def held(rule: Strategy, rounds: int, state: State | None = None, **how: Any) -> State:
    state = State() if state is None else state
    for _ in range(rounds):
        state = rule.combine(trained(rule, state, **how), state)
    return state


def same(one: Weights | None, two: Weights | None) -> bool:
    assert one is not None
    assert two is not None
    assert one.arrays.keys() == two.arrays.keys()
    return one.examples == two.examples and all(
        a.dtype == two.arrays[k].dtype and np.array_equal(a, two.arrays[k])
        for k, a in one.arrays.items()
    )


def value(weights: Weights | None, key: str = "w") -> Array:
    assert weights is not None
    return weights.arrays[key]


# --------------------------------------------------------------------------- FedRef


@pytest.mark.parametrize(
    "rule",
    [
        *[FedRef(mode=m, lam=0.0) for m in ("publish", "pull", "printed")],
        *[FedRef(mode=m, window=0) for m in ("publish", "pull", "printed")],
        FedRef(mode="off"),
        FedRef(mode="pull", lam=0.0, precision="diagonal"),
    ],
    ids=lambda r: f"{r.mode} lam={r.lam} window={r.window}",
)
def test_without_a_reference_fedref_is_fedavg_bit_for_bit(rule: FedRef) -> None:
    ours, fedavg = State(), State()
    for _ in range(6):
        ours, fedavg = held(rule, 1, ours), held(FedAvg(), 1, fedavg)
        assert same(ours.start, fedavg.start)
        assert same(ours.published, fedavg.published)
    assert not ours.memory
    assert not rule.wants_precision


@pytest.mark.parametrize("lam", [0.1, 1.0, 3.0])
def test_a_pull_to_the_last_model_is_a_server_learning_rate(lam: float) -> None:
    pull = held(FedRef(mode="pull", window=1, lam=lam), 6, kind=np.float64)
    slow = FedAvgM(server_learning_rate=1 / (1 + lam), server_momentum=0.0)
    flower = held(slow, 6, kind=np.float64)
    np.testing.assert_allclose(value(pull.start), value(flower.start), rtol=1e-13)


def test_a_pull_with_lam_1_and_window_2_is_as_computed_by_hand() -> None:
    rule, state, found = FedRef(mode="pull", window=2, lam=1.0), State(), []
    for firms in ((-1.0, 1.0), (3.0, 5.0), (6.0, 6.0), (7.0, 9.0)):  # means 0, 4, 6, 8
        state = rule.combine(sent(*firms), state)
        found.append(float(value(state.published)))
    # 0; (4 + 0)/2; (6 + (0 + 2)/2)/2; (8 + (2 + 3.5)/2)/2
    assert found == [0.0, 2.0, 3.5, 5.375]
    assert same(state.start, state.published)
    assert [float(state.memory[f"window/{i}"]["w"]) for i in range(2)] == [3.5, 5.375]


def test_the_reference_before_the_first_aggregate_is_the_start_where_it_is_known() -> None:
    rule = FedRef(mode="pull", window=2, lam=1.0)
    assert float(value(rule.combine(sent(4.0), State()).start)) == 4.0
    knows = State(start=Weights(plain_of(w=2.0), 1))
    assert float(value(rule.combine(sent(4.0), knows).start)) == 3.0


def test_a_late_pull_is_fedavg_until_its_round() -> None:
    rule = RULES["late pull"]
    assert same(held(rule, 2).start, held(FedAvg(), 2).start)
    assert not same(held(rule, 3).start, held(FedAvg(), 3).start)


@pytest.mark.parametrize("lam", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_steady_drift_is_slowed_by_one_plus_half_lam_window_plus_one(
    lam: float, window: int
) -> None:
    # Firms drift by d a round: agg_t = theta_{t-1} + d. In a steady state theta_t = s t + c, so
    # the mean of the last p models is theta_t - s (p + 1)/2, and (1 + lam) theta_t =
    # theta_t - s + d + lam (theta_t - s (p + 1)/2) gives s = d / (1 + lam (p + 1)/2), exactly.
    rule, state, track = FedRef(mode="pull", window=window, lam=lam), State(), [0.0]
    for _ in range(400):
        state = rule.combine(sent(track[-1] + 0.5, track[-1] + 1.5), state)
        track.append(float(value(state.start)))
    assert track[-1] - track[-2] == pytest.approx(1 / (1 + lam * (window + 1) / 2), rel=1e-9)


@pytest.mark.parametrize("window", [1, 5])
def test_the_noise_of_a_round_is_slowed_by_one_plus_lam_whatever_the_window(window: int) -> None:
    rule = FedRef(mode="pull", window=window, lam=3.0)
    state = State()
    for model in range(6):
        state = rule.combine(sent(float(model)), state)
    quiet_, loud = (rule.combine(sent(6.0 + noise), state).start for noise in (0.0, 1.0))
    assert float(value(loud) - value(quiet_)) == pytest.approx(1 / (1 + 3.0), rel=1e-12)


def test_publish_leaves_training_untouched_and_shows_the_mean_of_the_last_aggregates() -> None:
    rule, state, fedavg, aggregates = FedRef(window=3), State(), State(), []
    for _ in range(6):
        state, fedavg = held(rule, 1, state), held(FedAvg(), 1, fedavg)
        assert same(state.start, fedavg.start)
        aggregates.append(value(fedavg.start).astype(np.float64))
        expected = np.mean(aggregates[-3:], axis=0).astype(np.float32)
        np.testing.assert_allclose(value(state.published), expected, rtol=1e-7)
    assert sorted(state.memory) == ["window/0", "window/1", "window/2"]


def test_a_printed_step_is_a_server_learning_rate_and_never_sees_the_reference() -> None:
    rule = FedRef(mode="printed", window=2, lam=1.0, step=0.1)  # 2 step lam = 0.2
    state = rule.combine(sent(1.0), State())
    for model, theta1 in ((2.0, 1.8), (4.0, 3.56)):  # 2 - .2 (2 - 1); 4 - .2 (4 - 1.8)
        state = rule.combine(sent(model), state)
        assert float(value(state.start)) == pytest.approx(theta1, rel=1e-15)
    # theta2: 1; then 1 - .2 (1 - 1) = 1; then mean(1, 1.8) - .2 (1.4 - 1) = 1.32
    assert float(state.memory["reference"]["w"]) == pytest.approx(1.32, rel=1e-15)
    wider = held(replace(rule, window=5), 5, kind=np.float64)
    assert same(held(rule, 5, kind=np.float64).start, wider.start)
    slow = held(FedAvgM(server_learning_rate=0.8, server_momentum=0.0), 5, kind=np.float64)
    np.testing.assert_allclose(value(wider.start), value(slow.start), rtol=1e-13)


def precise(weights: Weights, h: Mapping[str, Any]) -> Weights:
    return replace(weights, precision={k: np.asarray(v, np.float32) for k, v in h.items()})


def test_a_diagonal_pull_weighs_each_coordinate_by_its_fisher_information() -> None:
    rule = FedRef(mode="pull", window=1, lam=0.5, precision="diagonal")
    assert rule.wants_precision
    state = State(start=Weights(plain_of(w=[0.0, 0.0], mean=[0.0]), 1))
    one, two = (Weights(plain_of(w=[1.0, 1.0], mean=[1.0]), n) for n in (1, 3))
    updates = {"a": precise(one, {"w": [4.0, 0.0]}), "b": precise(two, {"w": [0.0, 8.0]})}
    # h = (1/4) (4, 0) + (3/4) (0, 8) = (1, 6), rescaled to mean 2: (4/7, 24/7); 2 lam = 1
    found = rule.combine(updates, state).start
    np.testing.assert_allclose(value(found), [4 / 11, 24 / 31], rtol=1e-14)
    assert float(value(found, "mean")[0]) == pytest.approx(1 / 1.5)  # no Fisher: scalar


def test_an_even_fisher_and_one_of_zeros_give_the_scalar_rule() -> None:
    scalar = FedRef(mode="pull", window=2, lam=0.3)
    state = held(scalar, 3)
    updates = trained(scalar, state)
    expected = scalar.combine(updates, state).start
    for level in (2.0, 0.7, 0.0):
        known_ = {
            f: precise(u, {k: np.full(v.shape, level) for k, v in u.arrays.items()})
            for f, u in updates.items()
        }
        found = replace(scalar, precision="diagonal").combine(known_, state).start
        np.testing.assert_allclose(value(found), value(expected), rtol=1e-6)


def test_a_firm_that_sends_no_precision_is_named() -> None:
    rule, state = FedRef(mode="pull", precision="diagonal"), State(start=sent(0.0)["f0"])
    updates = sent(1.0, 2.0)
    updates["f0"] = precise(updates["f0"], {"w": 1.0})
    with pytest.raises(FedpactError, match=r"f1 sent no precision; .* or use"):
        rule.combine(updates, state)


# ------------------------------------------------------------------ what holds for every rule


@pytest.mark.parametrize("name", [name for name in RULES if name != "fedavg"])
def test_every_rule_differs_from_fedavg_after_three_rounds(name: str) -> None:
    assert not same(held(RULES[name], 3).published, held(FedAvg(), 3).published)


@every_rule
def test_where_one_firm_is_enough_it_is_the_identity(rule: Strategy) -> None:
    updates = trained(rule, State(), firms=1)
    try:
        rule.check(1)
    except FedpactError:
        with pytest.raises(FedpactError, match="you have 1"):
            rule.combine(updates, State())
        return
    assert same(rule.combine(updates, State()).published, replace(updates["f0"], precision=None))


@every_rule
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(FIRMS)), tied=st.booleans())
def test_the_order_of_replies_does_not_matter(rule: Strategy, order: list[int], tied: bool) -> None:
    state = held(rule, 1, kind=np.float64)
    updates = trained(rule, state, kind=np.float64)
    if tied:  # three firms send the same, two others mirror each other
        updates |= {f"f{k}": updates["f0"] for k in (1, 2)}
        mirror = {k: -v for k, v in updates["f3"].arrays.items()}
        updates["f4"] = replace(updates["f3"], arrays=mirror)
    mixed = {f"f{k}": updates[f"f{k}"] for k in order}
    one, two = rule.combine(updates, state), rule.combine(mixed, state)
    assert same(one.start, two.start)
    assert same(one.published, two.published)


def test_of_firms_with_equal_krum_scores_the_first_by_name_wins() -> None:
    updates = sent(-2.0, -1.0, 1.0, 2.0)  # -1 and 1: 1 + 4 each
    backwards = dict(reversed(updates.items()))
    for given_ in (updates, backwards):
        assert float(value(Krum(byzantine=0).combine(given_, State()).start)) == -1.0


def reloaded(state: State) -> State:
    """The state after a trip through safetensors (which keeps its own order of tensors)."""

    def again(arrays: Mapping[str, Array]) -> dict[str, Array]:
        read = safetensors.numpy.load(safetensors.numpy.save(dict(arrays)))
        return dict(reversed(read.items()))

    def model(weights: Weights | None) -> Weights | None:
        return None if weights is None else Weights(again(weights.arrays), weights.examples)

    memory = {name: again(arrays) for name, arrays in reversed(state.memory.items())}
    return State(state.turn, model(state.start), model(state.published), memory)


@every_rule
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(rule: Strategy) -> None:
    whole, parts = held(rule, 6), State()
    for _ in range(6):
        parts = held(replace(rule), 1, reloaded(parts))
    assert same(whole.start, parts.start)
    assert same(whole.published, parts.published)
    assert whole.memory.keys() == parts.memory.keys()
    for name, arrays in whole.memory.items():
        assert same(Weights(arrays, 1), Weights(parts.memory[name], 1))


@every_rule
def test_a_round_without_updates_changes_only_the_turn(rule: Strategy) -> None:
    state = held(rule, 3)
    after = rule.combine({}, state)
    assert after.turn == 4
    assert same(after.start, state.start)
    if rule is not RULES["publish"]:
        assert same(after.published, state.published)
    assert after.memory is state.memory


def normed(firm: int, turn: int) -> Weights:
    rng = np.random.default_rng([firm, turn])
    return Weights(
        {
            "norm.weight": rng.normal(size=3).astype(np.float32),
            "norm.running_var": rng.uniform(1e-3, 0.1, 3).astype(np.float32),
            "norm.num_batches_tracked": np.asarray(10 * turn + firm),
            "half": rng.normal(size=2).astype(np.float64),
        },
        10 + firm,
        {"norm.weight": rng.uniform(size=3)},
    )


@every_rule
def test_buffers_keep_their_types_and_variances_stay_positive(rule: Strategy) -> None:
    state, first = State(), normed(0, 0)
    for turn in range(8):
        state = rule.combine({f"f{k}": normed(k, turn) for k in range(FIRMS)}, state)
        for model in (state.start, state.published):
            assert model is not None
            for key, like in first.arrays.items():
                assert (model.arrays[key].dtype, model.arrays[key].shape) == (
                    like.dtype,
                    like.shape,
                )
            assert np.all(value(model, "norm.running_var") > 0)
            counter = int(value(model, "norm.num_batches_tracked"))
            assert 10 * turn <= counter <= 10 * turn + FIRMS - 1


def test_the_mean_of_counters_is_that_of_the_aggregate_in_fedref() -> None:
    for rule in (FedRef(window=3), FedRef(mode="pull"), FedRef(mode="printed")):
        state = State()
        for turn in range(3):
            updates = {f"f{k}": normed(k, turn) for k in range(3)}
            state = rule.combine(updates, state)
            counter = value(state.published, "norm.num_batches_tracked")
            assert counter == average(updates).arrays["norm.num_batches_tracked"]


# ----------------------------------------------------------- Flower's rules against plain numpy


def stack(updates: Updates) -> Array:
    """(firms, numbers), firms by name, tensors by name."""
    rows = [updates[f].arrays for f in sorted(updates)]
    return np.stack([np.concatenate([r[k].ravel() for k in sorted(r)]) for r in rows], dtype=float)


def flat(model: Weights | None) -> Array:
    assert model is not None
    return stack({"": model})[0]


def krum_order(x: Array, f: int) -> Array:
    distances = ((x[:, None] - x[None]) ** 2).sum(2)
    nearest = [np.sort(np.delete(row, k))[: len(x) - f - 2] for k, row in enumerate(distances)]
    return np.argsort([row.sum() for row in nearest], kind="stable")


def nearest_to_median(x: Array, count: int) -> Array:
    gaps = np.abs(x - np.median(x, axis=0))
    return np.take_along_axis(x, np.argsort(gaps, axis=0)[:count], axis=0).mean(0)


FORMULAS: dict[str, Callable[[Array], Array]] = {
    "median": lambda x: np.median(x, axis=0),
    "trimmed_mean": lambda x: np.sort(x, axis=0)[1:-1].mean(0),
    "krum": lambda x: x[krum_order(x, 2)[0]],
    "multi_krum": lambda x: x[krum_order(x, 1)[:3]].mean(0),
    "bulyan": lambda x: nearest_to_median(x[krum_order(x, 1)[:5]], 3),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", range(5))
def test_a_robust_rule_is_its_formula(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [{"z": rng.normal(size=(2, 3)), "a": rng.normal(size=4)} for _ in range(FIRMS)]
    updates = {f"f{k}": Weights(a, 1 + 50 * k) for k, a in enumerate(arrays)}
    found = RULES[name].combine(updates, State()).start
    np.testing.assert_allclose(flat(found), FORMULAS[name](stack(updates)), rtol=1e-12)


def test_krum_tells_float32_models_apart_that_differ_little() -> None:
    for seed in range(5):  # in float32, ||x||^2 + ||y||^2 - 2xy would choose another in 9 of 10
        rng = np.random.default_rng(seed)
        x = 10 * rng.normal(size=1000) + 1e-3 * rng.normal(size=(FIRMS, 1000))
        updates = {f"f{k}": Weights({"w": row.astype(np.float32)}, 1) for k, row in enumerate(x)}
        best = stack(updates)[krum_order(stack(updates), 1)[0]]
        assert np.array_equal(flat(Krum(byzantine=1).combine(updates, State()).start), best)


def mean_of(updates: Updates) -> Array:
    return np.average(
        stack(updates), axis=0, weights=[updates[f].examples for f in sorted(updates)]
    )


def test_fedavgm_is_its_formula() -> None:
    rule, state = FedAvgM(server_learning_rate=0.7, server_momentum=0.9), State()
    state = held(rule, 1, kind=np.float64)
    w, v = flat(state.start), np.zeros(14)
    for _ in range(5):
        updates = trained(rule, state, kind=np.float64)
        v = 0.9 * v + w - mean_of(updates)
        w = w - 0.7 * v
        state = rule.combine(updates, state)
        np.testing.assert_allclose(flat(state.start), w, rtol=1e-12)


@pytest.mark.parametrize("name", ["fedadam", "FedYogi", "FedAdagrad"])
def test_an_adaptive_rule_is_its_formula(name: str) -> None:
    rule = RULES[name]
    eta, b1, b2, tau = {
        "fedadam": (0.1, 0.9, 0.99, 1e-3),
        "FedYogi": (1e-2, 0.9, 0.99, 1e-3),
        "FedAdagrad": (0.1, 0.0, 0.0, 1e-3),
    }[name]
    state = held(rule, 1, kind=np.float64)
    w, m, v = flat(state.start), np.zeros(14), np.zeros(14)
    for t in range(1, 6):
        updates = trained(rule, state, kind=np.float64)
        d = mean_of(updates) - w
        m = b1 * m + (1 - b1) * d
        rate = eta
        if name == "fedadam":
            v = b2 * v + (1 - b2) * d**2
            rate = eta * np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
        elif name == "FedYogi":
            v = v - (1 - b2) * d**2 * np.sign(v - d**2)
        else:
            v = v + d**2
        w = w + rate * m / (np.sqrt(v) + tau)
        state = rule.combine(updates, state)
        np.testing.assert_allclose(flat(state.start), w, rtol=1e-11)


def test_fedavg_of_flower_is_ours_bit_for_bit() -> None:
    for turn in range(3):
        updates = {f"f{k}": normed(k, turn) for k in range(FIRMS)}
        for name in ("FedAvg", "FedProx"):
            theirs = FlowerStrategy(strategy=name).combine(updates, State()).published
            assert same(theirs, FedAvg().combine(updates, State()).published)
    assert FlowerStrategy(strategy="FedProx", options={"proximal_mu": 0.5}).proximal == 0.5


def test_counters_do_not_choose_the_model_of_krum() -> None:
    far = {
        f"f{k}": Weights({"w": np.array([float(k)]), "n": np.asarray(c)}, 1)
        for k, c in enumerate((900, 100, 0, 500, 800))
    }
    assert float(value(Krum(byzantine=1).combine(far, State()).start)[0]) in (1.0, 2.0, 3.0)


def test_the_size_that_a_firm_declares_buys_no_weight_in_multi_krum() -> None:
    updates = sent(0.0, 1.0, 2.0, 3.0, 40.0)
    boast = {f: replace(u, examples=10**6 if f == "f1" else 1) for f, u in updates.items()}
    assert value(MultiKrum().combine(boast, State()).start) == value(
        MultiKrum().combine(updates, State()).start
    )


# --------------------------------------------------------------------------- robustness

ROBUST: list[tuple[Strategy, int, int]] = [  # rule, firms at its bound, how many of them are bad
    (Median(), 3, 1),
    (Median(), 7, 3),
    (TrimmedMean(beta=0.25), 4, 1),
    (Krum(byzantine=1), 5, 1),
    (Krum(byzantine=2), 7, 2),
    (MultiKrum(byzantine=1, selected=2), 5, 1),
    (Bulyan(byzantine=1), 7, 1),
]


@pytest.mark.parametrize(("rule", "firms", "bad"), ROBUST, ids=lambda p: str(p)[:24])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([-1e9, -30.0, 30.0, 1e6]))
def test_bad_firms_cannot_move_a_robust_rule_out_of_the_honest_spread(
    rule: Strategy, firms: int, bad: int, seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(firms - bad, 6))
    models = np.concatenate([size * (1 + rng.uniform(size=(bad, 6))), honest])
    found = value(rule.combine(sent(*models, examples=3), State()).published)
    assert np.all(found >= honest.min(0) - 1e-12)
    assert np.all(found <= honest.max(0) + 1e-12)


def test_one_bad_firm_too_many_moves_the_trimmed_mean() -> None:
    rule = TrimmedMean(beta=0.25)
    assert abs(float(value(rule.combine(sent(0.0, 0.1, 0.2, 1e6), State()).start))) < 0.2
    assert float(value(rule.combine(sent(0.0, 0.1, 1e6, 1e6), State()).start)) > 1e5


# ---------------------------------------------------------------------- limits and errors


@pytest.mark.parametrize(
    ("rule", "least", "words"),
    [
        (Median(), 3, "median needs n >= 3 firms.*you have 2"),
        (TrimmedMean(beta=0.25), 4, "cuts.* 0 firms off, and needs n >= 4; you have 3"),
        (TrimmedMean(beta=0.2), 5, "n >= 5; you have 4"),
        (Krum(byzantine=0), 3, r"n >= 2f \+ 3 firms: with f = 0 that is 3; you have 2. Add"),
        (Krum(byzantine=1), 5, r"krum needs n >= 2f \+ 3 firms: with f = 1 that is 5; you have 4"),
        (MultiKrum(byzantine=1), 5, "multi_krum needs.*that is 5; you have 4. Lower"),
        (MultiKrum(byzantine=1, selected=4), 7, "m <= n - f - 2.*that is 3; .*selected is 4"),
        (Bulyan(byzantine=1), 7, r"bulyan needs n >= 4f \+ 3 firms: with f = 1 that is 7; you ha"),
    ],
)
def test_too_few_firms_are_told_how_many_are_enough(rule: Strategy, least: int, words: str) -> None:
    rule.check(least)
    with pytest.raises(FedpactError, match=words):
        rule.check(least - 1)
    with pytest.raises(FedpactError, match=words):
        rule.combine(sent(*range(least - 1)), State())


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (FedProx, {"mu": 0}, "strategy.mu is 0; legal is a number > 0"),
        (FedProx, {"mu": float("nan")}, "mu is nan"),
        (FedProx, {"mu": "1"}, "mu is '1'"),
        (FedProx, {"rounds": 0}, "strategy.rounds is 0; legal is a whole number >= 1"),
        (FedRef, {"mode": "pul"}, "mode is 'pul'; legal is one of publish, pull, printed, off"),
        (FedRef, {"precision": "full"}, "precision is 'full'; legal is one of scalar, diagonal"),
        (FedRef, {"precision": "diagonal"}, "mode=publish does not use. Use strategy.mode=pull"),
        (FedRef, {"lam": -0.1}, "lam is -0.1; legal is a number >= 0"),
        (FedRef, {"lam": True}, "lam is True"),
        (FedRef, {"window": -1}, "window is -1; legal is a whole number >= 0"),
        (FedRef, {"window": 2.0}, "window is 2.0"),
        (FedRef, {"start_round": -1}, "start_round is -1"),
        (FedRef, {"step": 0.0}, "step is 0.0; legal is a number > 0"),
        (FedAvgM, {"server_momentum": 1.0}, "legal is a number >= 0 and < 1"),
        (FedAvgM, {"server_learning_rate": 0.0}, "server_learning_rate is 0.0"),
        (FedAdam, {"tau": 0.0}, "tau is 0.0"),
        (FedAdam, {"beta_2": 1.0}, "beta_2 is 1.0"),
        (TrimmedMean, {"beta": 0.5}, "beta is 0.5; legal is a number > 0 and < 0.5"),
        (Krum, {"byzantine": -1}, "byzantine is -1"),
        (MultiKrum, {"selected": 0}, "selected is 0"),
        (Bulyan, {"byzantine": 0.5}, "byzantine is 0.5"),
        (FlowerStrategy, {"strategy": "FedYog"}, "'FedYog'; legal are Bulyan, FedAdagrad, .*Yogi"),
        (FlowerStrategy, {"strategy": "QFedAvg"}, "need the firms' losses"),
        (FlowerStrategy, {"options": {"etta": 1}}, "'etta'.* legal are eta, eta_l, beta_1, beta_2"),
        (FlowerStrategy, {"options": {"fraction_train": 1}}, "does not have"),
        (FlowerStrategy, {"options": 3}, "options is 3"),
        (FlowerStrategy, {"strategy": "FedTrimmedAvg", "options": {"beta": 2}}, "refused"),
    ],
)
def test_an_illegal_field_says_what_is_legal(
    kind: type[Strategy], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(FedpactError, match=words):
        kind(**fields)


def test_a_round_that_flower_skips_is_an_error() -> None:
    bulyan = FlowerStrategy(strategy="Bulyan", options={"num_malicious_nodes": 1})
    with pytest.raises(FedpactError, match="Bulyan made no model of 3"):
        bulyan.combine(sent(1.0, 2.0, 3.0), State())


# ---------------------------------------------------------- what an upgrade of Flower could break


def test_replies_are_made_and_rules_asked_outside_a_run_of_flower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        assert hasattr(TaskIdentity, name)
        monkeypatch.setattr(TaskIdentity, name, None)
    made = reply(0, plain_of(w=1.0), 5)
    assert isinstance(made, Message)
    assert made.has_content()
    assert not made.has_error()
    for rule in RULES.values():
        held(rule, 2)


def test_a_rule_draws_nothing_from_the_global_random() -> None:
    before = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index,union-attr] # noqa: NPY002
    for rule in RULES.values():
        held(rule, 2)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # type: ignore[index,union-attr] # noqa: NPY002


def test_every_rule_of_flower_is_known_or_known_to_be_unfit() -> None:
    assert sorted(known()) == [
        *("Bulyan", "FedAdagrad", "FedAdam", "FedAvg", "FedAvgM", "FedMedian", "FedProx"),
        *("FedTrimmedAvg", "FedYogi", "Krum", "MultiKrum"),
    ]


def test_flower_is_quiet_on_this_thread_only_and_only_meanwhile() -> None:
    heard: list[str] = []
    logger, handler = logging.getLogger("flwr"), logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    filters, level = list(logger.filters), logger.level
    try:
        held(Median(), 1)
        with quiet():
            logger.info("here")
            other = threading.Thread(target=logger.info, args=("elsewhere",))
            other.start()
            other.join()
        logger.info("later")
    finally:
        logger.removeHandler(handler)
    assert heard == ["elsewhere", "later"]
    assert (logger.filters, logger.level) == (filters, level)


def test_whatever_arrays_a_flower_object_keeps_are_found_and_given_back() -> None:
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord

    class Rule:
        def __init__(self) -> None:
            self.settings, self.calls, self.nothing = 0.5, 0, None

    one, two, ready = Rule(), Rule(), np.arange(3.0)
    one.calls = 4
    kept = {
        "record": ArrayRecord({"w": FlowerArray(ready)}),
        "table": {"w": ready},
        "rows": [ready, ready + 1],
        "row": ready,
    }
    vars(one).update(kept)
    memory = remembered(one, Rule())
    assert sorted(memory) == [
        f"flower/{name}"
        for name in ("calls/number", "record/record", "row/array", "rows/list", "table/dict")
    ]
    recall(two, reloaded(State(memory=memory)).memory)
    again: Any = vars(two)
    assert again["calls"] == 4
    assert np.array_equal(again["record"]["w"].numpy(), ready)
    assert np.array_equal(again["table"]["w"], ready)
    assert np.array_equal(again["rows"], [ready, ready + 1])
    assert np.array_equal(again["row"], ready)


def test_only_the_adapter_needs_flower() -> None:
    for name in ("fedavg", "fedprox", "fedref", "forward"):
        module = importlib.import_module(f"server.strategies.{name}")
        assert not {v for v in vars(module).values() if getattr(v, "__module__", "")[:4] == "flwr"}


def test_a_server_optimiser_remembers_tensors_without_dimensions() -> None:
    rule = FedAvgM(server_learning_rate=1.0, server_momentum=0.9)
    found = []
    for shape in ((1,), ()):
        state = State()
        for value in (0.0, 1.0, 2.0, 3.0):
            state = rule.combine({"a": Weights({"w": np.full(shape, value)}, 1)}, state)
        assert state.start is not None
        found.append(float(state.start.arrays["w"].reshape(-1)[0]))
    assert found[0] == found[1] != 3.0
