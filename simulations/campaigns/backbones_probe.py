"""A linear probe: what features are worth once a firm fits the last layer on its few labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from parties.exchange import Array
from simulations.campaigns.backbones_scores import in_few_columns, standardised

FOLDS = 5


def hits(train: Array, labels: Array, test: Array, truth: Array) -> Array:
    """Which test cases a probe that is fitted on the others gets right, (n,) bool.

    Standardised logistic regression, L2 penalty 1 / C with C = 1.

    Args:
        train: (m, d); labels: (m,); test: (n, d); truth: (n,).
    """
    fitted, judged = in_few_columns(standardised(train), standardised(test, by=train))
    probe = LogisticRegression(C=1.0, max_iter=2000).fit(fitted, labels)
    right: Array = probe.predict(judged) == truth
    return right


def hits_left_out(features: Array, labels: Array, seed: int, folds: int = FOLDS) -> Array:
    """The same for the labelled cases themselves, each judged by a probe that has not seen it.

    Args:
        seed: deals the cases into folds, class by class: the same for all features of a draw.
    """
    dealt = StratifiedKFold(folds, shuffle=True, random_state=seed)
    right = np.zeros(len(labels), bool)
    for rest, part in dealt.split(features, labels):
        right[part] = hits(features[rest], labels[rest], features[part], labels[part])
    return right


@final
@dataclass(frozen=True)
class Margin:
    """How much better features do than others on the same cases, with its standard error.

    >>> Margin.of(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 0])).mean
    0.25
    """

    mean: float
    error: float

    @classmethod
    def of(cls, ours: Array, theirs: Array) -> Margin:
        """Of two arrays of hits (n,), case by case."""
        gap = ours.astype(float) - theirs.astype(float)
        return cls(float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap))))
