"""A judgement in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from parties.reuse import CEILING, ReuseMeasure
from parties.reuse.calibration import Calibration
from parties.reuse.judge import Judgement, Option

WANTED = {True: "higher", False: "lower"}
MOST_LAYERS = 5


def as_json(told: Judgement, energy: str) -> dict[str, Any]:
    """All that was found out, for judgement.json."""
    return {
        "decision": told.decision,
        "reasons": list(told.reasons),
        "known": told.known,
        "history": told.cases,
        "energy": energy,
        "options": {name: asdict(option) for name, option in told.options.items()},
        "measures": {name: asdict(score) for name, score in told.scores.items()},
    }


def lines(
    told: Judgement, measures: Mapping[str, ReuseMeasure], left_out: list[str], energy: str
) -> Iterator[str]:
    """What a person should read."""
    yield (
        f"{'measure':24} {'value':>9}  {'better':7} {'forecasts':9} {'labels':6} {'floor':>7} "
        f"{'ms':>7}"
    )
    for name, s in told.scores.items():
        floor = "" if s.floor is None else f"{s.floor:.3f}"
        what = "ceiling" if measures[name].forecasts == CEILING else "cost"
        labels = "yes" if s.needs_labels else "no"
        yield (
            f"{name:24} {s.value:>9.4f}  {WANTED[s.higher_is_better]:7} {what:9} {labels:6} "
            f"{floor:>7} {1000 * s.seconds:>7.1f}"
        )
    if left_out:
        yield f"left out, for want of a profile card or of labels: {', '.join(left_out)}"
    yield from _layers(told)
    yield ""
    yield f"{'way':10} {'epochs':>22} {'accuracy':>22} {'joules':>9} {'g CO2e':>9} {'money':>10}"
    for option in told.options.values():
        yield _option(option)
    ends = f"the ends of their {_share(told.sure)} intervals"
    yield f"epochs and accuracy with {ends}; energy {energy}"
    yield ""
    yield f"decision: {told.decision}"
    for reason in told.reasons:
        yield f"  {reason.rstrip('.')}."
    yield f"  The firm's history has {told.cases} finished cases."


def _layers(told: Judgement) -> Iterator[str]:
    """The layers that the data move most: the ones to tune."""
    arm = told.scores.get("arm")
    if arm is None or len(arm.layers) < 2:
        return
    most = sorted(arm.layers, key=lambda layer: -arm.layers[layer])[:MOST_LAYERS]
    yield "moved most (ARM): " + ", ".join(f"{layer} {arm.layers[layer]:.3f}" for layer in most)


def _option(option: Option) -> str:
    def ends(values: tuple[float, float, float] | None, digits: int) -> str:
        if values is None:
            return "unknown"
        middle, low, high = (f"{v:.{digits}f}" for v in values)
        return f"{middle} [{low}, {high}]"

    joules, kg, money = option.joules[0], option.kg_co2e[0], option.money[0]
    return (
        f"{option.name:10} {ends(option.epochs, 1):>22} {ends(option.accuracy, 3):>22} "
        f"{joules:>9.2f} {1000 * kg:>9.4f} {money:>10.6f}"
    )


def calibrated(found: Calibration) -> Iterator[str]:
    """A judge's record."""
    error, inside = _some(found.known_error, ".2f"), _some(found.known_coverage, ".1%")
    asked = _share(found.asked)
    yield f"{found.cases} past cases of {found.kinds} kinds, each judged by those of other kinds"
    yield f"mean absolute error   {found.error:.2f} epochs ({error} inside the history)"
    yield f"intervals that cover  {found.coverage:.1%} ({inside} inside), asked for {asked}"
    yield f"abstained             {found.abstained:.1%}"
    yield f"accuracy forecast     off by {found.ceiling_error:.3f} on average"
    yield "decided               " + ", ".join(f"{k} {v:.0%}" for k, v in found.decisions.items())
    yield "mean epochs a case    " + ", ".join(f"{k} {v:.2f}" for k, v in found.epochs.items())
    yield f"saved                 {found.saved_scratch:.1%} against always from scratch,"
    yield f"                      {found.saved_reuse:.1%} against always reusing"


def _share(value: float) -> str:
    return f"{100 * value:g} %"


def _some(value: float, form: str) -> str:
    return "none" if math.isnan(value) else f"{value:{form}}"
