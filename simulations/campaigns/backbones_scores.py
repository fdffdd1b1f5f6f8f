"""What a few labels say of features, before anything is fitted to be used: scores of transfer.

Each takes features (n, d) and labels (n,) of classes 0 to k - 1, and is higher where the features
speak for being reused. All first standardise the columns, so that layers of different scales can be
compared; what is then scored is the firm's own measures (`parties.reuse`) where one is the same.

>>> labels = np.repeat([0, 1, 2, 3], 10)
>>> noise = np.random.default_rng(0).normal(size=(40, 5))
>>> told = noise + 5 * np.eye(5)[labels]
>>> all(score(told, labels) > score(noise, labels) for score in SCORES.values())
True
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parties.exchange import Array
from parties.reuse import cka as reuse_cka
from parties.reuse import logme as reuse_logme
from parties.reuse import transrate as reuse_transrate

Score = Callable[[Array, Array], float]


def standardised(features: Array, by: Array | None = None) -> Array:
    """Columns less their mean over their standard deviation; a constant column becomes 0.

    Args:
        by: the rows whose mean and deviation are taken; None for these.
    """
    base = np.asarray(features if by is None else by, float)
    deviation = base.std(0)
    # A column that varies by rounding only says nothing.
    dull = deviation <= 1e-9 * np.abs(base).max(0, initial=0)
    found: Array = (np.asarray(features, float) - base.mean(0)) / np.where(dull, np.inf, deviation)
    return found


def in_few_columns(features: Array, *others: Array) -> list[Array]:
    """The same rows in at most n columns: distances and inner products are kept.

    A ridge or logistic regression with an L2 penalty, which depends on features by inner products
    only, is the same in these columns and faster.

    Args:
        features: (n, d), whose rows span the columns; others: (m, d), projected on that span.

    >>> x, y = np.arange(12.0).reshape(2, 6), np.ones((3, 6))
    >>> a, b = in_few_columns(x, y)
    >>> a.shape, b.shape, bool(np.allclose(a @ b.T, x @ y.T))
    ((2, 2), (3, 2), True)
    """
    if features.shape[1] <= features.shape[0]:
        return [features, *others]
    basis = np.linalg.svd(features, full_matrices=False)[2]
    return [rows @ basis.T for rows in (features, *others)]


def nearest_centroid(features: Array, labels: Array) -> float:
    """Share of cases whose class's centre is the nearest, each left out of its own centre.

    A case alone in its class counts as wrong.
    """
    (x,) = in_few_columns(standardised(features))
    member = _one_hot(labels)
    counts = member.sum(0)
    sums = member.T @ x
    distances = ((x[:, None] - (sums / counts[:, None])[None]) ** 2).sum(2)
    own = np.arange(len(x)), labels
    others = counts[labels] - 1
    without = (sums[labels] - x) / np.maximum(others, 1)[:, None]
    distances[own] = np.where(others > 0, ((x - without) ** 2).sum(1), np.inf)
    return float(np.mean(distances.argmin(1) == labels))


def h_score(features: Array, labels: Array) -> float:
    """The variance between classes, in units of the features' covariance: tr(C^-1 B).

    C is shrunk towards a multiple of the identity as Ledoit and Wolf do, since with fewer cases
    than features the plain score is k - 1 whatever the features.

    References:
        Bao et al., ICIP 2019; shrunk: Ibrahim, Ponomareva, Mazumder, arXiv 2110.06893.
    """
    x = standardised(features)
    n, d = x.shape
    left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    rows = left * sizes  # x in its principal axes, where its covariance is diagonal
    spread = sizes**2 / n
    mean = spread.sum() / d
    gap = (spread**2).sum() - d * mean**2  # squared distance of the covariance from mean * identity
    noise = ((rows**2).sum(1) ** 2).sum() / n**2 - (spread**2).sum() / n
    shrunk = min(1.0, noise / gap) if gap > 0 else 1.0
    member = _one_hot(labels)
    counts = member.sum(0)
    centres = member.T @ rows / counts[:, None]
    between = (counts[:, None] * centres**2).sum(0) / n
    total = (1 - shrunk) * spread + shrunk * mean
    return float((between[total > 0] / total[total > 0]).sum())


def transrate(features: Array, labels: Array) -> float:
    """TransRate of standardised columns over the root of their number: a row's length is about 1.

    References:
        `parties.reuse.transrate`.
    """
    (x,) = in_few_columns(standardised(features) / np.sqrt(features.shape[1]))
    return reuse_transrate.transrate(x, labels, 1e-4)


def logme(features: Array, labels: Array) -> float:
    """LogME of standardised columns (`parties.reuse.logme`)."""
    return reuse_logme.logme(standardised(features), labels)


def cka(features: Array, labels: Array) -> float:
    """Linear CKA of standardised columns with one-hot labels, 0 to 1 (`parties.reuse.cka`)."""
    (x,) = in_few_columns(standardised(features))
    return reuse_cka.cka(x, _one_hot(labels))


def _one_hot(labels: Array) -> Array:
    return np.eye(int(labels.max()) + 1)[labels]


SCORES: dict[str, Score] = {
    "nearest_centroid": nearest_centroid,
    "logme": logme,
    "h_score": h_score,
    "transrate": transrate,
    "cka": cka,
}
