"""The profile card: what travels with a model in the place of the data that it was trained on.

For every filter of every layer nine quantiles and the standard deviation of its output; for the
last layer before the classifier also its mean, covariance and sum by class. Nothing of a case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array

LEVELS = np.array([0.005, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.995])
"""Levels of the nine quantiles."""


@final
@dataclass(frozen=True)
class Profile:
    """What a maker tells of its data through its model's eyes.

    Args:
        cases: how many cases it was taken from.
        quantiles: layer -> (9, filters) float32, at `LEVELS`.
        deviations: layer -> (filters,) float32.
        mean, covariance: of the embedding, (d,) and (d, d), float64; None where withheld.
        class_sums: (classes, d) float64, sums of the embedding by class; None where withheld.
    """

    cases: int
    quantiles: Mapping[str, Array]
    deviations: Mapping[str, Array]
    mean: Array | None = None
    covariance: Array | None = None
    class_sums: Array | None = None


@final
@dataclass(frozen=True)
class Source:
    """What is known of the data that a model was trained on.

    Args:
        profile: its maker's card.
        features: the data themselves (n, ...), only where they are at hand: then measures that
            compare samples can be taken exactly.
        labels: (n,) with them.
    """

    profile: Profile
    features: Array | None = None
    labels: Array | None = None
