"""LEEP: how well the model's own classes predict the firm's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.exchange import Array
from parties.reuse import COST, ReuseMeasure, Target, labels_of
from parties.reuse.features import look
from parties.reuse.profile import Source


@final
@dataclass(frozen=True)
class Leep(ReuseMeasure):
    """Mean over the firm's examples of log sum_z P(y | z) theta(x)_z, nats, <= 0; larger is better.

    theta(x)_z is the model's probability of its class z, and P(y | z) the firm's labels given z,
    from sum_i theta(x_i)_z by label. The firm's classes need not be the model's.

    References:
        Nguyen, Hassner, Seeger, Archambeau, arXiv 2002.12462.
    """

    forecasts = COST
    higher_is_better = True
    needs_labels = True
    name = "leep"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng, hidden=False)
        return leep(seen.probabilities, labels_of(target, seen.rows)), {}, None


def leep(probs: Array, labels: Array) -> float:
    """LEEP of class probabilities (n, z) and labels (n,).

    >>> leep(np.eye(2)[[0, 0, 1, 1]], np.array([5, 5, 2, 2]))
    0.0
    """
    _, places = np.unique(labels, return_inverse=True)
    joint = np.zeros((places.max() + 1, probs.shape[1]))
    np.add.at(joint, places, probs)
    total = joint.sum(axis=0)
    given = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)  # P(y | z)
    likelihoods = np.einsum("nz,nz->n", probs, given[places])
    return float(np.mean(np.log(np.maximum(likelihoods, np.finfo(float).tiny))))
