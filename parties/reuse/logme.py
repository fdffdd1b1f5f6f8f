"""LogME: the evidence that the firm's labels are linear in the embedding."""

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

STEPS = 100  # of the fixed point; it takes about ten
TINY = 1e-12


@final
@dataclass(frozen=True)
class LogMe(ReuseMeasure):
    """Mean over classes of the greatest (1/n) log p(y_c | F); larger is better.

    y_c in {0, 1}^n says which examples are of class c, F (n, d) is the embedding, y_c = F w + noise
    with w ~ N(0, I/alpha) and noise ~ N(0, 1/beta). alpha and beta are found by MacKay's fixed
    point, from one singular value decomposition of F.

    References:
        You, Liu, Wang, Long, arXiv 2102.11005, algorithm 1.
    """

    forecasts = CEILING
    higher_is_better = True
    needs_labels = True
    name = "logme"

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        seen = look(model, target.features, rng)
        return logme(seen.embedding, labels_of(target, seen.rows)), {}, None


def logme(features: Array, labels: Array) -> float:
    """LogME of features (n, d) and labels (n,), over the classes that occur."""
    count, width = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    kept = singular > max(count, width) * np.finfo(float).eps * singular[0]
    squares, left = singular[kept] ** 2, left[:, kept]
    found = [
        _evidence(left, squares, (labels == c).astype(np.float64), width) for c in np.unique(labels)
    ]
    return float(np.mean(found) / count)


def _evidence(left: Array, squares: Array, y: Array, width: int) -> float:
    count, rank = len(y), len(squares)
    along = (left.T @ y) ** 2
    beyond = max(float(y @ y) - float(along.sum()), 0.0)  # what no linear function can explain
    alpha = beta = 1.0
    for _ in range(STEPS):
        ratio = alpha / beta
        gamma = float((squares / (squares + ratio)).sum())
        size = float((squares * along / (squares + ratio) ** 2).sum())  # |w|^2
        miss = float((along * (ratio / (squares + ratio)) ** 2).sum()) + beyond
        alpha = max(gamma, TINY) / max(size, TINY)
        beta = max(count - gamma, TINY) / max(miss, TINY)
        if abs(alpha / beta - ratio) <= 1e-6 * ratio:
            break
    ratio = alpha / beta
    size = float((squares * along / (squares + ratio) ** 2).sum())
    miss = float((along * (ratio / (squares + ratio)) ** 2).sum()) + beyond
    volumes = float(np.log(alpha + beta * squares).sum()) + (width - rank) * np.log(alpha)
    scales = width * np.log(alpha) + count * np.log(beta / (2 * np.pi))
    return float(scales - volumes - beta * miss - alpha * size) / 2
