"""The Pareto front of firms' gains."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from simulations.sweeps.pareto import pareto_front

POINTS = st.tuples(st.integers(0, 30), st.integers(1, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-3, 3).map(float))
)


def dominated(point: np.ndarray, points: np.ndarray) -> bool:
    """By the definition, one pair at a time."""
    return any((p >= point).all() and (p > point).any() for p in points)


@given(POINTS)
def test_the_front_is_what_no_point_dominates_and_nothing_else(points: np.ndarray) -> None:
    assert pareto_front(points).tolist() == [not dominated(p, points) for p in points]


@given(POINTS, st.randoms())
def test_the_order_of_the_points_does_not_matter(points: np.ndarray, random: object) -> None:
    order = list(range(len(points)))
    random.shuffle(order)
    assert pareto_front(points[order]).tolist() == pareto_front(points)[order].tolist()


def test_on_a_falling_line_every_point_is_on_the_front_and_on_a_rising_one_only_the_last() -> None:
    steps = np.arange(5.0)
    assert pareto_front(np.column_stack([steps, -steps])).all()
    assert pareto_front(np.column_stack([steps, steps])).tolist() == [False] * 4 + [True]


def test_equal_points_are_on_the_front_together() -> None:
    assert pareto_front(np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])).tolist() == [1, 1, 0]


def test_a_point_that_is_not_known_is_on_no_front_and_dominates_none() -> None:
    points = np.array([[np.nan, 9.0], [1.0, 1.0]])
    assert pareto_front(points).tolist() == [False, True]
    assert pareto_front(np.full((2, 2), np.nan)).tolist() == [False, False]
    assert pareto_front(np.zeros((0, 2))).tolist() == []


def test_the_front_of_a_quarter_circle_is_the_whole_arc() -> None:
    angles = np.linspace(0, np.pi / 2, 50)
    arc = np.column_stack([np.cos(angles), np.sin(angles)])
    assert pareto_front(np.vstack([arc, 0.99 * arc])).tolist() == [True] * 50 + [False] * 50
