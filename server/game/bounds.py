"""What the fast path accepts: numbers in their bounds, told apart from typing errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parties.exchange import Array, FedpactError

FARTHEST = 1e8  # largest ratio of two stakes that floats can judge
ROUNDING = 1e-9  # what a probability may miss its bounds by
MOST_SIGNALS = 8
BLOCK = 1 << 14  # points checked at a time


def numbers(value: Any, name: str, ndim: int) -> Array:
    """`value` as floats with `ndim` axes, the points first; a missing axis gets length 1."""
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.size == 0 or found.ndim > ndim:
        legal = "a number or an array (n,)" if ndim == 1 else "an array (worlds,) or (n, worlds)"
        raise FedpactError(
            f"{name} is {value!r:.80}; legal is {legal}. Give one value a point, or one for all."
        )
    return found.reshape((1,) * (ndim - found.ndim) + found.shape)


def between(name: str, values: Array, low: float, high: float = np.inf) -> None:
    """Refuse values out of [low, high], and what is no number."""
    bounds = f">= {low:g}" if high == np.inf else f"between {low:g} and {high:g}"
    if not (values.min() >= low and values.max() <= min(high, np.finfo(np.float64).max)):
        wrong = ~((values >= low) & (values <= high) & np.isfinite(values))
        raise FedpactError(
            f"{name} is {values[wrong][0]:g} at {np.argwhere(wrong)[0].tolist()}; legal is a "
            f"finite number {bounds}. Correct or leave out the {np.count_nonzero(wrong)} such."
        )


def prior(name: str, weight: Array, worlds: int) -> None:
    """Refuse a prior that does not give each world a weight >= 0, with sum 1."""
    if weight.shape[1] != worlds:
        raise FedpactError(
            f"{name} has {weight.shape[1]} worlds, the tables have {worlds}; legal is one weight "
            f"a world. Give {name} the shape ({worlds},) or (n, {worlds})."
        )
    between(name, weight, 0.0)
    total = weight.sum(1)
    worst = int(np.abs(total - 1).argmax())
    if abs(total[worst] - 1) > ROUNDING:
        raise FedpactError(
            f"{name} sums to {total[worst]:.12g} at point {worst}; a prior sums to 1. Divide the "
            "weights by their sum."
        )


def length(values: Mapping[str, Any]) -> int:
    """The number of points: the one length that is not 1."""
    sizes = {name: len(v) for name, v in values.items() if v is not None and len(v) != 1}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise FedpactError(
            f"the numbers of points differ ({said}); legal is one length n, or 1. Give each value "
            "once a point, or once for all points."
        )
    return next(iter(sizes.values()), 1)


def _stakes(*sizes: Array) -> None:
    """Refuse stakes so far apart that floats cannot compare what they earn."""
    whole = np.broadcast_arrays(*sizes)
    largest = np.maximum.reduce(whole)
    least = np.minimum.reduce([np.where(s > 0, s, np.inf) for s in whole])
    wrong = largest > FARTHEST * least
    if wrong.any():
        at = int(np.argmax(wrong))
        raise FedpactError(
            f"rewards and costs reach from {least[at]:g} to {largest[at]:g} at point {at}; floats "
            f"compare payoffs up to a ratio of {FARTHEST:g}. Bring them closer, or use the exact "
            "engine (python -m simulations.game solve)."
        )


def correlation(values: Mapping[str, Array]) -> None:
    """Refuse what no market with known accuracies and unknown correlation can be."""
    for name in ("alpha", "beta", "gamma"):
        between(name, values[name], 0.0, 1.0)
    for name in ("R0", "R1", "C0", "C1"):
        between(name, values[name], 0.0)
    n = length(values)
    _stakes(*(values[name] for name in ("R0", "R1", "C0", "C1")))
    prior("weight", values["weight"], values["rho"].shape[1])
    between("rho", values["rho"], 0.0, 1.0 + ROUNDING)
    for lo in range(0, n, BLOCK):
        part = slice(lo, lo + BLOCK)
        named = (values["alpha"], values["beta"], values["rho"])
        a, b, rho = (v if len(v) == 1 else v[part] for v in named)
        a, b = a[:, None], b[:, None]
        wrong = (rho > np.minimum(a, b) + ROUNDING) | (rho < a + b - 1 - ROUNDING)
        if wrong.any():
            point, world = np.argwhere(wrong)[0]
            a, b, rho = (np.broadcast_to(v, wrong.shape)[point, world] for v in (a, b, rho))
            raise FedpactError(
                f"rho is {rho:g} at point {lo + point}, world {world}; with accuracies {a:g} and "
                f"{b:g}, P(both right) is {max(0.0, a + b - 1):g} to {min(a, b):g}. Independent "
                f"models have rho = alpha*beta = {a * b:g}."
            )


def tables(value: Any, name: str, ndim: int) -> Array:
    """Joint tables (..., 2, k1, k2) with `ndim` axes, each of which sums to 1."""
    found = np.asarray(value, np.float64)
    shape = "(n, worlds, 2, k1, k2)" if ndim == 5 else "(n, 2, k1, k2)"
    if found.ndim != ndim or found.shape[-3] != 2 or not found.size:
        raise FedpactError(
            f"{name} has shape {found.shape}; legal is {shape}, P(t, s1, s2) with t = 0 and 1. "
            "Add an axis of length 1 for a single table."
        )
    if max(found.shape[-2:]) > MOST_SIGNALS:
        raise FedpactError(
            f"{name} has {found.shape[-2]} x {found.shape[-1]} signals; legal are at most "
            f"{MOST_SIGNALS} a firm, as 2^{MOST_SIGNALS} strategies are tried. Merge signals."
        )
    between(name, found, -ROUNDING)
    total = found.sum((-3, -2, -1))
    if np.abs(total - 1).max() > ROUNDING:
        worst = np.unravel_index(np.abs(total - 1).argmax(), total.shape)
        raise FedpactError(
            f"{name} sums to {total[worst]:.12g} at {[int(i) for i in worst]}; a joint table sums "
            "to 1. Divide it by its sum."
        )
    return found


def payoff(value: Any) -> Array:
    """e(action, class), (2, 2)."""
    found = np.asarray(value, np.float64)
    if found.shape != (2, 2) or not np.isfinite(found).all():
        raise FedpactError(
            f"payoff is {value!r:.80}; legal are 2 x 2 finite numbers e(action, class). For loans "
            "that earn R or lose C use [[0, 0], [-C, R]]."
        )
    return found
