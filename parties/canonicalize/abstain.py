"""When is a pose too uncertain to go on with? Thresholds on the margin, from held-out cases."""

from __future__ import annotations

import numpy as np
import scipy

from parties.exchange import Array, FedpactError

STEPS = 20  # thresholds that are tried


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

    Some twenty thresholds are tested from the strictest down, each by the exact binomial test,
    until one fails: the chance that the accuracy of what is accepted is below `required` is then at
    most 1 - confidence in all (fixed-sequence testing). The strictest one accepts a tenth of the
    cases, or as many as a test needs that may fail a few.

    Args:
        margins: of held-out cases, (n,); right: whether the model was right, (n,).
        required: accuracy of the accepted cases; confidence: in (0, 1).

    Returns:
        None where the strictest one fails already, or there are too few cases to test.

    References:
        Angelopoulos et al., Learn then Test, arXiv 2110.01052.

    >>> threshold_for_accuracy(np.arange(100.0), np.arange(100) >= 40, 0.9)
    38.0
    """
    margins, right = np.asarray(margins, float), np.asarray(right, bool)
    if len(margins) != len(right) or np.isnan(margins).any():
        raise FedpactError(
            f"{len(margins)} margins, {int(np.isnan(margins).sum())} of them no numbers, and "
            f"{len(right)} answers were given; legal is a number and an answer a case."
        )
    if not 0 < required < 1 or not 0 < confidence < 1:
        raise FedpactError(
            f"required is {required!r} and confidence {confidence!r}; legal are numbers between 0 "
            "and 1, such as 0.9 and 0.95."
        )
    order = np.argsort(-margins, kind="stable")
    strictest, hits = margins[order], np.cumsum(right[order])
    # Fewer cases than `least` cannot pass even if all are right; twice as many may fail some.
    least = int(np.ceil(np.log(1 - confidence) / np.log(required)))
    start = min(max(2 * least, len(order) // 10), len(order))
    found: float | None = None
    for step in np.linspace(start, len(order), STEPS) if len(order) else []:
        # All cases of one margin are accepted or none.
        lowest = strictest[round(step) - 1]
        taken = int(np.searchsorted(-strictest, -lowest, "right"))
        if scipy.stats.binom.sf(hits[taken - 1] - 1, taken, required) > 1 - confidence:
            break
        found = float(lowest)
    return found
