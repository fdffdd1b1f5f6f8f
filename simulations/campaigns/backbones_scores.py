"""What a few labels say of features, before anything is fitted to be used: scores of transfer.

Each takes features (n, d) and labels (n,) of classes 0 to k - 1, and is higher where the features
speak for being reused. All but LEEP first standardise the columns, so that layers of different
scales can be compared; LEEP takes the source model's probabilities in the place of features.

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


def transrate(features: Array, labels: Array, distortion: float = 1e-4) -> float:
    """How much shorter a code for the features gets once the class is known, nats.

    R(Z) - sum_c n_c/n R(Z_c) with R(Z) = 1/2 log det(I + Z'Z / (n distortion)); the columns of Z
    are standardised and divided by the root of their number, so that a row has length 1 on average.
    Z_c is not centred again: of two classes with opposite means it says nothing.

    References:
        Huang, Wei, Rong, Yang, Huang, arXiv 2106.09362, equations 2 to 4.
    """
    (x,) = in_few_columns(standardised(features) / np.sqrt(features.shape[1]))
    parts = [x[labels == c] for c in np.unique(labels)]
    inside = sum(len(p) / len(x) * _rate(p, distortion) for p in parts)
    return float(_rate(x, distortion) - inside)


def _rate(z: Array, distortion: float) -> float:
    inner = z @ z.T / (len(z) * distortion)
    return 0.5 * float(np.linalg.slogdet(np.eye(len(z)) + inner)[1])


def logme(features: Array, labels: Array) -> float:
    """Mean log evidence a case of a Bayesian linear model on the features, mean over classes.

    References:
        You, Liu, Wang, Long, arXiv 2102.11005, algorithm 1.
    """
    x = standardised(features)
    n, d = x.shape
    left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    spread = sizes**2
    evidence = []
    for target in _one_hot(labels).T:
        along = left.T @ target
        outside = max(float(target @ target - along @ along), 0.0)
        alpha = beta = 1.0
        for _ in range(100):
            ratio = alpha / beta
            gamma = float((spread / (spread + ratio)).sum())
            weights = float((spread * along**2 / (spread + ratio) ** 2).sum())
            residual = float((along**2 * ratio**2 / (spread + ratio) ** 2).sum()) + outside
            alpha, before = gamma / max(weights, 1e-12), ratio
            beta = (n - gamma) / max(residual, 1e-12)
            if abs(alpha / beta - before) <= 1e-3 * before:
                break
        ratio = alpha / beta
        weights = float((spread * along**2 / (spread + ratio) ** 2).sum())
        residual = float((along**2 * ratio**2 / (spread + ratio) ** 2).sum()) + outside
        determinant = np.log(alpha + beta * spread).sum() + (d - len(spread)) * np.log(alpha)
        total = d * np.log(alpha) + n * np.log(beta) - determinant - n * np.log(2 * np.pi)
        evidence.append((total - beta * residual - alpha * weights) / (2 * n))
    return float(np.mean(evidence))


def cka(features: Array, labels: Array) -> float:
    """Linear centred kernel alignment of the features with one-hot labels, 0 to 1.

    ||X'Y||^2 / (||X'X|| ||Y'Y||), X and Y centred.

    References:
        Kornblith, Norouzi, Lee, Hinton, arXiv 1905.00414, equation 3.
    """
    (x,) = in_few_columns(standardised(features))
    y = _one_hot(labels)
    y = y - y.mean(0)
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / size) if size > 0 else 0.0


def leep(probabilities: Array, labels: Array) -> float:
    """Mean log probability of the labels, by the source classes that they go with, nats.

    log sum_z P(y|z) p(z|x) with P(y, z) = 1/n sum_i p(z|x_i) 1[y_i = y].

    Args:
        probabilities: (n, source classes) of the source model.

    References:
        Nguyen, Hassner, Seeger, Archambeau, arXiv 2002.12462, equation 2.

    >>> leep(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 0]))
    0.0
    """
    p = np.asarray(probabilities, float)
    joint = _one_hot(labels).T @ p / len(labels)
    seen = joint.sum(0)
    given = joint / np.where(seen > 0, seen, 1)
    said = (p @ given.T)[np.arange(len(labels)), labels]
    return float(np.log(np.maximum(said, 1e-300)).mean())


def _one_hot(labels: Array) -> Array:
    return np.eye(int(labels.max()) + 1)[labels]


SCORES: dict[str, Score] = {
    "nearest_centroid": nearest_centroid,
    "logme": logme,
    "h_score": h_score,
    "transrate": transrate,
    "cka": cka,
}
