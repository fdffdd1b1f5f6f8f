"""RESQUE: by which angle the classes turn in the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse import COST, ReuseMeasure, Target, labels_of
from parties.reuse.features import look
from parties.reuse.profile import Source


@final
@dataclass(frozen=True)
class Resque(ReuseMeasure):
    """Mean over classes of arccos(cos(u_c, v_c)) / pi, from 0 to 1; smaller means cheaper.

    u_c and v_c are the sums of the embedding (what the classifier takes in) over class c, of the
    source's data, from its profile card, and of the firm's. Classes that one of them lacks are left
    out; a sum that is zero counts as a right angle, 1/2.

    Raises:
        FedpactError: the card has no class sums, or there is no class in common.

    References:
        RESQUE, arXiv 2412.15511 (the part for a change of distribution).
    """

    forecasts = COST
    needs_source = True
    higher_is_better = False
    needs_labels = True
    name = "resque"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        sums = source.card.class_sums
        if sums is None:
            raise FedpactError(
                "resque needs the sums of the embedding by class, and the profile card withholds "
                "them. Ask the model's maker for them, or use zero_shot."
            )
        seen = look(model, target.features, rng)
        labels, embedding = labels_of(target, seen.rows), seen.embedding
        if sums.shape[1] != embedding.shape[1]:
            raise FedpactError(
                f"The profile card's class sums are of {sums.shape[1]} numbers, the model's "
                f"embedding has {embedding.shape[1]}. Use the card that came with this model."
            )
        shared = [c for c in np.unique(labels) if c < len(sums) and np.any(sums[c])]
        if not shared:
            raise FedpactError(
                "The source's card and the target have no class in common, so no class can be "
                "seen to turn. Use arm or leep."
            )
        turns = [angle(sums[c], embedding[labels == c].sum(0)) for c in shared]
        return float(np.mean(turns)), {}, None


def angle(u: Array, v: Array) -> float:
    """The angle between two vectors as a share of half a turn.

    >>> angle(np.array([1.0, 0.0]), np.array([0.0, 2.0])), angle(np.ones(2), -np.ones(2))
    (0.5, 1.0)
    """
    sizes = np.linalg.norm(u), np.linalg.norm(v)
    if min(sizes) == 0:
        return 0.5
    u, v = u / sizes[0], v / sizes[1]
    # Twice this arc tangent is the arc cosine, without its loss of digits at small angles (Kahan).
    return float(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)) / np.pi)
