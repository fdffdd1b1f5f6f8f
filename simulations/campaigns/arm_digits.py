"""What does reusing a model cost, and which measure says so beforehand? On handwritten digits.

Nine models are trained on clean digits and offered for 20 shifted copies of other digits. Every
measure judges every pair; then the model is retrained, and a new one trained, to see.

`history.csv` has a row a pair, written as it ends:

    case, model, architecture, seed, shift, kind, level   what was offered for which data
    source_accuracy       of the model on clean held-out digits
    zero_shot_accuracy    of the model on the shifted held-out digits, before retraining
    probe_accuracy        the same after a quarter of an epoch of retraining
    ceiling               best held-out accuracy in `longest` epochs of retraining
    scratch_accuracy      best held-out accuracy in `longest` epochs of a new model
    epochs                first quarter epoch of retraining at which the held-out accuracy is within
                          `margin` of the ceiling; 0 where none is needed
    scratch_epochs        the same of the new model, for the same accuracy; empty where it did not
                          get there
    longest               epochs that both were trained, at most
    cpu_seconds_epoch     CPU seconds of one epoch of retraining, without its evaluations
    card_bytes            size of the model's profile card
    floor                 ARM's finite-sample floor
    <measure>             a column a measure, its value; `arm_card` is ARM from the card alone
    <measure>_ms          CPU milliseconds that it took

`curves.csv` has two rows a pair: the held-out accuracy after each quarter epoch of retraining
("kept") and of the new model ("new"). What is in it is not trained again: without history.csv, a
resumed campaign takes the measures anew and leaves the rest as it was.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from safetensors.numpy import save
from torch import nn

from parties.exchange import Array, FedpactError
from parties.files import write_whole
from parties.reuse import ReuseMeasure, Target
from parties.reuse.arm import Arm
from parties.reuse.cka import Cka
from parties.reuse.frechet import Frechet
from parties.reuse.hscore import HScore
from parties.reuse.leep import Leep
from parties.reuse.linear_probe import LinearProbe
from parties.reuse.logme import LogMe
from parties.reuse.preindex import PreIndex
from parties.reuse.profile import Profile, Source
from parties.reuse.resque import Resque
from parties.reuse.transrate import TransRate
from parties.reuse.zero_shot import ZeroShot
from parties.training import Training, random_seed, weights_of
from simulations.campaigns import Campaign
from simulations.campaigns.arm_table import write_report
from simulations.campaigns.offered import ARCHITECTURES, Parts, check_offers
from simulations.campaigns.retraining import accuracy, curve, first
from simulations.campaigns.spoiled import SHIFTS
from simulations.results import RunFolder

log = logging.getLogger("fedpact")

MEASURES: dict[str, ReuseMeasure] = {
    "arm": Arm(),
    "arm_card": Arm(),
    "arm_raw": Arm("raw"),
    "arm_hist": Arm("hist"),
    "arm_literal": Arm("literal"),
    "preindex_p": PreIndex(combined=False),
    "preindex": PreIndex(),
    "resque": Resque(),
    "zero_shot_error": ZeroShot(),
    "zero_shot_cross_entropy": ZeroShot("cross_entropy"),
    "leep": Leep(),
    "frechet": Frechet(),
    "logme": LogMe(),
    "hscore": HScore(),
    "transrate": TransRate(),
    "cka": Cka(),
    "linear_probe": LinearProbe(),
}
Append = Callable[[Mapping[str, object]], object]
Readings = tuple[Mapping[tuple[str, str], Mapping[str, str]], Append]
"""Curves that are known, by case and run, and where to note further ones."""
"""Puts a row on disk."""
COLUMNS = [
    *("case", "model", "architecture", "seed", "shift", "kind", "level"),
    *("source_accuracy", "zero_shot_accuracy", "probe_accuracy", "ceiling", "scratch_accuracy"),
    *("epochs", "scratch_epochs", "longest", "cpu_seconds_epoch", "card_bytes", "floor"),
    *MEASURES,
    *(f"{name}_ms" for name in MEASURES),
]


@final
@dataclass(frozen=True)
class ArmDigits(Campaign):
    """Measure every model against every shift, and what retraining then takes.

    Args:
        models: architecture-seed each; architectures are mlp, cnn and deep. The seed decides the
            digits too.
        shifts: names of `spoiled.SHIFTS`.
        longest: epochs of retraining after which the best accuracy is the ceiling.
        margin: accuracy below the ceiling that counts as being there.
        source_epochs: epochs that the offered models were trained.
        batch_size, learning_rate: of plain SGD, in all trainings.
        resamples: of the models, for the intervals in table.csv.
    """

    models: tuple[str, ...] = tuple(f"{a}-{s}" for a in ARCHITECTURES for s in range(3))
    shifts: tuple[str, ...] = field(default=tuple(SHIFTS))
    longest: int = 20
    margin: float = 0.05
    source_epochs: int = 40
    batch_size: int = 16
    learning_rate: float = 0.1
    resamples: int = 1000

    def __post_init__(self) -> None:
        models, shifts = check_offers(self.models, self.shifts, SHIFTS)
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "shifts", shifts)
        for name in ("longest", "source_epochs", "batch_size", "resamples"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise FedpactError(
                    f"campaign.{name} is {value!r}; legal is a whole number >= 1. Leave it out "
                    "for the default."
                )
        if not isinstance(self.margin, float) or not 0 <= self.margin < 1:
            raise FedpactError(
                f"campaign.margin is {self.margin!r}; legal is a number from 0 to below 1. Set "
                "campaign.margin=0.05."
            )
        self._training(1, "constant")  # refuses a bad learning rate

    def _training(self, epochs: int, schedule: str) -> Training:
        return Training(epochs, self.batch_size, self.learning_rate, 0.0, 0.0, schedule)

    @property
    def _points(self) -> list[str]:
        return [f"{quarter / 4:g}" for quarter in range(4 * self.longest + 1)]

    def plan(self) -> list[str]:
        return [
            f"{len(self.models)} models x {len(self.shifts)} shifts x {len(MEASURES)} measures; "
            f"each retrained and trained anew for {self.longest} epochs",
        ]

    def run(self, folder: RunFolder) -> list[str]:
        path = folder.path / "history.csv"
        done = {row["case"] for row in _whole_rows(path)}
        columns = ["case", "run", "cpu_seconds_epoch", *self._points]
        with (
            _table(path, COLUMNS) as history,
            _table(folder.path / "curves.csv", columns) as readings,
        ):
            for model in self.models:
                left = [s for s in self.shifts if f"{model}-{s}" not in done]
                if left:
                    self._judge(model, left, folder, history, readings)
        return write_report(folder, MEASURES, self.resamples)

    def _judge(
        self, name: str, shifts: Sequence[str], folder: RunFolder, history: Append, readings: Append
    ) -> None:
        """Train one model, then measure and retrain it under some shifts, a row each."""
        architecture, _, number = name.partition("-")
        seed = int(number)
        parts = Parts.of(seed)
        model = ARCHITECTURES[architecture](seed)
        features, labels = parts.source
        training = self._training(self.source_epochs, "linear")
        training.fit(model, features, labels, random_seed(seed, "source", architecture))
        card = Profile.of(model, features, labels, np.random.default_rng([seed, 1]))
        write_whole(folder.path / "models" / f"{name}.safetensors", save(weights_of(model)))
        write_whole(folder.path / "cards" / f"{name}.safetensors", card.to_bytes())
        clean = accuracy(model, parts.held_out[1], parts.held_out[2])
        log.info(
            "%s: %.1f %% of clean held-out digits, card of %d bytes", name, 100 * clean, card.size
        )
        known = {(r["case"], r["run"]): r for r in _whole_rows(folder.path / "curves.csv")}
        table = known, readings
        for shift in shifts:
            spoiled = SHIFTS[shift]
            (ids, plain, own), (test_ids, test, truth) = parts.firm, parts.held_out
            seen, judged = spoiled.see(plain, ids, seed), spoiled.see(test, test_ids, seed)
            measured = _measured(model, Source(card, features, labels), plain, Target(seen, own))
            starts = {
                "new": ARCHITECTURES[architecture](random_seed(seed, "new")),
                "kept": model,
            }
            runs = [
                self._retrained(f"{name}-{shift}", run, start, (seen, own), (judged, truth), table)
                for run, start in starts.items()
            ]
            (fresh, _), (kept, seconds) = runs
            enough = kept.max() - self.margin - 1e-9
            history(
                {
                    "case": f"{name}-{shift}",
                    "model": name,
                    "architecture": architecture,
                    "seed": seed,
                    "shift": shift,
                    "kind": spoiled.kind,
                    "level": spoiled.level,
                    "source_accuracy": clean,
                    "zero_shot_accuracy": kept[0],
                    "probe_accuracy": kept[1],
                    "ceiling": kept.max(),
                    "scratch_accuracy": fresh.max(),
                    "epochs": first(kept >= enough),
                    "scratch_epochs": first(fresh >= enough),
                    "longest": self.longest,
                    "cpu_seconds_epoch": seconds,
                    "card_bytes": card.size,
                    **measured,
                }
            )
            log.info("%s, %s: %s epochs", name, shift, first(kept >= enough))

    def _retrained(
        self,
        case: str,
        run: str,
        start: nn.Module,
        own: tuple[Array, Array],
        judged: tuple[Array, Array],
        table: Readings,
    ) -> tuple[Array, float]:
        """Held-out accuracy by quarter epoch, and CPU seconds an epoch; from the table if there."""
        known, readings = table
        found = known.get((case, run))
        if found is not None:
            values = np.array([float(found[point]) for point in self._points])
            return values, float(found["cpu_seconds_epoch"])
        training = self._training(1, "constant")
        seed = random_seed("retraining", case)
        values, seconds = curve(training, deepcopy(start), own, judged, self.longest, seed)
        points = dict(zip(self._points, values, strict=True))
        readings({"case": case, "run": run, "cpu_seconds_epoch": seconds, **points})
        return values, seconds


def _measured(
    model: nn.Module, source: Source, plain: Array, target: Target
) -> Mapping[str, float | None]:
    """Every measure's value and milliseconds, and ARM's floor."""
    row: dict[str, float | None] = {}
    for name, measure in MEASURES.items():
        known = source
        if name == "arm_card":
            known = Source(source.profile)
        elif isinstance(measure, PreIndex):
            known = Source(source.profile, plain, target.labels)
        said = measure.score(model, known, target, np.random.default_rng(0))
        row |= {name: said.value, f"{name}_ms": 1000 * said.seconds}
        if name == "arm":
            row["floor"] = said.floor
    return row


def _whole_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table, without a last one that was cut off; none where there is no table."""
    if not path.exists():
        return []
    return list(csv.DictReader(path.read_text().rpartition("\n")[0].splitlines()))


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Append]:
    """Append to a table whose whole rows are kept."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_whole_rows(path))
    write_whole(path, text.getvalue().encode())
    with path.open("a", newline="", buffering=1) as file:
        yield csv.DictWriter(file, columns, lineterminator="\n").writerow
