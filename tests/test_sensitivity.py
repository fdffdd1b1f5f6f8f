"""First-order effects of axes: exact on grids, bounded and blind to order everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.sweeps.columns import Axis, axes_of
from simulations.sweeps.sensitivity import VERDICT, effects, first_order, grouped
from tests.sweep_tables import FULL, TRAIN, facts_of, grid, study_table, without

ROWS = st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), min_size=2, max_size=40)


def axis_of(values: list[float]) -> Axis:
    levels, places = np.unique(values, return_inverse=True)
    return Axis("x", tuple(levels.tolist()), places, numeric=True)


def test_of_an_additive_function_on_a_grid_each_axis_explains_its_own_variance() -> None:
    x1, x2, x3 = (a.ravel() for a in np.meshgrid(range(3), range(4), range(5), indexing="ij"))
    parts = [2.0 * x1, np.array([0.0, 5.0, 1.0, 1.0])[x2], np.sqrt(x3)]
    y, shares = sum(parts), [part.var() for part in parts]
    for x, share in zip((x1, x2, x3), shares, strict=True):
        assert first_order(x, y) == pytest.approx(share / sum(shares), abs=1e-12)


def test_of_a_pure_interaction_no_axis_explains_anything_alone() -> None:
    x1, x2 = np.repeat([0, 1], 2), np.tile([0, 1], 2)
    assert first_order(x1, x1 ^ x2) == pytest.approx(0)
    assert first_order(x2, x1 ^ x2) == pytest.approx(0)


def test_an_answer_that_does_not_vary_has_no_shares() -> None:
    assert first_order(np.array([0, 1, 2]), np.array([0.1, 0.1, 0.1])) is None
    assert first_order(np.zeros(0, dtype=int), np.zeros(0)) is None


def test_of_words_the_share_is_goodman_and_kruskals_tau() -> None:
    words = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    assert first_order(np.array([0, 0, 1, 1, 2, 2]), words) == 1
    # Squares around the mean: 6 (1 - 1/3) = 4 in all, 2 (1 - 1/2) = 1 in each mixed pair.
    assert first_order(np.array([0, 0, 1, 2, 2, 1]), words) == pytest.approx(1 - 2 / 4)


def test_an_axis_without_effect_gets_its_chance_share_on_average() -> None:
    random = np.random.default_rng(0)
    groups, y = np.repeat(np.arange(5), 4), random.normal(size=20)
    shares = [first_order(groups, random.permutation(y)) for _ in range(4_000)]
    assert np.mean(shares) == pytest.approx(4 / 19, abs=0.01)


@given(ROWS)
def test_a_share_lies_between_nothing_and_all(rows: list[tuple[int, float]]) -> None:
    groups, y = (np.array(column) for column in zip(*rows, strict=True))
    share = first_order(groups, y)
    assert share is None or 0 <= share <= 1


@given(ROWS, st.randoms())
def test_the_order_of_the_studies_does_not_matter(rows: list, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    found = []
    for order in (rows, shuffled):
        x, y = (np.array(column) for column in zip(*order, strict=True))
        axis = axis_of(y.tolist())  # many values: falls into ranges
        groups = grouped(axis, np.ones(len(y), dtype=bool))
        found.append((first_order(groups, x.astype(float)), first_order(x, y)))
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_a_numeric_axis_of_many_values_falls_into_ranges_of_equally_many_studies() -> None:
    axis, all_rows = axis_of(list(np.linspace(0, 1, 100) ** 3)), np.ones(100, dtype=bool)
    assert np.bincount(grouped(axis, all_rows)).tolist() == [10] * 10
    few = axis_of(list(range(12)))
    assert np.bincount(grouped(few, np.ones(12, dtype=bool))).tolist() == [6, 6]
    same = axis_of([0.0] * 50 + list(np.arange(1.0, 51.0)))
    assert len(set(grouped(same, all_rows)[:50])) == 1


def test_the_axis_that_the_verdict_hangs_on_explains_it() -> None:
    table = study_table(grid(x=[-2.0, -1.0, 1.0, 2.0], play=["myopic", "equilibrium"]))
    table.loc[0, "status"] = "failed"
    table.loc[0, [c for c in table if c.startswith((FULL, "best"))]] = None
    found = {(e.answer, e.axis): e for e in effects(table, axes_of(table, facts_of(table)))}
    assert found[VERDICT, "x"].share == pytest.approx(1)
    assert found[VERDICT, "x"].studies == 7
    assert found[f"{FULL}: every firm signs", "x"].share == pytest.approx(1)
    assert found[f"{FULL}: every firm signs", "play"].share < found[VERDICT, "x"].chance
    assert found[f"{FULL}: joint surplus", "x"].groups == 4


def test_studies_that_did_not_hold_a_contract_say_nothing_about_it() -> None:
    table = study_table(grid(x=[-2.0, -1.0, 1.0, 2.0], play=["myopic", "equilibrium"]))
    table = without(table, TRAIN, [1, 7])
    found = {(e.answer, e.axis): e for e in effects(table, axes_of(table, facts_of(table)))}
    assert found[f"{TRAIN}: joint surplus", "x"].studies == 6
    assert found[f"{TRAIN}: every firm signs", "x"].studies == 6
    assert found[f"{FULL}: joint surplus", "x"].studies == 8
