"""The Frechet distance between the source's embedding and the firm's, both taken as normal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse import COST, ReuseMeasure, Target
from parties.reuse.features import look
from parties.reuse.profile import Source


@final
@dataclass(frozen=True)
class Frechet(ReuseMeasure):
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)); smaller means cheaper retraining.

    m, C and m', C' are the means and covariances of the embedding (what the classifier takes
    in) for the source's data, from its profile card, and for the firm's. No labels. It
    depends on the scale of the embedding: compare models of one architecture by it.

    Raises:
        FedpactError: the card has no mean or covariance.

    References:
        Heusel et al., arXiv 1706.08500, equation 6 (there of an Inception network's embedding).
    """

    forecasts = COST
    needs_source = True
    higher_is_better = False
    needs_labels = False
    name = "frechet"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        card = source.card
        if card.mean is None or card.covariance is None:
            raise FedpactError(
                "frechet needs the embedding's mean and covariance, and the profile card withholds "
                "them. Ask the model's maker for them, or use arm."
            )
        embedding = look(model, target.features, rng).embedding
        if len(card.mean) != embedding.shape[1]:
            raise FedpactError(
                f"The profile card's embedding has {len(card.mean)} numbers, the model's "
                f"{embedding.shape[1]}. Use the card that came with this model."
            )
        mean = embedding.mean(axis=0)
        centred = embedding - mean
        covariance = centred.T @ centred / max(len(embedding) - 1, 1)
        return frechet(card.mean, card.covariance, mean, covariance), {}, None


def frechet(mean: Array, covariance: Array, other_mean: Array, other_covariance: Array) -> float:
    """The squared distance of two normal distributions; covariances may lack rank.

    >>> frechet(np.zeros(1), np.array([[1.0]]), np.array([3.0]), np.array([[4.0]]))
    10.0
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ other_covariance @ root)  # those of C C'
    shared = np.sqrt(np.maximum(product, 0)).sum()
    spread = np.trace(covariance) + np.trace(other_covariance) - 2 * shared
    return float(((mean - other_mean) ** 2).sum() + max(spread, 0.0))
