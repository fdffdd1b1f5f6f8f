"""GDEI: is training still worth it? The published formula, its guards, and plainer companions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError

UNDEFINED, DIVERGED, STUCK, LEARNING = "undefined", "diverged", "stuck", "learning"
LEAST_GAIN = 1e-6  # share of the first loss: less than this in all is no progress


def efficiency(losses: Sequence[float] | Array, scale_free: bool = False) -> Array:
    """The training efficiency E_2 .. E_n of losses L_1 .. L_n, (n - 1,), between 0 and 99.

    E_k = 100 - min(100, max(1, 100 P_k / (1 + ln(1 + D_k^2)))), P_k = (L_1 - L_k) / L_1,
    D_k = |L_(k-1) - L_k|, bit for bit as published. For small steps it is the share of the first
    loss that is left, 100 L_k / L_1 (derived). It is low where training has done its work, and 99
    where nothing was learnt, whether the run is stuck, diverged or not finite: `course` tells
    these apart. A loss in other units gives another E, but for scale_free.

    Args:
        losses: (n,), of the training's iterations (steps or epochs).
        scale_free: divide the losses by L_1 first; E then does not depend on the loss's unit.

    Returns:
        Not-a-number everywhere where E is undefined: L_1 <= 0 or not finite.

    >>> efficiency([4.0, 2.0, 1.0]).round(3).tolist()
    [80.839, 55.704]

    References:
        Dhingra, arXiv 2410.19448.
    """
    values = [float(v) for v in losses]
    if len(values) < 2:
        return np.empty(0)
    first = values[0]
    if not math.isfinite(first) or first <= 0:
        return np.full(len(values) - 1, np.nan)
    if scale_free:
        values, first = [v / first for v in values], 1.0
    found = []
    for before, now in itertools.pairwise(values):
        progress, change = (first - now) / first, abs(before - now)
        # Written with comparisons that a not-a-number fails, as min and max of the source do.
        gained = (
            100 * progress / (1 + math.log(1 + change * change)) if math.isfinite(now) else -1.0
        )
        found.append(100 - min(100.0, max(1.0, gained)))
    return np.array(found)


def step_gains(losses: Sequence[float] | Array) -> Array:
    """(L_(k-1) - L_k) / L_(k-1) for k = 2 .. n, (n - 1,): what a step took off the loss.

    Not-a-number where L_(k-1) <= 0 or a loss is not finite.

    >>> step_gains([4.0, 2.0, 3.0]).tolist()
    [0.5, -0.5]
    """
    values = np.asarray(losses, dtype=float)
    before, now = values[:-1], values[1:]
    legal = np.isfinite(before) & np.isfinite(now) & (before > 0)
    found = np.full(len(now), np.nan)
    found[legal] = (before[legal] - now[legal]) / before[legal]
    return found


def gains_a_joule(losses: Sequence[float] | Array, joules: Sequence[float] | Array) -> Array:
    """(L_(k-1) - L_k) / joules_k for k = 2 .. n, (n - 1,): nats bought with a joule of step k.

    Args:
        losses: (n,); joules: (n,), spent on each iteration. Not-a-number where it spent none.

    >>> gains_a_joule([4.0, 2.0, 1.0], [1.0, 4.0, 0.5]).tolist()
    [0.5, 2.0]
    """
    values, spent = np.asarray(losses, dtype=float), np.asarray(joules, dtype=float)
    if values.shape != spent.shape:
        raise FedpactError(
            f"{len(values)} losses and {len(spent)} amounts of energy; give one a loss, in joules."
        )
    legal = np.isfinite(values[:-1]) & np.isfinite(values[1:])
    legal &= np.isfinite(spent[1:]) & (spent[1:] > 0)
    found = np.full(len(legal), np.nan)
    found[legal] = (values[:-1] - values[1:])[legal] / spent[1:][legal]
    return found


def course(losses: Sequence[float] | Array) -> str:
    """What a run did: "undefined", "diverged", "stuck" or "learning".

    Undefined: no losses, or the first is <= 0 or not finite. Diverged: the last is not finite, or
    above the first. Stuck: no loss is below the first by more than a millionth of it.

    >>> [course(v) for v in ([0.0, 1.0], [1.0, 2.0], [1.0, 1.0], [1.0, 0.5])]
    ['undefined', 'diverged', 'stuck', 'learning']
    """
    values = [float(v) for v in losses]
    if not values or not math.isfinite(values[0]) or values[0] <= 0:
        return UNDEFINED
    if not math.isfinite(values[-1]) or values[-1] > values[0] * (1 + LEAST_GAIN):
        return DIVERGED
    best = min(v for v in values if math.isfinite(v))
    return STUCK if values[0] - best <= LEAST_GAIN * values[0] else LEARNING


@final
@dataclass
class StepRecord:
    """Notes the loss of every step of a training: `Training.fit(..., watch=StepRecord())`.

    Args:
        losses: nats, a step; seconds: CPU seconds since the step before.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __call__(self, loss: float, seconds: float) -> None:
        """Note one step."""
        self.losses.append(loss)
        self.seconds.append(seconds)

    @property
    def efficiency(self) -> Array:
        """E_2 .. E_n of the steps, see `efficiency`."""
        return efficiency(self.losses)

    @property
    def course(self) -> str:
        """What the run did, see `course`."""
        return course(self.losses)
