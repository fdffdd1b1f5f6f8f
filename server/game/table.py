"""Joint tables P(t, s1, s2): estimated from two firms' signals, and what a prior says of them.

t is the true class (0, 1); s1 and s2 are the firms' signals, bins of their probability of class 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError


def joint_table(labels: Array, signal1: Array, signal2: Array, k1: int, k2: int) -> Array:
    """Relative frequencies, shape (2, k1, k2), of labels (n,) and signals (n,) in 0..k-1.

    >>> joint_table(np.array([0, 1]), np.array([0, 1]), np.array([0, 1]), 2, 2).tolist()
    [[[0.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]]]
    """
    table = np.zeros((2, k1, k2))
    np.add.at(table, (labels, signal1, signal2), 1.0)
    return table / len(labels)


def independent(table: Array) -> Array:
    """Tables (..., 2, k1, k2) with the same P(t, s1), P(t, s2), and signals independent given t."""
    first, second = table.sum(-1), table.sum(-2)
    prior = table.sum((-2, -1))[..., None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        coupled = first[..., :, None] * second[..., None, :] / prior
    return np.where(prior > 0, coupled, 0.0)


def strongest(table: Array) -> Array:
    """The same margins with the strongest positive coupling they allow, given t.

    This is the upper Frechet bound P(s1 <= x, s2 <= y | t) = min(P(s1 <= x | t), P(s2 <= y | t)).

    >>> t = np.array([[[0.0, 0.0], [0.0, 0.0]], [[0.06, 0.14], [0.24, 0.56]]])
    >>> strongest(t)[1].round(12).tolist()
    [[0.2, 0.0], [0.1, 0.7]]
    """
    first, second = np.cumsum(table.sum(-1), axis=-1), np.cumsum(table.sum(-2), axis=-1)
    corners = np.minimum(first[..., :, None], second[..., None, :])
    padded = np.pad(corners, [(0, 0)] * (table.ndim - 2) + [(1, 0), (1, 0)])
    coupled: Array = np.diff(np.diff(padded, axis=-2), axis=-1)
    return np.clip(coupled, 0.0, None)


@final
@dataclass(frozen=True)
class CouplingPrior:
    """What firms believe of the coupling while no model is shared; accuracies are known.

    Args:
        independent: weight of conditional independence given the true class.
        strongest: weight of the strongest positive coupling that the accuracies allow.
    """

    independent: float = 0.5
    strongest: float = 0.5

    def __post_init__(self) -> None:
        weights = (self.independent, self.strongest)
        numbers = all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights)
        if not numbers or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
            raise FedpactError(
                f"play.prior weights are {weights}; legal are numbers >= 0 that sum to 1. "
                "Set both, for example play.prior.independent=1 play.prior.strongest=0."
            )

    def mean(self, table: Array) -> Array:
        """The prior's mean tables, given the margins of measured ones, (..., 2, k1, k2)."""
        return self.independent * independent(table) + self.strongest * strongest(table)
