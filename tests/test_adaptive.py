"""sweep=adaptive: boundaries are bracketed to the finest step, with few points."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.exchange import FedpactError
from simulations.sweeps import Held
from simulations.sweeps.adaptive import Adaptive

UNIT = {"low": 0, "high": 1, "steps": 5}
Signed = Callable[[Mapping[str, Any]], bool | None]


def row(signed: bool | None) -> dict[str, Any]:
    return {"status": "ok", "full_sharing.signed": signed, "full_sharing.predicted_signed": True}


def asked(design: Adaptive, signed: Signed) -> list[Held]:
    """All that a design asks for where the verdict is known."""
    held: list[Held] = []
    while points := design.ask(held):
        held += [Held(point, row(signed(point))) for point in points]
    return held


def circle(p: Mapping[str, Any]) -> bool:
    return bool((p["x"] - 0.47) ** 2 + (p["y"] - 0.52) ** 2 <= 0.31**2)


def line(p: Mapping[str, Any]) -> bool:
    return bool(0.3 * p["x"] + p["y"] <= 0.6171)


def three_bands(p: Mapping[str, Any]) -> bool | None:
    across = p["x"] + 0.5 * p["y"]
    return True if across < 0.5 else None if across < 0.56 else False


@pytest.mark.parametrize("signed", [circle, line, three_bands])
def test_a_boundary_is_bracketed_to_the_finest_step_everywhere(signed: Signed) -> None:
    held = asked(Adaptive({"x": UNIT, "y": UNIT}, depth=4), signed)
    found = {(one.point["x"], one.point["y"]) for one in held}
    steps, crossed = 4 * 2**4, 0
    for i, j in itertools.product(range(steps), repeat=2):
        corners = [((i + a) / steps, (j + b) / steps) for a in (0, 1) for b in (0, 1)]
        if len({signed({"x": x, "y": y}) for x, y in corners}) > 1:
            crossed += 1
            assert found >= set(corners)
    assert crossed > steps
    assert len(found) < (steps + 1) ** 2 / 5


def test_a_bump_that_corners_hide_is_seen_from_the_cell_beside_it() -> None:
    """Between two points of the grid the boundary rises over the edge of the cell above."""
    grid = {"low": 0, "high": 1, "steps": 3}

    def bump(p: Mapping[str, Any]) -> bool:
        return bool(p["y"] < 0.45 + 0.2 * (0.1 < p["x"] < 0.4))

    held = asked(Adaptive({"x": grid, "y": grid}, depth=3), bump)
    inside = {(p["x"], p["y"]) for p in (one.point for one in held) if bump(p) and p["y"] > 0.5}
    assert max(y for _, y in inside) == 0.625
    assert {x for x, y in inside if y == 0.625} == {0.125, 0.1875, 0.25, 0.3125, 0.375}


def test_one_and_three_axes_are_refined_too() -> None:
    held = asked(Adaptive({"x": UNIT}, depth=6), lambda p: p["x"] < 0.3)
    inside = max(one.point["x"] for one in held if one.row["full_sharing.signed"])
    outside = min(one.point["x"] for one in held if not one.row["full_sharing.signed"])
    assert outside - inside == 1 / 256
    assert len(held) == 5 + 6
    grid = {"low": 0, "high": 1, "steps": 3}
    design = Adaptive({"x": grid, "y": grid, "z": grid}, depth=2)
    held = asked(design, lambda p: p["x"] + p["y"] + p["z"] < 1.1)
    assert 27 < len(held) < 9**3
    assert design.extra(held)["finest"] == 9**3


def test_whole_numbers_are_not_halved_below_one() -> None:
    axes = {"n": {"low": 1, "high": 9, "steps": 3, "integer": True}, "x": UNIT}
    held = asked(Adaptive(axes, depth=5), lambda p: p["n"] < 4.5 and p["x"] < 0.5)
    assert {type(one.point["n"]) for one in held} == {int}
    assert {one.point["n"] for one in held if one.point["x"] == 0} >= {1, 3, 4, 5, 9}
    log = {"n": {"low": 1, "high": 100, "steps": 3, "integer": True, "log": True}}
    held = asked(Adaptive(log, depth=9), lambda p: p["n"] < 20)
    assert {19, 20} <= {one.point["n"] for one in held}
    assert Adaptive(log, depth=20).extra([])["finest"] == 100


def test_lists_are_crossed_and_each_combination_is_refined_by_itself() -> None:
    axes = {"play": ["myopic", "equilibrium"], "x": UNIT, "who": [["a"], ["a", "b"]]}
    held = asked(Adaptive(axes, depth=3), lambda p: p["play"] == "myopic" and p["x"] < 0.4)
    assert list(held[0].point) == ["play", "who", "x"]
    counts = {
        play: sum(one.point["play"] == play for one in held) for play in ("myopic", "equilibrium")
    }
    assert counts == {"myopic": 2 * (5 + 3), "equilibrium": 2 * 5}


def test_a_study_that_failed_says_nothing() -> None:
    held: list[Held] = []
    design = Adaptive({"x": UNIT}, depth=3)
    while points := design.ask(held):
        held += [Held(p, {"status": "failed"} if p["x"] == 1 else row(True)) for p in points]
    assert len(held) == 5


def test_where_points_are_too_few_the_cells_that_are_left_are_told() -> None:
    axes = {"x": UNIT, "y": UNIT}
    whole, cut = Adaptive(axes, depth=3), Adaptive(axes, depth=3, points=100)
    every = asked(whole, circle)
    assert whole.extra(every)["left"] == []
    assert whole.extra(every)["told"] == f"{len(every)} points; a grid as fine everywhere has 1,089"
    held = asked(cut, circle)
    told = cut.extra(held)
    assert 95 < len(held) <= 100
    assert "sweep.points=100 ended it before" in told["told"]
    assert len(told["left"]) > 10
    for cell in told["left"]:
        assert {circle({"x": x, "y": y}) for x in cell["x"] for y in cell["y"]} == {True, False}
    sides = {cell["x"][1] - cell["x"][0] for cell in told["left"]}
    assert max(sides) == 1 / 8  # no large one was left for a small one


@settings(max_examples=60)
@given(
    weights=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)),
    steps=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    depth=st.integers(0, 3),
    spare=st.integers(0, 60),
    whole=st.booleans(),
)
def test_no_point_is_asked_twice_or_beyond_the_ends_and_all_follows_from_what_is_held(
    weights: tuple[float, float, float],
    steps: tuple[int, int],
    depth: int,
    spare: int,
    whole: bool,
) -> None:
    axes = {
        "x": {"low": -1, "high": 4, "steps": steps[0], "integer": whole},
        "y": {"low": 0.1, "high": 10, "steps": steps[1], "log": True},
    }
    points = steps[0] * steps[1] + spare

    def signed(p: Mapping[str, Any]) -> bool | None:
        a, b, c = weights
        found = a * p["x"] + b * p["y"] + c * p["x"] * p["y"]
        return None if abs(found) < 0.1 else found > 0

    held = asked(Adaptive(axes, depth=depth, points=points), signed)
    names = [json.dumps(one.point, sort_keys=True) for one in held]
    assert len(set(names)) == len(names) <= points
    assert all(-1 <= one.point["x"] <= 4 and 0.1 <= one.point["y"] <= 10 for one in held)
    again: list[Held] = []
    while len(again) < len(held):
        wave = Adaptive(axes, depth=depth, points=points).ask(again)
        assert [one.point for one in held[len(again) : len(again) + len(wave)]] == list(wave)
        again = held[: len(again) + len(wave)]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"axes": {"play": ["myopic"]}}, "has 0 ranges; sweep=adaptive refines 1 to 3"),
        ({"axes": dict.fromkeys("abcd", UNIT)}, "has 4 ranges"),
        ({"axes": {"x": {"low": 0, "high": 1}}}, "a range without steps"),
        ({"axes": {"x": UNIT}, "depth": -1}, "sweep.depth is -1; legal is a whole number >= 0"),
        ({"axes": {"x": UNIT, "y": UNIT}, "points": 24}, "24, and the grid .* has 25 points"),
    ],
)
def test_a_refinement_that_makes_no_sense_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        Adaptive(**fields)
