"""sweep=map: right in spite of repeated looks, within its budget, with fewer seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parties.exchange import FedpactError
from server.verdict import paired_interval
from simulations.sweeps import Held, Point
from simulations.sweeps.measured_map import MeasuredMap, times_needed, undecided

CELLS = {"a": {"low": 0, "high": 1, "steps": 2}, "b": {"low": 0, "high": 1, "steps": 3}}


def measured(point: Point, gain: float) -> dict[str, Any]:
    """The row of a cell in which two firms' true gains are `gain`; a seed's cases are its own."""
    seeds, confidence = point["study.seeds"], point["study.confidence"]
    row: dict[str, Any] = {"status": "ok"}
    decisions = []
    for firm in ("x", "y"):
        gains = []
        for seed in range(seeds):  # of a seed always the same, as in a study
            rng = np.random.default_rng([seed, round(1e6 * point["a"]), round(1e6 * point["b"])])
            both = gain + 0.1 * rng.normal(size=2)[:, None] + rng.normal(size=(2, 30))
            gains.append(both[0 if firm == "x" else 1])
        found = paired_interval([np.arange(30) + 30 * s for s in range(seeds)], gains, confidence)
        decisions.append(found.decision)
        row |= {f"full_sharing.{firm}.gain": found.mean, f"full_sharing.{firm}.low": found.low}
        row |= {f"full_sharing.{firm}.high": found.high}
        row[f"full_sharing.{firm}.decision"] = found.decision
    no, open_ = "refuses" in decisions, "undecided" in decisions
    row["full_sharing.signed"] = False if no else None if open_ else True
    return row


def held_on(design: MeasuredMap, gain: float) -> list[Held]:
    held: list[Held] = []
    while points := design.ask(held):
        held += [Held(point, measured(point, gain)) for point in points]
    return held


def wide(cells: int) -> dict[str, Any]:
    return {"a": [0, 1], "b": {"low": 0, "high": 1, "steps": cells // 2}}


@pytest.mark.parametrize("gain", [0.0, 0.15, -0.15])
def test_many_looks_together_miss_the_true_gain_no_more_often_than_alpha(gain: float) -> None:
    cells, alpha = 300, 0.1
    held = held_on(MeasuredMap(wide(cells), 4, 32, alpha=alpha), gain)
    for firm in ("x", "y"):
        missed = {
            (one.point["a"], one.point["b"])
            for one in held
            for low, high in [[one.row[f"full_sharing.{firm}.{end}"] for end in ("low", "high")]]
            if not low <= gain <= high
        }
        assert len(missed) <= stats.binom.ppf(0.999, cells, alpha)
    wrong = [one.row["full_sharing.signed"] is (gain < 0) for one in held]
    assert sum(wrong) <= stats.binom.ppf(0.999, cells, alpha)


def test_looks_that_are_not_corrected_miss_more_often_than_alpha() -> None:
    """What the confidence of a look is for: each at 1 - alpha is wrong too often."""
    cells, alpha = 200, 0.2
    design = MeasuredMap(wide(cells), 4, 32, alpha=alpha)
    looks = len(design.looks)
    loose = MeasuredMap(wide(cells), 4, 32, alpha=alpha * looks)
    for one, bound in ((design, False), (loose, True)):
        missed = {
            json.dumps([h.point["a"], h.point["b"]])
            for h in held_on(one, 0.0)
            if not h.row["full_sharing.x.low"] <= 0 <= h.row["full_sharing.x.high"]
        }
        assert (len(missed) > stats.binom.ppf(0.999, cells, alpha)) == bound


def test_a_clear_gain_takes_fewer_seeds_than_the_fixed_number() -> None:
    design = MeasuredMap(wide(60), 4, 32)
    held = held_on(design, 0.5)
    told = design.extra(held)
    assert told["fixed"] == 60 * 32
    assert told["seeds"] == sum(one.point["study.seeds"] for one in held) < told["fixed"] / 2
    assert told["undecided"] == 0
    assert all(one.row["full_sharing.signed"] for one in design.final(held))


def test_a_cell_goes_on_only_while_undecided_and_the_table_has_its_last_look() -> None:
    design = MeasuredMap(CELLS, 3, 12)
    assert design.looks == (3, 6, 12)
    assert design.keys == ("a", "b", "study.seeds", "study.confidence")
    held = held_on(design, 0.3)
    last: dict[tuple[Any, Any], Held] = {}
    for one in held:
        cell = (one.point["a"], one.point["b"])
        assert one.point["study.confidence"] == pytest.approx(1 - 0.05 / 3)
        assert cell not in last or undecided(last[cell].row)
        last[cell] = one
    assert design.final(held) == [last[key] for key in sorted(last)]
    assert all(one.point["study.seeds"] == 12 or not undecided(one.row) for one in last.values())
    assert design.extra(held)["looks"] == {
        n: sum(one.point["study.seeds"] == n for one in held) for n in (3, 6, 12)
    }


@settings(max_examples=40, deadline=None)
@given(spare=st.integers(0, 120), gain=st.floats(-0.3, 0.3))
def test_the_budget_is_kept_and_spent_as_far_as_a_look_goes(spare: int, gain: float) -> None:
    budget = 6 * 3 + spare
    free, bound = MeasuredMap(CELLS, 3, 12), MeasuredMap(CELLS, 3, 12, budget)
    every, held = held_on(free, gain), held_on(bound, gain)
    spent = bound.extra(held)["seeds"]
    assert spent <= budget
    wanted = free.extra(every)["seeds"]
    if wanted <= budget:
        assert held == every
    else:
        left = [one for one in bound.final(held) if undecided(one.row)]
        prices = [2 * one.point["study.seeds"] for one in left if one.point["study.seeds"] < 12]
        assert all(spent + price > budget for price in prices)


def test_the_nearest_to_a_decision_come_first() -> None:
    design = MeasuredMap(CELLS, 2, 4, 6 * 2 + 2 * 4)

    def row(gain: float) -> dict[str, Any]:
        ends = {"gain": gain, "low": gain - 1, "high": gain + 1, "decision": "undecided"}
        return {
            "status": "ok",
            "full_sharing.signed": None,
            **{f"full_sharing.x.{key}": value for key, value in ends.items()},
        }

    gains = (0.1, 0.9, -0.2, 0.0, 0.5, -0.8)
    held = [Held(p, row(g)) for p, g in zip(design.ask([]), gains, strict=True)]
    assert [(p["a"], p["b"]) for p in design.ask(held)] == [(0.0, 0.5), (1.0, 1.0)]
    assert times_needed(row(0.5)) == pytest.approx(4)
    assert times_needed(row(0.0)) == np.inf


def test_one_firm_that_refuses_decides_and_for_signing_all_are_needed() -> None:
    def row(**gains: float) -> dict[str, Any]:
        found: dict[str, Any] = {"status": "ok", "c.signed": None}
        for firm, gain in gains.items():
            decision = "signs" if gain > 1 else "undecided"
            ends = {"gain": gain, "low": gain - 1, "high": gain + 1, "decision": decision}
            found |= {f"c.{firm}.{key}": value for key, value in ends.items()}
        return found

    assert times_needed(row(x=0.5, y=-0.8)) == pytest.approx(1 / 0.64)
    assert times_needed(row(x=0.5, y=0.8)) == pytest.approx(4)
    assert times_needed(row(x=2.0, y=0.8)) == pytest.approx(1 / 0.64)


def test_a_cell_that_failed_is_not_looked_at_again() -> None:
    design = MeasuredMap(CELLS, 2, 4)
    failed: Mapping[str, Any] = {"status": "failed", "seeds": None}
    held = [Held(point, failed) for point in design.ask([])]
    assert design.ask(held) == []
    assert design.extra(held)["undecided"] == 0


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"axes": {"a": [1]}}, "has 1 axes; a map has two"),
        ({"axes": {"a": [1], "study.seeds": [2]}}, "study.seeds, which sweep=map sets itself"),
        ({"axes": CELLS, "first_seeds": 1}, "first_seeds is 1; legal is a whole number >= 2"),
        ({"axes": CELLS, "most_seeds": 3}, "most_seeds is 3; legal is a whole number >= 4"),
        ({"axes": CELLS, "budget": 23}, "6 cells of 4 seeds need 24"),
        ({"axes": CELLS, "alpha": 1}, "alpha is 1; legal is a number between 0 and 1"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        MeasuredMap(**fields)
