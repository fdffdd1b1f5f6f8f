"""Verdicts: intervals against closed forms and simulated coverage; three-valued answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from parties.exchange import FedpactError
from server.outcome import Outcome, Summary
from server.verdict import judge, method, paired_interval, summary_interval
from tests.test_game import correlation_table, loan_payoff


def outcome(contract: str, seed: int, **payoffs: np.ndarray) -> Outcome:
    ids = {firm: np.arange(len(v)) + 1000 * seed for firm, v in payoffs.items()}
    return Outcome(seed=seed, contract=contract, ids=ids, payoffs=payoffs)


def test_one_seed_gives_the_textbook_interval() -> None:
    gains = np.random.default_rng(0).normal(0.3, 1.0, 400)
    found = paired_interval([np.arange(400)], [gains])
    half = 1.959964 * gains.std(ddof=1) / 20
    assert found.mean == pytest.approx(gains.mean())
    assert (found.low, found.high) == pytest.approx((gains.mean() - half, gains.mean() + half))


def test_the_same_clients_under_two_seeds_count_once() -> None:
    gains = np.random.default_rng(0).normal(0.3, 1.0, 400)
    once = paired_interval([np.arange(400)], [gains])
    twice = paired_interval([np.arange(400)] * 2, [gains, gains])
    t1 = 12.706205 / 1.959964  # two seeds leave one degree of freedom
    assert twice.high - twice.low == pytest.approx(t1 * (once.high - once.low), rel=1e-5)
    assert twice.clients == 400


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    ids = [np.arange(300) + 300 * s for s in range(5)]
    same = [rng.normal(0.1, 1.0, 300) for _ in range(5)]
    apart = [g + shift for g, shift in zip(same, (-0.5, -0.2, 0.0, 0.2, 0.5), strict=True)]
    narrow, wide = paired_interval(ids, same), paired_interval(ids, apart)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_the_interval_covers_the_true_gain_nineteen_times_in_twenty(
    seeds: int, spread: float
) -> None:
    rng = np.random.default_rng(7)
    clients, trials, hits = 100, 500, 0
    ids = [np.arange(clients) + clients * s for s in range(seeds)]
    for _ in range(trials):
        gains = [rng.normal(0.2 + s, 1.0, clients) for s in rng.normal(0, spread, seeds)]
        found = paired_interval(ids, gains)
        hits += found.low <= 0.2 <= found.high
    assert hits / trials >= 0.93  # 0.95 less two standard errors of 500 trials


def test_summaries_give_what_the_cases_give_when_each_is_held_out_once() -> None:
    rng = np.random.default_rng(5)
    gains = [rng.normal(0.1, 1.0, 60) for _ in range(4)]
    cases = paired_interval([np.arange(60) + 60 * s for s in range(4)], gains)
    told = summary_interval(
        [Summary(60, 240, -1.0, float(g.mean()), float(g.var(ddof=1))) for g in gains]
    )
    assert told.mean == pytest.approx(cases.mean)
    assert told.clients == cases.clients == 240
    assert told.high - told.low == pytest.approx(cases.high - cases.low, rel=0.02)


def test_splits_of_the_same_cases_do_not_count_as_more_cases() -> None:
    one = [Summary(50, 200, -1.0, 0.1, 1.0)] * 4
    five = [Summary(50, 200, -1.0, 0.1, 1.0)] * 20
    narrow, wide = summary_interval(five), summary_interval(one)
    assert narrow.clients == wide.clients == 200
    t4, t20 = 3.182446, 2.093024
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(t4 / t20, rel=1e-4)


def test_one_seed_says_that_seeds_are_not_in_the_interval() -> None:
    assert "over clients only" in method(1)
    assert "between seeds" in method(2)


def test_clients_that_differ_between_contracts_are_not_paired() -> None:
    values = np.arange(10.0)
    moved = Outcome(0, "full_sharing", {"a": np.arange(10)[::-1]}, {"a": values})
    with pytest.raises(FedpactError, match="a served other clients"):
        judge([outcome("no_sharing", 0, a=values), moved], ["a"])


def test_needed_is_the_closed_form_of_row_s1() -> None:
    """Accuracies .8 and .7, independent, R = C = 1: full- against no-sharing."""
    table, payoff = correlation_table(0.8, 0.7, 0.56), loan_payoff(1, 1)
    counts = np.rint(table.ravel() * 20_000).astype(int)
    t, s1, s2 = np.unravel_index(np.repeat(np.arange(8), counts), (2, 2, 2))
    follow = np.where(s1 == s2, 0.5, 1.0)
    gains = 0.5 * payoff[s1, t] - follow * payoff[s1, t]  # full-sharing: both follow firm 1
    found = paired_interval([np.arange(20_000)], [gains])
    # Mean -1/40 and variance 3/64 give (1.96 / mean)^2 variance = 288 clients.
    assert found.needed == pytest.approx(288.1, abs=1)
    assert found.decision == "refuses"


def test_equal_payoffs_are_signed_and_nobody_is_needed() -> None:
    values = np.random.default_rng(0).normal(size=50)
    held = [
        outcome(c, s, a=values, b=values) for c in ("no_sharing", "train_sharing") for s in (0, 1)
    ]
    verdicts = judge(held, ["a", "b"])
    for verdict in verdicts.values():
        assert verdict.individually_rational is True
        assert verdict.pareto_optimal is True
        assert verdict.firms["a"].interval == (0, 0)
        assert verdict.firms["a"].needed is None


def test_signs_refuses_and_undecided() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=1000)
    held = [
        outcome("no_sharing", 0, a=base, b=base, c=base),
        outcome(
            "full_sharing",
            0,
            a=base + 1 + 0.1 * rng.normal(size=1000),
            b=base - 1 + 0.1 * rng.normal(size=1000),
            c=base + rng.normal(0, 1, 1000),
        ),
    ]
    verdict = judge(held, ["a", "b", "c"])["full_sharing"]
    assert [verdict.firms[f].decision for f in "abc"] == ["signs", "refuses", "undecided"]
    assert verdict.individually_rational is False
    needed = verdict.firms["c"].needed
    assert needed is not None
    assert needed > 1000


def test_a_contract_that_all_prefer_is_irpo_and_the_dominated_one_is_not() -> None:
    base = np.random.default_rng(0).normal(size=200)
    noise = 0.01 * np.random.default_rng(1).normal(size=200)
    held = [
        outcome("no_sharing", 0, a=base, b=base),
        outcome("infer_sharing", 0, a=base + 1 + noise, b=base + 1 + noise),
        outcome("full_sharing", 0, a=base + 2 + noise, b=base + 1 + 2 * noise),
    ]
    verdicts = judge(held, ["a", "b"])
    assert verdicts["infer_sharing"].individually_rational is True
    assert verdicts["no_sharing"].pareto_optimal is False
    assert verdicts["full_sharing"].irpo is True
    assert verdicts["no_sharing"].irpo is False


def test_an_undecided_rival_leaves_optimality_open() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=100)
    held = [
        outcome("no_sharing", 0, a=base, b=base),
        outcome("full_sharing", 0, a=base + rng.normal(size=100), b=base + rng.normal(size=100)),
    ]
    verdicts = judge(held, ["a", "b"])
    assert verdicts["full_sharing"].individually_rational is None
    assert verdicts["no_sharing"].pareto_optimal is None


def test_relabelling_the_firms_relabels_the_verdict() -> None:
    rng = np.random.default_rng(3)
    base, other = rng.normal(size=(2, 300))
    gain_a, gain_b = rng.normal(0.2, 1, (2, 300))
    forth = judge(
        [
            outcome("no_sharing", 0, a=base, b=other),
            outcome("full_sharing", 0, a=base + gain_a, b=other + gain_b),
        ],
        ["a", "b"],
    )
    back = judge(
        [
            outcome("no_sharing", 0, a=other, b=base),
            outcome("full_sharing", 0, a=other + gain_b, b=base + gain_a),
        ],
        ["a", "b"],
    )
    assert forth["full_sharing"].firms["a"] == back["full_sharing"].firms["b"]
    assert forth["full_sharing"].irpo == back["full_sharing"].irpo


def test_a_firm_that_declines_refuses_whatever_it_would_gain() -> None:
    base = np.zeros(10)
    held = [
        outcome("no_sharing", 0, a=base, b=base),
        Outcome(
            0,
            "full_sharing",
            {"a": np.arange(10), "b": np.arange(10)},
            {"a": base, "b": base},
            declined={"b": "b shares no models"},
        ),
    ]
    verdict = judge(held, ["a", "b"])["full_sharing"]
    assert verdict.firms["b"].decision == "refuses"
    assert verdict.firms["b"].reason == "b shares no models"
    assert verdict.firms["a"].reason == "no deal: b declined"
    assert verdict.declined == {"b": "b shares no models"}
    assert verdict.individually_rational is False


# --------------------------------------------------------------------------------------- confidence


@pytest.mark.parametrize("seeds", [1, 2, 7])
def test_the_half_width_is_the_quantile_times_the_standard_error(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    gains = [rng.normal(0.1 * s, 1.0, 50) for s in range(seeds)]
    ids = [np.arange(50) + 50 * s for s in range(seeds)]
    told = [Summary(50, 50 * seeds, 0.0, float(g.mean()), float(g.var(ddof=1))) for g in gains]
    freedom = seeds - 1 if seeds > 1 else np.inf
    for find in (lambda c: paired_interval(ids, gains, c), lambda c: summary_interval(told, c)):
        found = {c: find(c) for c in (0.5, 0.9, 0.95, 0.9875)}
        errors = [
            (i.high - i.low) / 2 / stats.t.ppf(0.5 + c / 2, freedom) for c, i in found.items()
        ]
        assert errors == pytest.approx([errors[0]] * 4)
        assert {i.mean for i in found.values()} == {found[0.5].mean}


def test_the_usual_level_has_the_usual_quantile_to_the_bit() -> None:
    assert (1 + 0.95) / 2 == 0.975
    gains = [np.random.default_rng(s).normal(size=30) for s in range(3)]
    ids = [np.arange(30)] * 3
    assert paired_interval(ids, gains) == paired_interval(ids, gains, 0.95)


def decided(held: Sequence[Outcome], confidence: float) -> dict[str, bool | str | None]:
    """Everything that a verdict decides, by name; None or "undecided" for what it leaves open."""
    found: dict[str, bool | str | None] = {}
    for name, verdict in judge(held, ["a", "b"], confidence).items():
        found |= {f"{name} {firm}": v.decision for firm, v in verdict.firms.items()}
        found[f"{name} rational"] = verdict.individually_rational
        found[f"{name} optimal"] = verdict.pareto_optimal
    return found


@given(
    seed=st.integers(0, 10**6),
    gains=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    levels=st.tuples(st.floats(0.05, 0.999), st.floats(0.05, 0.999)).map(sorted),
)
def test_more_confidence_widens_intervals_and_only_takes_decisions_back(
    seed: int, gains: tuple[float, float], levels: list[float]
) -> None:
    rng = np.random.default_rng(seed)
    held = []
    for s in range(3):
        base = rng.normal(size=(2, 40))
        held.append(outcome("no_sharing", s, a=base[0], b=base[1]))
        for name, factor in (("infer_sharing", 1), ("full_sharing", 2)):
            a, b = (x + factor * g + rng.normal(size=40) for x, g in zip(base, gains, strict=True))
            held.append(outcome(name, s, a=a, b=b))
    low, high = levels
    one, two = (judge(held, ["a", "b"], c) for c in (low, high))
    for name in one:
        for firm in "ab":
            narrow, wide = one[name].firms[firm].interval, two[name].firms[firm].interval
            assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
    before, after = decided(held, low), decided(held, high)
    for name, answer in after.items():
        assert answer in (before[name], None, "undecided"), name


def test_the_level_is_told_with_the_method() -> None:
    assert method(5).startswith("95 % interval of the mean paired gain")
    assert method(1, 0.99).startswith("99 % interval of the mean paired gain")
