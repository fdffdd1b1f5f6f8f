"""PreIndex: how far each example moves, and how badly its class can still be told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from torch import nn

from parties.exchange import Array, FedpactError
from parties.reuse import COST, ReuseMeasure, Target, labels_of
from parties.reuse.features import look
from parties.reuse.profile import Source


@final
@dataclass(frozen=True)
class PreIndex(ReuseMeasure):
    """(p + inv_ari) / (1 + (p + 1 - ari) s) - s_bar; smaller means cheaper retraining.

    p is the mean over layers and examples of the distance between two histograms over the layer's
    filters: of an example as the source sees it and as the firm does. As in the family's published
    code, each histogram has edges of its own and the distance is that of the sorted heights.
    inv_ari = 1 - ari, where ari is the adjusted Rand index of the labels and a clustering of the
    firm's embedding, k-means from the means of the classes. s and s_bar are not defined in the
    sources; at 0 the index is p + inv_ari.

    It needs the source's data, paired with the target's: row i of both is the same thing, seen by
    the source and by the firm. That is the case where a firm has put its own sensor beside the
    source's, seldom else.

    Args:
        combined: p and inv_ari; false: p alone, which needs no labels.
        bins: of a histogram.
        s, s_bar: the constants above.

    Raises:
        FedpactError: the source's data are not at hand, or not as many as the target's.

    References:
        PreIndex, arXiv 2408.01446.
    """

    combined: bool = True
    bins: int = 32
    s: float = 0.0
    s_bar: float = 0.0

    forecasts = COST
    needs_source = True
    higher_is_better = False

    def __post_init__(self) -> None:
        if not isinstance(self.combined, bool):
            raise FedpactError(f"measure.combined is {self.combined!r}; legal are true and false.")
        if not isinstance(self.bins, int) or isinstance(self.bins, bool) or self.bins < 2:
            raise FedpactError(
                f"measure.bins is {self.bins!r}; legal is a whole number >= 2. Set measure.bins=32."
            )
        for name, least in (("s", 0.0), ("s_bar", -math.inf)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < least:
                raise FedpactError(
                    f"measure.{name} is {value!r}; legal is a number"
                    f"{' >= 0' if least == 0 else ''}. Set measure.{name}=0."
                )

    @property
    def name(self) -> str:
        return "preindex" if self.combined else "preindex_p"

    @property
    def needs_labels(self) -> bool:
        return self.combined

    def measure(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, float], float | None]:
        if source.features is None or len(source.features) != len(target.features):
            has = "none" if source.features is None else f"{len(source.features)} examples"
            raise FedpactError(
                "preindex compares each example with the same one as the source sees it; the "
                f"source gives {has} for the target's {len(target.features)}. Give paired ones, "
                "or use arm, which needs no pairs."
            )
        seen = look(model, target.features, rng)
        base = look(model, source.features[seen.rows], rng)
        layers = {
            layer: float(_moved(base.layers[layer], values, self.bins).mean())
            for layer, values in seen.layers.items()
        }
        p = float(np.mean(list(layers.values())))
        if not self.combined:
            return p, layers, None
        apart = inv_ari(seen.embedding, labels_of(target, seen.rows))
        # 1 - ari is inv_ari: the formula is printed with both.
        return (p + apart) / (1 + (p + apart) * self.s) - self.s_bar, layers, None


def inv_ari(embedding: Array, labels: Array) -> float:
    """1 - the adjusted Rand index of labels and a clustering from the means of the classes."""
    classes = np.unique(labels)
    centres = np.stack([embedding[labels == c].mean(0) for c in classes])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different cases than classes
        means = KMeans(len(classes), init=centres, n_init=1)
        return 1 - float(adjusted_rand_score(labels, means.fit_predict(embedding)))


def _moved(old: Array, new: Array, bins: int) -> Array:
    """Distance of the sorted heights of two histograms a case, (n,)."""
    p, q = (np.sort(_histograms(values.astype(np.float64), bins), axis=1) for values in (old, new))
    distances: Array = np.abs(p - q).mean(axis=1)
    return distances


def _histograms(values: Array, bins: int) -> Array:
    """Shares (n, bins) of a row's filters (n, filters), between that row's own ends."""
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    spread = np.where(high > low, high - low, 1)
    places = np.minimum((values - low) / spread * bins, bins - 1).astype(int)
    rows = np.arange(len(values))[:, None] * bins
    counts = np.bincount((rows + places).ravel(), minlength=len(values) * bins)
    shares: Array = counts.reshape(-1, bins) / values.shape[1]
    return shares
