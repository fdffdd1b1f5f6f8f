"""TransRate: how many more bits the embedding takes than its classes do one by one."""

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
class TransRate(ReuseMeasure):
    """R(Z) - mean over classes of R(Z_c), nats; larger is better.

    R(Z) = 1/2 log det(I + Z'Z / (n eps)) is the rate at which n vectors are coded to a distortion
    of eps; Z is the embedding minus its mean, Z_c its rows of class c. It depends on the scale of
    the embedding: compare models of one architecture by it.

    Args:
        eps: the distortion, squared units of the embedding.

    References:
        Huang et al., arXiv 2106.09362.
    """

    eps: float = 1e-4

    forecasts = CEILING
    higher_is_better = True
    needs_labels = True
    name = "transrate"

    def __post_init__(self) -> None:
        number = isinstance(self.eps, int | float) and not isinstance(self.eps, bool)
        if not number or not math.isfinite(self.eps) or self.eps <= 0:
            raise FedpactError(
                f"measure.eps is {self.eps!r}; legal is a number > 0. Set measure.eps=1e-4."
            )

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng)
        return transrate(seen.embedding, labels_of(target, seen.rows), self.eps), {}, None


def transrate(features: Array, labels: Array, eps: float) -> float:
    """TransRate of features (n, d) and labels (n,)."""
    centred = features - features.mean(axis=0)
    parts = [rate(centred[labels == c], eps) for c in np.unique(labels)]
    return rate(centred, eps) - float(np.mean(parts))


def rate(vectors: Array, eps: float) -> float:
    """1/2 log det(I + Z'Z / (n eps)), by singular values: exact also where n < d."""
    squares = np.linalg.svd(vectors, compute_uv=False) ** 2
    return float(np.log1p(squares / (len(vectors) * eps)).sum() / 2)
