"""When is a pose too uncertain to go on with? Thresholds on the margin, from held-out cases."""

from __future__ import annotations

import numpy as np
from scipy import stats

from parties.exchange import Array, FedpactError


def threshold_for_share(margins: Array, share: float) -> float:
    """The margin below which `share` of held-out cases lie.

    Args:
        margins: of held-out cases, (n,), log odds.
        share: to abstain from, in [0, 1).

    >>> threshold_for_share(np.array([1.0, 2.0, 3.0, 4.0]), 0.25)
    2.0
    """
    if not 0 <= share < 1 or not len(margins):
        raise FedpactError(
            f"A threshold was asked for a share of {share!r} of {len(margins)} cases; legal is a "
            "share in [0, 1) of one case or more."
        )
    return float(np.sort(margins)[int(np.floor(share * len(margins)))])


def threshold_for_accuracy(
    margins: Array, right: Array, required: float, confidence: float = 0.95
) -> float | None:
    """The lowest margin at and above which the accuracy is surely as high as required.

    Thresholds are tested from the strictest down, each by the exact binomial test, until one fails:
    the chance that the accuracy of what is accepted is below `required` is then at most
    1 - confidence in all (fixed-sequence testing).

    Args:
        margins: of held-out cases, (n,); right: whether the model was right, (n,).
        required: accuracy of the accepted cases; confidence: in (0, 1).

    Returns:
        None where no threshold passes.

    References:
        Angelopoulos et al., Learn then Test, arXiv 2110.01052.

    >>> threshold_for_accuracy(np.arange(100.0), np.arange(100) >= 40, 0.9)
    38.0
    """
    if len(margins) != len(right):
        raise FedpactError(f"{len(margins)} margins and {len(right)} answers; give one a margin.")
    order = np.argsort(-np.asarray(margins, float), kind="stable")
    sorted_margins = np.asarray(margins, float)[order]
    hits = np.cumsum(np.asarray(right, bool)[order])
    found: float | None = None
    # Fewer cases than this cannot pass, even if all are right: tests begin with so many.
    least = int(np.ceil(np.log(1 - confidence) / np.log(required))) if required < 1 else len(order)
    last = 0
    for taken in range(max(1, least), len(order) + 1):
        tied = taken < len(order) and sorted_margins[taken] == sorted_margins[taken - 1]
        if tied:
            continue
        if stats.binom.sf(hits[taken - 1] - 1, taken, required) > 1 - confidence:
            break
        found, last = float(sorted_margins[taken - 1]), taken
    return found if last else None
