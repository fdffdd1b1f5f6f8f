"""CKA: how alike cases of one class are in the embedding, and cases of different ones unlike."""

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
class Cka(ReuseMeasure):
    """|F'Y|^2 / (|F'F| |Y'Y|), from 0 to 1 (Frobenius norms); larger is better.

    Linear centred kernel alignment of the embedding F (n, d) with the labels as one-hot rows Y,
    columns of both minus their means. 0 where either does not vary.

    References:
        Kornblith, Norouzi, Lee, Hinton, arXiv 1905.00414.
    """

    forecasts = CEILING
    higher_is_better = True
    needs_labels = True
    name = "cka"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng)
        labels = labels_of(target, seen.rows)
        return cka(seen.embedding, (labels[:, None] == np.unique(labels)).astype(float)), {}, None


def cka(one: Array, other: Array) -> float:
    """Linear CKA of (n, d) and (n, e).

    >>> round(cka(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]])), 9)
    1.0
    """
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    sizes = np.linalg.norm(one.T @ one) * np.linalg.norm(other.T @ other)
    return float(np.linalg.norm(one.T @ other) ** 2 / sizes) if sizes > 0 else 0.0
