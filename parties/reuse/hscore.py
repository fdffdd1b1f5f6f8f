"""H-score: how much of the embedding's spread lies between classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.exchange import Array
from parties.reuse import CEILING, ReuseMeasure, Target, labels_of
from parties.reuse.features import look
from parties.reuse.profile import Source


@final
@dataclass(frozen=True)
class HScore(ReuseMeasure):
    """tr(cov(f)^+ cov(E[f | y])), from 0 to min(d, classes - 1); larger is better.

    f is the embedding, E[f | y] the mean of its class, ^+ the pseudo-inverse.

    References:
        Bao et al., An Information-Theoretic Approach to Transferability in Task Transfer Learning,
        ICIP 2019.
    """

    forecasts = CEILING
    higher_is_better = True
    needs_labels = True
    name = "hscore"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng)
        return hscore(seen.embedding, labels_of(target, seen.rows)), {}, None


def hscore(features: Array, labels: Array) -> float:
    """H-score of features (n, d) and labels (n,).

    With features = U S V', cov(f)^+ turns the trace into the squared length of the class means of
    sqrt(n) U, so nothing is inverted but what is not zero.

    >>> hscore(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]))
    1.0
    """
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    # Below this the spread is rounding of float32 layers, not of cases.
    left = left[:, singular > 1e-6 * np.abs(features).max(initial=0) * np.sqrt(features.size)]
    sums = np.stack([left[labels == c].sum(axis=0) for c in np.unique(labels)])
    counts = np.unique(labels, return_counts=True)[1]
    return round(float((sums**2 / counts[:, None]).sum()), 12)
