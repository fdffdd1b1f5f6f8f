"""How good the models are, from predictions the operator holds anyway."""

from __future__ import annotations

import numpy as np

from parties.exchange import Array, Predictions


def auc(labels: Array, probs: Array) -> float:
    """Area under the ROC curve of probabilities (n,) of class 1; nan if only one class is there."""
    if len(np.unique(labels)) != 2:
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, probs))


def stacked(
    fit: tuple[Predictions, Predictions], labels: Array, on: tuple[Predictions, Predictions]
) -> Array:
    """Probabilities (n,) of a logistic regression on both firms' log odds.

    Args:
        fit: both firms' predictions on the clients it is fitted on, with true classes `labels`.
        on: both firms' predictions for the clients it is asked about.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(_log_odds(fit), labels)
    probs: Array = model.predict_proba(_log_odds(on))[:, 1]
    return probs


def _log_odds(pair: tuple[Predictions, Predictions]) -> Array:
    clipped = [np.clip(p.probs[:, 1], 1e-9, 1 - 1e-9) for p in pair]
    return np.stack([np.log(p / (1 - p)) for p in clipped], axis=1)
