"""A linear probe: how wrong a new last layer would be, on examples it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse import CEILING, ReuseMeasure, Target, labels_of
from parties.reuse.features import look
from parties.reuse.profile import Source


@final
@dataclass(frozen=True)
class LinearProbe(ReuseMeasure):
    """Leave-one-out error of ridge regression from the embedding to the class; smaller is better.

    Each example is classified by the regression (one-hot targets, columns scaled to deviation 1,
    an intercept) that is fitted on all others: with hat matrix H and fit Yhat, its answer is
    (Yhat_i - H_ii Y_i) / (1 - H_ii), so that one decomposition gives all. Where no column varies
    there is nothing to fit, and it is the error of answering the commonest class.

    Args:
        ridge: the penalty on squared weights, as a share of the number of examples.

    References:
        Hastie, Tibshirani, Friedman, The Elements of Statistical Learning.
    """

    ridge: float = 0.01

    forecasts = CEILING
    higher_is_better = False
    needs_labels = True
    name = "linear_probe"

    def __post_init__(self) -> None:
        number = isinstance(self.ridge, int | float) and not isinstance(self.ridge, bool)
        if not number or not math.isfinite(self.ridge) or self.ridge <= 0:
            raise FedpactError(
                f"measure.ridge is {self.ridge!r}; legal is a number > 0. Set measure.ridge=0.01."
            )

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng)
        labels = labels_of(target, seen.rows)
        return probe_error(seen.embedding, labels, self.ridge), {}, None


def probe_error(features: Array, labels: Array, ridge: float) -> float:
    """Leave-one-out error of features (n, d) and labels (n,)."""
    classes, places = np.unique(labels, return_inverse=True)
    targets = np.eye(len(classes))[places]
    spread = features.std(axis=0)
    vary = spread > 1e-6 * np.abs(features).max(axis=0)
    if not vary.any():  # left out, an example of two equal classes would make the other commoner
        return float(1 - targets.mean(axis=0).max())
    scaled = (features - features.mean(axis=0))[:, vary] / spread[vary]
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    shrunk = left * (singular**2 / (singular**2 + ridge * len(features)))
    fit = shrunk @ (left.T @ targets) + targets.mean(axis=0)
    own = np.einsum("nd,nd->n", shrunk, left) + 1 / len(features)
    told = fit - own[:, None] * targets  # over 1 - own, which orders no class
    return float(np.mean(told.argmax(axis=1) != places))
