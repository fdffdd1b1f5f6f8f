"""What a forecast of retraining costs beside the retraining that it spares, and how good it is.

Models of clean handwritten digits are offered for shifted ones. Measures look at a firm's digits,
ARM with the profile card that came with the model, and cases of other kinds of shift turn that into
epochs; then the model is retrained, to see. Both take turns, case by case.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import nn

from parties.exchange import Array
from parties.reuse import ReuseMeasure, Target
from parties.reuse.arm import Arm
from parties.reuse.forecast import Forecast, Forecaster
from parties.reuse.profile import Profile, Source
from parties.reuse.resque import Resque
from parties.reuse.zero_shot import ZeroShot
from parties.training import Training, random_seed
from simulations.bench.row import Bar, Row, add_count
from simulations.campaigns.offered import ARCHITECTURES, Parts
from simulations.campaigns.retraining import curve, first
from simulations.campaigns.spoiled import SHIFTS

MODELS = ("mlp-0", "mlp-1", "cnn-0", "cnn-1")
OFFERED_FOR = (
    *("noise_0.1", "noise_0.3", "noise_0.5", "blur_1", "contrast_0.2", "brightness_0.3"),
    *("rotation_15", "rotation_45", "rotation_90", "salt_0.1", "salt_0.3", "occlusion_4"),
)
SOURCE_EPOCHS, LONGEST = 40, 10
MARGIN = 0.05  # accuracy below the best that counts as retrained
BATCH, RATE = 16, 0.1
MISS = 0.1  # share of cases that may lie outside their interval
# What CV+ promises at least, where kinds are exchangeable (`Forecaster`).
COVERED = Bar(1 - 2 * MISS, least=True)
FORECASTERS: dict[str, tuple[ReuseMeasure, ...]] = {
    "ARM": (Arm(draws=0),),
    "ARM, RESQUE, source error": (Arm(draws=0), Resque(), ZeroShot()),  # those of reuse=default
}


@final
@dataclass(frozen=True)
class Case:
    """A model that is offered, and the digits of the firm that it is offered to."""

    name: str
    kind: str
    model: nn.Module
    card: Profile
    own: tuple[Array, Array]
    judged: tuple[Array, Array]

    def measured(self, measures: Sequence[ReuseMeasure]) -> tuple[list[float], float]:
        """What they say, with the card in the place of the source's data; and CPU seconds."""
        source, target = Source(self.card), Target(*self.own)
        rng = np.random.default_rng(0)
        said = [measure.score(self.model, source, target, rng) for measure in measures]
        return [score.value for score in said], sum(score.seconds for score in said)

    def retrained(self) -> tuple[float, float]:
        """Epochs until it was as good as it gets, and the CPU seconds of an epoch."""
        seed, start = random_seed("retraining", self.name), deepcopy(self.model)
        found, seconds = curve(
            _training(1, "constant"), start, self.own, self.judged, LONGEST, seed
        )
        epochs = first(found >= found.max() - MARGIN - 1e-9)
        assert epochs is not None
        return epochs, seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--repeats", 3, "in which forecast and retraining take turns")


def rows(chosen: argparse.Namespace) -> list[Row]:
    """Rows of what a forecast costs and of how good it is, printed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cases = [case for model in MODELS for case in offered(model, OFFERED_FOR)]
        told = compared(cases, chosen.repeats)
    finally:
        torch.set_num_threads(threads)
    print(
        f"{len(MODELS)} models, each offered for {len(OFFERED_FOR)} shifts of digits, one thread, "
        f"{chosen.repeats} alternated repeats"
    )
    for row in told:
        print(f"  {row.what:31} {row.name:26} {_line(row)}")
    return told


def offered(model: str, shifts: Sequence[str]) -> Iterator[Case]:
    """A model of clean digits with its card, for each shift of other digits."""
    architecture, _, number = model.partition("-")
    seed = int(number)
    parts, module = Parts.of(seed), ARCHITECTURES[architecture](seed)
    training = _training(SOURCE_EPOCHS, "linear")
    training.fit(module, *parts.source, random_seed(seed, "source", architecture))
    card = Profile.of(module, *parts.source, np.random.default_rng([seed, 1]))
    (ids, plain, own), (test_ids, test, truth) = parts.firm, parts.held_out
    for shift in shifts:
        spoiled = SHIFTS[shift]
        seen, judged = spoiled.see(plain, ids, seed), spoiled.see(test, test_ids, seed)
        yield Case(f"{model}-{shift}", spoiled.kind, module, card, (seen, own), (judged, truth))


def compared(cases: Sequence[Case], repeats: int) -> list[Row]:
    """What forecasts of cases cost, each by those of other kinds, and how good they are."""
    kinds = np.array([case.kind for case in cases])
    forecasts = dict[str, list[Forecast]]()
    spent: dict[str, list[float]] = {name: [] for name in FORECASTERS}
    an_epoch = list[float]()
    for _ in range(repeats):
        looks: dict[str, list[tuple[list[float], float]]] = {name: [] for name in FORECASTERS}
        runs = []
        for case in cases:
            for name, measures in FORECASTERS.items():
                looks[name].append(case.measured(measures))
            runs.append(case.retrained())
        epochs = np.array([taken for taken, _ in runs])
        an_epoch.append(statistics.fmean(seconds for _, seconds in runs))
        for name, told in looks.items():
            said = np.array([values for values, _ in told])
            forecasts[name], seconds = forecast(said, epochs, kinds)
            spent[name].append(statistics.fmean(looking for _, looking in told) + seconds)
    found = [_cost(name, seconds, an_epoch) for name, seconds in spent.items()]
    for name, answers in forecasts.items():
        found += _quality(name, answers, epochs, kinds)
    return found


def forecast(said: Array, epochs: Array, kinds: Array) -> tuple[list[Forecast], float]:
    """Each case from those of other kinds, and mean CPU seconds of a forecast, its fit with it.

    Args:
        said: by the measures, (cases, measures); epochs: that retraining took, (cases,).
    """
    started, told = time.thread_time(), []
    for values, kind in zip(said, kinds, strict=True):
        others = kinds != kind
        told.append(Forecaster(said[others], epochs[others], kinds[others], miss=MISS)(values))
    return told, (time.thread_time() - started) / len(told)


def _cost(name: str, spent: Sequence[float], an_epoch: Sequence[float]) -> Row:
    ratios = tuple(s / (LONGEST * e) for s, e in zip(spent, an_epoch, strict=True))
    ms = tuple(1000 * seconds for seconds in spent)
    return Row("CPU of a forecast", name, ms, "ms", ratios, f"{LONGEST} epochs")


def _quality(
    name: str, forecasts: Sequence[Forecast], epochs: Array, kinds: Array
) -> Iterator[Row]:
    """How far forecasts are from what retraining took; cases outside the history have none."""
    known = np.array([f.known for f in forecasts])
    apart = np.abs(np.array([f.middle for f in forecasts]) - epochs)
    inside = np.array([f.low <= e <= f.high for f, e in zip(forecasts, epochs, strict=True)])
    # Who looks at nothing says what retraining mostly took under the other kinds of shift.
    blind = np.abs(np.array([np.median(epochs[kinds != kind]) for kind in kinds]) - epochs)
    error, share = float(apart[known].mean()), float(inside[known].mean())
    ratio = error / float(blind[known].mean())
    yield Row("error of the forecast epochs", name, (error,), "epochs", (ratio,), "a blind guess's")
    yield Row("share inside its 90 % interval", name, (share,), "of them", (share,), "all", COVERED)
    yield Row("share that is forecast at all", name, (float(known.mean()),), "of all")


def _training(epochs: int, schedule: str) -> Training:
    return Training(epochs, BATCH, RATE, 0.0, 0.0, schedule)


def _line(row: Row) -> str:
    line = f"{row.value:6.3g} {row.unit:12}"
    if row.ratio is not None and row.ratios != row.values:
        line += f"{row.ratio:6.3f} x {row.beside}"
    if len(row.ratios) > 1:
        line += f" [{row.low:.3f} to {row.high:.3f}]"
    return (line + (f"{row.bar}: {row.verdict}" if row.bar else "")).rstrip()
