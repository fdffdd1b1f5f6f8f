"""What a firm's own history of reuse says of the next case: a forecast, an interval, or silence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import scipy

from parties.exchange import Array, FedpactError

FEWEST = 20  # cases without which nothing is forecast
NEIGHBOURS = 3
RIDGE = 1.0  # of standardised measures; a history is short and its measures resemble each other

LARGEST = 1e6  # epochs; no forecast is beyond

Transform = tuple[Callable[[Array], Array], Callable[[Array], Array]]
EPOCHS: Transform = (np.log1p, lambda z: np.expm1(np.clip(z, 0, np.log1p(LARGEST))))
"""Costs: log(1 + epochs)."""
SHARE: Transform = (
    lambda p: np.log(np.clip(p, 1e-3, 1 - 1e-3) / (1 - np.clip(p, 1e-3, 1 - 1e-3))),
    lambda z: scipy.special.expit(z),
)
"""Accuracies: their log odds, clipped at one in a thousand."""


@final
class ShortHistoryError(FedpactError):
    """A history with too few cases, or of too few kinds, to forecast from."""


@final
@dataclass(frozen=True)
class Forecast:
    """A forecast of one quantity.

    Args:
        middle: the forecast; low, high: its interval.
        known: whether the case is like those of the history; a forecast of another one is worth
            nothing.
        distance: to the nearest cases, in units of the largest that is still known.
    """

    middle: float
    low: float
    high: float
    known: bool
    distance: float


@final
@dataclass(frozen=True, eq=False)
class Forecaster:
    """Ridge regression of a transformed quantity on measures, with a CV+ conformal interval.

    Every residual is that of a case whose whole kind (of shift) was left out of the fit, since the
    next case may be of a kind that was never seen. With f_g the fit without kind g and R_i the
    absolute residual of case i, of kind g(i), the interval at x goes from the floor(a (n + 1))-th
    smallest f_g(i)(x) - R_i to the ceil((1 - a)(n + 1))-th smallest f_g(i)(x) + R_i. For
    exchangeable kinds CV+ covers at least 1 - 2a (and about 1 - a); kinds are few, so measure it:
    `leave_one_kind_out`.

    A case is known if the mean distance to its three nearest cases, in standardised measures, is
    not above the (1 - outside) quantile of the same distance of past cases to those of other kinds.

    Args:
        measures: (n, k); values: (n,) of the quantity; kinds: (n,) of each past case.
        transform: the quantity's scale, and back.
        miss: a, the share of cases that may lie outside the interval.
        outside: share of past cases that would have been called unknown.

    Raises:
        ShortHistoryError: fewer than 20 cases or two kinds.
        FedpactError: values that are not finite, or an illegal share.

    References:
        Barber, Candes, Ramdas, Tibshirani, arXiv 1905.02928 (CV+).
    """

    measures: Array
    values: Array
    kinds: Array
    transform: Transform = EPOCHS
    miss: float = 0.1
    outside: float = 0.05

    def __post_init__(self) -> None:
        cases, kinds = len(self.values), len(set(self.kinds.tolist()))
        if cases < FEWEST or kinds < 2:
            raise ShortHistoryError(
                f"The history has {cases} cases of {kinds} kinds; a forecast needs {FEWEST} cases "
                "of 2 kinds or more. Probe instead: train a quarter of an epoch and look at the "
                "gain."
            )
        if not (np.all(np.isfinite(self.measures)) and np.all(np.isfinite(self.values))):
            raise FedpactError(
                "The history has measures or outcomes that are not finite. Leave those rows out."
            )
        for name in ("miss", "outside"):
            if not 0 < getattr(self, name) < 0.5:
                raise FedpactError(
                    f"{name} is {getattr(self, name)}; legal is a share between 0 and 0.5."
                )

    def __call__(self, measures: Array) -> Forecast:
        """Forecast the case with these measures, (k,)."""
        x = self._standard(np.asarray(measures, dtype=float)[None])
        _, back = self.transform
        middle = float(_line(x, self._fit)[0])
        ends = np.array([float(_line(x, self._fits[kind])[0]) for kind in self.kinds.tolist()])
        count = len(ends)
        low = np.sort(ends - self._residuals)
        high = np.sort(ends + self._residuals)
        below = max(math.floor(self.miss * (count + 1)), 1)
        above = min(math.ceil((1 - self.miss) * (count + 1)), count)
        distance = float(_nearest(x, self._cases)[0]) / self._farthest
        told = back(np.array([middle, min(low[below - 1], middle), max(high[above - 1], middle)]))
        return Forecast(float(told[0]), float(told[1]), float(told[2]), distance <= 1, distance)

    # ------------------------------------------------------------------------- what was learnt

    def _standard(self, measures: Array) -> Array:
        found: Array = (measures - self._centre) / self._scale
        return found

    @cached_property
    def _centre(self) -> Array:
        return np.asarray(self.measures.mean(0))

    @cached_property
    def _scale(self) -> Array:
        deviation = self.measures.std(0)
        return np.where(deviation > 0, deviation, 1.0)

    @cached_property
    def _cases(self) -> Array:
        return self._standard(self.measures)

    @cached_property
    def _targets(self) -> Array:
        return self.transform[0](self.values)

    @cached_property
    def _fit(self) -> Array:
        return _ridge(self._cases, self._targets)

    @cached_property
    def _fits(self) -> Mapping[str, Array]:
        """Kind -> the fit without it."""
        return {
            kind: _ridge(self._cases[self.kinds != kind], self._targets[self.kinds != kind])
            for kind in sorted(set(self.kinds.tolist()))
        }

    @cached_property
    def _residuals(self) -> Array:
        rows = range(len(self.values))
        return np.array(
            [
                abs(self._targets[i] - _line(self._cases[i : i + 1], self._fits[self.kinds[i]])[0])
                for i in rows
            ]
        )

    @cached_property
    def _farthest(self) -> float:
        apart = np.concatenate(
            [
                _nearest(self._cases[self.kinds == kind], self._cases[self.kinds != kind])
                for kind in self._fits
            ]
        )
        return float(np.quantile(apart, 1 - self.outside)) or 1.0


def leave_one_kind_out(
    measures: Array,
    values: Array,
    kinds: Array,
    transform: Transform = EPOCHS,
    miss: float = 0.1,
    outside: float = 0.05,
) -> list[Forecast]:
    """Each past case forecast from the cases of all other kinds, in their order.

    Raises:
        ShortHistoryError: beside one of the kinds too little is left to forecast from.
    """
    told: list[Forecast | None] = [None] * len(values)
    names = sorted(set(kinds.tolist()))
    for kind in names:
        others = kinds != kind
        left = int(others.sum())
        if left < FEWEST or len(names) < 3:
            raise ShortHistoryError(
                f"The history has {len(values)} cases of {len(names)} kinds, {left} of them not of "
                f"the kind {kind!r}; to judge every kind by the others takes {FEWEST} cases of 2 "
                "kinds beside each. Finish cases of further kinds first."
            )
        parts = measures[others], values[others], kinds[others]
        forecaster = Forecaster(*parts, transform, miss, outside)
        for i in np.flatnonzero(~others):
            told[i] = forecaster(measures[i])
    return [forecast for forecast in told if forecast is not None]


def _ridge(x: Array, y: Array) -> Array:
    """Intercept and slopes, (k + 1,); the intercept is not penalised."""
    centre, mean = x.mean(0), y.mean()
    inner = x - centre
    slopes = np.linalg.solve(inner.T @ inner + RIDGE * np.eye(x.shape[1]), inner.T @ (y - mean))
    return np.array([mean - centre @ slopes, *slopes])


def _line(x: Array, fit: Array) -> Array:
    found: Array = fit[0] + x @ fit[1:]
    return found


def _nearest(x: Array, cases: Array) -> Array:
    """Mean distance of each row to its nearest cases."""
    apart = np.sqrt(((x[:, None, :] - cases[None]) ** 2).sum(-1))
    nearest: Array = np.sort(apart, axis=1)[:, :NEIGHBOURS].mean(1)
    return nearest
