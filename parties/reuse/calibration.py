"""How good a judge's forecasts are, on the history that it judges by, and what it saves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from parties.reuse import CEILING, COST
from parties.reuse.forecast import EPOCHS, SHARE, Forecast, leave_one_kind_out
from parties.reuse.history import LONGEST, History, number
from parties.reuse.judge import ABSTAIN, FINE_TUNE, PROBE, SCRATCH, Judge, weigh

QUARTER = 0.25


@final
@dataclass(frozen=True)
class Calibration:
    """A judge's record on past cases, each judged from the cases of all other kinds.

    Args:
        cases: past cases that were judged; kinds: of shift.
        error: mean absolute error of the forecast epochs.
        coverage: share of the cases whose epochs lie in their interval; asked: that it should be.
        known_error, known_coverage: the same of the cases that are not outside the history.
        abstained: share that lies outside.
        ceiling_error: mean absolute error of the forecast accuracy.
        decisions: decision -> share.
        epochs: mean epochs a case: by this judge, by always training from scratch, by always
            reusing, and by whoever knows the outcome. A new training that never came to the
            ceiling counts as the longest that was tried (`History.table`), so that what it took,
            and what is saved against it, are lower bounds.
        saved_scratch, saved_reuse: share of the epochs that the judge saves against either.
    """

    cases: int
    kinds: int
    error: float
    coverage: float
    asked: float
    known_error: float
    known_coverage: float
    abstained: float
    ceiling_error: float
    decisions: Mapping[str, float]
    epochs: Mapping[str, float]
    saved_scratch: float
    saved_reuse: float


def calibrate(judge: Judge, history: History, longest: float = LONGEST) -> Calibration:
    """Judge every past case as if its kind of shift had never been seen.

    After a probe (also where the judge abstains) the firm tunes on if the quarter of an epoch took
    `judge.least_gain` of the error away (columns zero_shot_accuracy and probe_accuracy), else it
    trains from scratch and has lost the quarter.

    Args:
        longest: epochs that count where training from scratch never came to the ceiling and the
            history does not say how long it was tried.

    Raises:
        FedpactError: the history is too short, or lacks the judge's measures.
    """
    cost = [m.name for m in judge.measures if m.forecasts == COST]
    top = [m.name for m in judge.measures if m.forecasts == CEILING] or cost
    cost = cost or top
    names = list(dict.fromkeys([*cost, *top]))
    whole = [row for row in history.rows if _has(row, [*names, "epochs", "ceiling"])]
    past = History(tuple(whole))
    if not whole:
        raise FedpactError(
            f"No past case has all of {', '.join(names)}. Choose measures that the history has "
            "(its columns), or another history."
        )
    x, epochs, kinds = past.table(cost, "epochs")
    told = leave_one_kind_out(x, epochs, kinds, EPOCHS, judge.miss, judge.outside)
    y, ceiling, _ = past.table(top, "ceiling")
    tops = leave_one_kind_out(y, ceiling, kinds, SHARE, judge.miss, judge.outside)
    _, scratch, _ = past.table(cost, "scratch_epochs", longest)
    anew = leave_one_kind_out(x, scratch, kinds, EPOCHS, judge.miss, judge.outside)
    # What is enough differs from case to case here; the question is which way there is cheaper.
    decided = [weigh(*of, 0.0)[0] for of in zip(told, anew, tops, strict=True)]
    spent = np.array(
        [
            _spent(decision, row, float(e), float(s), judge.least_gain)
            for decision, row, e, s in zip(decided, whole, epochs, scratch, strict=True)
        ]
    )
    inside = np.array([decision != ABSTAIN for decision in decided])
    means = {
        "judge": float(spent.mean()),
        "always_scratch": float(scratch.mean()),
        "always_reuse": float(epochs.mean()),
        "known_outcome": float(np.minimum(epochs, scratch).mean()),
    }
    return Calibration(
        cases=len(whole),
        kinds=len(set(kinds.tolist())),
        error=_error(told, epochs),
        coverage=_coverage(told, epochs),
        asked=1 - judge.miss,
        known_error=_error(told, epochs, inside),
        known_coverage=_coverage(told, epochs, inside),
        abstained=float(np.mean(~inside)),
        ceiling_error=_error(tops, ceiling),
        decisions={
            d: decided.count(d) / len(decided) for d in (FINE_TUNE, PROBE, SCRATCH, ABSTAIN)
        },
        epochs=means,
        saved_scratch=1 - means["judge"] / means["always_scratch"],
        saved_reuse=1 - means["judge"] / means["always_reuse"],
    )


def _spent(
    decision: str, row: Mapping[str, str], epochs: float, scratch: float, least: float
) -> float:
    if decision == FINE_TUNE:
        return epochs
    if decision == SCRATCH:
        return scratch
    before, after = (1 - number(row, f"{n}_accuracy") for n in ("zero_shot", "probe"))
    if before > 0 and (before - after) / before >= least:
        return max(epochs, QUARTER)
    return QUARTER + scratch


def _error(told: list[Forecast], values: Array, which: Array | None = None) -> float:
    apart = np.abs(np.array([f.middle for f in told]) - values)
    chosen = apart if which is None else apart[which]
    return float(chosen.mean()) if len(chosen) else math.nan


def _coverage(told: list[Forecast], values: Array, which: Array | None = None) -> float:
    inside = np.array([f.low <= v <= f.high for f, v in zip(told, values, strict=True)])
    chosen = inside if which is None else inside[which]
    return float(chosen.mean()) if len(chosen) else math.nan


def _has(row: Mapping[str, str], names: list[str]) -> bool:
    return all(math.isfinite(number(row, name)) for name in names)
