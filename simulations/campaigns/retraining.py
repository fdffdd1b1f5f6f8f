"""What retraining a model takes: its accuracy after every quarter of an epoch."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from parties.exchange import Array
from parties.training import Training, random_seed


def curve(
    training: Training,
    model: nn.Module,
    own: tuple[Array, Array],
    judged: tuple[Array, Array],
    epochs: int,
    seed: int,
) -> tuple[Array, float]:
    """Train a model in place, quarter epoch by quarter epoch.

    Args:
        own: features and labels to train on; judged: held-out ones.

    Returns:
        Held-out accuracy at first and after every quarter, (4 epochs + 1,); CPU seconds an epoch.
    """
    x, y = own
    spent, found = 0.0, [accuracy(model, *judged)]
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        for quarter, rows in enumerate(np.array_split(order, 4)):
            if len(rows):
                started = time.thread_time()
                training.fit(model, x[rows], y[rows], random_seed(seed, epoch, quarter), 1)
                spent += time.thread_time() - started
            found.append(accuracy(model, *judged))
    return np.array(found), spent / epochs


def accuracy(model: nn.Module, features: Array, labels: Array) -> float:
    """Share of right answers."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    with torch.inference_mode():
        told = model(torch.from_numpy(features).to(device)).argmax(1).cpu().numpy()
    return float(np.mean(told == labels))


def first(there: Array) -> float | None:
    """Epochs until the first quarter that is there; None where none is.

    >>> first(np.array([False, False, True, True])), first(np.array([False]))
    (0.5, None)
    """
    return float(np.argmax(there)) / 4 if there.any() else None
