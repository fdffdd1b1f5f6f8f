"""The decision: reuse as it is, fine-tune, train from scratch, probe, or abstain; and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy
from torch import nn

from parties.energy import Spent
from parties.exchange import FedpactError
from parties.reuse import CEILING, COST, ReuseMeasure, ReuseScore, Target
from parties.reuse.features import look
from parties.reuse.forecast import (
    EPOCHS,
    SHARE,
    Forecast,
    Forecaster,
    ShortHistoryError,
    Transform,
)
from parties.reuse.history import History
from parties.reuse.profile import Source

AS_IS, FINE_TUNE, SCRATCH, PROBE, ABSTAIN = "as_is", "fine_tune", "scratch", "probe", "abstain"
CANONICALIZE = "canonicalize"
"""Not a `Judge`'s to decide, who trains nothing: see `parties.reuse.adopt`."""
DECISIONS = (AS_IS, FINE_TUNE, SCRATCH, PROBE, ABSTAIN)


@final
@dataclass(frozen=True)
class Option:
    """What one way to get a model would take and give.

    Args:
        name: as_is, fine_tune or scratch.
        epochs: to train: forecast, low and high end; from scratch at least that (`History.table`).
        accuracy: of the model in the end, likewise; None where nobody knows.
        joules, kg_co2e, money: of the middle number of epochs and of the high one.
    """

    name: str
    epochs: tuple[float, float, float]
    accuracy: tuple[float, float, float] | None
    joules: tuple[float, float]
    kg_co2e: tuple[float, float]
    money: tuple[float, float]


@final
@dataclass(frozen=True)
class Judgement:
    """What a firm would do with a model that it is offered.

    Args:
        decision: one of `DECISIONS`.
        reasons: why, in words.
        options: what was weighed; of those that train none where nothing is forecast.
        scores: measure -> what it said.
        cases: past cases that the forecast rests on.
        known: whether this case is like them.
        sure: share of cases that an option's intervals should cover.
    """

    decision: str
    reasons: tuple[str, ...]
    options: Mapping[str, Option]
    scores: Mapping[str, ReuseScore]
    cases: int
    known: bool
    sure: float = 0.9


@final
@dataclass(frozen=True)
class Epoch:
    """What one epoch of training takes the firm, and the money that costs it (`Meter.money`)."""

    spent: Spent
    money: float = 0.0


@final
@dataclass(frozen=True)
class Judge:
    """Judges offered models by measures and by the firm's own history.

    * as it is: if the lower end of the interval of its accuracy on the firm's labelled data
      (Clopper and Pearson, of 1 - miss: 90 %) reaches `required`;
    * else probe, where there is no history: train a quarter of an epoch and look at the gain; a
      measure alone must not decide;
    * else abstain, where the case lies outside the history: nothing is forecast, and a probe is
      proposed;
    * else, if the accuracy once tuned is forecast to fall short of `required`: whichever is best of
      that, the accuracy as it is, and that of a new model; probe, where the history does not tell
      what new models come to;
    * else fine-tune, if even the upper end of the forecast number of epochs is below what training
      from scratch is forecast to take; probe, if the forecast itself is; else train from scratch.

    Args:
        measures: what is looked at; those of cost forecast the epochs, those of the ceiling the
            accuracy.
        required: accuracy that the firm needs, in [0, 1].
        history: csv file of finished cases (`parties.reuse.history`); None: there are none yet.
        tune_epochs: most epochs that an offered model is tuned for.
        least_gain: share of the loss that a quarter of an epoch must take off to go on.
        miss: share of cases that may lie outside an interval.
        outside: share of past cases that would have been called unknown.

    Raises:
        FedpactError: a field is not legal; the forecasts take the same shares.
    """

    measures: tuple[ReuseMeasure, ...]
    required: float = 0.85
    history: str | None = None
    tune_epochs: int = 10
    least_gain: float = 0.1
    miss: float = 0.1
    outside: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "measures", tuple(self.measures))
        names = [m.name for m in self.measures]
        if not names or len(set(names)) != len(names):
            raise FedpactError(
                f"reuse.measures is {names}; legal are one or more different measures."
            )
        epochs = self.tune_epochs
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
            raise FedpactError(f"reuse.tune_epochs is {epochs!r}; legal is a whole number >= 1.")
        for name in ("required", "least_gain", "miss", "outside"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            inner = name in ("miss", "outside")
            if not number or not (0 < value < 0.5 if inner else 0 <= value <= 1):
                raise FedpactError(
                    f"reuse.{name} is {value!r}; legal is a number "
                    f"{'between 0 and 0.5, without these' if inner else 'from 0 to 1'}. "
                    f"Set reuse.{name}={getattr(Judge, name):g}."
                )

    def judge(
        self,
        model: nn.Module,
        source: Source,
        target: Target,
        history: History,
        epoch: Epoch,
        rng: np.random.Generator,
    ) -> Judgement:
        """Judge one offered model.

        Args:
            model: features -> logits; it is left as it is.
            source: what its maker tells of its data.
            target: the firm's own data.
            history: cases that the firm has finished.
            epoch: what an epoch takes it.
            rng: decides which examples are looked at.
        """
        scores = self.scores(model, source, target, rng)
        zero_shot = self._zero_shot(model, target, rng)
        options = {AS_IS: _option(AS_IS, (0.0, 0.0, 0.0), zero_shot, epoch)}
        cases, sure = len(history.rows), 1 - self.miss
        if zero_shot is not None and zero_shot[1] >= self.required:
            reason = (
                f"as it is, it is right in {zero_shot[0]:.3f} of the firm's cases (at least "
                f"{zero_shot[1]:.3f}); {self.required:.3f} is required"
            )
            return Judgement(AS_IS, (reason,), options, scores, cases, True, sure)
        try:
            epochs, scratch, ceiling, anew = self._forecasts(scores, history)
        except ShortHistoryError as none:
            return Judgement(PROBE, (str(none),), options, scores, cases, False, sure)
        as_is = None if zero_shot is None else zero_shot[0]
        decision, reason = weigh(epochs, scratch, ceiling, self.required, anew, as_is)
        known = decision != ABSTAIN
        if known:
            options[FINE_TUNE] = _option(FINE_TUNE, _ends(epochs), _ends(ceiling), epoch)
            own = None if anew is None else _ends(anew)
            options[SCRATCH] = _option(SCRATCH, _ends(scratch), own, epoch)
        return Judgement(decision, (reason,), options, scores, cases, known, sure)

    def scores(
        self, model: nn.Module, source: Source, target: Target, rng: np.random.Generator
    ) -> dict[str, ReuseScore]:
        """Measure -> what it says; measures that need labels are left out where there are none."""
        able = [m for m in self.measures if target.labels is not None or not m.needs_labels]
        return {m.name: m.score(model, source, target, rng) for m in able}

    def _zero_shot(
        self, model: nn.Module, target: Target, rng: np.random.Generator
    ) -> tuple[float, float, float] | None:
        """Accuracy as it is, and the ends of its interval; None without labels."""
        if target.labels is None:
            return None
        seen = look(model, target.features, rng, hidden=False)
        right, n = int(np.sum(seen.logits.argmax(1) == target.labels[seen.rows])), len(seen.rows)
        found = scipy.stats.binomtest(right, n).proportion_ci(1 - self.miss)
        return right / n, float(found.low), float(found.high)

    def _forecasts(
        self, scores: Mapping[str, ReuseScore], history: History
    ) -> tuple[Forecast, Forecast, Forecast, Forecast | None]:
        """Epochs to fine-tune, epochs from scratch, accuracy once tuned, accuracy of a new model.

        The last is None where the history tells it of too few cases, or of other ones.

        Raises:
            ShortHistoryError: the history is too short.
        """
        kinds = {m.name: m.forecasts for m in self.measures if m.name in scores}
        cost = [name for name, kind in kinds.items() if kind == COST] or list(kinds)
        ceiling = [name for name, kind in kinds.items() if kind == CEILING] or list(kinds)

        def forecast(names: list[str], value: str, scale: Transform) -> Forecast:
            forecaster = Forecaster(*history.table(names, value), scale, self.miss, self.outside)
            return forecaster(np.array([scores[name].value for name in names]))

        epochs = forecast(cost, "epochs", EPOCHS)
        scratch = forecast(cost, "scratch_epochs", EPOCHS)
        tuned = forecast(ceiling, "ceiling", SHARE)
        try:
            anew = forecast(ceiling, "scratch_accuracy", SHARE)
        except ShortHistoryError:
            return epochs, scratch, tuned, None
        return epochs, scratch, tuned, anew if anew.known else None


def weigh(
    epochs: Forecast,
    scratch: Forecast,
    ceiling: Forecast,
    required: float,
    anew: Forecast | None = None,
    as_is: float | None = None,
) -> tuple[str, str]:
    """The decision by forecasts, and its reason.

    Args:
        epochs: to fine-tune; scratch: to train a new model as far; ceiling: accuracy once tuned.
        required: accuracy that the firm needs.
        anew: accuracy of a new model; as_is: of the offered one as it is. None: nobody knows.
    """
    if not (epochs.known and scratch.known and ceiling.known):
        apart = max(epochs.distance, scratch.distance, ceiling.distance)
        return ABSTAIN, (
            f"the case lies outside the firm's history ({apart:.1f} times as far from its nearest "
            "cases as they are from each other), so that no forecast is worth anything. Probe: "
            "train a quarter of an epoch and look at the gain"
        )
    reach = f"it is forecast to come to {_interval(ceiling)}; {required:.3f} is required"
    if ceiling.middle < required and anew is None:
        return PROBE, (
            f"tuned, {reach}, and nobody knows what a new model would come to (the history has "
            "scratch_accuracy of too few cases like this one)"
        )
    if ceiling.middle < required and anew is not None:
        # Of equal ones the first, which is the cheapest.
        reached = {} if as_is is None else {AS_IS: as_is}
        reached |= {FINE_TUNE: ceiling.middle, SCRATCH: anew.middle}
        best = max(reached, key=lambda name: reached[name])
        seen = (
            "" if as_is is None else f"as it is, it is right in {as_is:.3f} of the firm's cases; "
        )
        return best, (
            f"{seen}tuned, it is forecast to come to {_interval(ceiling)}, a new model to "
            f"{_interval(anew)}; {required:.3f} is required, and {best} is the best there is"
        )
    cost = (
        f"fine-tuning takes {epochs.middle:.1f} epochs, {epochs.high:.1f} at most; from scratch "
        f"{scratch.middle:.1f}; {reach}"
    )
    if epochs.high < scratch.middle:
        return FINE_TUNE, cost
    if epochs.middle < scratch.middle:
        return PROBE, f"it may be cheaper, but that is not sure: {cost}"
    return SCRATCH, f"it is not cheaper: {cost}"


def probed(before: float, after: float, accuracy: float, required: float, least: float) -> str:
    """What to do after a quarter of an epoch: fine_tune or scratch.

    Args:
        before, after: loss on examples kept back, before it and after it, nats.
        accuracy: after it; required: what the firm needs.
        least: share of the loss that the quarter must have taken off, where accuracy falls short.

    >>> probed(2.0, 1.0, 0.5, 0.9, 0.1), probed(2.0, 1.95, 0.5, 0.9, 0.1)
    ('fine_tune', 'scratch')
    """
    gained = before > 0 and (before - after) / before >= least
    return FINE_TUNE if accuracy >= required or gained else SCRATCH


def _interval(forecast: Forecast) -> str:
    return f"{forecast.middle:.3f} [{forecast.low:.3f}, {forecast.high:.3f}]"


def _ends(forecast: Forecast) -> tuple[float, float, float]:
    return forecast.middle, forecast.low, forecast.high


def _option(
    name: str,
    epochs: tuple[float, float, float],
    accuracy: tuple[float, float, float] | None,
    epoch: Epoch,
) -> Option:
    middle, _, high = epochs
    return Option(
        name,
        epochs,
        accuracy,
        joules=(middle * epoch.spent.joules, high * epoch.spent.joules),
        kg_co2e=(middle * epoch.spent.kg_co2e, high * epoch.spent.kg_co2e),
        money=(middle * epoch.money, high * epoch.money),
    )
