"""Which points nobody can better without giving something up."""

from __future__ import annotations

import numpy as np

from parties.exchange import Array


def pareto_front(points: Array) -> Array:
    """Which of the points no other one dominates; more is better in every column.

    A point dominates another if it is at least as large everywhere and larger somewhere; so equal
    points are on the front together.

    Args:
        points: (n, m); a point with a nan is unknown, so never on the front, and dominates none.

    Returns:
        (n,) of bool.

    >>> pareto_front(np.array([[0.0, 2.0], [1.0, 1.0], [0.0, 1.0], [2.0, -1.0]])).tolist()
    [True, True, False, True]
    """
    points = np.asarray(points, dtype=float)
    known = ~np.isnan(points).any(axis=1)
    on_front = np.zeros(len(points), dtype=bool)
    if not known.any():
        return on_front
    values, place = np.unique(points[known], axis=0, return_inverse=True)
    front: list[int] = []
    for row in reversed(range(len(values))):  # what dominates a point is sorted behind it
        if not (values[front] >= values[row]).all(axis=1).any():
            front.append(row)
    on_front[known] = np.isin(place.ravel(), front)
    return on_front
