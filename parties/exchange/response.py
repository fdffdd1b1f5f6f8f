"""Randomised response: what everyone knows of a signal that a firm tells with noise."""

from __future__ import annotations

import math


def truthful(epsilon: float, signals: int) -> float:
    """Probability that a told signal, one of so many, is the true one.

    In k-ary randomised response it is e^epsilon / (e^epsilon + k - 1); every other signal is as
    likely as the next, so that no told signal is more than e^epsilon times as likely under one true
    signal as under another. An epsilon of 0 stands for no noise.

    >>> truthful(math.log(3), 2), truthful(0.0, 2)
    (0.75, 1.0)
    """
    return 1 / (1 + (signals - 1) * math.exp(-epsilon)) if epsilon else 1.0
