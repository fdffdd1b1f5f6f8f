"""outcome=measure: retrain the model and train a new one, so that the history gains a case."""

from __future__ import annotations

from typing import Any

import numpy as np

from parties.exchange import FedpactError
from parties.reuse import Target
from parties.training import Training, random_seed
from simulations.campaigns.retraining import curve, first
from simulations.judge.model import Offered

LONGEST = 20  # epochs of retraining after which the best accuracy is the ceiling
MARGIN = 0.05  # below the ceiling: there, as in experiment=arm_digits
JUDGED = 0.25  # share of the data by which a retraining is judged
LEAST = 20  # cases without which a row would say nothing


def check(target: Target) -> None:
    """Whether these data can be trained on and judged by.

    Raises:
        FedpactError: they cannot.
    """
    if target.labels is None:
        raise FedpactError(
            "outcome=measure trains, and the data have no labels; legal is one a case. Give "
            "label=COLUMN."
        )
    cases, classes = len(target.labels), len(np.unique(target.labels))
    if cases < LEAST or classes < 2:
        raise FedpactError(
            f"outcome=measure trains on {1 - JUDGED:.0%} of the data and judges by the rest, and "
            f"there are {cases} cases of {classes} classes; legal are {LEAST} or more of two or "
            "more. Give more data."
        )


def measured(offered: Offered, target: Target, training: Training, seed: int) -> dict[str, float]:
    """What retraining took, and what training anew did: columns of a history."""
    assert target.labels is not None
    order = np.random.default_rng([seed, 2]).permutation(len(target.features))
    cut = max(1, round(JUDGED * len(order)))
    judged, fit = (
        (target.features[rows], target.labels[rows]) for rows in (order[:cut], order[cut:])
    )
    device, again = training.torch_device, random_seed(seed, "outcome")
    kept, fresh = (
        curve(training, start.to(device), fit, judged, LONGEST, again)[0]
        for start in (offered.module(), offered.fresh(random_seed(seed, "new")))
    )
    ceiling = float(kept.max())
    there: Any = first(kept >= ceiling - MARGIN)
    scratch = first(fresh >= ceiling - MARGIN)
    return {
        "epochs": there,
        "scratch_epochs": float("nan") if scratch is None else scratch,
        "ceiling": ceiling,
        "scratch_accuracy": float(fresh.max()),
        "longest": float(LONGEST),
        "zero_shot_accuracy": float(kept[0]),
        "probe_accuracy": float(kept[1]),
    }
